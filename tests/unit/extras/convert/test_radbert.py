"""The published RadBERT classifier and the converted one are the same function."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, RobertaConfig, RobertaModel

from reg2rg.core.errors import ConfigError
from reg2rg.core.labels import FINDINGS
from reg2rg.evaluation.labelers.radbert import RadBertLabeler
from reg2rg.extras.convert import Options, convert

TEXTS = ["A nodule of 6 mm is observed.", "", "Emphysema. " * 200, "There is a pleural effusion on the left side."]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """Config and tokenizer of a narrow RoBERTa of the published depth."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("backbone")
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    fast.save_pretrained(folder)
    sizes = {"hidden_size": 24, "num_hidden_layers": 12, "num_attention_heads": 2, "intermediate_size": 32}
    config = RobertaConfig(
        vocab_size=len(fast), max_position_embeddings=514, type_vocab_size=1, initializer_range=0.2, **sizes
    )
    config.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def state(backbone):
    """A classifier's state dict with the published keys."""
    torch.manual_seed(0)
    body = RobertaModel(RobertaConfig.from_pretrained(backbone))
    found = {f"model.{key}": value.clone() for key, value in body.state_dict().items()}
    found["model.embeddings.position_ids"] = torch.arange(514)[None]
    return found | {"classifier.weight": torch.randn(18, 24), "classifier.bias": torch.randn(18) * 0.1}


@pytest.fixture
def saved(state, tmp_path):
    def save(**changes):
        torch.save({name: t for name, t in {**state, **changes}.items() if t is not None}, tmp_path / "RadBert.pth")
        return tmp_path / "RadBert.pth"

    return save


@pytest.mark.parametrize("positions", [True, False])
def test_equals_the_published_form(backbone, state, saved, tmp_path, positions):
    source = saved() if positions else saved(**{"model.embeddings.position_ids": None})
    done = convert(source, "radbert", tmp_path / "out", Options(backbone=backbone))
    assert len(done.account.kept) == len(state) - 1 == 201
    assert list(done.account.dropped) == ["model.embeddings.position_ids"] * positions
    model, info = AutoModelForSequenceClassification.from_pretrained(done.folder, output_loading_info=True)
    assert not any(info[f"{kind}_keys"] for kind in ("missing", "unexpected", "mismatched"))
    assert [model.config.id2label[i] for i in range(18)] == list(FINDINGS)

    body = RobertaModel(RobertaConfig.from_pretrained(backbone)).eval()
    body.load_state_dict({k[6:]: v for k, v in state.items() if k.startswith("model.") and "position_ids" not in k})
    tokenizer = AutoTokenizer.from_pretrained(done.folder)
    batch = tokenizer(TEXTS, padding=True, truncation=True, max_length=512, return_tensors="pt")
    batch.pop("token_type_ids", None)
    with torch.no_grad():
        published = body(**batch).pooler_output @ state["classifier.weight"].T + state["classifier.bias"]
        assert published.std(0).min() > 0
        torch.testing.assert_close(model.eval()(**batch).logits, published, rtol=0, atol=1e-6)


def test_the_labeler_gives_the_same_labels_from_either(backbone, saved, tmp_path):
    source = saved()
    convert(source, "radbert", tmp_path / "out", Options(backbone=backbone))
    one = RadBertLabeler(source, backbone=backbone, device="cpu").probabilities(TEXTS)
    other = RadBertLabeler(tmp_path / "out", device="cpu").probabilities(TEXTS)
    assert abs(one - other).max() < 1e-6


def test_dtype_is_that_of_the_tensors(backbone, saved, tmp_path):
    convert(saved(), "radbert", tmp_path / "out", Options(backbone=backbone, dtype=torch.float16))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float16"


def test_what_does_not_fit_the_backbone(backbone, state, saved, tmp_path):
    other = tmp_path / "other"
    config = RobertaConfig.from_pretrained(backbone)
    config.intermediate_size, config.num_hidden_layers = 36, 13
    config.save_pretrained(other)
    with pytest.raises(ConfigError, match=r"1 missing: model\.encoder\.layer\.12\.intermediate\.dense\.weight"):
        convert(saved(), "radbert", tmp_path / "out", Options(backbone=other))
    config.num_hidden_layers = 12
    config.save_pretrained(other)
    with pytest.raises(ConfigError, match=r"intermediate_size is 32 \(expected 36, as config\.json says\)"):
        convert(saved(), "radbert", tmp_path / "out", Options(backbone=other))
    shuffled = state["model.embeddings.position_ids"].flip(1)
    with pytest.raises(ConfigError, match=r"position_ids does not count 0, 1, 2"):
        convert(saved(**{"model.embeddings.position_ids": shuffled}), "radbert", tmp_path / "out")
    with pytest.raises(ConfigError, match=r"classifier\.weight \(17, 24\), expected \(18, 24\)"):
        convert(saved(**{"classifier.weight": torch.zeros(17, 24)}), "radbert", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_missing_beside_the_file(backbone, saved, tmp_path):
    with pytest.raises(
        ConfigError, match=r"needs the config and the tokenizer of the backbone. Fix: --backbone FOLDER"
    ):
        convert(saved(), "radbert", tmp_path / "out")
    with pytest.raises(ConfigError, match=r"--backbone .*nowhere: no config\.json there"):
        convert(saved(), "radbert", tmp_path / "out", Options(backbone=tmp_path / "nowhere"))
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_text((backbone / "config.json").read_text())
    with pytest.raises(ConfigError, match=r"no tokenizer can be made of its files \(none; expected tokenizer\.json"):
        convert(saved(), "radbert", tmp_path / "out", Options(backbone=tmp_path / "bare"))
    (tmp_path / "bare" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ConfigError, match=r"a bert .expected roberta"):
        convert(saved(), "radbert", tmp_path / "out", Options(backbone=tmp_path / "bare"))
    assert not (tmp_path / "out").exists()
