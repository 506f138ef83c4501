"""Words of a language -> regions of a set: the vocabulary that `RuleSplitter` goes by, a YAML file.

Keys of a file: ``language`` (``en`` or ``zh``), ``base`` (vocabularies whose entries come too; one's own win),
``neutral`` (phrases that are not looked at), ``landmarks`` (a word behind one of these is a landmark), ``anatomy``
(region -> words), ``conventions`` (words and the regions they stand for), ``over`` (region -> regions that are no more
than its place) and ``findings`` (words and the regions they may belong to, the likeliest first). Or ``each_of`` alone:
vocabularies that each place a sentence by themselves, whose regions are put together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from reg2rg.core.documents import parse_yaml, read_text
from reg2rg.core.errors import ConfigError
from reg2rg.core.registry import did_you_mean

Language = Literal["en", "zh"]
Kind = Literal["anatomy", "finding", "landmark"]
_KEYS = ("language", "base", "each_of", "neutral", "landmarks", "anatomy", "conventions", "over", "findings")
_GROUPED: tuple[tuple[str, Literal["anatomy", "finding"]], ...] = (("conventions", "anatomy"), ("findings", "finding"))
_GAP = r"[\s\-]+"
_LOOK_BACK = 60
_CACHED = 50_000


@dataclass(frozen=True, slots=True)
class Match:
    """A word of the vocabulary in a sentence.

    Attributes:
        word: as the sentence has it.
        kind: of entry; ``"landmark"`` for anatomy that is one here.
        regions: those of the entry.
    """

    word: str
    kind: Kind
    regions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    word: str
    kind: Kind
    regions: tuple[str, ...]


class Vocabulary:
    """A vocabulary, ready to search.

    Args:
        name: for messages.
        language: of its words; Chinese words need no space around them.
        entries: words with their regions.
        neutral: phrases that are not looked at.
        landmarks: words that make what follows a landmark.
        over: region -> regions that are no more than its place beside it.
        each_of: vocabularies in place of entries.

    Attributes:
        parts: the vocabularies that place a sentence, each by itself.
    """

    def __init__(
        self,
        name: str,
        language: Language,
        entries: tuple[_Entry, ...],
        neutral: tuple[str, ...] = (),
        landmarks: tuple[str, ...] = (),
        over: Mapping[str, tuple[str, ...]] | None = None,
        each_of: tuple[Vocabulary, ...] = (),
    ) -> None:
        self.name, self.language, self.over = name, language, dict(over or {})
        self.parts: tuple[Vocabulary, ...] = each_of or (self,)
        self._given = entries, neutral, landmarks
        self._entries = tuple(sorted(entries, key=lambda entry: -len(entry.word)))  # the longest that fits counts
        self._search = self._any([f"({self._pattern(entry.word)})" for entry in self._entries])
        self._neutral = self._any([self._pattern(phrase) for phrase in sorted(neutral, key=len, reverse=True)])
        before = "|".join(_GAP.join(map(re.escape, phrase.split())) for phrase in landmarks)
        behind = r"\S{0,2}$" if language == "zh" else r"(?:\s+(?:the|a|an|both|its|their))?(?:\s+\w+){0,2}\s+$"
        edge = "" if language == "zh" else r"\b"
        self._landmark = re.compile(rf"{edge}(?:{before}){behind}" if before else r"(?!)", re.IGNORECASE)
        self._known: dict[str, tuple[Match, ...]] = {}

    @property
    def regions(self) -> frozenset[str]:
        """All regions that it names."""
        if self.parts != (self,):
            return frozenset().union(*(part.regions for part in self.parts))
        return frozenset(region for entry in self._entries for region in entry.regions)

    def matches(self, sentence: str) -> tuple[Match, ...]:
        """Words of the vocabulary in a sentence, from left to right; of those that overlap the longest."""
        known = self._known.get(sentence)
        if known is None:
            if len(self._known) >= _CACHED:
                self._known.clear()
            known = self._known[sentence] = tuple(self._found(sentence))
        return known

    def joined(self, other: Vocabulary) -> Vocabulary:
        """This one with the entries of another."""
        (entries, neutral, landmarks), (more, others, further) = self._given, other._given
        over = {**other.over, **self.over}
        return Vocabulary(self.name, self.language, entries + more, neutral + others, landmarks + further, over)

    def _found(self, sentence: str) -> Iterator[Match]:
        told = self._neutral.sub(lambda found: "_" * len(found[0]), sentence)
        for found in self._search.finditer(told):
            entry = self._entries[(found.lastindex or 1) - 1]
            before = told[max(0, found.start() - _LOOK_BACK) : found.start()]
            landmark = entry.kind == "anatomy" and self._landmark.search(before) is not None
            yield Match(found[0], "landmark" if landmark else entry.kind, entry.regions)

    def _any(self, patterns: list[str]) -> re.Pattern[str]:
        edge = "" if self.language == "zh" else r"\b"  # once for all: nothing is tried inside a word
        return re.compile(rf"{edge}(?:{'|'.join(patterns)})" if patterns else r"(?!)", re.IGNORECASE)

    def _pattern(self, word: str) -> str:
        stem = word.rstrip("*")
        parts = _GAP.join(re.escape(part) for part in re.split(r"[\s\-]+", stem))
        if self.language == "zh":
            return parts
        return parts + (r"\w*" if word.endswith("*") else r"(?:s|es)?\b")


def packaged_vocabularies() -> tuple[str, ...]:
    """Names of the vocabularies that come with the package: ``<region set>_<language>``."""
    return tuple(sorted(entry.name[:-5] for entry in _folder().iterdir() if entry.name.endswith(".yaml")))


@lru_cache(maxsize=16)
def load_vocabulary(name_or_path: str) -> Vocabulary:
    """A packaged vocabulary by its name, or one's own from a YAML file.

    Raises:
        ConfigError: no such vocabulary, or a file with a mistake; the message names file, key, value and remedy.
    """
    return _load(name_or_path, Path(), ())


def _load(name: str, beside: Path, above: tuple[str, ...]) -> Vocabulary:
    known = packaged_vocabularies()
    if name in known:
        source, folder = f"vocabulary '{name}'", Path()
        content = _folder().joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    else:
        path = beside / Path(name).expanduser()
        if not path.is_file():
            raise ConfigError(
                f"Unknown vocabulary '{name}'.{did_you_mean(name, known)} Known: {', '.join(known)}. Fix: use one of "
                "these names, or the path of a .yaml file."
            )
        source, folder, content = str(path), path.parent, read_text(path, fix="give the path of a YAML file")
    if source in above:
        raise ConfigError(f"{source}: extends itself by way of 'base'. Fix: leave 'base' out of one of the files.")
    return _parse(parse_yaml(content, source, "correct the YAML"), source, name, folder, (*above, source))


def _folder() -> Any:
    return files("reg2rg.datasets.splitters").joinpath("vocabularies")


def _parse(data: Any, source: str, name: str, folder: Path, above: tuple[str, ...]) -> Vocabulary:
    _mapping(data, source)
    for key in data:
        if key not in _KEYS:
            raise ConfigError(
                f"{source}: unknown key '{key}'.{did_you_mean(str(key), _KEYS)} Known: {', '.join(_KEYS)}."
            )
    language = data.get("language", "en")
    if language not in ("en", "zh"):
        raise ConfigError(f"{source}: 'language' is {language!r} (expected en or zh)")
    bases, parts = (_inherited(data, key, language, source, folder, above) for key in ("base", "each_of"))
    if parts and set(data) - {"language", "each_of"}:
        raise ConfigError(f"{source}: 'each_of' stands alone. Fix: put the other entries into one of its files.")
    entries = [
        _Entry(word, "anatomy", (region,))
        for region, listed in _mapping(data.get("anatomy", {}), f"{source}: 'anatomy'").items()
        for word in _words(listed, f"{source}: anatomy of {region}")
    ]
    for key, kind in _GROUPED:
        entries += _grouped(data.get(key, []), kind, f"{source}: {key}")
    over = {
        region: tuple(_words(listed, f"{source}: over {region}"))
        for region, listed in _mapping(data.get("over", {}), f"{source}: 'over'").items()
    }
    neutral, landmarks = (tuple(_words(data.get(key, []), f"{source}: {key}")) for key in ("neutral", "landmarks"))
    found = Vocabulary(name, language, tuple(entries), neutral, landmarks, over, parts)
    for base in bases:
        found = found.joined(base)
    if not found.regions:
        raise ConfigError(f"{source}: names no region. Fix: words under 'anatomy', such as lung: [lung, lobe]")
    return found


def _inherited(
    data: dict[Any, Any], key: str, language: Language, source: str, folder: Path, above: tuple[str, ...]
) -> tuple[Vocabulary, ...]:
    found = tuple(_load(name, folder, above) for name in _words(data.get(key, []), f"{source}: {key}"))
    for one in found:
        if one.language != language:
            raise ConfigError(f"{source}: '{one.name}' is of another language ({one.language}, not {language})")
    return found


def _grouped(groups: Any, kind: Literal["anatomy", "finding"], where: str) -> Iterator[_Entry]:
    if not isinstance(groups, list):
        raise ConfigError(f"{where} is {groups!r} (expected a list). Fix: one item with words and regions each.")
    for place, group in enumerate(groups):
        if not isinstance(group, dict) or set(group) != {"words", "regions"}:
            raise ConfigError(f"{where}[{place}] is {group!r} (expected the keys 'words' and 'regions').")
        regions = tuple(_words(group["regions"], f"{where}[{place}].regions"))
        for word in _words(group["words"], f"{where}[{place}].words"):
            yield _Entry(word, kind, regions)


def _words(listed: Any, where: str) -> list[str]:
    if not isinstance(listed, list) or not all(isinstance(word, str) and word.strip(" *") for word in listed):
        raise ConfigError(f"{where} is {listed!r} (expected a list of words). Fix: [one, two].")
    return [" ".join(word.split()) for word in listed]


def _mapping(data: Any, where: str) -> dict[Any, Any]:
    if not isinstance(data, dict):
        raise ConfigError(f"{where} is {type(data).__name__} (expected a mapping). Fix: region: [one, two].")
    return data
