import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.report import write_report, write_tail
from reg2rg.core.task import ReportTask
from reg2rg.data.prompt import (
    IGNORED,
    INSTRUCTION,
    TAGS,
    PromptEncoder,
    TokenCounts,
    rebase_sources,
)
from reg2rg.extras.tiny_llm.build import train_tokenizer

PUBLISHED = TokenCounts(texture=32, geometry=1, global_=32)
SMALL = TokenCounts(texture=2, geometry=1, global_=3)
NAMES = ["lung", "trachea and bronchie", "heart"]
TEXTS = ["A nodule of 5 mm. No effusion.", "Airways are open.", "The heart is large. The region 0 is calm."]
CORPUS = [INSTRUCTION, write_report(NAMES, TEXTS), "The global information is provided as the context: . "] * 2


def legacy_llama():
    """Tokenises as LLaMA's fast tokenizer with legacy behaviour does: every piece gets its own leading mark."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    words = [word for text in CORPUS for word in text.split()]
    tokenizer.train_from_iterator([*words, *"0123456789:. </>|[]_"], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def byte_level():
    """As GPT-2's: no BOS, no leading mark, EOS is the only special token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<end>", eos_token="<end>")


TOKENIZERS = {"llama": legacy_llama(), "gpt2": byte_level(), "tiny": train_tokenizer(CORPUS)}
SPECIALS = ("</s>", "<s>", "<unk>", "<pad>", "<end>", "<|control|>")
for _tokenizer in TOKENIZERS.values():
    _tokenizer.add_special_tokens({"additional_special_tokens": ["<|control|>"]})


@pytest.fixture(params=sorted(TOKENIZERS))
def tokenizer(request):
    return TOKENIZERS[request.param]


def test_published_strings_byte_for_byte():
    encoder = PromptEncoder(TOKENIZERS["llama"], PUBLISHED)
    assert encoder.prompt_text(2) == (
        "The global information is provided as the context: <image>. "
        "The region 0 is <region>. The region 1 is <region>. "
        "Given the provided global and regional information from this CT scan, please generate a comprehensive medical "
        "report for each region. First, identify the anatomical area corresponding to each region, then provide "
        "detailed information about these anatomical structures and any abnormalities that are essential. You can "
        "refer to the global information as the context and take it as a supplement when generating each region report."
    )


def published(tokenizer, counts, names, texts):
    """Ids and labels as the published data set makes them: one added special token a slot, one call of the tokenizer.

    The copy's vocabulary grows by the tags and slots; added tokens split the text into pieces.
    """
    grown = pickle.loads(pickle.dumps(tokenizer))
    before = len(grown)
    slots = [f"<image{i}>" for i in range(counts.global_)]
    regions = [f"<region{i}>" for i in range(counts.region * len(names))]
    grown.add_special_tokens(
        {"additional_special_tokens": ["<image>", "</image>", "<region>", "</region>", *slots, *regions]}
    )
    prompt = "The global information is provided as the context: <image>" + "".join(slots) + "</image>. "
    for i in range(len(names)):
        run = "".join(regions[i * counts.region : (i + 1) * counts.region])
        prompt += f"The region {i} is <region>{run}</region>. "
    prompt += INSTRUCTION
    target = "".join(f"The region {i} is {n}: {t} " for i, (n, t) in enumerate(zip(names, texts, strict=True)))
    ids = np.array([*grown(prompt + " " + target)["input_ids"], grown.eos_token_id])
    labels = np.where(np.arange(len(ids)) < len(grown(prompt)["input_ids"]), IGNORED, ids)
    return ids, labels, before


def test_ids_and_labels_are_the_published_ones(tokenizer):
    """Slots hold the pad id instead of an added token; everything else is equal, labels too."""
    ids, labels, vocabulary = published(tokenizer, PUBLISHED, NAMES, TEXTS)
    sample = PromptEncoder(tokenizer, PUBLISHED).encode_sample(NAMES, TEXTS)
    slots = np.flatnonzero(ids >= vocabulary)
    assert np.array_equal(sample.visual_positions, slots)
    text = ids < vocabulary
    assert np.array_equal(sample.ids[text], ids[text])
    assert np.array_equal(sample.labels, labels)
    assert np.array_equal(sample.visual_sources, ids[slots] - vocabulary), (
        "table order is the published order of token ids"
    )


