"""A freely written report ends where it would go on to a region that was not given."""

import random

import pytest

from reg2rg.core.report import parse_report, surplus_prefix, write_report
from reg2rg.extras.tiny_llm.build import train_tokenizer
from reg2rg.models.llm.base import END, Decoding
from reg2rg.models.writing import ToTheLastRegion

NAMES = ("lung", "heart", "bone")
TEXTS = ("A nodule of 6 mm.", "Normal.", "The region 1 of the spine is normal.")
LIMITS = Decoding(max_new_tokens=500, stop_after_last=True)
REPORT = write_report(NAMES, TEXTS).strip()


@pytest.fixture(scope="module", params=[99, 400], ids=["characters", "words"])
def tokenizer(request):
    return train_tokenizer([REPORT, "The region 12 is esophagus: Normal."], request.param)


def written(tokenizer, text, limits=LIMITS):
    """What is kept of a text that a model writes token by token, and whether it was cut short."""
    guide = ToTheLastRegion(limits, tokenizer, len(NAMES))
    for token in [*tokenizer(text, add_special_tokens=False)["input_ids"], END]:
        if not guide.take(token):
            break
    return tokenizer.decode(guide.ids, skip_special_tokens=True).strip(), guide.truncated


@pytest.mark.parametrize(
    "surplus",
    [
        "The region 3 is lung: Another nodule.",
        "The region 12 is esophagus: Normal.",
        "The region 3: Another nodule.",
        "The region 3 is",
    ],
)
def test_what_follows_the_last_region_is_not_written(tokenizer, surplus):
    assert written(tokenizer, f"{REPORT} {surplus}") == (REPORT, False)


@pytest.mark.parametrize("identity", [True, False])
def test_a_report_of_the_regions_given_is_kept_whole(tokenizer, identity):
    report = write_report(NAMES, TEXTS, identity).strip()
    assert written(tokenizer, report) == (report, False)
    assert parse_report(report, NAMES, identity).missing == ()


def test_a_number_in_a_sentence_is_no_prefix(tokenizer):
    text = f"{REPORT} The region 7 mm below is normal."
    assert written(tokenizer, text) == (text, False)


def test_limits_hold_as_ever(tokenizer):
    text, truncated = written(tokenizer, REPORT, limits=Decoding(max_new_tokens=12, stop_after_last=True))
    assert truncated
    assert REPORT.startswith(text)


def test_any_cut_of_any_report_has_no_prefix_of_a_region_that_was_not_given(tokenizer):
    rng = random.Random(0)
    for _ in range(50):
        slots = [rng.randrange(6) for _ in range(6)]
        parts = [f"The region {slot} is {rng.choice(NAMES)}: {rng.choice(TEXTS[:2])}" for slot in slots]
        kept, _ = written(tokenizer, " ".join(parts))
        first = next((place for place, slot in enumerate(slots) if slot >= 3), len(slots))
        assert kept == " ".join(parts[:first])
        assert surplus_prefix(kept, 3) is None


def test_records_tell_how_far_a_free_report_goes():
    assert Decoding().told() == "free: " + repr(Decoding())
    assert Decoding(stop_after_last=True).told() == "free, to the last region: " + repr(Decoding())
