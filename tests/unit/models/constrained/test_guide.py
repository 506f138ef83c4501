"""Reports by guides over made-up logits: what is asked holds for every model, so most tests need none."""

import random

import pytest
import torch

import tokenizer_families
from reg2rg.core.errors import ConfigError
from reg2rg.core.report import parse_report, write_report, write_tail
from reg2rg.core.text import clean_text
from reg2rg.data.prompt import PromptEncoder, TokenCounts
from reg2rg.models.constrained import Frames, ReportGuide
from reg2rg.models.constrained.vocabulary import Vocabulary
from reg2rg.models.llm.base import END, Decoding, Sampling
from reg2rg.models.llm.decoding import _Draws, _Rows
from tokenizer_families import FAMILIES, REGIONS, report

FAITHFUL = {"byte_bpe", "byte_bpe_across_words", "sentencepiece_bpe", "bytes_alone"}
"""Families whose decoder gives a frame back as a report has it; the others change blanks or case."""
ROOM = 1 << 30


@pytest.fixture(scope="module")
def frames():
    made = {}

    def of(family, identity=True, names=REGIONS):
        key = family, identity, names
        if key not in made:
            made[key] = Frames(tokenizer_families.tokenizer(family), names, identity)
        return made[key]

    return of


def write(guide, logits_of, size, eos, sampling=None, branches=None):
    """An answer by made-up logits: ``ids so far -> (size,)``."""
    rows = _Rows([guide], frozenset({eos}), None if sampling is None else _Draws(sampling, ["study"]))
    for _ in range(guide.most):
        logits = logits_of(guide.ids)[None, :size]
        if not rows.take(rows.choose(logits, lambda place: branches)):
            return guide
    raise AssertionError("an answer without end")


def scripted(script, size):
    """Logits of a model that writes a script, whatever it has written."""

    def logits_of(ids):
        logits = torch.zeros(size)
        logits[script[min(len(ids), len(script) - 1)]] = 9.0
        return logits

    return logits_of


def holds(text, given, identity):
    """Each given region has one paragraph, in slot order, and nothing else is found; after cleaning, too."""
    for found in (text, clean_text(text)):
        read = parse_report(found, given, identity)
        assert (read.invalid, read.duplicate, read.missing) == ((), (), ()), text
        assert [paragraph.slot for paragraph in read.paragraphs] == list(range(len(given))), text


@pytest.mark.parametrize("family", FAMILIES)
def test_no_model_breaks_the_form(family, frames):
    """Random models, most of them with a taste for numbers, names, frames and the end."""
    tokenizer = tokenizer_families.tokenizer(family)
    eos, size = tokenizer.eos_token_id, len(tokenizer) + 8  # as models whose table is longer than the vocabulary
    vocabulary = frames(family).vocabulary
    hot = {eos, *(i for name in REGIONS for n in range(4) for i in vocabulary.ids(f"The region {n} is {name}: a. The"))}
    for seed in range(112):
        draws = random.Random(seed)
        given = draws.sample(REGIONS, draws.randint(1, 4))
        identity, forced = draws.random() < 0.7, draws.random() < 0.3
        sampling = (
            Sampling(draws.choice([0.6, 2.0]), draws.choice([0, 30]), 0.9, seed) if draws.random() < 0.4 else None
        )
        decoding = Decoding(draws.choice([5, 20, 50]), draws.choice([0, 4]), sampling=sampling)
        room = draws.choice([12, 100, ROOM])
        guide = ReportGuide(frames(family, identity), given, decoding, room, forced)
        source, taste = torch.Generator().manual_seed(seed), draws.choice([0.0, 3.0, 6.0])

        def logits_of(ids, source=source, taste=taste):
            logits = torch.randn(size, generator=source) * 3
            logits[sorted(hot)] += taste
            return logits

        def branches(parents, tokens, source=source):
            return torch.randn(len(tokens), size, generator=source)

        write(guide, logits_of, size, eos, sampling, branches)
        holds(guide.text(), given, identity)
        assert len(guide.ids) <= room
        assert not set(guide.ids) & {eos, *range(len(tokenizer), size)}
        for one, region in zip(guide.written(), given, strict=True):
            assert one.forced is forced
            assert not forced or one.region == region
            assert bool(one.referring) == identity or one.truncated
            assert not one.referring or abs(sum(one.referring.values()) - 1) <= 1e-5


