import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from reg2rg.core.regions import load_region_set
from reg2rg.evaluation import prefixes

REGIONS = load_region_set("radgenome")
TEXT = (
    "The region 0 is lung: Nodule in the left lobe. The region 1 is trachea and bronchie: Open.  Calibre normal. "
    "The other report is: {mediastinum: No node. }{pleura: Thin. }{other: }"
)


def test_strip_takes_prefixes_off_and_appends_the_tail():
    assert prefixes.strip_prefixes(TEXT) == "Nodule in the left lobe. Open. Calibre normal. No node. Thin."


@pytest.mark.parametrize(
    ("text", "stripped"),
    [
        ("", ""),
        ("Plain  text.", "Plain text."),
        ("The region 0 is lung: a. The other report is {pleura: b", "a. {pleura: b"),
        ("The region 0 is lung: a. The other report is: {pleura: b. }{other: ", "a. b. {other:"),
        ("The region 0 is lung: a. The other report is: {other: }", "a."),
        ("The region 0 is lung a. The region 1 is heart: b.", "b."),  # a missing colon: as the published pattern does
    ],
)
def test_strip_at_the_edges(text, stripped):
    assert prefixes.strip_prefixes(text) == stripped


def test_published_regions_join_what_is_named_twice_and_keep_the_tail():
    text = (
        "The region 0 is lung: a. The region 1 is lung: b. The region 2 is heart: c. The other report is: {pleura: d}"
    )
    found = prefixes.published_regions(text, REGIONS.names)
    assert found == {"lung": "a. b.", "heart": "c. The other report is: {pleura: d}"}


def test_published_slots_take_the_first_word_and_the_last_of_repeated_ones():
    assert prefixes.published_slots("The region 0 is trachea and bronchie: a The region 0 is heart: b") == {0: "heart"}


def test_own_reading_understands_aliases_and_ends_at_the_tail():
    text = "The region 0 is Trachea: a. The region 1 is LUNGS: b. The other report is: {pleura: c}"
    given = ("trachea and bronchie", "lung")
    report = prefixes.own_report(text, given, REGIONS)
    assert report.by_region() == {"trachea and bronchie": "a.", "lung": "b."}
    assert prefixes.other_regions(text, REGIONS) == {"pleura": "c"}


def test_a_missing_colon_does_not_eat_the_next_paragraph():
    report = prefixes.own_report("The region 0 is lung a. The region 1 is heart: b.", ("lung", "heart"), REGIONS)
    assert report.by_region() == {"heart": "b."}


def test_without_identities_a_paragraph_belongs_to_its_slot():
    report = prefixes.own_report("The region 0: a. The region 1: b.", ("lung", "heart"), REGIONS)
    assert report.by_region() == {"lung": "a.", "heart": "b."}


def test_given_slots_need_a_name_each_and_no_repetition():
    assert prefixes.given_slots(TEXT, REGIONS) == {0: "lung", 1: "trachea and bronchie"}
    assert prefixes.given_slots("The region 3 is LUNGS: a. The region 1 is heart: b.", REGIONS) == {
        3: "lung",
        1: "heart",
    }
    assert prefixes.given_slots("No prefix.", REGIONS) == {}
    assert prefixes.given_slots("The region 0: a.", REGIONS) == {}
    assert prefixes.given_slots("The region 0 is lung: a. The region 0 is heart: b.", REGIONS) == {}
    assert prefixes.given_slots("The region 0 is lung: a. The region 1 is lungs: b.", REGIONS) == {}


def test_slots_of_a_reference_that_does_not_count_from_0():
    text = "The region 3 is lung: see region 1. The region 12 is heart: b. The region 1 is bone: c."
    found = prefixes.own_slots(text, REGIONS, (3, 1))
    assert [(slot.number, slot.region) for slot in found if slot.number < 9] == [(0, "lung"), (1, "bone")]
    assert prefixes.own_report(text, ("lung", "bone"), REGIONS, (3, 1)).by_region() == {
        "lung": "see region 1.",
        "bone": "c.",
    }


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (TEXT, "Nodule in the left lobe. Open. Calibre normal. No node. Thin."),
        ("The region 0 is lung a. The region 1 is heart: b.", "The region 0 is lung a. b."),
        ("The region 0 is lung A nodule. Ratio: 2. The region 1: b.", "The region 0 is lung A nodule. Ratio: 2. b."),
        ("The region 2 is left upper lobe no. 2: clear.", "clear."),
        ("Plain\n text: none.", "Plain text: none."),
        ("", ""),
    ],
)
def test_plain_text_loses_no_word_but_prefixes(text, plain):
    assert prefixes.plain_text(text) == plain


def test_named_regions_take_the_first_paragraph_or_join_them():
    text = (
        "The region 4 is lung: a. The region 2 is Lungs: b. The region 9 is spleen: c. The other report is {pleura: d}"
    )
    assert prefixes.named_regions(text, REGIONS) == {"lung": "a.", "pleura": "d"}
    assert prefixes.named_regions(text, REGIONS, join=True) == {"lung": "a. b.", "pleura": "d"}


@drawn(st.text(alphabet="The region 01is lunghear:{}. \n", max_size=120))
def test_no_text_raises(text):
    prefixes.strip_prefixes(text)
    prefixes.published_regions(text, REGIONS.names)
    prefixes.published_slots(text)
    report = prefixes.own_report(text, ("lung", "heart"), REGIONS)
    assert set(report.by_region()) <= {"lung", "heart"}
    prefixes.other_regions(text, REGIONS)
    prefixes.plain_text(text)
    prefixes.own_slots(text, REGIONS, (1, 0))
    assert set(prefixes.named_regions(text, REGIONS)) <= set(REGIONS.names)
    prefixes.given_slots(text, REGIONS)