def test_slots_hold_pad_and_runs_have_the_stated_length(tokenizer):
    encoder = PromptEncoder(tokenizer, SMALL)
    prompt = encoder.encode(2)
    assert (prompt.ids[prompt.visual_positions] == encoder.pad_id).all()
    assert prompt.visual_sources.tolist() == [0, 4, 5, 6, 1, 2, 7, 8, 9, 3, 2, 10, 11, 12, 3]


@pytest.mark.parametrize(
    ("counts", "sources"),
    [
        (TokenCounts(2, 1, 0), [2, 4, 5, 6, 3, 2, 7, 8, 9, 3]),
        (TokenCounts(0, 1, 1), [0, 4, 1, 2, 5, 3, 2, 6, 3]),
        (TokenCounts(1, 0, 1), [0, 4, 1, 2, 5, 3, 2, 6, 3]),
        (TokenCounts(0, 0, 0), [2, 3, 2, 3]),
    ],
)
def test_an_encoder_off_shortens_its_run(tokenizer, counts, sources):
    encoder = PromptEncoder(tokenizer, counts)
    assert encoder.encode(2).visual_sources.tolist() == sources
    assert encoder.prompt_text(1).startswith("The global" if counts.global_ else "The region 0 is <region>. Given")


def test_bos_comes_from_the_tokenizer():
    assert PromptEncoder(TOKENIZERS["llama"], SMALL).encode(1).ids[0] == 1
    gpt2 = TOKENIZERS["gpt2"]
    first = gpt2("The global information is provided as the context: ")["input_ids"][0]
    assert PromptEncoder(gpt2, SMALL).encode(1).ids[0] == first


def test_eos_is_labelled_once_at_the_end(tokenizer):
    sample = PromptEncoder(tokenizer, SMALL).encode_sample(NAMES, TEXTS)
    eos = tokenizer.eos_token_id
    assert (sample.labels == eos).sum() == 1
    assert sample.labels[-1] == eos


def test_prompt_is_the_same_with_and_without_target(tokenizer):
    encoder = PromptEncoder(tokenizer, SMALL)
    full, bare = encoder.encode_sample(NAMES, TEXTS), encoder.encode_sample(NAMES, with_target=False)
    assert np.array_equal(full.ids[: len(bare.ids)], bare.ids)
    assert (bare.labels == IGNORED).all()
    assert len(bare.region_of_label) == 0
    assert (full.labels[: len(bare.ids)] == IGNORED).all()
    assert (full.labels[len(bare.ids) :] != IGNORED).all()


def test_target_text(tokenizer):
    for identity, start in ((True, "The region 0 is lung: A nodule"), (False, "The region 0: A nodule")):
        sample = PromptEncoder(tokenizer, SMALL, identity=identity).encode_sample(NAMES, TEXTS)
        text = tokenizer.decode(sample.labels[sample.labels != IGNORED], skip_special_tokens=True)
        joined = "".join(text.split())
        assert joined == "".join(write_report(NAMES, TEXTS, identity).split())
        assert joined.startswith("".join(start.split()))


def test_region_of_label(tokenizer):
    """Slot by slot, also when a sentence reads like another region's opening."""
    sample = PromptEncoder(tokenizer, SMALL).encode_sample(NAMES, TEXTS)
    labels = sample.labels[sample.labels != IGNORED]
    assert len(sample.region_of_label) == len(labels)
    assert sample.region_of_label[-1] == -1
    for slot, (name, text) in enumerate(zip(NAMES, TEXTS, strict=True)):
        part = tokenizer.decode(labels[sample.region_of_label == slot])
        assert "".join(part.split()) == "".join(f"The region {slot} is {name}: {text}".split())
    assert (np.diff(sample.region_of_label[:-1]) >= 0).all()


