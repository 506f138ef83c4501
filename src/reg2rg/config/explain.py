"""What jsonargparse and OmegaConf say about a config, worded for the person who wrote it.

jsonargparse names the key but not the file, and wraps the reason in the text of every type it tried. The reason is cut
out of that text here, and the key looked up in the folded tree. Tests pin the wording that this reads; anything that is
not recognised is passed on as it is.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from reg2rg.config.imports import ALLOWED, refusal
from reg2rg.config.reading import Key, Tree, lookup, walk
from reg2rg.core.errors import ConfigError
from reg2rg.core.registry import did_you_mean

_REFERENCE = re.compile(r"\$\{([\w.]+)\}")
_MOST_SIGNS, _DEEPEST = 1_000_000, 100
_BLOCK = re.compile(r"""( *)(?:- )?(?:Parser key "([^"]+)"|Problem with given class_path '([^']+)')""")
_EXPECTED = re.compile(r"Expected (?:an? )?(.+?)(?:\. Got value: (.+))?$")
_OF_TYPE = re.compile(r"Not of type (\w+): (?:[Ee]xpected (?:an? )?)?(.+?)(?: but got .+|, not \w+)?$")
_CALLABLE = re.compile(r"Type typing\.Callable expects .+: (Expected an import path|.+)")
_OPTION = re.compile(r"Option '([^']+)' is not accepted")
_DENIED = re.compile(r"Importing '([^']+)' is not allowed")
_GIVEN = re.compile(r"(?:Given|Got) value: (.+)")
_TYPE_NAMES = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "NoneType": "null",
    "dict": "a mapping",
    "list": "a list",
    "Iterable": "a list",
    "Path": "a path",
    "timedelta": "a time such as '1:30:00' (hours, minutes, seconds)",
}


@dataclass(frozen=True, slots=True)
class _Block:
    """A part of a message that is about one key or one class, and what stands indented below it."""

    keys: tuple[str, ...]  # of this block and of those around it
    cls: str  # the class whose argument the last key is, or ""
    body: tuple[str, ...]

    @property
    def given(self) -> str | None:
        """The value as the message shows it."""
        values = [match[1] for line in self.body if (match := _GIVEN.search(line))]
        return values[-1] if values else None


def explain(message: str, tree: Tree) -> str:
    """One line for jsonargparse's `message`, with file, line and key."""
    block = _deepest(message.splitlines())
    if block is None:
        return f"config: {_one_line(message)}"
    path = _locate(tree, block)
    value, lines = lookup(tree.values, path), [line.strip(" -\t") for line in block.body]
    if denied := next((match[1] for line in lines if (match := _DENIED.search(line))), None):
        written = value.get("class_path", denied) if isinstance(value, dict) else value
        return tree.say(path, refusal(str(written), ALLOWED, denied))
    if unknown := next((match[1] for line in lines if (match := _OPTION.search(line))), None):
        return tree.say(path, f"{block.cls.rpartition('.')[2]} has no argument '{unknown}'.")
    found = [match for line in lines if (match := _EXPECTED.match(line))]
    wanted = [_readable(match[1]) for match in _innermost(found)]
    wanted += [_TYPE_NAMES.get(match[1], match[2]) for line in lines if (match := _OF_TYPE.match(line))]
    wanted += ["the dotted name of a function or class" for line in lines if _CALLABLE.match(line)]
    wanted = [one for one in dict.fromkeys(wanted) if one != "null"] or wanted
    if not wanted:
        return tree.say(path, _one_line(message.rpartition(chr(58) + chr(10))[2]))
    return tree.say(path, f"expected {' or '.join(wanted)}, found {value!r}.")


