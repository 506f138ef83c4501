"""Baselines, printed as floors: what a prediction is worth that has seen no image. Every number stands beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from reg2rg.core.report import write_report
from reg2rg.evaluation.pairs import Pair

EMPTY = "empty report"
COMMONEST_REPORT = "most common report"
COMMONEST_PARAGRAPHS = "most common paragraph of each region"
SHUFFLED = "shuffled between studies"
EVERYTHING = "every finding in every study"


def baselines_of(
    pairs: Sequence[Pair],
    source: Sequence[Pair],
    regions: Sequence[str],
    seed: int,
    written: Mapping[str, Mapping[str, Mapping[str, str]]] | None = None,
) -> dict[str, list[Pair]]:
    """The pairs with predictions that a model without eyes could write.

    Args:
        pairs: what is evaluated.
        source: pairs whose references say what is common: of the training split; or `pairs` themselves, which gives
            the floors a slight head start.
        regions: names in the order of the set.
        seed: of the shuffle.
        written: further ones: name -> study -> region -> text.
    """
    found = {EMPTY: [_told(pair, "", {}, ()) for pair in pairs]}
    if any(pair.reference_text for pair in source):
        found[COMMONEST_REPORT] = _commonest_report(pairs, source)
    if any(pair.reference_regions for pair in pairs):
        found[COMMONEST_PARAGRAPHS] = _commonest_paragraphs(pairs, source, regions)
    if len({pair.patient for pair in pairs}) > 1:
        found[SHUFFLED] = shuffled(pairs, seed)
    for name, reports in (written or {}).items():
        found[name] = [_written(pair, reports.get(pair.study, {}), regions) for pair in pairs]
    return found


def shuffled(pairs: Sequence[Pair], seed: int) -> list[Pair]:
    """Each study with the prediction of another, where possible of another patient."""
    places = givers([pair.study for pair in pairs], [pair.patient for pair in pairs], seed)
    return [_given(pair, pairs[place]) for pair, place in zip(pairs, places, strict=True)]


def _given(pair: Pair, giver: Pair) -> Pair:
    """The pair with the prediction of another study."""
    return _with(
        pair,
        giver.prediction,
        giver.prediction_text,
        giver.predicted_regions,
        giver.named,
        (*giver.surplus, *(name for name in giver.named[len(pair.given) :] if name)),
        giver.nameless,
    )


def _with(
    pair: Pair,
    prediction: str,
    text: str,
    regions: Mapping[str, str],
    named: tuple[str, ...],
    surplus: tuple[str, ...] = (),
    nameless: bool = False,
) -> Pair:
    """The pair with another prediction; `dataclasses.replace` takes four times as long, for hundreds of thousands."""
    return Pair(
        pair.study,
        pair.patient,
        pair.reference,
        prediction,
        pair.reference_text,
        text,
        pair.reference_regions,
        regions,
        pair.given,
        _fitting(named, len(pair.given)),
        surplus,
        nameless,
    )


def _commonest_report(pairs: Sequence[Pair], source: Sequence[Pair]) -> list[Pair]:
    text = commonest(pair.reference_text for pair in source)
    chosen = min((pair for pair in source if pair.reference_text == text), key=lambda pair: pair.reference)
    said = replace(
        chosen,
        prediction=chosen.reference,
        prediction_text=text,
        predicted_regions=chosen.reference_regions,
        named=chosen.given,
        surplus=(),
        nameless=False,
    )
    return [_given(pair, said) for pair in pairs]


def _commonest_paragraphs(pairs: Sequence[Pair], source: Sequence[Pair], regions: Sequence[str]) -> list[Pair]:
    common = commonest_by_region(pair.reference_regions for pair in source)
    found = []
    for pair in pairs:
        # One fixed order: such a model knows which regions there are, not which stands where.
        named = tuple(sorted(pair.given)) or tuple(name for name in regions if name in pair.reference_regions)
        texts = {name: common.get(name, "") for name in named}
        whole = write_report(named, list(texts.values())) if pair.given else " ".join(texts.values())
        found.append(_told(pair, whole, texts, tuple(sorted(pair.given))))
    return found


def _written(pair: Pair, texts: Mapping[str, str], regions: Sequence[str]) -> Pair:
    """The pair with a report in the slot order of the prompt; where slots are not known, in that of the set."""
    named = tuple(name for name in pair.given or regions if name in texts)
    own = {name: texts[name] for name in named}
    whole = write_report(named, list(own.values())) if pair.given else " ".join(own.values())
    return _told(pair, whole, own, tuple(name if name in texts else "" for name in pair.given))


def _told(pair: Pair, prediction: str, regions: Mapping[str, str], named: tuple[str, ...]) -> Pair:
    texts = {name: text for name, text in regions.items() if text}
    return _with(pair, prediction, " ".join(texts.values()), texts, named)


def _fitting(named: tuple[str, ...], slots: int) -> tuple[str, ...]:
    if len(named) == slots:
        return named
    return (*named[:slots], *("" for _ in range(slots - len(named))))


def commonest(texts: Iterable[str] | Counter[str]) -> str:
    """The text that comes most often; of several the first in alphabetical order. "" of none."""
    times = texts if isinstance(texts, Counter) else Counter(texts)
    return min(times, key=lambda text: (-times[text], text), default="")


def commonest_by_region(reports: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Region -> the text that describes it most often.

    Args:
        reports: region -> text of each; empty texts do not count.
    """
    texts: dict[str, list[str]] = {}
    for report in reports:
        for region, text in report.items():
            if text:
                texts.setdefault(region, []).append(text)
    return {region: commonest(found) for region, found in texts.items()}


def givers(studies: Sequence[str], patients: Sequence[str], seed: int) -> list[int]:
    """For each study the place of the one whose report it gets: a ring of all of them, so that none keeps its own.

    Args:
        studies: their ids; the ring depends on these and not on their order.
        patients: whose each is: where possible no study gets a report of its own patient.
        seed: of the ring's order.
    """
    order = sorted(range(len(studies)), key=lambda place: studies[place])
    order = [order[place] for place in np.random.default_rng(seed).permutation(len(order))]
    giver = dict(zip(order, np.roll(order, 1).tolist(), strict=True))
    for one in order:  # two studies of a patient look alike: swap with another's
        own = patients[one]
        if own == patients[giver[one]]:
            other = next((k for k in order if patients[k] != own and patients[giver[k]] != own), None)
            if other is not None:
                giver[one], giver[other] = giver[other], giver[one]
    return [giver[place] for place in range(len(studies))]
