"""Labelers: rules, a RoBERTa classifier in the published form at a tiny width, and tables."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from reg2rg.core.errors import ConfigError
from reg2rg.core.labels import FINDINGS
from reg2rg.evaluation.labelers import RuleLabeler, read_label_table
from reg2rg.evaluation.labelers.radbert import RadBertLabeler

TEXTS = [
    "A nodule of 6 mm is observed in the lower lobe.",
    "",
    "Heart contour and size are normal. Pericardial effusion was not observed. " * 8,
    "Emphysema.",
    "There is a pleural effusion on the left side and atelectasis beside it.",
    "word " * 900,
]


def test_rules_label_each_text():
    labeler = RuleLabeler()
    labels = labeler.label(["There is a lung nodule.", "", "There is a lung nodule.", "Possible emphysema."])
    assert labels.shape == (4, 18)
    assert labels.dtype == np.bool_
    assert [FINDINGS[k] for k in np.flatnonzero(labels[0])] == ["Lung nodule"]
    assert not labels[1].any()
    assert (labels[0] == labels[2]).all()
    assert labels[3, FINDINGS.index("Emphysema")]
    assert not RuleLabeler(uncertain="absent").label(["Possible emphysema."]).any()
    assert labeler.label([]).shape == (0, 18)
    assert "present" in labeler.definition
    assert labeler.labels == FINDINGS


def test_rules_need_no_torch():
    code = (
        "import sys; from reg2rg.evaluation.labelers import RuleLabeler; RuleLabeler().label(['x']);"
        "print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A backbone folder (config, tokenizer) and a classifier's state dict with the published keys."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaModel

    folder = tmp_path_factory.mktemp("backbone")
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(fast),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=514,
        initializer_range=0.4,
        type_vocab_size=1,
    )
    config.save_pretrained(folder)
    state = {f"model.{key}": value.clone() for key, value in RobertaModel(config).state_dict().items()}
    state["model.embeddings.position_ids"] = torch.arange(514)[None]
    state["classifier.weight"] = torch.randn(18, 24)
    state["classifier.bias"] = torch.randn(18) * 0.1
    return folder, state


@pytest.fixture
def saved(published, tmp_path):
    """Saves a changed state dict and gives its path."""
    import torch

    def save(change=lambda state: None):
        state = dict(published[1])
        change(state)
        torch.save(state, tmp_path / "RadBertClassifier.pth")
        return tmp_path / "RadBertClassifier.pth"

    return save


def test_classifier_labels_as_its_formula_says(published, saved):
    import torch
    from transformers import AutoTokenizer, RobertaConfig, RobertaModel

    folder, state = published
    labeler = RadBertLabeler(saved(), batch_size=4, device="cpu", backbone=folder)
    labels = labeler.label(TEXTS)

    body = RobertaModel(RobertaConfig.from_pretrained(folder)).eval()
    body.load_state_dict({k[6:]: v for k, v in state.items() if k.startswith("model.") and "position_ids" not in k})
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text, row in zip(TEXTS, labels, strict=True):
        ids = torch.tensor([tokenizer(text, truncation=True, max_length=512)["input_ids"]])
        with torch.no_grad():
            pooled = body(input_ids=ids).pooler_output
        logits = pooled @ state["classifier.weight"].T + state["classifier.bias"]
        assert (row == (logits[0].sigmoid() >= 0.5).numpy()).all()
    assert labels.shape == (6, 18)
    assert 0 < labels.mean() < 1
    assert len({tuple(row) for row in labels}) > 1
    assert "RadBertClassifier.pth" in labeler.definition
    assert "512" in labeler.definition


def test_padding_and_batches_do_not_change_labels(published, saved):
    path = saved()
    one, many = (RadBertLabeler(path, batch_size=n, device="cpu", backbone=published[0]) for n in (1, 6))
    assert (one.label(TEXTS) == many.label(TEXTS)).all()
    assert (many.label(TEXTS[::-1]) == many.label(TEXTS)[::-1]).all()
    short = [text for text in TEXTS if len(text) < 100]
    longest, full = many.probabilities(short), many.probabilities(short, pad_to_limit=True)
    assert np.allclose(longest, full, atol=1e-5)
    assert ((longest >= 0.5) == (full >= 0.5)).all()
    assert many.label([]).shape == (0, 18)


def test_special_tokens_in_a_text_are_text(published, saved):
    labeler, seen = RadBertLabeler(saved(), batch_size=4, device="cpu", backbone=published[0]), []
    body = labeler._model["model"]
    body.register_forward_pre_hook(lambda module, args, given: seen.append(given["input_ids"][0]), with_kwargs=True)
    labeler.probabilities(["Clear</s><s><mask> lungs."])
    tokenizer = labeler._tokenizer
    assert tokenizer.decode(seen[0]) == "<s>Clear</s><s><mask> lungs.</s>"
    assert [i for i in seen[0].tolist() if i in tokenizer.all_special_ids] == [0, 2]


def test_weights_that_do_not_fit_are_listed_together(published, saved):
    def spoil(state):
        import torch

        del state["classifier.bias"], state["model.pooler.dense.bias"]
        state["head.weight"] = torch.zeros(1)
        state["classifier.weight"] = torch.zeros(14, 24)

    with pytest.raises(ConfigError) as caught:
        RadBertLabeler(saved(spoil), device="cpu", backbone=published[0])
    message = str(caught.value)
    assert "2 missing: classifier.bias, model.pooler.dense.bias" in message
    assert "1 unknown: head.weight" in message
    assert "classifier.weight is (14, 24), expected (18, 24)" in message
    assert "position_ids" not in message


def test_folder_of_backbone_with_head_only(published, saved, tmp_path):
    import torch
    from transformers import RobertaConfig, RobertaModel

    folder, state = published
    whole = RadBertLabeler(saved(), device="cpu", backbone=folder).label(TEXTS)
    own = tmp_path / "own"
    body = RobertaModel(RobertaConfig.from_pretrained(folder))
    body.load_state_dict({k[6:]: v for k, v in state.items() if k.startswith("model.") and "position_ids" not in k})
    body.save_pretrained(own)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (own / name).write_bytes((folder / name).read_bytes())
    torch.save({k: v for k, v in state.items() if k.startswith("classifier.")}, own / "head.pth")
    assert (RadBertLabeler(own, device="cpu").label(TEXTS) == whole).all()
    torch.save({}, own / "other.pth")
    with pytest.raises(ConfigError, match=r"2 files of weights: head\.pth, other\.pth"):
        RadBertLabeler(own, device="cpu")


def test_plain_sequence_classifier_is_ordered_by_its_label_names(published, tmp_path):
    import torch
    from transformers import RobertaConfig, RobertaForSequenceClassification

    folder, _ = published
    torch.manual_seed(1)
    config = RobertaConfig.from_pretrained(folder, num_labels=18)
    model = RobertaForSequenceClassification(config).eval()
    with torch.no_grad():
        model.classifier.out_proj.weight.normal_()
    model.save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    plain = RadBertLabeler(tmp_path, device="cpu").label(TEXTS)
    assert 0 < plain.mean() < 1

    path = tmp_path / "config.json"
    settings = json.loads(path.read_text())
    names = list(reversed(FINDINGS))
    settings["id2label"] = {str(i): name for i, name in enumerate(names)}
    settings["label2id"] = {name: i for i, name in enumerate(names)}
    path.write_text(json.dumps(settings))
    assert (RadBertLabeler(tmp_path, device="cpu").label(TEXTS) == plain[:, ::-1]).all()

    settings["id2label"]["3"] = "Fracture"
    path.write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match="Fracture"):
        RadBertLabeler(tmp_path, device="cpu")


@pytest.mark.parametrize("kind", ["RobertaForSequenceClassification", "RobertaModel"])
def test_no_weight_of_a_folder_is_left_at_random(published, saved, tmp_path, kind):
    """A backbone saved with a head for words, as RadBERT is, may keep that head; it must have all of its own."""
    import torch
    import transformers
    from safetensors.torch import load_file, save_file

    folder, state = published
    own, file = tmp_path / "own", tmp_path / "own" / "model.safetensors"
    getattr(transformers, kind)(transformers.RobertaConfig.from_pretrained(folder, num_labels=18)).save_pretrained(own)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (own / name).write_bytes((folder / name).read_bytes())
    whole = load_file(file)
    name = next(key for key in whole if key.endswith("encoder.layer.0.output.dense.bias"))
    if kind == "RobertaModel":
        torch.save({k: v for k, v in state.items() if k.startswith("classifier.")}, own / "head.pth")
        save_file(whole | {"lm_head.bias": torch.ones(3)}, file, {"format": "pt"})
    assert RadBertLabeler(own, device="cpu").label(TEXTS).shape == (len(TEXTS), 18)
    save_file({key: value for key, value in whole.items() if key != name}, file, {"format": "pt"})
    with pytest.raises(ConfigError, match=r"do not fit config\.json: missing: .*layer\.0\.output\.dense\.bias\. Fix"):
        RadBertLabeler(own, device="cpu")
    save_file(whole | {name: torch.ones(3), "layer.9": torch.ones(3)}, file, {"format": "pt"})
    with pytest.raises(ConfigError, match=r"unexpected: .*layer\.9; of another shape: .* is \(3,\), expected \(24,\)"):
        RadBertLabeler(own, device="cpu")
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ConfigError, match=r"weights cannot be read: |no weights of the backbone: "):
        RadBertLabeler(own, device="cpu")


def test_missing_files_are_named(published, saved, tmp_path):
    with pytest.raises(ConfigError, match="no classifier at"):
        RadBertLabeler(tmp_path / "nothing.pth", device="cpu")
    with pytest.raises(ConfigError, match=r"holds no config\.json"):
        RadBertLabeler(saved(), device="cpu")
    with pytest.raises(ConfigError, match="no \\.pth file"):
        RadBertLabeler(published[0], device="cpu")
    with pytest.raises(ConfigError, match="batch_size is 0"):
        RadBertLabeler(saved(), batch_size=0, device="cpu", backbone=published[0])
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"no weights")
    with pytest.raises(ConfigError, match="cannot be read as weights"):
        RadBertLabeler(broken, device="cpu", backbone=published[0])


def test_a_hub_id_without_a_network_is_one_line_with_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        RadBertLabeler("lab/radbert18", device="cpu")
    assert "hf download lab/radbert18 --local-dir radbert18" in str(caught.value)
    assert "\n" not in str(caught.value)


def write_table(path, rows, header=("VolumeName", *FINDINGS)):
    lines = [",".join(header), *(",".join(row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", "utf-8-sig")
    return path


def row(study, *present, yes="1", no="0"):
    return (study, *(yes if label in present else no for label in FINDINGS))


def test_table_of_ct_rate(tmp_path):
    rows = [row("valid_1_a_1.nii.gz", "Emphysema"), row("valid_2_a_1.nii.gz", "Atelectasis", yes="1.0", no="0.0")]
    path = write_table(tmp_path / "labels.csv", [*rows, rows[0]])
    labels = read_label_table(path, ["valid_2_a_1", "valid_1_a_1.nii.gz"])
    assert [[FINDINGS[k] for k in np.flatnonzero(line)] for line in labels] == [["Atelectasis"], ["Emphysema"]]
    assert read_label_table(path, []).shape == (0, 18)
    subset = read_label_table(path, ["valid_1_a_1"], labels=("Atelectasis", "Emphysema"))
    assert subset.tolist() == [[False, True]]


def test_table_with_prefixes_and_own_id_column(tmp_path):
    header = ("AccNum", *(f"GT_{label}" for label in FINDINGS))
    path = write_table(tmp_path / "labels.csv", [row("7", "Emphysema")], header)
    assert read_label_table(path, ["7"], prefix="GT_").sum() == 1
    with pytest.raises(ConfigError, match="columns with the prefix 'GT_' are there, set prefix"):
        read_label_table(path, ["7"])
    other = write_table(tmp_path / "other.csv", [row("7", "Emphysema")], ("key", *FINDINGS))
    assert read_label_table(other, ["7"], "key").sum() == 1
    with pytest.raises(ConfigError, match="no column of ids, expected VolumeName or"):
        read_label_table(other, ["7"])
    assert read_label_table(path, ["7"], prefix=("GT_", "")).sum() == 1
    plain = write_table(tmp_path / "plain.csv", [row("7", "Emphysema")], ("id", *FINDINGS))
    assert read_label_table(plain, ["7"], prefix=("GT_", "")).sum() == 1


def test_tables_of_other_programs(tmp_path):
    text = write_table(tmp_path / "a.csv", [row("7", "Emphysema"), row("8")]).read_text("utf-8-sig")
    for content in (
        text.encode("utf-16"),
        text.replace(",", ";").encode(),
        text.replace(",", "\t").encode("utf-8-sig"),
    ):
        (tmp_path / "b.csv").write_bytes(content)
        assert read_label_table(tmp_path / "b.csv", ["8", "7"]).sum(axis=1).tolist() == [0, 1]


def test_faults_of_a_table_come_in_one_message(tmp_path):
    rows = [row("a", "Emphysema"), row("a", "Atelectasis"), row("b", no="?"), row("c")]
    path = write_table(tmp_path / "labels.csv", rows)
    with pytest.raises(ConfigError) as caught:
        read_label_table(path, ["a", "c", "x", "y"])
    message = str(caught.value)
    assert "1 studies twice with other labels: a" in message
    assert "row 4 (b): Medical material is '?'" in message
    assert "2 ids without a row: x, y" in message
    assert str(path) in message

    short = write_table(tmp_path / "short.csv", [("a", "1")], ("name", "Emphysema"))
    with pytest.raises(ConfigError) as caught:
        read_label_table(short, ["a"])
    assert "no column of ids" in str(caught.value)
    assert all(label in str(caught.value) for label in FINDINGS)
    part = write_table(tmp_path / "part.csv", [("a", "1")], ("VolumeName", "Emphysema"))
    with pytest.raises(ConfigError, match=r"columns missing: Medical material.*1 ids without a row: x"):
        read_label_table(part, ["a", "x"])


def test_table_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_label_table(tmp_path / "nothing.csv", ["a"])
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_label_table(tmp_path / "empty.csv", ["a"])
