"""Every key of a file accounted for: kept under our name, used to compute something, or dropped for a stated reason.

A format states its keys once, as `Key` records. Names have placeholders for layer numbers (``{llm}``), shapes have
names for sizes (``dim``); the sizes are read from the file itself, each by majority, so that one wrong tensor is
reported as wrong instead of making all others so.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from reg2rg.core.errors import ConfigError
from reg2rg.models.encoders.weights_radfm import PublishedKey
from reg2rg.models.tensors import TensorEntry

_ANY = "*"
_PLACE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Key:
    """One tensor of a format, or one a layer. Exactly one of `to`, `used` and `why` says what becomes of it.

    Attributes:
        name: its published name; ``{word}`` stands for the numbers 0, 1, ... of a stack of layers. With a star at its
            end it stands for all names that begin so and are no other key's, of any shape; those are dropped.
        shape: one word an axis, see `PublishedKey`.
        to: our name: it is kept as it is.
        used: what is computed from it.
        why: the reason for which it is dropped.
        also: other names under which it comes, of older versions of the libraries that wrote it.
        optional: it may be missing.
        reference: its name in the language model that the output refers to instead of holding it.
    """

    name: str
    shape: str
    to: str = ""
    used: str = ""
    why: str = ""
    also: tuple[str, ...] = ()
    optional: bool = False
    reference: str = ""


@dataclass(slots=True)
class Account:
    """Where each key of a file went.

    Attributes:
        kept: our name -> name in the file.
        used: name in the file -> what is computed from it.
        dropped: name in the file -> the reason.
        reference: name in the base language model -> name in the file; a part of `dropped`.
        sizes: the sizes, as read from the shapes.
        layers: placeholder in names -> number of layers.
        named: published name -> name in the file.
    """

    kept: dict[str, str] = field(default_factory=dict)
    used: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    reference: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    layers: dict[str, int] = field(default_factory=dict)
    named: dict[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        """How many went where, with the reasons, in one line."""
        parts = [f"{len(self.kept)} kept"] if self.kept else []
        for done, reasons in (("used for", self.used), ("dropped:", self.dropped)):
            parts += [f"{count} {done} {reason}" for reason, count in Counter(reasons.values()).items()]
        return f"{len(self.kept) + len(self.used) + len(self.dropped)} keys: {'; '.join(parts)}"


def keys_of(
    published: Iterable[PublishedKey],
    name: str = "",
    ours: str = "",
    layers: str = "n",
    sizes: str = "",
    used: Mapping[str, str] | None = None,
) -> list[Key]:
    """The tensors of a published module inside a file.

    Args:
        published: its tensors.
        name: what stands before their names in the file.
        ours: what stands before our names.
        layers: word for the numbers of its layers.
        sizes: what stands before the names of its sizes, to tell several modules' sizes apart.
        used: published name -> what is computed from it, for tensors that are not kept.
    """
    keys = []
    for key in published:
        at = f"{name}{key.name}".replace("{n}", f"{{{layers}}}")
        shape = re.sub(r"[a-z]\w*", lambda word: sizes + word[0], key.shape)
        if used and key.name in used:
            keys.append(Key(at, shape, used=used[key.name]))
        else:
            keys.append(Key(at, shape, to=f"{ours}{key.ours}".replace("{n}", f"{{{layers}}}")))
    return keys


def account(
    keys: Sequence[Key], layers: Mapping[str, int], entries: Mapping[str, TensorEntry], source: str, fix: str
) -> Account:
    """Account for every key of a file.

    Args:
        keys: the format's.
        layers: placeholder -> number of layers.
        entries: the file's tensors.
        source: names file and format in the message.
        fix: what the user may do about it.

    Raises:
        ConfigError: keys that are missing, unknown, there under two names, or of another shape; all of them, in groups.
    """
    slots = [slot for key in keys if not key.name.endswith(_ANY) for slot in _slots(key, layers)]
    found = Account(layers=dict(layers))
    missing: list[_Slot] = []
    twice: list[tuple[str, str]] = []
    places: list[tuple[_Slot, str]] = []
    for slot in slots:
        names = [name for name in slot.names if name in entries]
        twice += [(slot.names[0], " and ".join(names))] if len(names) > 1 else []
        missing += [slot] if not names and not slot.key.optional else []
        places += [(slot, name) for name in names[:1]]
    known = {name for slot in slots for name in slot.names}
    others = [name for name in entries if name not in known]
    found.dropped = {name: key.why for name in others for key in keys if _begins(name, key)}
    unknown = [name for name in others if name not in found.dropped]
    found.sizes, misshapen = _check_shapes(places, entries)
    faults = [
        *_grouped("missing", [(slot.names[0], _expected(slot.key.shape, found.sizes)) for slot in missing]),
        *_grouped("unknown", [(name, _shown(entries[name].shape)) for name in unknown]),
        *_grouped("of another shape", misshapen),
        *_grouped("there under two names", twice),
    ]
    if faults:
        count = len(missing) + len(unknown) + len(misshapen) + len(twice)
        lines = "\n".join(f"  {fault}" for fault in faults)
        raise ConfigError(f"{source}: {count} keys do not fit\n{lines}\nFix: {fix}")
    for slot, name in places:
        _enter(found, slot, name)
    return found


def _begins(name: str, key: Key) -> bool:
    starts = (start.removesuffix(_ANY) for start in (key.name, *key.also) if start.endswith(_ANY))
    return any(name.startswith(start) for start in starts)


@dataclass(frozen=True, slots=True)
class _Slot:
    """One key of one layer."""

    key: Key
    names: tuple[str, ...]
    at: Mapping[str, int]

    def put(self, template: str) -> str:
        return _PLACE.sub(lambda place: str(self.at[place[1]]), template)


def _slots(key: Key, layers: Mapping[str, int]) -> Iterator[_Slot]:
    words = list(dict.fromkeys(_PLACE.findall(key.name)))
    for numbers in itertools.product(*(range(layers[word]) for word in words)):
        at = dict(zip(words, numbers, strict=True))
        slot = _Slot(key, (), at)
        yield _Slot(key, tuple(slot.put(name) for name in (key.name, *key.also)), at)


def _enter(found: Account, slot: _Slot, name: str) -> None:
    key = slot.key
    found.named[slot.names[0]] = name
    if key.to:
        found.kept[slot.put(key.to)] = name
    elif key.used:
        found.used[name] = key.used
    else:
        found.dropped[name] = key.why
        if key.reference:
            found.reference[slot.put(key.reference)] = name


def _check_shapes(
    places: Sequence[tuple[_Slot, str]], entries: Mapping[str, TensorEntry]
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The sizes by majority, and the tensors whose shapes do not have them."""
    votes: dict[str, Counter[int]] = defaultdict(Counter)
    for slot, name in places:
        words, shape = slot.key.shape.split(), entries[name].shape
        if len(words) == len(shape):
            for word, length in zip(words, shape, strict=True):
                if word.replace(".", "").isidentifier():
                    votes[word][length] += 1
    sizes = {word: count.most_common(1)[0][0] for word, count in votes.items()}
    wrong = []
    for slot, name in places:
        shape = entries[name].shape
        may_be_empty = bool(slot.key.why) and shape == (0,)
        if not may_be_empty and list(shape) != [_length(word, sizes) for word in slot.key.shape.split()]:
            wrong.append((name, f"{_shown(shape)}, expected {_expected(slot.key.shape, sizes)}"))
    return sizes, wrong