def split_otherwise(vocabulary, text, draws):
    """Ids that spell a text, but not as the tokenizer would."""
    ids = []
    while text:
        token, part = draws.choice([found for found in vocabulary.continuing([text]) if text.startswith(found[1])])
        ids.append(token)
        text = text[len(part) :]
    return ids


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"word_level"}))  # which lacks most of these words
@pytest.mark.parametrize("identity", [True, False])
@pytest.mark.parametrize("sampled", [False, True])
def test_a_report_in_its_form_is_left_as_it_is(family, identity, sampled, frames):
    """Token for token, as training writes it; of the families that give texts back, the same text as well."""
    tokenizer = tokenizer_families.tokenizer(family)
    encoder = PromptEncoder(tokenizer, TokenCounts(1, 1, 1), identity, max_length=4000)
    decoding = Decoding(600, sampling=Sampling(top_k=1) if sampled else None)
    for seed in range(3):
        draws = random.Random(seed)
        names, texts = report(draws, draws.randint(1, 5))
        sample = encoder.encode_sample(names, texts)
        script = sample.ids[sample.labels != -100].tolist()
        guide = ReportGuide(frames(family, identity), names, decoding, ROOM, False)
        write(guide, scripted(script, len(tokenizer)), len(tokenizer), script[-1], decoding.sampling)
        assert guide.ids == script[:-1]
        assert not guide.truncated
        holds(guide.text(), names, identity)
        if family in FAITHFUL:
            assert guide.text() == tokenizer.decode(script, skip_special_tokens=True).strip()
            assert guide.text() == write_report(names, texts, identity).strip()


@pytest.mark.parametrize("family", sorted(FAITHFUL))
def test_other_spellings_of_a_report_in_its_form_are_left_too(family, frames):
    tokenizer, vocabulary = tokenizer_families.tokenizer(family), frames(family).vocabulary
    for seed in range(3):
        draws = random.Random(seed)
        names, texts = report(draws)
        script = [*split_otherwise(vocabulary, " " + write_report(names, texts), draws), tokenizer.eos_token_id]
        guide = ReportGuide(frames(family), names, Decoding(4000), ROOM, False)
        write(guide, scripted(script, len(tokenizer)), len(tokenizer), script[-1], None, no_branches)
        assert guide.ids == script[:-1]
        assert guide.text() == write_report(names, texts).strip()


def no_branches(parents, tokens):
    return torch.zeros(len(tokens), 4096)


ATTEMPTS = {
    "the frame of another slot": " The region 0 is heart: Big. The region 2 is bone: x. The region 1 is lung: Clear. ",
    "the same frame again": " The region 0 is heart: Big. The region 0 is heart: Big. ",
    "more frames than regions": " The region 0 is heart: a. The region 1 is lung: b. The region 2 is bone: c. ",
    "a name twice": " The region 0 is heart: Big. The region 1 is heart: Big. ",
    "a name that was not given": " The region 0 is thyroid: Big. The region 1 is pleura: Thin. ",
    "a frame without a name": " The region 0: Big. The region 1: Small. ",
    "wide blanks": " The region 0 is heart: Big. The region \n 1 is lung: Clear. ",
    "digits of another script": " The region 0 is heart: Big. The region \uff13 is lung: Clear. ",
    "a blank of another width": " The region 0 is heart: Big. The region\u00a01 is lung: Clear. ",
    "an invisible mark": " The region 0 is heart: Big. The re\ufeffgion 3 is lung: Clear. The region 1 is lung: x.",
    "an escape of a spreadsheet": " The region 0 is heart: Big. The region_x000D_3 is lung. The region 1 is lung: x.",
    "a terminal's colours": " The region 0 is heart: Big. The \x1b[31mregion 3 is lung. The region 1 is lung: x.",
    "glued to a word": " The region 0 is heart: Big.xThe region 9 is lung: Clear. ",
    "a tail in the middle": " The region 0 is heart: Big. The other report is: {bone: x} The region 1 is lung: z.",
    "a tail at the end": " The region 0 is heart: Big. The region 1 is lung: z. The other report is: {bone: x}",
    "no frame at all": " The heart is big, and so is the lung.",
    "nothing": "",
}


@pytest.mark.parametrize("attempt", ATTEMPTS)
@pytest.mark.parametrize("family", ["byte_bpe", "byte_bpe_across_words", "sentencepiece_bpe", "bytes_alone"])
@pytest.mark.parametrize("forced", [False, True])
def test_attempts_to_break_the_form(attempt, family, forced, frames):
    """In the tokenizer's spelling and in random others."""
    tokenizer, vocabulary, given = tokenizer_families.tokenizer(family), frames(family).vocabulary, ("heart", "lung")
    text, eos = ATTEMPTS[attempt], tokenizer.eos_token_id
    scripts = [vocabulary.ids(text)]
    if all(list(vocabulary.continuing([character])) for character in text):
        scripts += [split_otherwise(vocabulary, text, random.Random(seed)) for seed in range(3)]
    for script in scripts:
        guide = ReportGuide(frames(family), given, Decoding(200), ROOM, forced)
        write(guide, scripted([*script, eos], len(tokenizer)), len(tokenizer), eos, None, no_branches)
        holds(guide.text(), given, True)


