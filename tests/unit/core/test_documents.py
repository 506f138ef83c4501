"""Documents are read within bounds, and records notice every damage."""

import json
import random
import time

import pytest

from reg2rg.core.documents import (
    MAX_DEPTH,
    DocumentError,
    parse_json,
    parse_yaml,
    read_json,
    read_record,
    read_yaml,
    write_record,
)
from reg2rg.core.regions import load_region_set

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 200))
LONG = f"a: &a '{'x' * 500_000}'\nb: [{', '.join(['*a'] * 30_000)}]\n"
BOMBS = {
    "aliases": (LAUGHS, r":6: its aliases stand for more than 100000 values"),
    "merges": (LAUGHS.replace("a0: &a0 [x, x, x, x, x, x, x, x, x]", "a0: &a0 {k: v}"), "its aliases stand for more"),
    "chain": (CHAIN, ":6[0-9]: its aliases stand more than 64 levels deep"),
    "long text": (LONG, ":2: its aliases stand for more than 100000 values"),
    "itself": ("a: &a [1, *a]\n", r":1: the alias \*a stands inside what it names"),
    "merged itself": ("a: &a {<<: *a}\n", r":1: the alias \*a stands inside what it names"),
    "brackets": ("a: " + "[" * 5000, ":1: lists and mappings stand more than 64 levels deep"),
    "closed brackets": ("a: " + "[" * 5000 + "]" * 5000, ":1: lists and mappings stand more than 64 levels deep"),
    "braces": ("a: " + "{b: " * 5000, ":1: lists and mappings stand more than 64 levels deep"),
    "dashes": ("- " * 5000, ":1: lists and mappings stand more than 64 levels deep"),
    "size": ("a: b\n" * 300_000, "(expected at most|more than) 1048576"),
    "sexagesimal": (f"a: {'59:' * 100_000}59\n", "line 1: a number of 300002 digits"),
    "digits": (f"a: {'9' * 10_000}\n", "line 1: a number of 10000 digits"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_goes_beyond_the_bounds_is_one_error_at_once(tmp_path, name):
    text, told = BOMBS[name]
    path = tmp_path / "it.yaml"
    path.write_text(text)
    begun = time.process_time()
    with pytest.raises(DocumentError, match=rf"it\.yaml.*{told}.*Fix: try again$") as caught:
        read_yaml(path, "try again")
    assert time.process_time() - begun < 10  # on a machine with other work; without the bounds it takes for ever
    assert len(str(caught.value)) < 300
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("name", ["aliases", "brackets"])
def test_a_region_set_is_held_to_them(tmp_path, name):
    (tmp_path / "it.yaml").write_text(BOMBS[name][0])
    with pytest.raises(DocumentError, match=r"it\.yaml:\d+: .*Fix: correct the YAML"):
        load_region_set(tmp_path / "it.yaml")


def test_plain_documents_are_read():
    text = "a: &a [1, 1.5, x, null, true]\nb: {<<: {k: v}, l: *a}\nday: 2024-13-40\n'1': ~\n"
    five = [1, 1.5, "x", None, True]
    assert parse_yaml(text, "it") == {"a": five, "b": {"k": "v", "l": five}, "day": "2024-13-40", "1": None}
    assert parse_yaml("", "it") is None
    deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert parse_yaml(deep, "it") == parse_json(deep, "it")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: !!int ''", "line 1: '' is no int"),
        ("a: !!int x1", "line 1: 'x1' is no int"),
        ("a: 0b_", "line 1: '0b_' is no int"),
        ("a: !!bool x", "line 1: 'x' is no bool"),
        ("a: !!timestamp x", "line 1: 'x' is no timestamp"),
        ("a: !!timestamp 2024-13-40", "is no timestamp"),
        ("a: !!python/object/apply:os.mkdir [x]", "line 1: could not determine a constructor"),
        ("a: [1", "line 1: expected ',' or"),
        ("a: \x07", "not YAML"),
        ("a: *b", "line 1: found undefined alias 'b'"),
    ],
)
def test_mistakes_are_said_with_their_line(text, told):
    with pytest.raises(DocumentError, match=rf"it.*{told}.*Fix: correct the file"):
        parse_yaml(text, "it")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[" * 100_000, "more than 64 levels deep"),
        ("[" * 70 + "]" * 70, "more than 64 levels deep"),
        ('{"a":' * 70 + "1" + "}" * 70, "more than 64 levels deep"),
        ("{", "not JSON"),
        ("9" * 5000, "not JSON"),
    ],
)
def test_json_is_held_to_bounds(tmp_path, text, told):
    (tmp_path / "it.json").write_text(text)
    with pytest.raises(DocumentError, match=rf"it\.json: .*{told}.*Fix: try again"):
        read_json(tmp_path / "it.json", "try again")


def test_files_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe4")
    with pytest.raises(DocumentError, match=r"latin\.yaml: cannot be read: byte 3 is no UTF-8"):
        read_yaml(tmp_path / "latin.yaml")
    with pytest.raises(DocumentError, match=r"cannot be read .*directory"):
        read_yaml(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_yaml(tmp_path / "none.yaml")


RECORD = {"study": "s1", "text": "Größe 1.50 cm", "n": [1, 2.5, None, True], "by": {"lung": "", "a": "\u2028"}, 3: (1,)}


def test_a_record_comes_back_as_it_was_written(tmp_path):
    write_record(tmp_path / "r.json", RECORD)
    assert read_record(tmp_path / "r.json", "x") == json.loads(json.dumps(RECORD))


def test_a_flipped_bit_in_a_record_is_found_or_without_effect(tmp_path):
    path = tmp_path / "r.json"
    write_record(path, RECORD)
    good, wanted, found = path.read_bytes(), read_record(path, "x"), 0
    random.seed(0)
    for _ in range(300):
        place, bit = random.randrange(len(good)), random.randrange(8)
        broken = bytearray(good)
        broken[place] ^= 1 << bit
        path.write_bytes(broken)
        try:
            assert read_record(path, "x") == wanted
        except DocumentError:
            found += 1
    assert found > 200
    for end in range(0, len(good) - 2, 7):
        path.write_bytes(good[:end])
        with pytest.raises(DocumentError, match=r"r\.json: .*Fix: make it anew"):
            read_record(path, "make it anew")


def test_a_changed_record_and_one_without_digest_are_said(tmp_path):
    path = tmp_path / "r.json"
    write_record(path, RECORD)
    path.write_text(path.read_text().replace("s1", "s2"))
    with pytest.raises(DocumentError, match=r"the SHA-256 of its content .* damaged or\s+changed .*Fix: make it anew"):
        read_record(path, "make it anew")
    path.write_text('{"study": "s1"}')
    with pytest.raises(DocumentError, match="holds no digest"):
        read_record(path, "make it anew")
