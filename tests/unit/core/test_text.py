from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reg2rg.core.text import TextGate, clean_text


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Nodule \ud83d in the lung.", "Nodule \ufffd in the lung."),
        ("\ud83d\ude00 both, \ud83d one.", "\U0001f600 both, \ufffd one."),
        ("Nodule\x0bin\x0cthe\u2028left\x85lung.", "Nodule in the left lung."),
        ("lu\0ng\x7f \x9dclear", "lung clear"),
        ("\x1b[31mNodule\x1b[0m [bold]left[/bold]", "Nodule [bold]left[/bold]"),
        ("\x1b]8;;http://a\x07link\x1b]8;;\x07", "link"),
        ("one_x000D_\ntwo_x000d_three_x0007_", "one\ntwo\nthree"),
        ("\ufeffstudy", "study"),
        ("right \u202eleft\u202c", "right left"),
    ],
)
def test_what_no_report_says_is_taken_out(text, cleaned):
    assert clean_text(text) == cleaned


@pytest.mark.parametrize(
    "text", ["", "a\nb\tc\r\n", "Größe 4 × 5 mm, 正常 \U0001f600 \ufffd", "<script>", "image_x0041_1", "=1+1", "\u200d"]
)
def test_text_stays_text(text):
    gate = TextGate()
    assert gate(text) == text
    assert gate.told("a.csv") == []


@given(st.text(st.characters(codec=None), max_size=20))
def test_what_comes_out_can_be_written_and_is_not_changed_again(text):
    cleaned = clean_text(text)
    assert cleaned.encode("utf-8").decode("utf-8") == cleaned
    assert clean_text(cleaned) == cleaned or "_x00" in cleaned


def test_texts_are_counted_by_kind():
    gate = TextGate()
    for text in ("\ud83d", "\ud83d\0", "x", "\0"):
        gate(text)
    (told,) = gate.told("a.jsonl")
    assert told == (
        "a.jsonl: 3 texts were cleaned before anything was computed: halves of surrogate pairs (now U+FFFD) in 2, "
        "control characters in 2."
    )
