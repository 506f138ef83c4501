"""Another program's placing of sentences by way of files, sentences out, regions in: for a language model of one's own.

Out: a JSON object a line, ``{"id": "007", "sentences": ["Clear lungs.", "..."], "regions": null}``. In: the same with a
list of regions for each sentence, ``"regions": [["lung"], []]``; a list that is empty stands for no region. Sentences
are compared as they come back: none may be lost, invented or altered.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from reg2rg.core.documents import DocumentError, parse_json
from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.regions import RegionSet
from reg2rg.core.types import PathText
from reg2rg.datasets.splitters.base import SPLITTERS, Placement, Splitter
from reg2rg.datasets.tables import broken_rows, read_lines

_FIX = "correct these lines, or delete them and ask again"


@SPLITTERS.register
class AnsweredSplitter(Splitter):
    """Takes places from a file of answers to what ``reg2rg data split --ask`` wrote.

    An answer belongs to the sentences that it repeats, whichever study they stand in.

    Args:
        answers: JSON lines, each with ``sentences`` and ``regions``, a list of lists; others keys are not looked at,
            but for ``reasons``, a text a sentence.

    Raises:
        DataFault: ``TABLE_MISSING``, ``TABLE_ENCODING``; ``TABLE_ROWS`` for lines that are no answer, by number.
    """

    def __init__(self, answers: PathText) -> None:
        self.answers = Path(answers)
        self._places = read_answers(self.answers)

    def knows(self, sentences: Sequence[str]) -> bool:
        """Whether there is an answer for these sentences."""
        return tuple(sentences) in self._places

    def place(self, sentences: Sequence[str], regions: RegionSet) -> list[Placement]:
        """The answer for these sentences; any spelling that the region set knows is understood.

        Raises:
            DataFault: ``SPLIT_MISSING``: there is none. ``SPLIT``: it names a region that the set does not have.
        """
        if not sentences:
            return []
        found = self._places.get(tuple(sentences))
        if found is None:
            raise DataFault.of(
                "SPLIT_MISSING",
                path=self.answers,
                found=f"no answer for the {len(sentences)} sentences that begin {sentences[0][:60]!r}",
                expected="a line with exactly these sentences",
                fix="`reg2rg data split --ask FILE` writes what is not answered; each answer repeats its sentences",
            )
        try:
            return [Placement(_canonical(place.regions, regions), place.reason) for place in found]
        except ConfigError as error:
            raise DataFault.of(
                "SPLIT", path=self.answers, found=str(error), expected="regions of the set", fix="correct the answer"
            ) from None


def _canonical(names: Iterable[str], regions: RegionSet) -> tuple[str, ...]:
    named = {regions.canonical(name) for name in names}
    return tuple(name for name in regions.names if name in named)


def read_answers(path: Path, *, torn: bool = False) -> dict[tuple[str, ...], tuple[Placement, ...]]:
    """Sentences of a report -> where each belongs.

    Args:
        path: JSON lines.
        torn: the last line may be cut short: it was being written when its program was killed.

    Raises:
        DataFault: as `AnsweredSplitter`.
    """
    found: dict[tuple[str, ...], tuple[Placement, ...]] = {}
    lines = list(read_lines(path))
    wrong = []
    for place, (number, line) in enumerate(lines, start=1):
        try:
            sentences, places = _answer(line, f"line {number}")
        except (DocumentError, ValueError) as error:
            if not (torn and place == len(lines)):
                wrong.append(f"line {number}: {str(error).partition(' Fix: ')[0]}")
            continue
        if found.setdefault(sentences, places) != places:
            wrong.append(f"line {number}: another answer to the same sentences as before")
    if wrong:
        expected = '"sentences", a list of texts, and "regions", a list of regions for each of them'
        raise broken_rows(path, wrong, expected, _FIX)
    return found


def _answer(line: str, where: str) -> tuple[tuple[str, ...], tuple[Placement, ...]]:
    value = parse_json(line, where)
    if not isinstance(value, dict):
        raise ValueError("no object")
    sentences, regions = value.get("sentences") or [], value.get("regions")
    if not _texts(sentences):
        raise ValueError("'sentences' is no list of texts")
    if not isinstance(regions, list) or not all(map(_texts, regions)):
        raise ValueError("'regions' is no list of lists of names")
    if len(regions) != len(sentences):
        raise ValueError(f"{len(regions)} lists of regions for {len(sentences)} sentences")
    reasons = value.get("reasons") or ["answered"] * len(sentences)
    if not _texts(reasons) or len(reasons) != len(sentences):
        raise ValueError("'reasons' is no text for each sentence")
    places = (Placement(tuple(names), reason) for names, reason in zip(regions, reasons, strict=True))
    return tuple(sentences), tuple(places)


def _texts(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def answer_line(study: str, sentences: Sequence[str], places: Sequence[Placement] | None, **more: Any) -> str:
    """A line of the exchange: a question, or an answer.

    Args:
        study: its id, for people.
        sentences: of its report.
        places: where they belong; ``None`` for a question.
        more: further keys, for whoever answers.
    """
    value: Mapping[str, Any] = {
        "id": study,
        **more,
        "sentences": list(sentences),
        "regions": None if places is None else [list(place.regions) for place in places],
        **({} if places is None else {"reasons": [place.reason for place in places]}),
    }
    return json.dumps(value, ensure_ascii=False) + "\n"
