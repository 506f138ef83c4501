"""What reports look like, beside what they score: lengths, repetition, how much is called abnormal; tables of units."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reg2rg.evaluation.bootstrap import Statistic, mean_statistic, no_interval
from reg2rg.evaluation.findings import Labelled, names_of
from reg2rg.evaluation.metrics.blind import commonest
from reg2rg.evaluation.metrics.labelers import Labeler
from reg2rg.evaluation.pairs import Pair
from reg2rg.evaluation.recognition import Recognition, accuracy_by_study
from reg2rg.evaluation.results import REPORT, RegionStatistics

_SENTENCE = re.compile(r"(?<=[.!?])\s+")


def report_statistics(
    pairs: Sequence[Pair], labelled: Labelled | None, unanswered: NDArray[np.bool_]
) -> list[Statistic]:
    """Statistics of whole reports, of references and predictions alike.

    Args:
        pairs: what is described.
        labelled: their labels, where they are known.
        unanswered: (n,) studies that leave something out.
    """
    sides = {
        "reference": [pair.reference_text for pair in pairs],
        "predicted": [pair.prediction_text for pair in pairs],
    }
    columns: list[tuple[str, str, Any]] = []
    for side, texts in sides.items():
        columns.append((f"Words per report, {side}", "white-space words", [len(text.split()) for text in texts]))
    text = "share without a report, or without a region that the reference describes"
    columns.append(("Unanswered studies", text, unanswered))
    if labelled is not None:
        for side, labels in (("reference", labelled.truth), ("predicted", labelled.said)):
            columns.append((f"Abnormal studies, {side}", "share with any finding", labels.any(axis=1)))
        for side, labels in (("reference", labelled.truth), ("predicted", labelled.said)):
            columns.append((f"Findings per report, {side}", "labels a report", labels.sum(axis=1)))
    for side, texts in sides.items():
        whole, sentence = commonest_share(texts)[0], _commonest_sentence(texts)
        text = "share of reports that are the one commonest text"
        columns.append((f"Commonest report, {side}", text, [one == whole for one in texts]))
        text = "share of reports that hold the one commonest sentence"
        columns.append((f"Commonest sentence, {side}", text, [sentence in _sentences(one) for one in texts]))
    found = [
        mean_statistic(
            "statistics",
            REPORT,
            name,
            text,
            rows=np.arange(len(pairs)),
            values=np.asarray(values, dtype=np.float64),
            studies=len(pairs),
            score=False,
        )
        for name, text, values in columns
    ]
    for side, texts in sides.items():
        # A resample repeats reports, so that its share of distinct ones is another quantity: no interval.
        share, units = len(set(texts)) / len(texts), np.zeros((len(pairs), 1))
        text, name = "different texts by number of reports", f"Distinct reports, {side}"
        found.append(
            Statistic("statistics", REPORT, name, text, units, no_interval, len(texts), point=share, score=False)
        )
    return found


def region_statistics(pairs: Sequence[Pair], regions: Sequence[str], labeler: Labeler | None) -> list[RegionStatistics]:
    """How the paragraphs of each region look."""
    found = []
    for region in regions:
        references = [text for pair in pairs if (text := pair.reference_regions.get(region))]
        told = [text for pair in pairs if (text := pair.predicted_regions.get(region))]
        text, share = commonest_share(told)
        abnormal = [
            float(labeler.label(texts).any(axis=1).mean()) if labeler is not None and texts else float("nan")
            for texts in (references, told)
        ]
        found.append(
            RegionStatistics(
                region=region,
                references=len(references),
                predictions=len(told),
                distinct_references=len(set(references)) / len(references) if references else float("nan"),
                distinct_predictions=len(set(told)) / len(told) if told else float("nan"),
                commonest=text,
                commonest_share=share,
                commonest_reference_share=commonest_share(references)[1],
                abnormal_references=abnormal[0],
                abnormal_predictions=abnormal[1],
            )
        )
    return found


def commonest_share(texts: Sequence[str]) -> tuple[str, float]:
    """The text that comes most often, of several the first in alphabetical order, and its share."""
    times = Counter(texts)
    text = commonest(times)
    return text, times[text] / len(texts) if texts else float("nan")


def study_table(
    pairs: Sequence[Pair],
    scores: pd.DataFrame,
    unanswered: NDArray[np.bool_],
    labelled: Labelled | None,
    found: Recognition | None,
    judged: Mapping[str, NDArray[np.float64]],
) -> pd.DataFrame:
    """A row a study: id, patient, lengths, scores, findings in words, texts."""
    table = pd.DataFrame(
        {
            "study": [pair.study for pair in pairs],
            "patient": [pair.patient for pair in pairs],
            "words_reference": [len(pair.reference_text.split()) for pair in pairs],
            "words_predicted": [len(pair.prediction_text.split()) for pair in pairs],
            "unanswered": unanswered,
        }
    )
    for column in scores.columns:
        table[column] = scores[column].to_numpy()
    for name, values in judged.items():
        table[name] = values
    if found is not None:
        shares = accuracy_by_study(found)
        table["recognition"] = [shares.get(row, float("nan")) for row in range(len(pairs))]
    if labelled is not None:
        table["findings_reference"] = names_of(labelled.labels, labelled.truth)
        table["findings_predicted"] = names_of(labelled.labels, labelled.said)
    table["reference"] = [pair.reference_text for pair in pairs]
    table["prediction"] = [pair.prediction_text for pair in pairs]
    return table


def region_table(pairs: Sequence[Pair], paragraphs: pd.DataFrame) -> pd.DataFrame:
    """A row a paragraph, with its study's id."""
    if paragraphs.empty:
        return pd.DataFrame()
    table = paragraphs.copy()
    table.insert(0, "study", [pairs[row].study for row in table.pop("row")])
    return table.sort_values(["study", "region"], kind="stable", ignore_index=True)


def _sentences(text: str) -> frozenset[str]:
    return frozenset(sentence.strip() for sentence in _SENTENCE.split(text) if sentence.strip())


def _commonest_sentence(texts: Sequence[str]) -> str:
    return commonest(Counter(sentence for text in texts for sentence in _sentences(text)))
