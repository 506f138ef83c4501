"""Sentences -> regions by a vocabulary of anatomy: everybody can see why a sentence stands where it stands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from reg2rg.core.errors import ConfigError
from reg2rg.core.regions import RegionSet
from reg2rg.core.types import PathOrName
from reg2rg.datasets.splitters.base import OTHER, SPLITTERS, Placement, Splitter
from reg2rg.datasets.splitters.vocabulary import Language, Match, Vocabulary, load_vocabulary, packaged_vocabularies

_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_LETTER = re.compile(r"[^\W\d_]")


@SPLITTERS.register
class RuleSplitter(Splitter):
    """Places a sentence by the anatomy that it names, else by its findings, else with the sentence before it.

    In this order, and the first that says something decides:

    1. anatomy ("liver"): every region that is named, but for one that is no more than the place of another;
    2. findings ("consolidation"): the region of the sentence before if it may have them, else the likeliest;
    3. landmarks ("adjacent to the aorta");
    4. the regions of the sentence before;
    5. no region: `other`.

    Args:
        vocabulary: a packaged one by name, or a YAML file; by default the packaged one of the region set, else
            ``radgenome``'s where it knows the regions of the set. Sentences of regions that the set does not have are
            `other`.
        language: of reports. ``auto`` goes by their script: Chinese where it has a quarter of the letters.

    Raises:
        ConfigError: no such vocabulary, or of another language.
    """

    def __init__(self, vocabulary: PathOrName | None = None, language: Literal["auto", "en", "zh"] = "auto") -> None:
        if language not in ("auto", "en", "zh"):
            raise ConfigError(f"RuleSplitter: language is {language!r} (expected auto, en or zh)")
        self.vocabulary, self.language = vocabulary, language
        if vocabulary is not None:
            own = load_vocabulary(vocabulary).language
            if language not in ("auto", own):
                raise ConfigError(f"RuleSplitter: language is {language}, but the vocabulary {vocabulary} is {own}")

    def place(self, sentences: Sequence[str], regions: RegionSet) -> list[Placement]:
        """Where each sentence belongs; see the class."""
        each = [_placed(sentences, part) for part in self._vocabulary(sentences, regions).parts]
        places = []
        for told in zip(*each, strict=True):
            named = {name for names, _ in told for name in names}
            known = tuple(name for name in regions.names if name in named)
            reason = "; ".join(dict.fromkeys(reason for _, reason in told))
            places.append(Placement(known, reason if known or not named else f"{reason} (no region of the set)"))
        return places

    def _vocabulary(self, sentences: Sequence[str], regions: RegionSet) -> Vocabulary:
        if self.vocabulary is not None:
            return load_vocabulary(self.vocabulary)
        language: Language = self.language if self.language != "auto" else _language(sentences)
        name = f"{regions.name}_{language}"
        if name in packaged_vocabularies():
            return load_vocabulary(name)
        usual = load_vocabulary(f"radgenome_{language}")
        if set(regions.names) <= usual.regions:
            return usual
        raise ConfigError(
            f"RuleSplitter: there is no vocabulary for the region set '{regions.name}' in {language} (packaged: "
            f"{', '.join(packaged_vocabularies())}). Fix: write one, as docs/how-to/split.md says, and name it with "
            "vocabulary: FILE.yaml"
        )


def _placed(sentences: Sequence[str], words: Vocabulary) -> list[tuple[tuple[str, ...], str]]:
    """Regions and reason of each sentence by one vocabulary."""
    places: list[tuple[tuple[str, ...], str]] = []
    before: tuple[str, ...] = ()
    inherited = ""
    for sentence in sentences:
        named, reason = _decide(words.matches(sentence), before, words)
        if reason:
            inherited = f"inherited from: {reason}"
        else:
            named, reason = before, inherited or OTHER
        before = named
        places.append((named, reason))
    return places


def _decide(found: Sequence[Match], before: tuple[str, ...], words: Vocabulary) -> tuple[tuple[str, ...], str]:
    """Regions and reason; both empty where the sentence names nothing."""
    anatomy, findings, landmarks = (
        [match for match in found if match.kind == kind] for kind in ("anatomy", "finding", "landmark")
    )
    if anatomy:
        named = tuple(dict.fromkeys(region for match in anatomy for region in match.regions))
        told = {match.regions[0] for match in findings}
        places = {place for region in named for place in words.over.get(region, ()) if place not in told}
        kept = tuple(region for region in named if region not in places)
        return kept, _said("anatomy", [match for match in anatomy if set(match.regions) & set(kept)])
    if findings:
        fitting = tuple(region for region in before if all(region in match.regions for match in findings))
        narrowest = min(findings, key=lambda match: len(match.regions))
        return fitting or narrowest.regions[:1], _said("finding", findings if fitting else [narrowest])
    if landmarks:
        return landmarks[0].regions, _said("landmark", landmarks[:1])
    return (), ""


def _said(kind: str, matches: Sequence[Match]) -> str:
    return f"{kind}: {', '.join(dict.fromkeys(match.word.lower() for match in matches))}"


def _language(sentences: Sequence[str]) -> Language:
    text = "".join(sentences)
    return "zh" if 4 * len(_CHINESE.findall(text)) > len(_LETTER.findall(text)) else "en"