def test_a_tail_that_is_asked_for_is_left_and_names_no_given_region(frames):
    given, vocabulary = ("heart", "lung"), frames("byte_bpe").vocabulary
    text = " " + write_report(given, ("Big.", "Clear.")) + write_tail({"bone": "Old.", "other": "Scar."})
    script = [*vocabulary.ids(text), frames("byte_bpe").vocabulary.tokenizer.eos_token_id]
    guide = ReportGuide(frames("byte_bpe"), given, Decoding(200), ROOM, False, True)
    write(guide, scripted(script, len(vocabulary)), len(vocabulary), script[-1])
    assert guide.ids == script[:-1]
    assert parse_report(guide.text(), given).others == {"bone": "Old.", "other": "Scar."}
    for wrong in ("{heart: x}", "{bone: x}{bone: y}"):
        odd = [*vocabulary.ids(f" {write_report(given, ('Big.', 'Clear.'))}The other report is: {wrong}"), script[-1]]
        guide = ReportGuide(frames("byte_bpe"), given, Decoding(200), ROOM, False, True)
        write(guide, scripted(odd, len(vocabulary)), len(vocabulary), script[-1], None, no_branches)
        holds(guide.text(), given, True)


def test_words_that_only_resemble_a_frame_are_free(frames):
    """The region of a thing, region 5, the Region 3: no frame, and nothing is taken from them."""
    text = " The region 0 is heart: The region of region 5, THE REGION 3: The regions 4. The region, 7; region 1 is x. "
    tokenizer, vocabulary = tokenizer_families.tokenizer("byte_bpe"), frames("byte_bpe").vocabulary
    script = [*vocabulary.ids(text), tokenizer.eos_token_id]
    guide = ReportGuide(frames("byte_bpe"), ("heart",), Decoding(200), ROOM, False)
    write(guide, scripted(script, len(tokenizer)), len(tokenizer), script[-1])
    assert guide.ids == script[:-1]


def run(text, given, decoding, frames, room=ROOM, forced=False, family="byte_bpe"):
    tokenizer, vocabulary = tokenizer_families.tokenizer(family), frames(family).vocabulary
    script = [*vocabulary.ids(text), tokenizer.eos_token_id]
    guide = ReportGuide(frames(family), given, decoding, room, forced)
    return write(guide, scripted(script, len(tokenizer)), len(tokenizer), script[-1], None, no_branches)


def test_the_wish_to_end_leads_to_the_next_region(frames):
    guide = run(" The region 0 is heart: Big heart.", ("heart", "lung", "bone"), Decoding(200), frames)
    found = parse_report(guide.text(), ("heart", "lung", "bone")).paragraphs
    assert [one.text for one in found] == ["Big heart.", "", ""]
    assert {one.region for one in found} == {"heart", "lung", "bone"}
    assert not guide.truncated


def test_a_runaway_paragraph_costs_no_later_region_its_own(frames):
    """What the model writes without end is cut at a sentence; each of ten regions has its text."""
    words = " ".join(f"Mass {chr(97 + i % 26)}{chr(97 + i // 26)} seen." for i in range(400))
    guide = run(f" The region 0 is abdomen: {words}", REGIONS, Decoding(100, stop_on_loop=0), frames)
    found = parse_report(guide.text(), REGIONS).paragraphs
    assert len(found) == 10
    assert found[0].text.startswith("Mass aa seen. Mass ba seen.")
    assert all(one.text for one in found)
    assert found[0].text.endswith("seen.")
    assert all(one.truncated for one in guide.written())
    assert (
        len(guide.ids)
        <= guide.most
        == 2 * 100 + sum(len(f"The region {i} is {n}:") for i, n in enumerate(REGIONS)) + 10
    )


def test_a_paragraph_may_have_a_limit_of_its_own(frames):
    decoding = Decoding(400, max_paragraph_tokens=12)
    text = (
        " The region 0 is heart: Big. Aorta wide. Wall thick and so on and so on and on. The region 1 is lung: Clear. "
    )
    guide = run(text, ("heart", "lung"), decoding, frames)
    first, second = parse_report(guide.text(), ("heart", "lung")).paragraphs
    assert first.text in ("Big. Aorta wide.", "Big.")
    assert [one.truncated for one in guide.written()] == [True, False]
    assert second.region == "lung"