def _deepest(lines: Sequence[str]) -> _Block | None:
    """The innermost part of a message: what stands around it tells of the types that were tried in vain."""
    heads = [(number, len(match[1]), match) for number, line in enumerate(lines) if (match := _BLOCK.match(line))]
    if not heads:
        return None
    number, indent, head = max(heads, key=lambda entry: (entry[1], -entry[0]))
    around, level = [head], indent
    for _, outer, match in reversed([entry for entry in heads if entry[0] < number]):
        if outer < level:
            around, level = [match, *around], outer
    below = itertools.takewhile(lambda line: len(line) - len(line.lstrip()) > indent, lines[number + 1 :])
    classes = [match[3] or "" for match in around]
    return _Block(tuple(match[2] for match in around if match[2]), max(classes[-2:], key=bool), tuple(below))


def explain_interpolation(error: Exception, tree: Tree, known: Sequence[str] = ()) -> str:
    """One line for an OmegaConf error about a ``${...}``."""
    full_key = str(getattr(error, "full_key", "") or "")
    parts = [part for part in full_key.replace("[", ".").replace("]", "").split(".") if part]
    path = _followed(tree, parts[1:] if parts and parts[0] not in tree.values else parts)
    written = lookup(tree.values, path)
    text = str(error).splitlines()[0]
    variable = re.search(r"Environment variable '([^']+)' not found", text)
    if variable:
        return tree.say(
            path,
            f"the environment variable {variable[1]} is not set, and {written!r} needs it. "
            f"Set it (export {variable[1]}=...) or give a fallback: ${{oc.env:{variable[1]},fallback}}.",
        )
    if type(error).__name__ == "InterpolationKeyError" or "ConfigTypeError" in text:
        missing = _missing(written, tree, text)
        keys = [".".join(map(str, key)) for key, _ in walk(tree.values) if all(isinstance(part, str) for part in key)]
        hint = did_you_mean(missing, [*keys[1:], *known])
        return tree.say(path, f"{written!r} refers to '{missing}', which no config file and no option sets.{hint}")
    if "Recursive" in type(error).__name__ or "recursive" in text.lower():
        return tree.say(path, f"{written!r} refers to itself. Give one of the two a value.")
    return tree.say(path, f"{written!r} is not a valid reference: {text} Expected the form ${{section.key}}.")


