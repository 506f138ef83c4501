import json

import pytest
import torch

from reg2rg.core.errors import ConfigError
from reg2rg.core.report import SENTENCE_BREAK, write_report
from reg2rg.core.task import INSTRUCTION
from reg2rg.data.prompt import PromptEncoder, TokenCounts
from reg2rg.evaluation.labelers import RuleLabeler
from reg2rg.extras.tiny_llm.build import RECORD, build_tiny_llama, train_tokenizer
from reg2rg.extras.tiny_llm.documents import DocumentWriter
from reg2rg.extras.tiny_llm.induction_init import OFFSETS
from reg2rg.extras.tiny_llm.pretraining import Schedule
from reg2rg.models.llm.causal_lm import CausalLM

REGIONS = ["abdomen", "bone", "heart", "lung", "trachea and bronchie"]
TEXTS = {
    "abdomen": ["A cyst of 12 mm is seen in the liver.", "Upper abdominal organs are normal."],
    "bone": ["No fracture is seen.", "Degenerative changes are observed in the vertebrae."],
    "heart": ["The heart is enlarged.", "Heart size is normal; no pericardial effusion."],
    "lung": ["A nodule of 5.5 mm in the left upper lobe.", "Both lungs are clear."],
    "trachea and bronchie": ["Airways are open.", "Wall thickening is noted (mild)."],
}
REPORTS = [{region: TEXTS[region][(i >> k) % 2] for k, region in enumerate(REGIONS)} for i in range(32)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("tiny") / "lm"
    schedule = Schedule(steps=4, tokens=256)
    return build_tiny_llama(REPORTS, out, hidden_size=64, layers=2, head_dim=16, schedule=schedule, seed=3)


def test_tokenizer_writes_reports_and_reads_them_back():
    tokenizer = train_tokenizer([write_report(list(r), list(r.values())) for r in REPORTS])
    for report in REPORTS:
        text = write_report(list(report), list(report.values()))
        ids = tokenizer(text)["input_ids"]
        assert ids[0] == tokenizer.bos_token_id
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True).strip() == text.strip()


