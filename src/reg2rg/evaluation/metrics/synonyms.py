"""Which words WordNet calls synonyms: all that METEOR asks of it, from a table that comes with the package.

The table is cut out of WordNet 3.0 (see ``WORDNET-LICENSE`` beside it) by ``tools/build_synonyms.py``. It keeps the
synonym sets that hold at least one lower-case single word, since METEOR can match no other, and the irregular forms;
meanings, relations and senses are left out.

Its text has a part for each part of speech, begun by a line such as ``[noun]``: one synonym set a line, words divided
by blanks. A part such as ``[noun irregular]`` has one irregular form a line, followed by its base forms. Lines that
begin with ``#`` are the notice.
"""

from __future__ import annotations

import lzma
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from reg2rg.core.errors import ConfigError

__all__ = ["TABLE", "Lemma", "Names", "SynonymReader", "SynonymSource", "Synset", "names_of"]

TABLE = Path(__file__).with_name("wordnet_synonyms.xz")
"""The table that comes with the package."""

SynonymSource = Literal["bundled", "nltk"] | Path | None
Names = Callable[[str], frozenset[str]]

_NOTICE = """\
# Synonym sets and irregular forms cut out of WordNet 3.0.
# WordNet 3.0 Copyright 2006 by Princeton University. All rights reserved. Licence: WORDNET-LICENSE beside this file.
"""

_ENDINGS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "noun": (
        ("s", ""),
        ("ses", "s"),
        ("ves", "f"),
        ("xes", "x"),
        ("zes", "z"),
        ("ches", "ch"),
        ("shes", "sh"),
        ("men", "man"),
        ("ies", "y"),
    ),
    "verb": (("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
    "adj": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "adv": (),
}
"""Part of speech -> inflected endings and what stands there in the base form: the rules of WordNet's morphy(7)."""

_WAYS_OUT = (
    "Three ways out: reinstall reg2rg, whose wheel holds the table; install WordNet's files (Debian, Ubuntu: "
    "'apt-get install wordnet-base') and give their folder, such as /usr/share/wordnet, as synonyms; or give "
    "synonyms=None, which matches words and stems only and must be reported as METEOR-es, another metric."
)


@dataclass(frozen=True, slots=True)
class Lemma:
    """A word of a synonym set, as nltk's reader would hand it out."""

    word: str

    def name(self) -> str:
        """The word; words of several are joined with underscores."""
        return self.word


@dataclass(frozen=True, slots=True)
class Synset:
    """A synonym set, as far as METEOR looks at it."""

    words: tuple[str, ...]

    def lemmas(self) -> list[Lemma]:
        """Its words."""
        return [Lemma(word) for word in self.words]


class SynonymReader:
    """Finds a word's synonym sets, inflected forms too; a stand-in for nltk's ``WordNetCorpusReader`` in METEOR.

    Args:
        synsets: part of speech (noun, verb, adj, adv) -> synonym sets, each its words divided by blanks.
        irregular: part of speech -> irregular form -> its base forms.
    """

    def __init__(
        self, synsets: Mapping[str, Iterable[str]], irregular: Mapping[str, Mapping[str, tuple[str, ...]]]
    ) -> None:
        self._synsets = {pos: tuple(synsets.get(pos, ())) for pos in _ENDINGS}
        self._irregular = {pos: dict(irregular.get(pos, {})) for pos in _ENDINGS}
        self._index: dict[str, dict[str, list[int]]] = {pos: {} for pos in _ENDINGS}
        for pos, index in self._index.items():
            for row, words in enumerate(self._synsets[pos]):
                for word in words.lower().split():
                    index.setdefault(word, []).append(row)

    @classmethod
    def from_table(cls, path: Path = TABLE) -> SynonymReader:
        """Read a table that :meth:`to_table` wrote.

        Raises:
            ConfigError: the file is missing or is no such table.
        """
        try:
            text = lzma.decompress(path.read_bytes()).decode()
        except FileNotFoundError:
            raise ConfigError(f"METEOR's synonym table is missing: expected it at {path}. {_WAYS_OUT}") from None
        except (OSError, lzma.LZMAError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"METEOR's synonym table {path} cannot be read ({error}); expected a table of reg2rg, compressed with "
                f"xz. {_WAYS_OUT}"
            ) from None
        return cls._parse(text, path)

    @classmethod
    def _parse(cls, text: str, path: Path) -> SynonymReader:
        parts: dict[str, list[str]] = {}
        lines: list[str] = []
        for line in text.splitlines():
            if line.startswith("["):
                lines = parts.setdefault(line[1:-1], [])
            elif not line.startswith("#"):
                lines.append(line)
        wanted = {f"{pos}{kind}" for pos in _ENDINGS for kind in ("", " irregular")}
        if parts.keys() != wanted:
            raise ConfigError(
                f"METEOR's synonym table {path} has the parts {sorted(parts)}; expected {sorted(wanted)}. {_WAYS_OUT}"
            )
        forms = {pos: [line.split() for line in parts[f"{pos} irregular"]] for pos in _ENDINGS}
        return cls(parts, {pos: {form: tuple(bases) for form, *bases in rows} for pos, rows in forms.items()})

    @classmethod
    def from_wordnet(cls, folder: Path) -> SynonymReader:
        """Cut the synonym sets out of WordNet's own files.

        Args:
            folder: has ``data.noun``, ``noun.exc`` and so on for noun, verb, adj and adv; see wndb(5).

        Raises:
            ConfigError: a file is missing or is not in WordNet's format.
        """
        needed = [folder / name for pos in _ENDINGS for name in (f"data.{pos}", f"{pos}.exc")]
        missing = [path.name for path in needed if not path.is_file()]
        if missing:
            raise ConfigError(
                f"{folder} is no folder with WordNet's files: expected {', '.join(path.name for path in needed)}, "
                f"did not find {', '.join(missing)}. {_WAYS_OUT}"
            )
        try:
            synsets = {pos: sorted(_without_implied(set(_read_data(folder / f"data.{pos}")))) for pos in _ENDINGS}
        except (ValueError, IndexError) as error:
            raise ConfigError(
                f"A data file in {folder} is not in the format of WordNet 3.0, see wndb(5): {error}. {_WAYS_OUT}"
            ) from None
        irregular: dict[str, dict[str, tuple[str, ...]]] = {}
        for pos in _ENDINGS:
            rows = (line.split() for line in (folder / f"{pos}.exc").read_text("utf-8").splitlines())
            irregular[pos] = {row[0]: tuple(row[1:]) for row in rows if row}
        return cls(synsets, irregular)

    def to_table(self) -> bytes:
        """The table's bytes, the same for the same content (and the same release of liblzma)."""
        lines = []
        for pos in _ENDINGS:
            lines += [f"[{pos}]", *self._synsets[pos], f"[{pos} irregular]"]
            lines += sorted(" ".join((form, *bases)) for form, bases in self._irregular[pos].items())
        text = _NOTICE + "\n".join(lines) + "\n"
        return lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME)

    def synsets(self, word: str) -> list[Synset]:
        """The synonym sets of a word and of the base forms that it may be an inflection of, without regard to case."""
        return [
            Synset(tuple(self._synsets[pos][row].split()))
            for pos, index in self._index.items()
            for form in self._forms(word.lower(), pos)
            for row in index.get(form, ())
        ]

    def names(self, word: str) -> frozenset[str]:
        """The single words of these sets."""
        return frozenset(name for synset in self.synsets(word) for name in synset.words if "_" not in name)

    def _forms(self, word: str, pos: str) -> dict[str, None]:
        """The word and what it may come from, without repetition; an irregular form is taken for nothing else."""
        bases = self._irregular[pos].get(word)
        if bases is None:
            rules = _ENDINGS[pos]
            bases = tuple(word[: -len(old)] + new for old, new in rules if word.endswith(old))
        return dict.fromkeys((word, *bases))


