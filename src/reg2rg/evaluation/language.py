"""Text metrics of an evaluation: which texts are compared under a protocol, and the numbers made of their scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reg2rg.evaluation.bootstrap import Array, Statistic, mean_statistic
from reg2rg.evaluation.prefixes import published_regions
from reg2rg.evaluation.protocols import Protocol
from reg2rg.evaluation.reading import Pair
from reg2rg.evaluation.results import REPORT
from reg2rg.metrics.bleu import bleu_from_counts
from reg2rg.metrics.language import LanguageScores, score_language
from reg2rg.metrics.rouge import hf_overall
from reg2rg.metrics.synonyms import SynonymSource

BLEU = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4")
ROUGE = ("ROUGE-1", "ROUGE-2", "ROUGE-L")

_BLEU_TEXT = {
    "hf": "13a tokens, one added to matches and totals of every order",
    "lin-och": "13a tokens, one added from bigrams on (Lin and Och)",
    "none": "13a tokens, no smoothing (sacreBLEU)",
}
_ROUGE_TEXT = "F of rouge_score 0.1.2 without stemmer"
_CIDER_TEXT = "CIDEr-D of pycocoevalcap on raw words, document frequencies from the scored references"


@dataclass(frozen=True, slots=True)
class Cells:
    """Text pairs of one scope.

    Attributes:
        rows: (units,) the study of each pair.
        references: their texts.
        predictions: their texts.
        dropped: pairs left out because a side is empty.
    """

    rows: NDArray[np.intp]
    references: Sequence[str]
    predictions: Sequence[str]
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Scored:
    """Statistics of texts, and the tables that they were made of.

    Attributes:
        statistics: in the order of printing.
        per_study: a row a study, indexed as the pairs.
        per_region: a row a paragraph: ``row`` of its study, ``region``, scores, texts.
        dropped: region -> pairs left out.
    """

    statistics: list[Statistic]
    per_study: pd.DataFrame
    per_region: pd.DataFrame
    dropped: Mapping[str, int]


def paragraphs(pair: Pair, protocol: Protocol, regions: Sequence[str]) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Region -> text of reference and prediction, as the protocol cuts them."""
    if pair.given and protocol.recognition == "published":
        return published_regions(pair.reference, regions), published_regions(pair.prediction, regions)
    return pair.reference_regions, pair.predicted_regions


def region_cells(pairs: Sequence[Pair], protocol: Protocol, regions: Sequence[str]) -> dict[str, Cells]:
    """Region -> its text pairs; regions that no reference describes are left out."""
    cut = [paragraphs(pair, protocol, regions) for pair in pairs]
    found = {}
    for region in regions:
        described = [row for row, (reference, _) in enumerate(cut) if reference.get(region)]
        rows = [row for row in described if protocol.missing == "empty" or cut[row][1].get(region)]
        if rows:
            found[region] = Cells(
                np.asarray(rows),
                [cut[row][0][region] for row in rows],
                [cut[row][1].get(region, "") for row in rows],
                len(described) - len(rows),
            )
    return found


def score_texts(
    pairs: Sequence[Pair],
    protocol: Protocol,
    regions: Sequence[str],
    synonyms: SynonymSource = "bundled",
    progress: Callable[[str], None] = lambda text: None,
) -> Scored:
    """Score whole reports and paragraphs.

    Args:
        pairs: what to score.
        protocol: how.
        regions: names that may occur, in the order of printing.
        synonyms: of METEOR (see `reg2rg.metrics.meteor`).
        progress: told what is being scored.
    """
    cells = region_cells(pairs, protocol, regions)
    score = partial(score_language, synonyms=synonyms)
    scores: dict[str, LanguageScores] = {}
    for region, cell in cells.items():
        progress(f"text of {len(cell.rows)} paragraphs: {region}")
        scores[region] = score(cell.references, cell.predictions)
    unit = "paragraph" if protocol.unit == "paragraph" and cells else "report"
    if unit == "paragraph":
        whole = _joined([scores[region] for region in cells])
        rows = np.concatenate([cell.rows for cell in cells.values()])
    else:
        progress(f"text of {len(pairs)} reports")
        whole = score([pair.reference_text for pair in pairs], [pair.prediction_text for pair in pairs])
        rows = np.arange(len(pairs))
    make = partial(_statistics, protocol=protocol, studies=len(pairs))
    statistics = make(REPORT, whole, rows, unit)
    for region, cell in cells.items():
        statistics += make(region, scores[region], cell.rows, "paragraph")
    return Scored(
        statistics,
        _columns(whole, protocol).groupby(rows).mean().reindex(range(len(pairs))),
        _region_table(cells, scores, protocol),
        {region: cell.dropped for region, cell in cells.items()},
    )


