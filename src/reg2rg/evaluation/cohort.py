"""Studies as a protocol sees them: which texts are compared, what labels they have, what is named where."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from reg2rg.core.text import MOSTLY_FOREIGN, foreign_share
from reg2rg.evaluation.findings import Labelled
from reg2rg.evaluation.labelers import Labeler
from reg2rg.evaluation.metrics.recognition import Recognition, recognise
from reg2rg.evaluation.metrics.synonyms import SynonymSource
from reg2rg.evaluation.metrics.tokens import character_tokens, ptb_tokens
from reg2rg.evaluation.pairs import Pair
from reg2rg.evaluation.prefixes import has_prefixes, published_regions, published_slots, strip_prefixes
from reg2rg.evaluation.protocols import PROTOCOLS, Protocol

if TYPE_CHECKING:
    from reg2rg.evaluation.metrics.base import Metric

_CLEANING = (("\n", ""), (" . ", "."), (" .", "."))
_PREDICTED_CLEANING = (("\n", ""), ("<|eot_id|>", ""), ('"', ""), ("_", ""), *_CLEANING[1:])
"""What the VLM3D challenge takes out of texts before it compares them."""
_LABELLED_AT_ONCE = 256

Progress = Callable[[str], None]
Labels = Mapping[str, NDArray[np.bool_]]
"""Study -> (L,) labels."""
Truth = Mapping[str, Mapping[str, bool]]
"""Study -> finding -> present; a finding that is not known of a study is left out."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How an evaluation runs.

    Attributes:
        protocol: how numbers are made.
        labeler: reads findings from texts; ``None`` leaves findings out, unless both label tables are given.
        reference_labels: study -> (L,) labels known otherwise; ``None``: the labeler reads the references.
        predicted_labels: the same for the predictions.
        against_labels: the same for the predictions that are compared with.
        labels: their L names; those of the labeler if there is one.
        truth: labels of the data set itself, which no text was read for; none where it has none.
        resamples: bootstrap resamples; 0 leaves intervals out.
        confidence: of the intervals.
        seed: of resamples and shuffles.
        floors: compute the floors.
        synonyms: of METEOR.
        metrics: what is computed; ``None`` for `reg2rg.evaluation.metrics.base.usual_metrics`.
        costly_floors: compute costly metrics of the floors too.
        by_region: give the numbers of text metrics and findings region by region too.
        written: further floors: name -> study -> region -> text.
    """

    protocol: Protocol = PROTOCOLS["strict"]
    labeler: Labeler | None = None
    reference_labels: Labels | None = None
    predicted_labels: Labels | None = None
    against_labels: Labels | None = None
    labels: tuple[str, ...] = ()
    truth: Truth | None = None
    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0
    floors: bool = True
    synonyms: SynonymSource = "bundled"
    metrics: tuple[Metric, ...] | None = None
    costly_floors: bool = False
    by_region: bool = True
    written: Mapping[str, Mapping[str, Mapping[str, str]]] = field(default_factory=dict)

    @property
    def label_source(self) -> str:
        """Who labels, in a word or two."""
        labeler = self.labeler.name if self.labeler is not None else ""
        sides = {
            side: "given table" if table is not None else labeler
            for side, table in (("references", self.reference_labels), ("predictions", self.predicted_labels))
        }
        if len(set(sides.values())) == 1:
            return sides["references"]
        return ", ".join(f"{name} for {side}" for side, name in sides.items())


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


@dataclass(frozen=True)
class Cohort:
    """What metrics score.

    Attributes:
        pairs: the studies.
        regions: names that may occur, in the order of printing.
        settings: how.
        progress: told what is being done.
        everything: in place of the predictions stands a reader that affirms every finding, and writes nothing.
    """

    pairs: Sequence[Pair]
    regions: Sequence[str]
    settings: Settings
    progress: Progress = lambda text: None
    everything: bool = False

    @property
    def protocol(self) -> Protocol:
        """How numbers are made."""
        return self.settings.protocol

    @cached_property
    def cells(self) -> Mapping[str, Cells]:
        """Region -> its text pairs; regions that no reference describes are left out."""
        cut = [paragraphs(pair, self.protocol, self.regions) for pair in self.pairs]
        found = {}
        for region in self.regions:
            described = [row for row, (reference, _) in enumerate(cut) if reference.get(region)]
            rows = [row for row in described if self.protocol.missing == "empty" or cut[row][1].get(region)]
            if rows:
                found[region] = Cells(
                    np.asarray(rows),
                    [cut[row][0][region] for row in rows],
                    [cut[row][1].get(region, "") for row in rows],
                    len(described) - len(rows),
                )
        return found

    @cached_property
    def foreign(self) -> float:
        """Share of the references' letters that are none of a-z, which what is made for English does not cover."""
        return foreign_share("".join({pair.reference_text for pair in self.pairs}))

    @property
    def unread(self) -> bool:
        """Whether what knows English alone says nothing of these texts."""
        return self.foreign > MOSTLY_FOREIGN

    @property
    def reads_findings(self) -> bool:
        """Whether the labels of any side are read from its texts by rules for English."""
        given = self.settings.reference_labels is not None and self.settings.predicted_labels is not None
        return self.settings.labeler is not None and self.settings.labeler.english and not given

    @cached_property
    def unit(self) -> str:
        """What a report's text is compared by: ``"paragraph"`` or ``"report"``."""
        return "paragraph" if self.protocol.unit == "paragraph" and self.cells else "report"

    @cached_property
    def compared(self) -> Mapping[str, Cells]:
        """The paragraphs whose texts are compared."""
        return self.cells if self.settings.by_region or self.unit == "paragraph" else {}

    @cached_property
    def undivided(self) -> Cells:
        """Whole texts: of all reports, or among paragraphs of those whose reference has no regions."""
        rows = [row for row, pair in enumerate(self.pairs) if self.unit == "report" or not pair.reference_regions]
        texts = [whole_texts(self.pairs[row], self.protocol) for row in rows]
        return Cells(np.asarray(rows, dtype=np.intp), [one for one, _ in texts], [other for _, other in texts])

    @cached_property
    def unanswered(self) -> NDArray[np.bool_]:
        """(n,) studies whose prediction leaves out what its reference describes."""
        if self.everything:
            return np.zeros(len(self.pairs), dtype=bool)
        return np.asarray([pair.unanswered for pair in self.pairs])

    @cached_property
    def recognition(self) -> Recognition | None:
        """What is named where; ``None`` where slots are not known, or names were not asked for."""
        return recognise(self.pairs, self.protocol, self.regions)

    @cached_property
    def labelled(self) -> Labelled | None:
        """Findings of both texts, where they are known."""
        settings, published = self.settings, self.protocol.reading == "published"
        texts = [
            whole_texts(pair, self.protocol) if published else (pair.reference_text, pair.prediction_text)
            for pair in self.pairs
        ]
        references = self._labels("references", settings.reference_labels, [one for one, _ in texts])
        if references is None:
            return None
        if self.everything:
            predictions: NDArray[np.bool_] | None = np.ones_like(references)
        else:
            predictions = self._labels("predictions", settings.predicted_labels, [other for _, other in texts])
        if predictions is None:
            return None
        names = settings.labeler.labels if settings.labeler is not None else settings.labels
        silent = self.unanswered if self.protocol.silence_is_wrong else None
        return Labelled(names, references, predictions, silent)

    def paragraph_labels(self, cell: Cells, region: str, labeler: Labeler) -> Labelled:
        """Findings of the paragraphs of one region."""
        truth = self.label(labeler, cell.references, f"findings of references: {region}")
        if self.everything:
            said, silent = np.ones_like(truth), np.zeros(len(truth), dtype=bool)
        else:
            said = self.label(labeler, cell.predictions, f"findings of predictions: {region}")
            silent = np.asarray([not text for text in cell.predictions])
        return Labelled(labeler.labels, truth, said, silent if self.protocol.silence_is_wrong else None)

    def label(self, labeler: Labeler, texts: Sequence[str], what: str) -> NDArray[np.bool_]:
        """Labels of many texts, a part at a time: a classifier may take a while. No text has no finding."""
        rows = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        found = np.zeros((len(rows), len(labeler.labels)), dtype=bool)
        written = [text for text in rows if text]
        for start in range(0, len(written), _LABELLED_AT_ONCE):
            self.progress(f"{what}: {start:,} of {len(written):,}")
            some = written[start : start + _LABELLED_AT_ONCE]
            found[[rows[text] for text in some]] = labeler.label(some)
        return found[np.array([rows[text] for text in texts], np.intp)]

    def _labels(self, side: str, table: Labels | None, texts: Sequence[str]) -> NDArray[np.bool_] | None:
        if table is not None:
            return np.stack([table[pair.study] for pair in self.pairs])
        labeler = self.settings.labeler
        return self.label(labeler, texts, f"findings of {side}") if labeler is not None else None


