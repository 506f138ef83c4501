"""Sentences as radiologists write them."""

import pytest

from reg2rg.datasets.splitters.sentences import sentence_spans, sentences


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", []),
        (" \n ", []),
        ("Clear lungs", ["Clear lungs"]),
        ("A nodule of 1.5 cm. It grew.", ["A nodule of 1.5 cm.", "It grew."]),
        ("Approx. 5 mm wide. L. lower lobe clear.", ["Approx. 5 mm wide.", "L. lower lobe clear."]),
        ("A mass, e.g. Hodgkin, in Fig. 3. No effusion.", ["A mass, e.g. Hodgkin, in Fig. 3.", "No effusion."]),
        ("It measures 5 mm max. Dr. Li agrees.", ["It measures 5 mm max.", "Dr. Li agrees."]),
        ("No nodules.No effusion.", ["No nodules.", "No effusion."]),
        ("Why? Unknown! Stable... indeed.", ["Why?", "Unknown!", "Stable...", "indeed."]),
        ("1. Nodule. 2. Effusion of 2.5 cm.", ["1. Nodule.", "2. Effusion of 2.5 cm."]),
        ("Findings: 1) Nodule 2) Effusion", ["Findings:", "1) Nodule", "2) Effusion"]),
        ("1. Nodule\n2. Effusion\n- no fracture", ["1. Nodule", "2. Effusion", "- no fracture"]),
        ("No pleural\neffusion.\n\nheart normal", ["No pleural\neffusion.", "heart normal"]),
        ("As can be seen; the heart is normal.", ["As can be seen; the heart is normal."]),
        ('He said "clear." Then no more.', ['He said "clear."', "Then no more."]),
        ("右肺结节，约1.5cm×2.0cm；纵隔未见肿大淋巴结。", ["右肺结节，约1.5cm×2.0cm；", "纵隔未见肿大淋巴结。"]),
        ("1.右肺结节；2.双肺炎症。3、主动脉钙化", ["1.右肺结节；", "2.双肺炎症。", "3、主动脉钙化"]),
        ("双肺清晰.心影不大.", ["双肺清晰.", "心影不大."]),
    ],
)
def test_sentences(text, told) -> None:
    assert sentences(text) == told
    spans = sentence_spans(text)
    between = [text[end:start] for (_, end), (start, _) in zip([(0, 0), *spans], [*spans, (len(text), 0)], strict=True)]
    assert not "".join(between).strip(), "nothing but white space stands between sentences"


def test_long_texts_are_cut_in_linear_time() -> None:
    text = "Nodule of 1.5 cm in the left lung. " * 20_000
    assert len(sentences(text)) == 20_000