def resolved_values(tree: Tree) -> dict[str, Any]:
    """The values of a folded config with every reference resolved.

    Raises:
        ConfigError: a reference to nothing.
    """
    try:
        values: Any = OmegaConf.to_container(OmegaConf.create(tree.values), resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(explain_interpolation(error, tree)) from error
    return dict(values)


def check_references(tree: Tree) -> list[str]:
    """References that are malformed or turn in a circle; one line each."""
    mistakes = []
    for path, text in walk(tree.values):
        if not isinstance(text, str):
            continue
        if text.count("${") > text.count("}"):
            mistakes.append(tree.say(path, f"{text!r} opens '${{' without closing it. Expected ${{section.key}}."))
            continue
        seen, following = {".".join(map(str, path))}, text
        while isinstance(following, str) and (match := re.fullmatch(r"\$\{([\w.]+)\}", following)):
            if match[1] in seen:
                mistakes.append(tree.say(path, f"{text!r} refers to itself. Give one of the two a value."))
                break
            seen.add(match[1])
            following = lookup(tree.values, tuple(match[1].split(".")))
    return mistakes or _overgrown(tree)


def _overgrown(tree: Tree) -> list[str]:
    """References that double and double again, or stand behind one another: measured before anything is written out."""
    known: dict[Key, tuple[float, int]] = {}

    def measure(path: Key, value: Any, depth: int) -> tuple[float, int]:
        """Signs and values in `value` once all references are followed, and how many stand behind one another."""
        if depth > _DEEPEST:
            return math.inf, depth
        if path not in known:
            known[path] = 1, 0  # for what refers to itself, which is said elsewhere
            if isinstance(value, dict | list):
                below = value.items() if isinstance(value, dict) else enumerate(value)
                parts = [measure((*path, key), part, depth + 1) for key, part in below]
            else:
                referred = [tuple(name.split(".")) for name in _REFERENCE.findall(str(value))]
                parts = [measure(key, lookup(tree.values, key), depth + 1) for key in referred]
            signs = len(value) if isinstance(value, str) else 1
            known[path] = signs + sum(size for size, _ in parts), 1 + max((deep for _, deep in parts), default=0)
        return known[path]

    for path, value in walk(tree.values):
        if isinstance(value, str) and "${" in value:
            size, deep = measure(path, value, 0)
            if size > _MOST_SIGNS or deep > _DEEPEST:
                found = (
                    f"its references take {size:.2g} signs"
                    if deep <= _DEEPEST
                    else f"its references stand more than {_DEEPEST} deep"
                )
                most = f"at most {_MOST_SIGNS:,} signs"
                return [tree.say(path, f"written out, {found} (expected {most}). Fix: write the value out")]
    return []


def refuse(mistakes: Sequence[str]) -> None:
    """Raise `ConfigError` with a line for each mistake, if there is any."""
    if mistakes:
        raise ConfigError("\n".join(mistakes))


def _innermost(matches: list[re.Match[str]]) -> list[re.Match[str]]:
    """The expectation that carries the value, or else every one."""
    with_value = [match for match in matches if match[2] is not None]
    return with_value[:1] or [match for match in matches if "NoneType" not in match[1]] or matches


def _readable(text: str) -> str:
    text = re.sub(r"typing\.|collections\.abc\.", "", text.strip())
    plain = re.fullmatch(r"<class '([\w.]+)'>", text)
    if plain:
        name = plain[1].rpartition(".")[2]
        return _TYPE_NAMES.get(name, f"a {name}")
    members = re.fullmatch(r"member of <enum '\w+'>: \{(.+)\}", text)
    literal = re.fullmatch(r"Literal\[(.+)\]", text)
    listed = ", ".join(members[1].split(",")) if members else literal[1] if literal else ""
    return f"one of {listed}" if listed else text


def _locate(tree: Tree, block: _Block) -> Key:
    """The path in the tree that a part of a message means.

    Of the items of a list, which the message does not tell apart, that one of the class which has the value shown.
    """
    parts = [part for key in block.keys for part in key.split(".")]
    path = _followed(tree, parts)
    holder = lookup(tree.values, path[:-1])
    if not (isinstance(holder, list) and block.cls and isinstance(path[-1], str)):
        return path
    places = list(_places(holder, path, block.cls))
    same = [place for place in places if str(lookup(tree.values, place)) == block.given]
    return next(iter([*same, *places]), path[:-1])


def _places(items: list[Any], path: Key, cls: str) -> Iterator[Key]:
    """Where the last key of `path` stands in items of a class."""
    for position, item in enumerate(items):
        name = str(item.get("class_path", "")) if isinstance(item, dict) else ""
        if name.rpartition(".")[2] == cls.rpartition(".")[2] and path[-1] in (item.get("init_args") or {}):
            yield *path[:-1], position, "init_args", path[-1]


def _followed(tree: Tree, parts: Sequence[str]) -> Key:
    """The path of a key; messages leave out ``init_args``."""
    path: list[str | int] = []
    here: Any = tree.values
    for part in parts:
        if isinstance(here, dict) and part not in here and isinstance(here.get("init_args"), dict):
            path.append("init_args")
            here = here["init_args"]
        step: str | int = int(part) if isinstance(here, list) and part.isdigit() else part
        path.append(step)
        here = lookup(here, (step,))
    return tuple(path)


def _missing(written: Any, tree: Tree, text: str) -> str:
    """The reference of `written` that leads nowhere."""
    for reference in re.findall(r"\$\{([\w.\[\]]+)\}", str(written)):
        if lookup(tree.values, tuple(reference.split("."))) is None:
            return str(reference)
    resolved = re.search(r"resolved to '([^']+)'", text)
    return resolved[1].partition(".")[2] if resolved else text


def _one_line(text: str) -> str:
    return re.sub(r"\s*\n\s*", " ", text.strip())