def test_too_long_report_is_cut_at_a_sentence_and_counted(tokenizer):
    full = PromptEncoder(tokenizer, SMALL).encode_sample(NAMES, TEXTS)
    sentences = 5
    heads = set()
    for drop in range(1, 24, 3):
        encoder = PromptEncoder(tokenizer, SMALL, max_length=len(full.ids) - drop)
        sample = encoder.encode_sample(NAMES, TEXTS)
        assert len(sample.ids) <= encoder.max_length
        assert 1 <= sample.sentences_cut < sentences
        assert sample.labels[-1] == tokenizer.eos_token_id
        text = tokenizer.decode(sample.labels[sample.labels != IGNORED], skip_special_tokens=True)
        assert text.rstrip().endswith(".")
        assert np.array_equal(sample.ids[: len(encoder.encode(3).ids)], encoder.encode(3).ids)
        heads.add(sample.sentences_cut)
    assert heads >= {1, 2}


def test_no_sentence_fits(tokenizer):
    length = len(PromptEncoder(tokenizer, SMALL).encode(3).ids) + 3
    with pytest.raises(
        DataFault, match=rf"prompt {length - 3} \+ report \d+ \+ EOS 1 tokens \(expected at most {length}\)"
    ):
        PromptEncoder(tokenizer, SMALL, max_length=length).encode_sample(NAMES, TEXTS)


def test_too_long_prompt_is_an_error_with_the_arithmetic(tokenizer):
    with pytest.raises(
        ConfigError, match=r"prompt of 10 regions takes \d+ tokens \(3 \+ 2 .* 10 x \(2 texture \+ 1 geom"
    ):
        PromptEncoder(tokenizer, SMALL, max_length=100).encode(10)


def test_tokenizers_without_eos_or_offsets_are_refused():
    no_eos = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    with pytest.raises(ConfigError, match="no EOS"):
        PromptEncoder(no_eos, SMALL)

    class Slow:
        name_or_path, eos_token_id, is_fast = "slow", 2, False

    with pytest.raises(ConfigError, match=r"slow.*tokenizer\.json"):
        PromptEncoder(Slow(), SMALL)


def test_picklable_and_prompts_are_kept(tokenizer):
    encoder = PromptEncoder(tokenizer, SMALL)
    assert encoder.encode(3) is encoder.encode(3)
    again = pickle.loads(pickle.dumps(encoder))
    assert np.array_equal(again.encode_sample(NAMES, TEXTS).ids, encoder.encode_sample(NAMES, TEXTS).ids)


def said(tokenizer, labels):
    """The text of labels, with every special token among them spelt out; spaces aside."""
    return "".join(tokenizer.decode(labels).split())


@pytest.mark.parametrize("special", SPECIALS)
def test_foreign_text_stays_text(tokenizer, special):
    """In a report, a region's name or an instruction; the one EOS of a sample is behind its report."""
    names, texts = [f"lung{special}", "heart"], [f"A nodule {special} of 5 mm.{special}", f"{special} No effusion."]
    encoder = PromptEncoder(tokenizer, SMALL, instruction=f"Given {special} this report.")
    sample = encoder.encode_sample(names, texts)
    labels = sample.labels[sample.labels != IGNORED]
    assert (labels == tokenizer.eos_token_id).sum() == 1
    assert not {*tokenizer.all_special_ids} & {*labels[:-1]}
    assert said(tokenizer, labels[:-1]) == "".join(write_report(names, texts).split())
    generated = tokenizer.decode(labels, skip_special_tokens=True)
    assert "".join(generated.split()) == "".join(write_report(names, texts).split())
    for slot, (name, text) in enumerate(zip(names, texts, strict=True)):
        part = said(tokenizer, labels[sample.region_of_label == slot])
        assert part == "".join(f"The region {slot} is {name}: {text}".split())
    prompt = np.delete(encoder.encode(2).ids, encoder.encode(2).visual_positions)
    assert said(tokenizer, prompt).endswith("".join(f"Given {special} this report.".split()))
    again = pickle.loads(pickle.dumps(encoder)).encode_sample(names, texts)
    assert np.array_equal(again.ids, sample.ids)
    whole = encoder.encode_whole(texts[0])
    assert said(tokenizer, whole.labels[whole.labels != IGNORED][:-1]) == "".join(texts[0].split())


def test_others_who_use_the_tokenizer_still_get_its_special_tokens(tokenizer):
    PromptEncoder(tokenizer, SMALL).encode_sample(NAMES, TEXTS)
    assert tokenizer.eos_token_id in tokenizer(f"One {tokenizer.eos_token} two")["input_ids"]