def _read_data(path: Path) -> Iterator[str]:
    """The words of every synonym set of a data file that holds a lower-case single word."""
    for line in path.read_text("utf-8").splitlines():
        if line.startswith(" "):
            continue  # the licence
        fields = line.split(" ")
        # An adjective may carry where it may stand, as in "afloat(p)".
        words = [fields[4 + 2 * i].split("(")[0] for i in range(int(fields[3], 16))]
        if any("_" not in word and word == word.lower() for word in words):
            yield " ".join(sorted(words))


def _without_implied(synsets: set[str]) -> set[str]:
    """Drop words that are alone in one set and stand in another: the other says as much."""
    joined = {word for words in synsets if " " in words for word in words.split()}
    return {words for words in synsets if " " in words or words not in joined}


def names_of(synonyms: SynonymSource) -> Names | None:
    """The function word -> its synonyms that METEOR matches with.

    Args:
        synonyms: ``"bundled"``, the table of the package; ``"nltk"``, the WordNet corpus of the user's NLTK data; a
            folder with WordNet's files or the file of a table; ``None`` for no synonyms.

    Returns:
        The function, or ``None`` for no synonyms. It keeps what it found.

    Raises:
        ConfigError: the source is unknown, missing or unreadable. There is no silent way round: METEOR without
            synonyms gives other figures.
    """
    if synonyms is None:
        return None
    if synonyms == "bundled":
        return _names_of_file(TABLE)
    if synonyms == "nltk":
        return _names_of_nltk()
    if isinstance(synonyms, Path):
        return _names_of_file(synonyms)
    raise ConfigError(
        f"synonyms is {synonyms!r}; expected 'bundled', 'nltk', None, or a pathlib.Path: a folder with WordNet's files "
        f"or the file of a table."
    )


@lru_cache(maxsize=4)
def _names_of_file(path: Path) -> Names:
    reader = SynonymReader.from_wordnet(path) if path.is_dir() else SynonymReader.from_table(path)
    return lru_cache(maxsize=2**16)(reader.names)


@lru_cache(maxsize=1)
def _names_of_nltk() -> Names:
    from nltk.corpus import wordnet  # here: nltk imports all of itself

    try:
        wordnet.ensure_loaded()
    except LookupError:
        raise ConfigError(
            "NLTK finds no WordNet among its data; expected its 'wordnet' corpus. Download it with "
            "nltk.download('wordnet'), set NLTK_DATA to the folder that has it, or leave synonyms at 'bundled'."
        ) from None

    def names(word: str) -> frozenset[str]:
        synsets: Any = wordnet.synsets(word)
        return frozenset(lemma.name() for one in synsets for lemma in one.lemmas() if "_" not in lemma.name())

    return lru_cache(maxsize=2**16)(names)
