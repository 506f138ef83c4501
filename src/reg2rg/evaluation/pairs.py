"""A study's reference beside its prediction: whole texts, texts by region, and which region stands where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from reg2rg.core.regions import RegionSet
from reg2rg.core.report import OTHER, write_report, write_tail
from reg2rg.evaluation.prefixes import (
    clean_regions,
    given_slots,
    has_prefixes,
    named_regions,
    other_regions,
    own_report,
    own_slots,
    plain_text,
)

REPEATED = "(repeated name)"
"""Stands for the region that a slot names where another slot has named it before."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A study's reference and prediction.

    Attributes:
        study: its id.
        patient: whose it is; resampling draws patients.
        reference: text as read.
        prediction: text as read.
        reference_text: without region prefixes.
        prediction_text: without region prefixes.
        reference_regions: region -> text that is not empty.
        predicted_regions: the same for the prediction, strictly read.
        given: the region at each slot; empty if no slots are known.
        named: the region that the prediction names at each slot: ``""`` for none, `REPEATED`, or raw words for an
            unknown one.
        surplus: further names in the prediction: of repeated regions, of slots that come again or were not given.
        nameless: the prediction has prefixes, and none names a region: its model was not asked to.
        forced: the names in the prediction were given to the decoder: they recognise nothing.
    """

    study: str
    patient: str
    reference: str
    prediction: str
    reference_text: str
    prediction_text: str
    reference_regions: Mapping[str, str] = field(default_factory=dict)
    predicted_regions: Mapping[str, str] = field(default_factory=dict)
    given: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    surplus: tuple[str, ...] = ()
    nameless: bool = False
    forced: bool = False

    @property
    def unanswered(self) -> bool:
        """Whether the prediction leaves out what its reference describes: everything, or a region."""
        return not self.prediction_text or any(
            region not in self.predicted_regions for region in self.reference_regions
        )

    @property
    def paragraph_text(self) -> str:
        """The predicted paragraphs that belong to a region; the whole text where no slots are known."""
        return " ".join(self.predicted_regions.values()) if self.given else self.prediction_text


def chose_no_names(pairs: Sequence[Pair]) -> bool:
    """Whether predictions were asked for no names of regions."""
    return any(pair.nameless for pair in pairs) and all(pair.nameless or not pair.prediction for pair in pairs)


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a pair as a file gives it.

    Attributes:
        whole: text of the whole report, with or without prefixes; "" if it is given by region only.
        regions: region -> text where the file has a row or file a region.
        given: the region at each slot of the prompt, where the file says so.
        other: text of no region, of those whose regions are known.
        forced: the names of regions in it were given to the decoder.
    """

    whole: str = ""
    regions: Mapping[str, str] = field(default_factory=dict)
    given: tuple[str, ...] = ()
    other: str = ""
    forced: bool = False

    @classmethod
    def of_paragraphs(cls, given: Sequence[str], texts: Sequence[str], others: Mapping[str, str] | None = None) -> Self:
        """The side whose paragraphs are known.

        Args:
            given: the region at each slot.
            texts: their texts, ``""`` for a region without one; without regions the whole report alone.
            others: texts of a tail by region, and of no region; ``None`` for a report without one.
        """
        if not given:
            return cls(texts[0])
        folded = {region: " ".join(text.split()) for region, text in zip(given, texts, strict=True)}
        if others is None:
            return cls(write_report(given, texts), folded, tuple(given))
        words = {key: " ".join(text.split()) for key, text in others.items()}
        other = words.pop(OTHER, "")
        return cls(write_report(given, texts) + write_tail(others), folded | words, tuple(given), other)

    def text(self, regions: RegionSet) -> str:
        """All of it as one text, regions in the order of the set."""
        return self.whole or " ".join(text for name in regions.names if (text := self.regions.get(name)))

    def plain(self, regions: RegionSet) -> str:
        """The same without prefixes."""
        if self.given and self.regions:  # what the paragraphs are is known: nothing is read
            return " ".join(text for text in (*self.regions.values(), self.other) if text)
        return plain_text(self.text(regions))

    @property
    def by_region(self) -> bool:
        """Whether it says what belongs to which region."""
        return bool(self.regions) or has_prefixes(self.whole)


def whole_pair(study: str, patient: str, reference: Side, prediction: Side, regions: RegionSet) -> Pair:
    """A pair of whole reports, in whatever form they come."""
    return Pair(
        study,
        patient,
        reference.text(regions),
        prediction.text(regions),
        reference.plain(regions),
        prediction.plain(regions),
        forced=prediction.forced,
    )


def pair_texts(
    study: str, patient: str, reference: str, prediction: str, regions: RegionSet, given: tuple[str, ...] | None = None
) -> Pair:
    """A pair from texts that may have region prefixes.

    Args:
        study: its id.
        patient: whose it is.
        reference: text as written.
        prediction: text as generated.
        regions: whose spellings are understood.
        given: the region at each slot; read from the reference if ``None``.
    """
    return pair_sides(study, patient, Side(reference, given=given or ()), Side(prediction), regions)


def pair_sides(study: str, patient: str, reference: Side, prediction: Side, regions: RegionSet) -> Pair:
    """A pair from sides in any form: whole, with prefixes, or by region.

    Regions are known if the reference says them. Where the prediction does not, it answers none of them.
    """
    pair = whole_pair(study, patient, reference, prediction, regions)
    given = reference.given or prediction.given
    numbers: Sequence[int] | None = None
    if not given:
        slots = given_slots(reference.whole, regions)
        given, numbers = tuple(slots.values()), tuple(slots)
    described = clean_regions(reference.regions)
    if not described and given:
        own = own_report(reference.whole, given, regions, numbers).by_region()
        described = clean_regions(own) | other_regions(reference.whole, regions)
    elif not described:
        described = clean_regions(named_regions(reference.whole, regions, join=True))
    if prediction.regions:
        return replace(pair, reference_regions=described, predicted_regions=clean_regions(prediction.regions))
    if not given:
        told = clean_regions(named_regions(prediction.whole, regions)) if described else {}
        return replace(pair, reference_regions=described, predicted_regions=told)
    return _with_slots(replace(pair, reference_regions=described), prediction.whole, given, regions, numbers)


def _with_slots(
    pair: Pair, prediction: str, given: tuple[str, ...], regions: RegionSet, numbers: Sequence[int] | None
) -> Pair:
    report, slots = own_report(prediction, given, regions, numbers), own_slots(prediction, regions, numbers)
    told = other_regions(prediction, regions) | report.by_region()
    valid = {paragraph.slot: paragraph.region for paragraph in report.paragraphs}
    nameless = bool(slots) and not any(slot.region for slot in slots)
    named, surplus = dict(valid), []
    left = list(valid.items())
    for slot in slots:
        claim = (slot.number, slot.region)
        if not slot.region:
            continue
        if claim in left:  # the paragraph that counts
            left.remove(claim)
        elif slot.number in named or slot.number >= len(given):
            surplus.append(slot.region)
        elif slot.region in valid.values():
            named[slot.number] = REPEATED
            surplus.append(slot.region)
        else:
            named[slot.number] = slot.region
    return replace(
        pair,
        predicted_regions=clean_regions(told),
        given=given,
        named=tuple(named.get(slot, "") for slot in range(len(given))),
        surplus=tuple(surplus),
        nameless=nameless,
    )
