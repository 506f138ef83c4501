"""Text metrics of an evaluation: which texts are compared under a protocol, and the numbers made of their scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reg2rg.evaluation.bootstrap import Array, Statistic, mean_statistic, summed
from reg2rg.evaluation.metrics.bleu import bleu_from_counts
from reg2rg.evaluation.metrics.rouge import coco_rouge_l, hf_overall
from reg2rg.evaluation.metrics.synonyms import SynonymSource
from reg2rg.evaluation.metrics.text import LanguageScores, score_language
from reg2rg.evaluation.pairs import Pair
from reg2rg.evaluation.prefixes import has_prefixes, published_regions, published_slots, strip_prefixes
from reg2rg.evaluation.protocols import Protocol
from reg2rg.evaluation.results import REPORT

BLEU = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4")
ROUGE = ("ROUGE-1", "ROUGE-2", "ROUGE-L")

_BLEU_TEXT = {
    "hf": "13a tokens, one added to matches and totals of every order",
    "lin-och": "13a tokens, one added from bigrams on (Lin and Och)",
    "none": "13a tokens, no smoothing (sacreBLEU)",
}
_COCO_BLEU_TEXT = "white-space words, no smoothing (pycocoevalcap)"
_ROUGE_TEXT = "F of rouge_score 0.1.2 without stemmer"
_COCO_ROUGE_TEXT = "F with beta 1.2 of pycocoevalcap on white-space words"
_CIDER_TEXT = "CIDEr-D of pycocoevalcap on raw words, document frequencies from the scored references"
_METEOR_TEXT = "NLTK, alpha .9, beta 3, gamma .5"
_CLEANING = (("\n", ""), (" . ", "."), (" .", "."))
_PREDICTED_CLEANING = (("\n", ""), ("<|eot_id|>", ""), ('"', ""), ("_", ""), *_CLEANING[1:])
"""What the VLM3D challenge takes out of texts before it compares them."""


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
    if protocol.reading == "published" and published_slots(pair.reference):
        told = pair.predicted_regions if pair.nameless else published_regions(pair.prediction, regions)
        return published_regions(pair.reference, regions), told
    return pair.reference_regions, pair.predicted_regions


def whole_texts(pair: Pair, protocol: Protocol) -> tuple[str, str]:
    """The whole reference and prediction that the protocol compares.

    The published scripts know no prefix without a name, which models without RRA write, and would score it as words.
    """
    if protocol.reading == "published":
        told = pair.prediction_text if pair.nameless else strip_prefixes(pair.prediction)
        return strip_prefixes(pair.reference), told
    if protocol.coco:
        return _cleaned(pair.reference, pair.reference_text, _CLEANING), _cleaned(
            pair.prediction, pair.prediction_text, _PREDICTED_CLEANING
        )
    return pair.reference_text, pair.prediction_text


def _cleaned(raw: str, plain: str, cleaning: Sequence[tuple[str, str]]) -> str:
    text = plain if has_prefixes(raw) else raw
    for old, new in cleaning:
        text = text.replace(old, new)
    return text


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
        synonyms: of METEOR (see `reg2rg.evaluation.metrics.meteor`).
        progress: told what is being scored.
    """
    cells = region_cells(pairs, protocol, regions)
    score = partial(_score, protocol=protocol, synonyms=synonyms)
    scores: dict[str, LanguageScores] = {}
    for region, cell in cells.items():
        progress(f"text of {len(cell.rows):,} paragraphs: {region}")
        scores[region] = score(cell.references, cell.predictions)
    unit = "paragraph" if protocol.unit == "paragraph" and cells else "report"
    if unit == "paragraph":
        parts, places = [scores[region] for region in cells], [cell.rows for cell in cells.values()]
        undivided = [row for row, pair in enumerate(pairs) if not pair.reference_regions]
        if undivided:  # a reference without regions among others counts as one paragraph
            texts = [whole_texts(pairs[row], protocol) for row in undivided]
            parts.append(score([reference for reference, _ in texts], [prediction for _, prediction in texts]))
            places.append(np.asarray(undivided))
        whole, rows = _joined(parts), np.concatenate(places)
    else:
        progress(f"text of {len(pairs):,} reports")
        texts = [whole_texts(pair, protocol) for pair in pairs]
        whole = score([reference for reference, _ in texts], [prediction for _, prediction in texts])
        rows = np.arange(len(pairs))
    make = partial(_statistics, protocol=protocol, synonyms=synonyms, studies=len(pairs))
    statistics = make(REPORT, whole, rows, unit)
    for region, cell in cells.items():
        statistics += make(region, scores[region], cell.rows, "paragraph")
    return Scored(
        statistics,
        _columns(whole, protocol, synonyms).groupby(rows).mean().reindex(range(len(pairs))),
        _region_table(cells, scores, protocol, synonyms),
        {region: cell.dropped for region, cell in cells.items()},
    )


def _score(
    references: Sequence[str], predictions: Sequence[str], *, protocol: Protocol, synonyms: SynonymSource
) -> LanguageScores:
    scores = score_language(references, predictions, synonyms=synonyms, tokens="words" if protocol.coco else "13a")
    if not protocol.coco:
        return scores
    return replace(scores, rouge=coco_rouge_l(references, predictions)[:, None])