def _statistics(
    scope: str, scores: LanguageScores, rows: NDArray[np.intp], unit: str, *, protocol: Protocol, studies: int
) -> list[Statistic]:
    mean = partial(mean_statistic, "language", scope, rows=rows, studies=studies)
    each = f"mean over {unit}s"
    smoothing = _BLEU_TEXT[protocol.smoothing]
    found = []
    if protocol.bleu in ("each", "both"):
        bleu = bleu_from_counts(scores.bleu_counts, protocol.smoothing)
        found += [mean(name, f"{each}; {smoothing}", values=bleu[:, i]) for i, name in enumerate(BLEU)]
    found.append(mean("METEOR", f"{each}; NLTK, alpha .9, beta 3, gamma .5, WordNet 3.0", values=scores.meteor))
    found += [mean(name, f"{each}; {_ROUGE_TEXT}", values=scores.rouge[:, i]) for i, name in enumerate(ROUGE)]
    found.append(mean("CIDEr", f"{each}; {_CIDER_TEXT}", values=scores.cider))
    if protocol.bleu in ("corpus", "both"):
        units = np.zeros((studies, scores.bleu_counts.shape[1]))
        np.add.at(units, rows, scores.bleu_counts)
        text = f"counts summed over {unit}s; {smoothing}"
        found += [
            Statistic("language", scope, f"{name} (corpus)", text, units, _bleu(protocol, i), len(rows))
            for i, name in enumerate(BLEU)
        ]
    if protocol.rouge_overall:
        overall = hf_overall(scores.rouge)
        text = f"median of 1,000 resamples of {unit}s (seed 42) as published; {_ROUGE_TEXT}"
        found += [
            mean(f"{name} (overall)", text, values=scores.rouge[:, i], point=float(overall[i]))
            for i, name in enumerate(ROUGE)
        ]
    return found


def _bleu(protocol: Protocol, order: int) -> Callable[[Array], Array]:
    return lambda sums: bleu_from_counts(sums, protocol.smoothing)[..., order]


def _joined(parts: Sequence[LanguageScores]) -> LanguageScores:
    return LanguageScores(
        bleu_counts=np.concatenate([part.bleu_counts for part in parts]),
        meteor=np.concatenate([part.meteor for part in parts]),
        rouge=np.concatenate([part.rouge for part in parts]),
        cider=np.concatenate([part.cider for part in parts]),
    )


def _columns(scores: LanguageScores, protocol: Protocol) -> pd.DataFrame:
    # Per unit, plain corpus BLEU is 0 for most short texts: the table of units is for reading, so it is smoothed then.
    bleu = bleu_from_counts(scores.bleu_counts, "lin-och" if protocol.smoothing == "none" else protocol.smoothing)
    columns = {name: bleu[:, i] for i, name in enumerate(BLEU)}
    columns |= {"METEOR": scores.meteor}
    columns |= {name: scores.rouge[:, i] for i, name in enumerate(ROUGE)}
    return pd.DataFrame(columns | {"CIDEr": scores.cider})


def _region_table(cells: Mapping[str, Cells], scores: Mapping[str, LanguageScores], protocol: Protocol) -> pd.DataFrame:
    parts = []
    for region, cell in cells.items():
        part = _columns(scores[region], protocol)
        part.insert(0, "row", cell.rows)
        part.insert(1, "region", region)
        part["reference"], part["prediction"] = list(cell.references), list(cell.predictions)
        parts.append(part)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
