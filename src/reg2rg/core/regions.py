"""Region sets: which regions a model knows, in which order, under which other names, and from which labels they come.

A set is data (``region_sets/*.yaml``, or a user's own file in the same form); no code names a region.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from reg2rg.core.codes import Code, parse_code
from reg2rg.core.documents import parse_yaml, read_text
from reg2rg.core.errors import ConfigError
from reg2rg.core.expected import Expected, parse_expected
from reg2rg.core.registry import did_you_mean

# Names go into file names and into report prefixes, which end at a colon (see `reg2rg.core.report`).
_NAME = re.compile(r"[^\W_](?:[\w ,.()'&+-]{0,78}[\w).])?", re.ASCII)
# A report is not read as naming a region where its name seems to end a sentence, and folds blanks.
_UNREADABLE = re.compile(r"\. +[A-Z]|  ")
_MAX_LABEL = 65535


@dataclass(frozen=True, slots=True)
class Region:
    """One region of a set.

    Attributes:
        name: as in reports, in file names and in the prompt.
        aliases: other spellings that datasets use.
        totalsegmentator: labels of TotalSegmentator v2's ``total`` task that make up the region; empty if none does.
        note: what a reader should know, for example where a mask could come from instead.
        expected: what the scan is expected to show under its mask; empty if nothing is.
        code: what it is called in DICOM and FHIR; ``None`` for a code of our own, made of its name.
    """

    name: str
    aliases: tuple[str, ...] = ()
    totalsegmentator: tuple[int, ...] = ()
    note: str = ""
    expected: Expected = Expected()  # noqa: RUF009 (frozen)
    code: Code | None = None


class RegionSet:
    """Regions in their order.

    Args:
        name: name of the set.
        regions: the regions; names and aliases are distinct without regard to case, spaces, underscores and slashes.

    Raises:
        ConfigError: no region, a name that cannot stand in a file name or report, or a spelling that two regions share.
    """

    def __init__(self, name: str, regions: tuple[Region, ...]) -> None:
        self.name, self.regions = name, regions
        self._by_spelling: dict[str, str] = {}
        if not regions:
            raise ConfigError(f"Region set '{name}' has no region. Fix: list at least one under 'regions'.")
        for region in regions:
            self._add(region)

    def _add(self, region: Region) -> None:
        if not _NAME.fullmatch(region.name) or _UNREADABLE.search(region.name):
            raise ConfigError(
                f"Region set '{self.name}': the name {region.name!r} cannot stand in file names and reports "
                "(expected 1 to 80 letters, digits, single spaces and , . ( ) ' & + - that begin with a letter or "
                "digit, and no '. ' before a capital). Fix: rename it and keep the old spelling under 'aliases'."
            )
        if self.names.count(region.name) > 1:
            raise ConfigError(f"Region set '{self.name}': '{region.name}' is listed twice. Fix: remove one.")
        for spelling in (_fold(word) for word in (region.name, *region.aliases)):
            owner = self._by_spelling.setdefault(spelling, region.name)
            if owner != region.name:
                raise ConfigError(
                    f"Region set '{self.name}': '{spelling}' stands for both '{owner}' and '{region.name}' "
                    "(expected one region a spelling). Fix: remove it from one of them."
                )

    @property
    def names(self) -> tuple[str, ...]:
        """Region names in the order of the set."""
        return tuple(region.name for region in self.regions)

    def __len__(self) -> int:
        return len(self.regions)

    def __iter__(self) -> Iterator[Region]:
        return iter(self.regions)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and _fold(name) in self._by_spelling

    def __repr__(self) -> str:
        return f"RegionSet({self.name!r}, {list(self.names)})"

    def find(self, name: str) -> str | None:
        """As `canonical`; ``None`` where no region has that spelling."""
        return self._by_spelling.get(_fold(name))

    def canonical(self, name: str) -> str:
        """The set's own name for `name`: aliases, case, underscores and slashes are understood.

        Raises:
            ConfigError: no region has that spelling; the message offers the closest one.
        """
        found = self.find(name)
        if found is None:
            hint = did_you_mean(_fold(name), list(self._by_spelling))
            raise ConfigError(
                f"Unknown region '{name}' in region set '{self.name}'.{hint} Known: {', '.join(self.names)}."
            )
        return found

    def from_totalsegmentator(self) -> dict[str, tuple[int, ...]]:
        """Region name -> labels of TotalSegmentator v2's ``total`` task, for the regions that have some."""
        return {region.name: region.totalsegmentator for region in self.regions if region.totalsegmentator}

    def codes(self) -> dict[str, Code]:
        """Region name -> its code, one of our own scheme for a region without."""
        return {region.name: region.code or Code.private(region.name) for region in self.regions}

    def without_source(self) -> tuple[str, ...]:
        """Regions that ``total`` cannot give; each region's note says which other task does."""
        return tuple(region.name for region in self.regions if not region.totalsegmentator)