def _length(word: str, sizes: Mapping[str, int]) -> int | None:
    """A word of a shape as a number: ``12``, ``dim``, ``3*inner``, ``dim/3``; ``None`` where its size is not known."""
    if word.isdecimal():
        return int(word)
    times, name, parts = re.fullmatch(r"(?:(\d+)\*)?([\w.]+?)(?:/(\d+))?", word).groups()  # type: ignore[union-attr]
    if name not in sizes:
        return None
    length, rest = divmod(sizes[name] * int(times or 1), int(parts or 1))
    return None if rest else length


def _expected(shape: str, sizes: Mapping[str, int]) -> str:
    lengths = [(word, _length(word, sizes)) for word in shape.split()]
    return "(" + ", ".join(word if length is None else str(length) for word, length in lengths) + ")"


def _shown(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"


def share_found(keys: Sequence[Key], layers: Mapping[str, int], names: Iterable[str]) -> float:
    """How much of a format is there: the share of the keys it needs that are among `names`."""
    held = set(names)
    needed = [slot for key in keys if not key.optional and not key.name.endswith(_ANY) for slot in _slots(key, layers)]
    return sum(not held.isdisjoint(slot.names) for slot in needed) / max(1, len(needed))


def _grouped(kind: str, faults: Sequence[tuple[str, str]]) -> list[str]:
    """One line for all faults that say the same of names which differ in one number alone."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, detail in faults:
        groups[re.sub(r"\d+", "#", name, count=1), detail].append(name)
    return [f"{len(names)} {kind}: {_joined(names)} {detail}" for (_, detail), names in groups.items()]


def _joined(names: Sequence[str]) -> str:
    """Names that differ in their first number alone as one, with the numbers in braces."""
    if len(names) == 1:
        return names[0]
    numbers = sorted(int(re.findall(r"\d+", name)[0]) for name in names)
    return re.sub(r"\d+", "{" + _ranges(numbers) + "}", names[0], count=1)


def _ranges(numbers: Sequence[int]) -> str:
    """0, 1, 2, 5 as 0-2,5."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    return ",".join("-".join(map(str, run)) for run in runs)
