"""Tokens of the Java program, as it printed them (pycocoevalcap 1.2, stanford-corenlp-3.4.1), and characters."""

from __future__ import annotations

import pytest

from reg2rg.evaluation.metrics.tokens import character_tokens, ptb_tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("A nodule (small) is seen [2] in {x}.", "a nodule -lrb- small -rrb- is seen -lsb- 2 -rsb- in -lcb- x -rcb-"),
        ("Nodule on chest CT. No effusion.", "nodule on chest ct. no effusion"),
        ("Nodule on chest MRI. No effusion.", "nodule on chest mri no effusion"),
        ("It's not the patient's; don't, can't, won't.", "it 's not the patient 's do n't ca n't wo n't"),
        ("Cannot be told.", "can not be told"),
        ("-1000 HU and +5 mm, 3.5x4.2 cm, 10 x 12 mm, 5%.", "-1000 hu and +5 mm 3.5 x4 .2 cm 10 x 12 mm 5 %"),
        ("1/2 of the lobe, 12/05/2019, 40mm", "1/2 of the lobe 12/05/2019 40mm"),
        ("right-sided, L1-L2, C7/T1, and/or", "right-sided l1-l2 c7/t1 and/or"),
        ("all small – or – none… 3 - 4", "all small or none 3 4"),
        ("4 ± 1 mm, < 5 mm, <= 7", "4 ± 1 mm < 5 mm < = 7"),
        ("No. 5 of the nodules. no.", "no. 5 of the nodules no"),
        ("nodules.No effusion. 6mm.Next", "nodules.no effusion 6mm next"),
        ('"quoted" text', "quoted text"),
        ("", ""),
    ],
)
def test_penn_treebank_tokens(text, tokens):
    assert ptb_tokens(text) == tokens.split()


def test_characters_keep_latin_words_and_numbers_whole():
    assert character_tokens("CT：右肺 8.5mm。") == ["CT", "：", "右", "肺", "8.5", "mm", "。"]
