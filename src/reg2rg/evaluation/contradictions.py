"""Two texts on one region held against each other, sentence by sentence: what one says and the other denies or lacks.

Beyond the findings of a labeler: anything that a sentence names, with its side, place, size and extent. Plain rules,
so that everybody sees why a sentence is marked. They know words, and synonyms of the labeler's findings: any other
paraphrase without a word in common is taken for something else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from reg2rg.evaluation.labelers import finding_rules as words
from reg2rg.evaluation.labelers.keywords import SENTENCES, KeywordReader, largest_size

Kind = Literal["", "against", "extra", "missed"]

_LABELS = KeywordReader()
_ENOUGH = 0.5  # of the words of the shorter sentence
_OTHER_SIZE = 1.5  # times; readers measure the same nodule with as much between them
_STEM = 6  # letters that calcified and calcification share
_WORD = re.compile(r"[^\W\d_]+")
_DENIES = re.compile(rf"{words.DENIES_NEXT}|{words.DENIES_CLAUSE}", re.IGNORECASE)
_PSEUDO = re.compile(words.PSEUDO, re.IGNORECASE)
_NORMAL = re.compile(
    r"\b(?:normal|natural|unremarkable|clear|intact|patent|no (?:abnormal|patholog)\w*)\b", re.IGNORECASE
)
_ABNORMAL = re.compile(r"\b(?:than|above|below|not) (?:the )?normal\b", re.IGNORECASE)
_SIDES = {"right": {"right"}, "left": {"left"}, "both": {"right", "left"}, "bilateral": {"right", "left"}}
_PLACES = frozenset(("upper", "middle", "lower", "apical", "basal", "lingular", "anterior", "posterior"))
_SMALL = frozenset(("small", "minimal", "mild", "slight", "minor", "tiny", "trace", "millimetric"))
_LARGE = frozenset(("large", "massive", "severe", "marked", "extensive", "gross"))
# Words that say nothing of what a sentence is about.
_EMPTY = (
    _PLACES
    | _SMALL
    | _LARGE
    | frozenset(
        re.findall(
            r"\w+",
            """a an the of in on at to with and or is are was were has have be been there this that both no not without
            any as for by from it its which than up most largest least about approximately measuring measures measured
            diameter size sized thickness reaching detected observed seen present noted identified appearance appears
            area areas level consistent changes change bilateral right left side sided mm cm evidence findings finding
            within limits other""",
        )
    )
)
_ORGANS = frozenset(("lung", "lungs", "lobe", "lobes", "parenchyma"))  # two findings in one organ are two things


@dataclass(frozen=True, slots=True)
class Marked:
    """A sentence and what the other text makes of it.

    Attributes:
        text: the sentence.
        kind: ``"against"``, the other text says otherwise; ``"extra"``, it says nothing of it; ``"missed"``, the same
            of a sentence of the reference; ``""``, nothing to mark.
        why: what the other text says, in words.
    """

    text: str
    kind: Kind = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class _Said:
    text: str
    about: frozenset[str]
    labels: frozenset[str]
    denied: bool
    normal: bool
    sides: frozenset[str]
    places: frozenset[str]
    extent: str
    size: float | None

    @property
    def affirms(self) -> bool:
        """Whether it says that something is there that should not be."""
        return not (self.denied or self.normal)


def compare(predicted: str, reference: str) -> tuple[tuple[Marked, ...], tuple[Marked, ...]]:
    """Mark the sentences of a prediction and of its reference.

    Denials and normal statements are marked only where the other text contradicts them: silence is no contradiction.

    Args:
        predicted: what the model says of a region.
        reference: what the reference says of it; where it is empty, nothing can be told and nothing is marked.
    """
    said, known = _read(predicted), _read(reference)
    if not reference.strip():
        return tuple(Marked(one.text) for one in said), ()
    return tuple(_mark(one, known, "extra") for one in said), tuple(_mark(one, said, "missed") for one in known)


def _mark(one: _Said, others: Sequence[_Said], lone: Kind) -> Marked:
    other = "reference" if lone == "extra" else "prediction"
    near = [found for found in others if _near(one, found)]
    reasons = [_contradiction(one, found) for found in near]
    if near and all(reasons):  # another sentence that agrees settles it
        return Marked(one.text, "against", f"{reasons[0]}; the {other} says: {near[0].text}")
    if near:
        return Marked(one.text)
    if one.affirms:
        normal = next((found for found in others if found.normal), None)
        if normal is not None and not any(found.affirms for found in others):
            return Marked(one.text, "against", f"the {other} calls it normal: {normal.text}")
        return Marked(one.text, lone, f"the {other} does not say it")
    return Marked(one.text)


def _near(one: _Said, other: _Said) -> bool:
    if one.labels and other.labels:
        return bool(one.labels & other.labels)
    common, least = len(one.about & other.about), min(len(one.about), len(other.about))
    return common > 0 and common >= _ENOUGH * least


def _contradiction(one: _Said, other: _Said) -> str:
    """In what two sentences on the same thing differ, ``""`` if in nothing."""
    if one.affirms != other.affirms:
        return "denied" if one.affirms else "affirmed"
    if not one.affirms:
        return ""
    if one.sides and other.sides and one.sides != other.sides:
        return "another side"
    if one.places and other.places and not one.places & other.places:
        return "another place"
    if one.size and other.size and max(one.size, other.size) >= _OTHER_SIZE * min(one.size, other.size):
        return "another size"
    if one.extent and other.extent and one.extent != other.extent:
        return "another extent"
    return ""


def _read(text: str) -> list[_Said]:
    return [_said(part.strip()) for part in SENTENCES.split(text) if part.strip(" .\n\t")]


def _said(sentence: str) -> _Said:
    found = [word.lower() for word in _WORD.findall(sentence)]
    there: Callable[[frozenset[str]], frozenset[str]] = frozenset(found).intersection
    return _Said(
        text=sentence,
        about=_stems(found, _EMPTY | _ORGANS) or _stems(found, _EMPTY) or _stems(found, frozenset()),
        labels=frozenset(mention.label for mention in _LABELS.mentions(sentence)),
        denied=_DENIES.search(_PSEUDO.sub(" ", sentence)) is not None,
        normal=_NORMAL.search(_ABNORMAL.sub(" ", sentence)) is not None,
        sides=frozenset().union(*(_SIDES[word] for word in found if word in _SIDES)),
        places=there(_PLACES),
        extent="small" if there(_SMALL) else "large" if there(_LARGE) else "",
        size=largest_size(sentence),
    )


def _stems(found: Iterable[str], without: frozenset[str]) -> frozenset[str]:
    return frozenset(word[:_STEM] for word in found if len(word) > 2 and word not in without)
