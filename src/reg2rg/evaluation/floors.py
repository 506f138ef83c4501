"""Floors: what a prediction is worth that has seen no image. Every number stands beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from reg2rg.evaluation.reading import Pair
from reg2rg.report import write_report

EMPTY = "empty report"
COMMONEST_REPORT = "most common report"
COMMONEST_PARAGRAPHS = "most common paragraph of each region"
SHUFFLED = "shuffled between studies"
EVERYTHING = "every finding in every study"


def floors_of(
    pairs: Sequence[Pair], source: Sequence[Pair], regions: Sequence[str], seed: int
) -> dict[str, list[Pair]]:
    """The pairs with predictions that a model without eyes could write.

    Args:
        pairs: what is evaluated.
        source: pairs whose references say what is common: of the training split; or `pairs` themselves, which gives
            the floors a slight head start.
        regions: names in the order of the set.
        seed: of the shuffle.
    """
    found = {EMPTY: [_told(pair, "", {}, ()) for pair in pairs]}
    found[COMMONEST_REPORT] = _commonest_report(pairs, source)
    if any(pair.reference_regions for pair in pairs):
        found[COMMONEST_PARAGRAPHS] = _commonest_paragraphs(pairs, source, regions)
    if len({pair.patient for pair in pairs}) > 1:
        found[SHUFFLED] = shuffled(pairs, seed)
    return found


def shuffled(pairs: Sequence[Pair], seed: int) -> list[Pair]:
    """Each study with the prediction of another, where possible of another patient."""
    by_name = sorted(range(len(pairs)), key=lambda row: pairs[row].study)  # the file's order must not matter
    order = [by_name[place] for place in np.random.default_rng(seed).permutation(len(pairs))]
    giver = dict(zip(order, np.roll(order, 1), strict=True))
    for one in order:  # two studies of a patient look alike: hand on the next one's
        if pairs[one].patient == pairs[giver[one]].patient:
            other = next(
                (
                    k
                    for k in order
                    if pairs[k].patient != pairs[one].patient and pairs[giver[k]].patient != pairs[one].patient
                ),
                None,
            )
            if other is not None:
                giver[one], giver[other] = giver[other], giver[one]
    return [
        replace(
            pair,
            prediction=pairs[giver[row]].prediction,
            prediction_text=pairs[giver[row]].prediction_text,
            predicted_regions=pairs[giver[row]].predicted_regions,
            named=_fitting(pairs[giver[row]].named, len(pair.given)),
        )
        for row, pair in enumerate(pairs)
    ]


def _commonest_report(pairs: Sequence[Pair], source: Sequence[Pair]) -> list[Pair]:
    times = Counter(pair.reference_text for pair in source)
    chosen = min(source, key=lambda pair: (-times[pair.reference_text], pair.reference_text))
    return [
        replace(
            pair,
            prediction=chosen.reference,
            prediction_text=chosen.reference_text,
            predicted_regions=chosen.reference_regions,
            named=_fitting(chosen.given, len(pair.given)),
        )
        for pair in pairs
    ]


def _commonest_paragraphs(pairs: Sequence[Pair], source: Sequence[Pair], regions: Sequence[str]) -> list[Pair]:
    times: dict[str, Counter[str]] = {}
    for pair in source:
        for region, text in pair.reference_regions.items():
            times.setdefault(region, Counter())[text] += 1
    commonest = {name: min(count, key=lambda text: (-count[text], text)) for name, count in times.items()}
    found = []
    for pair in pairs:
        # One fixed order: such a model knows which regions there are, not which stands where.
        named = tuple(sorted(pair.given)) or tuple(name for name in regions if name in pair.reference_regions)
        texts = {name: commonest.get(name, "") for name in named}
        whole = write_report(named, list(texts.values())) if pair.given else " ".join(texts.values())
        found.append(_told(pair, whole, texts, tuple(sorted(pair.given))))
    return found


def _told(pair: Pair, prediction: str, regions: Mapping[str, str], named: tuple[str, ...]) -> Pair:
    return replace(
        pair,
        prediction=prediction,
        prediction_text=" ".join(text for text in regions.values() if text),
        predicted_regions={name: text for name, text in regions.items() if text},
        named=_fitting(named, len(pair.given)),
    )


def _fitting(named: tuple[str, ...], slots: int) -> tuple[str, ...]:
    return (*named[:slots], *("" for _ in range(slots - len(named))))