def test_a_loop_ends_its_paragraph_alone(frames):
    text = " The region 0 is heart:" + " No mass is seen." * 30
    guide = run(text, ("heart", "lung"), Decoding(300, stop_on_loop=4), frames)
    first, _ = parse_report(guide.text(), ("heart", "lung")).paragraphs
    assert first.text == " ".join(["No mass is seen."] * 4)
    assert [one.truncated for one in guide.written()] == [True, True]
    assert len(guide.ids) < 120


def test_where_the_context_ends_the_rest_is_empty_and_said(frames):
    given = ("heart", "lung", "bone")
    guide = run(
        " The region 0 is heart: Big heart. The region 1 is lung: Clear.", given, Decoding(100), frames, room=20
    )
    holds(guide.text(), given, True)
    assert len(guide.ids) <= 20
    assert guide.truncated
    assert guide.written()[-1].truncated
    assert guide.written()[-1].referring == {}


def test_a_forced_name_is_the_given_one_and_the_models_belief_is_kept(frames):
    """The model would name the lung where the heart is given."""
    guide = run(" The region 0 is lung: Clear. ", ("heart", "lung"), Decoding(100), frames, forced=True)
    first = guide.written()[0]
    assert (first.region, first.forced) == ("heart", True)
    assert first.probability == first.referring["heart"] < 0.01 < 0.9 < first.referring["lung"]


def test_referring_probability_is_the_models_own(frames):
    """Of a table of next-token logits, by a plain sum over all spellings of all names."""
    family = "bytes_alone"
    tokenizer, names = tokenizer_families.tokenizer(family), ("bone", "breast", "bronchi", "lung", "liver", "heart")
    size, of = len(tokenizer), frames(family, True, names)
    vocabulary = of.vocabulary
    table = torch.randn(size, size, generator=torch.Generator().manual_seed(3)) * 2  # a model of pairs of bytes

    def logits_of(ids):
        return table[ids[-1]] if ids else table[0]

    def plain(before, rest_of):
        """Name -> probability behind the token `before`; `rest_of`: name -> what is left to write."""
        if len(rest_of) == 1:
            return dict.fromkeys(rest_of, 1.0)
        tokens = {rest[0]: vocabulary.ids(rest[0])[0] for rest in rest_of.values()}
        shares = dict(zip(tokens, table[before][list(tokens.values())].double().softmax(-1).tolist(), strict=True))
        found = {}
        for letter, token in tokens.items():
            below = plain(token, {name: rest[1:] for name, rest in rest_of.items() if rest[0] == letter})
            found |= {name: shares[letter] * share for name, share in below.items()}
        return found

    class Pairs:
        def __call__(self, parents, tokens):
            return table[list(tokens)]

    guide = ReportGuide(of, ("lung",), Decoding(60, stop_on_loop=0), ROOM, False)
    write(guide, logits_of, size, tokenizer.eos_token_id, None, Pairs())
    wanted = plain(vocabulary.ids(" ")[0], {name: f"{name}:" for name in names})
    found = guide.written()[0].referring
    assert sum(found.values()) == pytest.approx(1, abs=1e-9)
    assert found == pytest.approx(wanted, abs=1e-3)  # what is not read, for it is improbable
    assert max(found.values()) < 0.99, "a distribution that is not all on one name"


def test_names_that_a_tokenizer_writes_alike_are_refused():
    with pytest.raises(ConfigError, match="writes the regions 'zona' and 'quid' alike"):
        Frames(tokenizer_families.tokenizer("word_level"), ("heart", "zona", "quid"))


def test_a_tokenizer_whose_tokens_have_no_text_of_their_own_is_refused(frames):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({"<unk>": 0, **{chr(i): i - 31 for i in range(33, 127)}}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.decoder = decoders.CTC(pad_token="<unk>", word_delimiter_token="|")  # repeated tokens are one letter
    odd = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="~")
    with pytest.raises(ConfigError, match=r"Fix: model\.decoding: free"):
        Frames(odd, REGIONS)


def test_blanks_before_punctuation_go_where_a_tokenizer_takes_them_away():
    for family, wanted in (("word_level", "heart is normal."), ("end_of_word_bpe", "heart is normal .")):
        tokenizer = tokenizer_families.FAMILIES[family]()
        tokenizer.clean_up_tokenization_spaces = True
        vocabulary = Vocabulary(tokenizer)
        assert vocabulary.tidied("heart is normal .") == wanted


def test_end_is_no_token(frames):
    assert END not in range(len(frames("byte_bpe").vocabulary))