def paragraphs(pair: Pair, protocol: Protocol, regions: Sequence[str]) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Region -> text of reference and prediction, as the protocol cuts them."""
    if protocol.reading == "published" and published_slots(pair.reference):
        told = pair.predicted_regions if pair.nameless else published_regions(pair.prediction, regions)
        return published_regions(pair.reference, regions), told
    if not protocol.cut:
        return pair.reference_regions, pair.predicted_regions
    given, said = (
        {name: _cut(text, protocol) for name, text in texts.items()}
        for texts in (pair.reference_regions, pair.predicted_regions)
    )
    return given, said


def whole_texts(pair: Pair, protocol: Protocol) -> tuple[str, str]:
    """The whole reference and prediction that the protocol compares.

    The published scripts know no prefix without a name, which models without RRA write, and would score it as words.
    """
    if protocol.reading == "published":
        told = pair.prediction_text if pair.nameless else strip_prefixes(pair.prediction)
        return strip_prefixes(pair.reference), told
    if protocol.cut:
        return _cut(pair.reference_text, protocol), _cut(pair.prediction_text, protocol)
    if protocol.coco:
        return _cleaned(pair.reference, pair.reference_text, _CLEANING), _cleaned(
            pair.prediction, pair.prediction_text, _PREDICTED_CLEANING
        )
    return pair.reference_text, pair.prediction_text


def _cut(text: str, protocol: Protocol) -> str:
    return " ".join(ptb_tokens(text) if protocol.cut == "ptb" else character_tokens(text))


def _cleaned(raw: str, plain: str, cleaning: Sequence[tuple[str, str]]) -> str:
    text = plain if has_prefixes(raw) else raw
    for old, new in cleaning:
        text = text.replace(old, new)
    return text