def meteor_name(protocol: Protocol, synonyms: SynonymSource) -> str:
    """What METEOR is called: without synonyms, and beside the Java program's, it is another metric."""
    name = "METEOR" if synonyms is not None else "METEOR-es"
    return f"{name} (NLTK)" if protocol.coco else name


def _meteor_text(synonyms: SynonymSource) -> str:
    if synonyms is None:
        return f"{_METEOR_TEXT}, equal words and equal stems only, no synonyms"
    source = {"bundled": "synonyms of WordNet 3.0", "nltk": "synonyms of NLTK's own WordNet"}.get(str(synonyms))
    return f"{_METEOR_TEXT}, {source or f'synonyms of {Path(str(synonyms)).name}'}"


def _rouge_names(protocol: Protocol) -> tuple[str, ...]:
    return ROUGE[2:] if protocol.coco else ROUGE


def _statistics(
    scope: str,
    scores: LanguageScores,
    rows: NDArray[np.intp],
    unit: str,
    *,
    protocol: Protocol,
    synonyms: SynonymSource,
    studies: int,
) -> list[Statistic]:
    mean = partial(mean_statistic, "language", scope, rows=rows, studies=studies)
    each = f"mean over {unit}s"
    smoothing = _COCO_BLEU_TEXT if protocol.coco else _BLEU_TEXT[protocol.smoothing]
    found = []
    if protocol.bleu in ("each", "both"):
        bleu = bleu_from_counts(scores.bleu_counts, protocol.smoothing)
        found += [mean(name, f"{each}; {smoothing}", values=bleu[:, i]) for i, name in enumerate(BLEU)]
    found.append(mean(meteor_name(protocol, synonyms), f"{each}; {_meteor_text(synonyms)}", values=scores.meteor))
    rouge_text = _COCO_ROUGE_TEXT if protocol.coco else _ROUGE_TEXT
    found += [
        mean(name, f"{each}; {rouge_text}", values=scores.rouge[:, i]) for i, name in enumerate(_rouge_names(protocol))
    ]
    found.append(mean(protocol.cider, f"{each}; {_CIDER_TEXT}", values=scores.cider))
    if protocol.bleu in ("corpus", "both"):
        units = summed(rows, scores.bleu_counts, studies)
        corpus = partial(Statistic, "language", scope, units=units, n=len(rows))
        text = f"counts summed over {unit}s; {smoothing}"
        found += [
            corpus(name=f"{name} (corpus)", definition=text, value=_bleu(protocol, i)) for i, name in enumerate(BLEU)
        ]
        if protocol.coco:
            text = f"mean of BLEU-1 to BLEU-4; {text}"
            found.append(corpus(name="BLEU mean (corpus)", definition=text, value=_bleu_mean(protocol)))
    if protocol.rouge_overall:
        overall = hf_overall(scores.rouge)
        text = f"median of 1,000 resamples of {unit}s (seed 42) as published; {rouge_text}"
        found += [
            mean(f"{name} (overall)", text, values=scores.rouge[:, i], point=float(overall[i]))
            for i, name in enumerate(ROUGE)
        ]
    return found


def _bleu(protocol: Protocol, order: int) -> Callable[[Array], Array]:
    return lambda sums: bleu_from_counts(sums, protocol.smoothing)[..., order]


def _bleu_mean(protocol: Protocol) -> Callable[[Array], Array]:
    return lambda sums: bleu_from_counts(sums, protocol.smoothing).mean(axis=-1)


def _joined(parts: Sequence[LanguageScores]) -> LanguageScores:
    return LanguageScores(
        bleu_counts=np.concatenate([part.bleu_counts for part in parts]),
        meteor=np.concatenate([part.meteor for part in parts]),
        rouge=np.concatenate([part.rouge for part in parts]),
        cider=np.concatenate([part.cider for part in parts]),
    )


def _columns(scores: LanguageScores, protocol: Protocol, synonyms: SynonymSource) -> pd.DataFrame:
    # Per unit, plain corpus BLEU is 0 for most short texts: the table of units is for reading, so it is smoothed then.
    plain = protocol.smoothing == "none"
    bleu = bleu_from_counts(scores.bleu_counts, "lin-och" if plain else protocol.smoothing)
    columns = {f"{name} (smoothed)" if plain else name: bleu[:, i] for i, name in enumerate(BLEU)}
    columns |= {meteor_name(protocol, synonyms): scores.meteor}
    columns |= {name: scores.rouge[:, i] for i, name in enumerate(_rouge_names(protocol))}
    return pd.DataFrame(columns | {protocol.cider: scores.cider})


def _region_table(
    cells: Mapping[str, Cells], scores: Mapping[str, LanguageScores], protocol: Protocol, synonyms: SynonymSource
) -> pd.DataFrame:
    parts = []
    for region, cell in cells.items():
        part = _columns(scores[region], protocol, synonyms)
        part.insert(0, "row", cell.rows)
        part.insert(1, "region", region)
        part["reference"], part["prediction"] = list(cell.references), list(cell.predictions)
        parts.append(part)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