def packaged_region_sets() -> tuple[str, ...]:
    """Names of the region sets that come with the package."""
    folder = files("reg2rg").joinpath("region_sets")
    return tuple(sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def load_region_set(name_or_path: str | Path | RegionSet = "radgenome") -> RegionSet:
    """A packaged region set by its name, or a user's own from a YAML file.

    Args:
        name_or_path: ``"radgenome"`` (the ten regions of RadGenome-ChestCT), ``"lobes"``, ``"radgenome_lobes"`` (both),
            or a path to a YAML file with the keys ``name`` and ``regions`` (each with ``name``, and optionally
            ``aliases``, ``totalsegmentator``, ``note``, ``expected`` and ``code``), and optionally ``base``: a set
            whose regions come first, by name or as a file beside this one. A region set is returned as it is.

    Raises:
        ConfigError: no such set or file, or a file with a mistake; the message names file, key, value and remedy.
    """
    return name_or_path if isinstance(name_or_path, RegionSet) else _load(name_or_path, ())


def _load(name_or_path: str | Path, above: tuple[Path, ...]) -> RegionSet:
    """The set; `above` are the files that extend it, to find one that is its own base."""
    text = str(name_or_path)
    if isinstance(name_or_path, str) and text in packaged_region_sets():
        source = f"region set '{text}'"
        content = files("reg2rg").joinpath("region_sets", f"{text}.yaml").read_text(encoding="utf-8")
        return _parse(content, source, text, Path(), above)
    path = Path(text).expanduser()
    if path.suffix.lower() not in (".yaml", ".yml") and not path.is_file():
        known = packaged_region_sets()
        raise ConfigError(
            f"Unknown region set '{text}'.{did_you_mean(text, known)} Known: {', '.join(known)}. "
            "Fix: use one of these names, or the path of a .yaml file."
        )
    try:
        content = read_text(path, fix="give the path of a YAML file")
    except FileNotFoundError:
        raise ConfigError(f"{path}: cannot be read (no such file). Fix: give the path of a YAML file") from None
    if path.resolve() in above:
        raise ConfigError(f"{path}: extends itself by way of 'base'. Fix: leave 'base' out of one of the files.")
    return _parse(content, str(path), path.stem, path.parent, (*above, path.resolve()))


def _parse(content: str, source: str, default_name: str, folder: Path, above: tuple[Path, ...]) -> RegionSet:
    data = _document(content, source)
    if not isinstance(data, dict):
        raise ConfigError(f"{source}: holds {_kind(data)} (expected a mapping with 'name' and 'regions').")
    _only(data, ("name", "base", "regions"), source)
    name, base, entries = data.get("name", default_name), data.get("base"), data.get("regions")
    if not isinstance(name, str):
        raise ConfigError(f"{source}: 'name' is {_kind(name)} (expected text). Fix: write a word.")
    if not isinstance(entries, list):
        raise ConfigError(f"{source}: 'regions' is {_kind(entries)} (expected a list). Fix: one item a region.")
    regions = tuple(_region(entry, f"{source}: regions[{place}]") for place, entry in enumerate(entries))
    if base is not None:
        if not isinstance(base, str):
            raise ConfigError(f"{source}: 'base' is {_kind(base)} (expected a region set's name or file).")
        inherited = _load(base if base in packaged_region_sets() else folder / base, above)
        regions = (*inherited.regions, *regions)
    try:
        return RegionSet(name, regions)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None


@lru_cache(maxsize=64)
def _document(content: str, source: str) -> Any:
    """The plain values of a text, to be read alone. Tasks name their set and ask for it often; to parse is slow."""
    return parse_yaml(content, source, "correct the YAML")


def _region(entry: Any, where: str) -> Region:
    if isinstance(entry, str):
        return Region(entry)
    if not isinstance(entry, dict):
        raise ConfigError(f"{where} is {_kind(entry)} (expected a name or a mapping with 'name').")
    _only(entry, ("name", "aliases", "totalsegmentator", "note", "expected", "code"), where)
    if "name" not in entry:
        raise ConfigError(f"{where} has no 'name'. Fix: add it.")
    name, note = entry["name"], entry.get("note", "")
    aliases, labels = entry.get("aliases", []), entry.get("totalsegmentator", [])
    for key, value in (("name", name), ("note", note)):
        if not isinstance(value, str):
            raise ConfigError(f"{where}.{key} is {_kind(value)} (expected text). Fix: put it in quotes.")
    if not isinstance(aliases, list) or not all(isinstance(word, str) for word in aliases):
        raise ConfigError(f"{where}.aliases is {aliases!r} (expected a list of text). Fix: [one, two].")
    if not isinstance(labels, list) or not all(_is_label(label) for label in labels):
        raise ConfigError(
            f"{where}.totalsegmentator is {labels!r} (expected a list of whole numbers 1 to {_MAX_LABEL}). "
            "Fix: list the label values of the task 'total', for example [51, 61]."
        )
    expected = parse_expected(entry.get("expected"), f"{where}.expected")
    code = parse_code(entry.get("code"), f"{where}.code")
    return Region(name, tuple(aliases), tuple(dict.fromkeys(labels)), " ".join(note.split()), expected, code)


def _is_label(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MAX_LABEL


def _only(mapping: dict[Any, Any], known: tuple[str, ...], where: str) -> None:
    for key in mapping:
        if key not in known:
            raise ConfigError(
                f"{where}: unknown key '{key}'.{did_you_mean(str(key), known)} Known: {', '.join(known)}."
            )


def _kind(value: Any) -> str:
    return "empty" if value is None else f"{type(value).__name__} {value!r}"[:80]


def _fold(name: str) -> str:
    """Spelling without case, and with every run of spaces, underscores and slashes as one space."""
    return " ".join(re.split(r"[\s_/]+", name.casefold().strip(" \t\r\n_/")))