def test_special_tokens_are_distinct_and_digits_single():
    tokenizer = train_tokenizer(["The region 10 is lung."])
    ids = [tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    assert sorted(ids) == [0, 1, 2, 3]
    assert [token for token in tokenizer.tokenize("A nodule of 128 mm.") if token.isdigit()] == ["1", "2", "8"]
    assert len(tokenizer) < 200


def test_unseen_ascii_text_survives():
    tokenizer = train_tokenizer(["The region 0 is lung."])
    text = "Zigzag? {x} = ~7%"
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"hidden_size": 100}, "width 100 with 3 layers and 8 heads of 32"),
        ({"layers": 1}, "two layers or more"),
        ({"head_dim": 15}, "heads of even width"),
        ({"vocab_size": 98}, r"vocab_size is 98 \(expected 99 or more"),
    ],
)
def test_sizes_that_cannot_be(sizes, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        build_tiny_llama(REPORTS, tmp_path / "lm", schedule=Schedule(steps=0), **sizes)
    assert not list(tmp_path.iterdir())


def test_the_smallest_vocabulary_has_every_character():
    tokenizer = train_tokenizer(["The region 0 is lung."], vocab_size=99)
    assert len(tokenizer) == 99
    assert tokenizer.unk_token_id not in tokenizer("Zigzag? {x} = ~7%")["input_ids"]


def test_number_is_the_same_token_in_prompt_and_answer(folder):
    encoder = PromptEncoder(CausalLM(str(folder)).tokenizer, TokenCounts(2, 1, 0))
    sample = encoder.encode_sample(["heart"] * 4, ["x"] * 4)
    three = encoder.tokenizer.convert_tokens_to_ids("3")
    assert (sample.ids == three).sum() == 2


def test_folder_loads_as_a_causal_lm(folder):
    model = CausalLM(str(folder))
    assert model.hidden_size == 64
    assert model.context_length == 2048
    assert model.tokenizer.pad_token == "<pad>"
    assert len(model.tokenizer) == model.model.config.vocab_size
    assert model.eos_ids == {model.tokenizer.eos_token_id}
    record = json.loads((folder / RECORD).read_text())
    assert record["reports"] == 32
    assert [mark["step"] for mark in record["curve"]] == [1, 2, 3, 4]


def test_same_seed_same_bytes(folder, tmp_path):
    schedule = Schedule(steps=4, tokens=256)
    state = torch.random.get_rng_state()
    again = build_tiny_llama(REPORTS, tmp_path / "b", hidden_size=64, layers=2, head_dim=16, schedule=schedule, seed=3)
    assert torch.equal(state, torch.random.get_rng_state())
    for name in ("model.safetensors", "tokenizer.json"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_no_report():
    with pytest.raises(ConfigError, match="no report"):
        build_tiny_llama([{}], "nowhere")


def test_documents_are_samples_with_words_for_images():
    import random

    tokenizer = train_tokenizer([write_report(list(r), list(r.values())) for r in REPORTS] + [INSTRUCTION])
    writer = DocumentWriter(tokenizer, REPORTS, INSTRUCTION)
    for seed in range(20):
        document = writer.write(random.Random(seed), 4)
        prompt, answer = document.ids[: document.start], document.ids[document.start :]
        assert prompt[0] == tokenizer.bos_token_id
        assert answer[-1] == tokenizer.eos_token_id
        text = tokenizer.decode(answer, skip_special_tokens=True)
        names = [text.split(f"The region {slot} is ")[1].split(":")[0] for slot in range(4)]
        assert len(set(names)) == 4
        encoder = PromptEncoder(tokenizer, TokenCounts(1, 0, 0))
        report = next(r for r in REPORTS if all(r[n] in text for n in names))
        assert answer == encoder.encode_sample(names, [report[n] for n in names]).labels[-len(answer) :].tolist()
        firsts = [tokenizer(name, add_special_tokens=False)["input_ids"][0] for name in names]
        assert [document.ids[place] for place in document.names] == firsts
        after = [tokenizer.decode(document.ids[document.start : place])[-1] for place in document.turns]
        assert len(after) == sum(len(SENTENCE_BREAK.split(report[name])) for name in names)
        assert set(after) == {"."}
        rest = [tokenizer.decode(document.ids[place:]).strip() for place in document.turns]
        assert rest[-1] == tokenizer.eos_token
        assert sum(text.startswith("The region ") for text in rest) == 3
        assert all(document.ids[slot] == tokenizer.pad_token_id for slot in document.slots)
        assert max(document.slots) < document.start
        edges = [i for i, token in enumerate(prompt) if token == tokenizer.unk_token_id]
        for k, (name, first, told) in enumerate(zip(names, firsts, document.told, strict=True)):
            bags = [document.slots[slot] for slot in range(edges[2 * k] + 1, edges[2 * k + 1])]
            assert 3 <= len(bags) <= 6
            assert all((first in bag) == told for bag in bags)
            words = set(tokenizer(f"{name} {report[name]}", add_special_tokens=False)["input_ids"])
            assert all(set(bag) <= words for bag in bags)


@pytest.mark.parametrize("image_prefix", ["", "Context: "])
def test_special_tokens_in_reports_are_text(image_prefix):
    import random

    reports = [{"lung": "Clear </s>. <pad> <s>", "heart": "Large.</s>"}] * 3
    tokenizer = train_tokenizer([write_report(list(r), list(r.values())) for r in reports])
    writer = DocumentWriter(tokenizer, reports, instruction="Stop at </s>.", image_prefix=image_prefix)
    for seed in range(10):
        document = writer.write(random.Random(seed), 2)
        answer = document.ids[document.start :]
        assert document.ids.count(tokenizer.eos_token_id) == 1
        assert answer[-1] == tokenizer.eos_token_id
        assert not {*tokenizer.all_special_ids} & {*answer[:-1], *(w for bag in document.slots.values() for w in bag)}
        said = tokenizer.decode(answer, skip_special_tokens=True)
        assert "Clear </s>. <pad> <s>" in said
        assert "Large.</s>" in said


def test_documents_of_the_whole_image_are_samples_without_regions(tmp_path):
    import random

    from reg2rg.data.prompt import GLOBAL_PREFIX

    tokenizer = train_tokenizer([write_report(list(r), list(r.values())) for r in REPORTS] + [GLOBAL_PREFIX])
    writer = DocumentWriter(tokenizer, REPORTS, image_prefix=GLOBAL_PREFIX)
    encoder = PromptEncoder(tokenizer, TokenCounts(0, 0, 1), instruction="")
    for seed in range(20):
        document = writer.write(random.Random(seed), 3)
        prompt, answer = document.ids[: document.start], document.ids[document.start :]
        edges = [i for i, token in enumerate(prompt) if token == tokenizer.unk_token_id]
        assert prompt[: edges[0]] == encoder.encode(0).ids[: edges[0]].tolist()
        assert sorted(document.slots) == list(range(edges[0] + 1, edges[1]))
        assert 4 <= len(document.slots) <= 16
        text = tokenizer.decode(answer, skip_special_tokens=True).strip()
        said = [sentence for name in REGIONS for sentence in TEXTS[name] if sentence in text]
        assert text == " ".join(said)
        assert len(said) == 3
        assert set().union(*document.slots.values()) <= set(tokenizer(text, add_special_tokens=False)["input_ids"])
        assert answer == encoder.encode_whole(text).labels[-len(answer) :].tolist()
        assert document.names == document.told == document.turns == []
    batch = writer.batch(random.Random(0), 3, tokens=300)
    assert not batch.names.any()
    out = build_tiny_llama(REPORTS, tmp_path / "lm", layers=2, schedule=Schedule(2, 256), image_prefix=GLOBAL_PREFIX)
    assert json.loads((out / RECORD).read_text())["curve"][-1]["lookup"] is None
    assert batch.embed(torch.randn(len(tokenizer), 16)).isfinite().all()


def test_slots_hold_sums_of_words_as_large_as_a_word():
    import random

    tokenizer = train_tokenizer([write_report(list(r), list(r.values())) for r in REPORTS])
    writer = DocumentWriter(tokenizer, REPORTS)
    documents = writer.batch(random.Random(0), 3, tokens=600)
    table = torch.randn(len(tokenizer), 64, generator=torch.Generator().manual_seed(0))
    embedded = documents.embed(table)
    length = documents.ids.shape[1]
    is_slot = torch.zeros(documents.ids.numel(), dtype=torch.bool)
    is_slot[documents.slot_of] = True
    assert torch.equal(embedded.flatten(0, 1)[~is_slot], table[documents.ids].flatten(0, 1)[~is_slot])
    at = int(documents.slot_of[0])
    bag = documents.slot_of == at
    expected = (table[documents.words[bag]] * documents.weights[bag][:, None]).sum(0)
    found = embedded[at // length, at % length]
    assert torch.cosine_similarity(found, expected, dim=0) > 0.9999
    assert found.square().mean().sqrt() == pytest.approx(float(table.square().mean().sqrt()), rel=1e-3)


def test_first_layer_looks_back_by_fixed_offsets(tmp_path):
    from transformers import AutoModelForCausalLM

    out = build_tiny_llama(REPORTS, tmp_path / "lm", schedule=Schedule(steps=0), layers=2)
    model = AutoModelForCausalLM.from_pretrained(out, attn_implementation="eager").eval()
    ids = torch.arange(4, 64).unsqueeze(0)
    with torch.no_grad():
        attention = model(ids, output_attentions=True).attentions[0][0]
    for head, offset in enumerate(OFFSETS):
        assert attention[head, 50].argmax() == 50 - offset
        assert attention[head, 50, 50 - offset] > 0.5


def test_questions_find_their_slots_and_paragraphs_their_question_before_any_training(tmp_path):
    import random

    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = build_tiny_llama(REPORTS, tmp_path / "lm", schedule=Schedule(steps=0))
    tokenizer = AutoTokenizer.from_pretrained(out)
    model = AutoModelForCausalLM.from_pretrained(out, attn_implementation="eager").eval()
    batch = DocumentWriter(tokenizer, REPORTS, slots=(5, 5)).batch(random.Random(0), 5, tokens=1)
    with torch.no_grad():
        embedded = batch.embed(model.get_input_embeddings().weight)
        found = model(inputs_embeds=embedded, output_attentions=True).attentions
    questions = [int(place) - 1 for place in batch.names[0].nonzero()[:, 0]]  # 'is' of 'region 3 is heart'
    slots = batch.slot_of.unique().view(5, 5)
    recalled = 0.0
    for k, question in enumerate(questions):
        assert found[1][0, :, question, slots[k]].sum(-1).max() > 0.5  # some head, all of the region's slots
        recalled += float(found[2][0, :4, question + 10, question].mean()) / 5  # half of the heads, in mid-paragraph
    assert recalled > 0.4  # chance is one in sixty


def test_with_findings_the_words_that_began_a_sentence_are_taken_away_before_any_training(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = build_tiny_llama(REPORTS, tmp_path / "lm", schedule=Schedule(steps=0), labeler=RuleLabeler())
    tokenizer = AutoTokenizer.from_pretrained(out)
    model = AutoModelForCausalLM.from_pretrained(out, attn_implementation="eager").eval()
    ids = tokenizer("The region 0 is heart: Heart size is normal. Airways are open.", return_tensors="pt")["input_ids"]
    words = tokenizer.convert_ids_to_tokens(ids[0])
    firsts = [place + 1 for place, word in enumerate(words[:-1]) if word in ".:"]
    with torch.no_grad():
        found = model(ids, output_attentions=True).attentions[2][0, 4:, -1]
        assert found[:, firsts].sum(-1).min() > 0.5  # half of the heads, at the end of a sentence
        heads = slice(4 * model.config.head_dim, None)
        model.model.layers[2].self_attn.o_proj.weight[:, heads] *= -1
        added = model(ids).logits[0, -1]
        model.model.layers[2].self_attn.o_proj.weight[:, heads] *= -1
        taken = model(ids).logits[0, -1]
    first = ids[0, firsts]
    assert (taken[first] < added[first]).all()


def test_names_and_what_follows_a_sentence_weigh_more(folder):
    import random

    from transformers import AutoModelForCausalLM

    from reg2rg.extras.tiny_llm.pretraining import NAME_WEIGHT, TURN_WEIGHT, _loss

    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = train_tokenizer([write_report(list(r), list(r.values())) for r in REPORTS])
    document = DocumentWriter(tokenizer, REPORTS).batch(random.Random(0), 3, 1)
    loss, _ = _loss(model, document)
    logits = model(inputs_embeds=document.embed(model.get_input_embeddings().weight)).logits[0, :-1]
    labels = document.labels[0, 1:]
    names, turns = (marks[0].nonzero()[:, 0] - 1 for marks in (document.names, document.turns))
    assert len(names) == len(turns) == 3
    weights = torch.ones(len(labels))
    weights[names], weights[turns] = NAME_WEIGHT, TURN_WEIGHT
    told = labels != -100
    each = torch.nn.functional.cross_entropy(logits[told], labels[told], reduction="none")
    torch.testing.assert_close(loss, (each * weights[told]).sum() / weights[told].sum())


def test_lookup_is_learnt_in_few_steps(tmp_path):
    """What the start of the weights is for: without it, names stay at chance for hundreds of such steps."""
    torch.set_num_threads(1)
    schedule = Schedule(steps=40, tokens=512, lr=4e-3)
    out = build_tiny_llama(REPORTS, tmp_path / "lm", hidden_size=96, layers=2, schedule=schedule)
    curve = json.loads((out / RECORD).read_text())["curve"]
    assert curve[-1]["lookup"] > 0.6, curve
