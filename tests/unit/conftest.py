"""An evaluation with every part filled, made of fixed numbers: what the outputs are tried on."""

import numpy as np
import pandas as pd
import pytest

from reg2rg.core.labels import FINDINGS
from reg2rg.evaluation.results import (
    Confusion,
    Difference,
    Evaluation,
    LabelScore,
    Number,
    RegionStatistics,
)

HOSTILE = "Clear. </script><script>document.title='owned'</script> & <b>bold</b>"
FLOORS = (
    "empty report",
    "most common report",
    "most common paragraph per region",
    "every finding",
    "shuffled",
)
REGIONS = (
    "lung",
    "trachea and bronchie",
    "heart",
    "mediastinum",
    "esophagus",
    "pleura",
    "bone",
    "thyroid",
    "breast",
    "abdomen",
)
LANGUAGE = {
    "BLEU-1": 0.464, "BLEU-2": 0.354, "BLEU-3": 0.287, "BLEU-4": 0.241, "METEOR": 0.441, "ROUGE-L": 0.367,
    "CIDEr": 1.214,
}  # fmt: skip
EFFICACY = {"CE precision (micro)": 0.401, "CE recall (micro)": 0.233, "CE F1 (micro)": 0.295, "CE F1 (macro)": 0.214}


def _numbers(scope, n, shift=0.0):
    made = [
        Number(
            "language",
            scope,
            name,
            round(value + shift, 3),
            n,
            "Mean over reports, 0 to 1; pycocoevalcap 1.2 on lower-cased words."
            if name != "CIDEr"
            else "Corpus score, 0 to 10; idf from the references.",
            std=0.11,
            low=round(value + shift - 0.014, 3),
            high=round(value + shift + 0.014, 3),
        )
        for name, value in LANGUAGE.items()
    ]
    made += [
        Number(
            "findings",
            scope,
            name,
            round(value + shift, 3),
            n,
            f"{name.split()[1]} over (study, label) pairs.",
            low=round(value + shift - 0.02, 3),
            high=round(value + shift + 0.02, 3),
        )
        for name, value in EFFICACY.items()
    ]
    return made


def _floor(number, floor):
    share = {"empty report": 0.0, "most common report": 0.72, "every finding": 0.1, "shuffled": 0.62}.get(floor, 0.88)
    if floor == "every finding" and number.group == "findings":
        share = 4.0 if "recall" in number.name else 1.1
    return Number(number.group, number.scope, number.name, min(1.0, number.value * share), number.n, number.definition)


def make_evaluation(**changes):
    generator = np.random.default_rng(0)
    report = _numbers("report", 1304)
    recognition = Number(
        "regions", "report", "recognition", 0.982, 13040, "Share of slots named right.", None, 0.98, 0.99
    )
    statistics = [
        Number("statistics", "report", "words, reference", 182.4, 1304, "Words per report.", 61.0, score=False),
        Number("statistics", "report", "words, predicted", 151.0, 1304, "Words per report.", 22.0, score=False),
        Number("statistics", "report", "distinct reports", 0.913, 1304, "Share of different texts.", score=False),
    ]
    scores = [n for i, r in enumerate(REGIONS) for n in _numbers(r, 1304 - 7 * i, shift=-0.02 * i)]
    scores += [
        Number("regions", r, "recognition", 0.99 - 0.004 * i, 1304, "Share of slots.") for i, r in enumerate(REGIONS)
    ]
    numbers = [*report, recognition, *statistics, *scores]
    counts = [[int(i == j) * 1200 for j in range(12)] for i in range(10)]
    counts[2][3], counts[3][2], counts[0][10], counts[5][11], counts[4][0], counts[4][1], counts[4][2] = (
        61,
        15,
        1,
        9,
        1,
        2,
        3,
    )
    ids = [f"valid_{i}_a_1" for i in range(60)]
    values = {
        "name": "reg2rg, step 12000",
        "protocol": "radgenome",
        "protocol_text": "Whole reports are the paragraphs of all regions, joined in the order of the prompt.",
        "studies": 1304,
        "patients": 1120,
        "resamples": 1000,
        "confidence": 0.95,
        "seed": 7,
        "numbers": numbers,
        "floors": {
            floor: [_floor(n, floor) for n in numbers if n.score and (n.group != "regions" or floor != "empty report")]
            for floor in FLOORS
        },
        "labels": [
            LabelScore(label, 0.5, 0.3, f1, 480 - 25 * i, 300 - 14 * i, f1 - 0.075, f1 + 0.055)
            for i, label in enumerate(FINDINGS)
            for f1 in [0.375 - 0.012 * i]
        ],
        "labeler": "Labels are read from the text by RadBERT.",
        "confusion": Confusion(REGIONS, (*REGIONS, "(none)", "(unknown name)"), tuple(map(tuple, counts))),
        "regions": [
            RegionStatistics(r, 1300, 1290, 0.8, 0.3, "The heart is of normal size. " + HOSTILE, 0.31, 0.12, 0.4, 0.25)
            for r in REGIONS
        ],
        "words": {
            "reference": generator.normal(182, 61, 1304).clip(20).astype(int).tolist(),
            "predicted": generator.normal(151, 22, 1304).clip(20).astype(int).tolist(),
        },
        "notes": ["The file has the columns of the published predictions.", "3 studies have no reference: left out."],
        "software": {"reg2rg": "0.2.0", "numpy": "2.4.6", "matplotlib": "3.11.2"},
        "inputs": {"predictions": "/data/predictions.csv", "reference": "/data/<reference>.csv"},
        "per_study": pd.DataFrame(
            {
                "study": ids,
                "patient": [f"p{i // 2}" for i in range(60)],
                "BLEU-4": [np.nan, *generator.uniform(0, 0.5, 59).round(4)],
                "words": range(100, 160),
                "Cardiomegaly": [i % 3 == 0 for i in range(60)],
                "predicted": [f"=1+1 {HOSTILE}"] * 60,
            }
        ),
        "per_region": pd.DataFrame({"study": ids, "region": ["lung"] * 60, "BLEU-4": generator.uniform(0, 1, 60)}),
        "against": "baseline.csv",
        "differences": [
            Difference(n, n.value - by, by - 0.01, by + 0.01, 0.21 if abs(by) <= 0.01 else 0.0004)
            for i, n in enumerate(report)
            for by in [0.02 - 0.005 * i]
        ],
    }
    return Evaluation(**{**values, **changes})


def make_bare(**changes):
    """The least that an evaluation can hold: numbers without intervals, floors or labels."""
    number = Number("language", "report", "BLEU-4", float("nan"), 2, "Corpus BLEU-4.")
    other = Number("language", "report", "METEOR", 0.3, 2, "")
    values = {
        "name": "bare",
        "protocol": "plain",
        "protocol_text": "",
        "studies": 2,
        "patients": 2,
        "resamples": 0,
        "confidence": 0.95,
        "seed": 0,
        "numbers": [number, other],
        "floors": {},
    }
    return Evaluation(**{**values, **changes})


@pytest.fixture(scope="session")
def evaluation():
    return make_evaluation()


@pytest.fixture
def bare():
    return make_bare()


@pytest.fixture
def make():
    return make_evaluation


@pytest.fixture
def hostile():
    return HOSTILE
