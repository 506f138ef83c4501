"""Tables of units: a row a study, a row a paragraph, and what the paragraphs of a region look like."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from reg2rg.evaluation.cohort import Cohort
from reg2rg.evaluation.findings import names_of
from reg2rg.evaluation.labelers import Labeler
from reg2rg.evaluation.metrics.base import Column
from reg2rg.evaluation.metrics.report_statistics import commonest_share
from reg2rg.evaluation.pairs import Pair
from reg2rg.evaluation.results import REPORT, RegionStatistics


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


def study_table(cohort: Cohort, columns: Sequence[Column]) -> pd.DataFrame:
    """A row a study: id, patient, lengths, scores, findings in words, texts."""
    pairs = cohort.pairs
    labelled = None if cohort.unread and cohort.reads_findings else cohort.labelled
    table = pd.DataFrame(
        {
            "study": [pair.study for pair in pairs],
            "patient": [pair.patient for pair in pairs],
            "words_reference": [len(pair.reference_text.split()) for pair in pairs],
            "words_predicted": [len(pair.prediction_text.split()) for pair in pairs],
            "unanswered": cohort.unanswered,
        }
    )
    for column in columns:
        if column.scope == REPORT:
            means = pd.Series(column.values).groupby(column.rows).mean()
            table[column.name] = means.reindex(range(len(pairs))).to_numpy()
    if labelled is not None:
        table["findings_reference"] = names_of(labelled.labels, labelled.truth)
        table["findings_predicted"] = names_of(labelled.labels, labelled.said)
    table["reference"] = [pair.reference_text for pair in pairs]
    table["prediction"] = [pair.prediction_text for pair in pairs]
    return table


def region_table(cohort: Cohort, columns: Sequence[Column]) -> pd.DataFrame:
    """A row a paragraph, with its study's id."""
    parts = []
    for region, cell in cohort.cells.items() if cohort.settings.by_region else ():
        part = pd.DataFrame({"study": [cohort.pairs[row].study for row in cell.rows], "region": region})
        for column in columns:
            if column.scope == region:
                part[column.name] = pd.Series(column.values, column.rows).reindex(cell.rows).to_numpy()
        part["reference"], part["prediction"] = list(cell.references), list(cell.predictions)
        parts.append(part)
    if not parts:
        return pd.DataFrame()
    table = pd.concat(parts, ignore_index=True)
    return table.sort_values(["study", "region"], kind="stable", ignore_index=True)
