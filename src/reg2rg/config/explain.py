"""What jsonargparse and OmegaConf say about a config, worded for the person who wrote it.

jsonargparse names the key but not the file, and wraps the reason in the text of every type it tried. The reason is cut
out of that text here, and the key looked up in the folded tree. Tests pin the wording that this reads; anything that is
not recognised is passed on as it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from reg2rg.config.reading import Key, Tree, lookup, walk
from reg2rg.core.errors import ConfigError
from reg2rg.core.registry import did_you_mean

_KEY = re.compile(r'Parser key "([^"]+)"')
_EXPECTED = re.compile(r"Expected (?:an? )?(.+?)(?:\. Got value: (.+))?$")
_TYPE_NAMES = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "NoneType": "null",
    "dict": "a mapping",
    "list": "a list",
}


def explain(message: str, tree: Tree) -> str:
    """One line for jsonargparse's `message`, with file, line and key."""
    keys = _KEY.findall(message)
    if not keys:
        return f"config: {_one_line(message)}"
    path = _locate(tree, [part for key in keys for part in key.split(".")])
    reasons = [_EXPECTED.match(line.strip(" -\t")) for line in message.splitlines()]
    found = [match for match in reasons if match]
    if not found:
        return tree.say(path, _one_line(message.rpartition(chr(58) + chr(10))[2]))
    wanted = list(dict.fromkeys(_readable(match[1]) for match in _innermost(found)))
    return tree.say(path, f"expected {' or '.join(wanted)}, found {lookup(tree.values, path)!r}.")


def explain_interpolation(error: Exception, tree: Tree, known: Sequence[str] = ()) -> str:
    """One line for an OmegaConf error about a ``${...}``."""
    full_key = str(getattr(error, "full_key", "") or "")
    parts = [part for part in full_key.replace("[", ".").replace("]", "").split(".") if part]
    path = _locate(tree, parts[1:] if parts and parts[0] not in tree.values else parts)
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
    return mistakes


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
    literal = re.fullmatch(r"Literal\[(.+)\]", text)
    return f"one of {literal[1]}" if literal else text


def _locate(tree: Tree, parts: Sequence[str]) -> Key:
    """The path in the tree that the key of a message means; messages leave out ``init_args``."""
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