@given(st.lists(st.sampled_from([*SPECIALS, "A nodule", " ", "5 mm", ".", "<", "/s>", "heart"]), min_size=1))
def test_any_mixture_of_words_and_special_strings_stays_text(parts):
    text = "".join(parts)
    for tokenizer in TOKENIZERS.values():
        sample = PromptEncoder(tokenizer, SMALL).encode_sample(["heart", "lung"], [text, "Clear."])
        labels = sample.labels[sample.labels != IGNORED]
        assert said(tokenizer, labels[:-1]) == "".join(write_report(["heart", "lung"], [text, "Clear."]).split())
        assert not {*tokenizer.all_special_ids} & {*labels[:-1]}
        lung = said(tokenizer, labels[sample.region_of_label == 1])
        assert lung == "Theregion1islung:Clear."


def test_a_special_token_that_the_vocabulary_cannot_spell_is_a_fault():
    """A unigram model has its special tokens among its pieces, and takes the longest piece."""
    letters = [(letter, -3.0) for letter in sorted({*"".join(CORPUS), *"</>▁"} - {" "})]
    unigram = Tokenizer(models.Unigram([("<unk>", 0.0), ("</s>", 0.0), *letters], unk_id=0))
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=unigram, unk_token="<unk>", eos_token="</s>")
    encoder = PromptEncoder(tokenizer, SMALL)
    assert (encoder.encode_sample(NAMES, TEXTS).labels == tokenizer.eos_token_id).sum() == 1
    with pytest.raises(
        DataFault, match=r"CONTROL_TOKEN.*writes '</s>' in '.*nodule</s>\. ' as a special.*Fix: take it"
    ):
        encoder.encode_sample(["lung"], ["A nodule</s>."])


def test_sources_in_a_batch():
    """Tables of three samples with 2, 1 and 3 regions, written as one."""
    regions, counts = (2, 1, 3), SMALL
    packed = [("tag", i) for i in range(TAGS)]
    packed += [("global", s, i) for s in range(3) for i in range(counts.global_)]
    packed += [("region", s, r, i) for s in range(3) for r in range(regions[s]) for i in range(counts.region)]
    first = 0
    for sample, many in enumerate(regions):
        own = [("tag", i) for i in range(TAGS)] + [("global", sample, i) for i in range(counts.global_)]
        own += [("region", sample, r, i) for r in range(many) for i in range(counts.region)]
        sources = np.arange(len(own))
        assert [packed[i] for i in rebase_sources(sources, counts, sample, 3, first)] == own
        first += many


def test_published_tail_byte_for_byte(tokenizer):
    """Prompt and target of study 1334 of CTRG-Chest-548K, shortened."""
    task = ReportTask(tail=True)
    encoder = PromptEncoder(tokenizer, SMALL, max_length=4096, instruction=task.instruction_text)
    assert encoder.prompt_text(2).endswith(
        "The region 1 is <region>. Given the provided global and regional information from this CT scan, please "
        "generate a comprehensive medical report for each region. First, identify the anatomical area corresponding to "
        "each region, then provide detailed information about these anatomical structures and any abnormalities that "
        "are essential. You can refer to the global information as the context and take it as a supplement when "
        "generating each region report. For those reports that have no specific region associated with them, generate "
        "an 'other report' at the end."
    )
    others = {"mediastinum": "No mass.", "pleura": "Bilateral hypertrophy.", "other": ""}
    sample = encoder.encode_sample(["heart", "lung"], ["Normal.", "A nodule."], others=others)
    target = [int(token) for token in sample.labels if token != IGNORED]
    assert target[-1] == encoder.eos_id
    text = (
        "The region 0 is heart: Normal. The region 1 is lung: A nodule. The other report is: {mediastinum: No mass.}"
        "{pleura: Bilateral hypertrophy.}{other: }"
    )
    assert target[:-1] == encoder._target(text)[0]
    without = encoder.encode_sample(["heart", "lung"], ["Normal.", "A nodule."])
    slots = sample.region_of_label
    assert set(slots) == {0, 1, -1}
    kept = len(without.region_of_label) - 2  # a piece may join the last blank with what follows
    assert slots[:kept].tolist() == without.region_of_label[:kept].tolist()
    assert (slots[-len(encoder._target(write_tail(others))[0]) // 2 :] == -1).all()  # its loss is no region's
