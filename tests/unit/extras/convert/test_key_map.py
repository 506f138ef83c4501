"""Every key of a file is accounted for, and all that does not fit is said at once."""

from __future__ import annotations

import re

import pytest
import torch

from reg2rg.core.errors import ConfigError
from reg2rg.extras.convert.key_map import Key, account, share_found
from reg2rg.models.encoders.weights_radfm import VIT3D_KEYS
from reg2rg.models.tensors import TensorEntry

KEYS = (
    Key("embed", "vocab dim", to="table"),
    Key("layers.{n}.up", "3*dim dim", to="blocks.{n}.in", also=("layers.{n}.older.up",)),
    Key("layers.{n}.down", "dim/2 dim", to="blocks.{n}.out"),
    Key("scale", "dim", used="the fold"),
    Key("alias", "vocab dim", why="the table again", optional=True),
    Key("base", "dim dim", why="elsewhere", reference="model.base"),
)
LAYERS = {"n": 3}
SHAPES = {
    "embed": (7, 4),
    **{f"layers.{n}.up": (12, 4) for n in range(3)},
    **{f"layers.{n}.down": (2, 4) for n in range(3)},
    "scale": (4,),
    "alias": (7, 4),
    "base": (4, 4),
}


def entries(shapes):
    return {name: TensorEntry(shape, torch.float32, lambda: torch.zeros(0)) for name, shape in shapes.items()}


def tally(shapes):
    return account(KEYS, LAYERS, entries(shapes), "x.pth: not this", "another")


def fault(shapes):
    with pytest.raises(ConfigError) as caught:
        tally(shapes)
    return str(caught.value)


def test_each_key_goes_one_way():
    found = tally(SHAPES)
    assert found.kept == {
        "table": "embed",
        **{f"blocks.{n}.in": f"layers.{n}.up" for n in range(3)},
        **{f"blocks.{n}.out": f"layers.{n}.down" for n in range(3)},
    }
    assert found.used == {"scale": "the fold"}
    assert found.dropped == {"alias": "the table again", "base": "elsewhere"}
    assert found.reference == {"model.base": "base"}
    assert found.sizes == {"vocab": 7, "dim": 4}
    assert {*found.kept.values(), *found.used, *found.dropped} == set(SHAPES)
    assert found.summary() == ("10 keys: 7 kept; 1 used for the fold; 1 dropped: the table again; 1 dropped: elsewhere")


def test_older_names_and_missing_optional_ones():
    shapes = {name.replace(".up", ".older.up"): shape for name, shape in SHAPES.items() if name != "alias"}
    found = tally(shapes)
    assert found.kept["blocks.1.in"] == "layers.1.older.up"
    assert found.named["layers.1.up"] == "layers.1.older.up"
    assert "alias" not in found.dropped


def test_all_faults_are_in_one_message_in_groups():
    shapes = {**SHAPES, "layers.3.up": (12, 4), "extra": (1, 2), "layers.1.down": (3, 4), "layers.0.older.up": (12, 4)}
    del shapes["scale"], shapes["layers.0.down"], shapes["layers.2.down"]
    lines = fault(shapes).splitlines()
    assert lines[0] == "x.pth: not this: 7 keys do not fit"
    assert lines[-1] == "Fix: another"
    assert sorted(line.strip() for line in lines[1:-1]) == [
        "1 missing: scale (4)",
        "1 of another shape: layers.1.down (3, 4), expected (2, 4)",
        "1 there under two names: layers.0.up layers.0.up and layers.0.older.up",
        "1 unknown: extra (1, 2)",
        "1 unknown: layers.3.up (12, 4)",
        "2 missing: layers.{0,2}.down (2, 4)",
    ]


def test_a_last_layer_that_is_missing_is_told():
    shapes = {name: shape for name, shape in SHAPES.items() if "layers.2" not in name}
    assert "1 missing: layers.2.up (12, 4)" in fault(shapes)


def test_sizes_go_by_majority():
    for name, wrong in (("embed", (7, 5)), ("scale", (5,)), ("base", (4, 5))):
        lines = [line.strip() for line in fault({**SHAPES, name: wrong}).splitlines()[1:-1]]
        right = ", ".join(map(str, SHAPES[name]))
        assert lines == [f"1 of another shape: {name} ({', '.join(map(str, wrong))}), expected ({right})"]


def test_fractions_and_ranks_are_checked():
    assert "layers.1.down (2, 4, 1), expected (2, 4)" in fault({**SHAPES, "layers.1.down": (2, 4, 1)})
    odd = {name: tuple(5 if n == 4 else 15 if n == 12 else n for n in shape) for name, shape in SHAPES.items()}
    assert "3 of another shape: layers.{0-2}.down (2, 5), expected (dim/2, 5)" in fault(odd)


def test_what_is_dropped_may_be_empty_but_nothing_else():
    assert tally({**SHAPES, "base": (0,), "alias": (0,)}).reference
    assert "scale (0), expected (4)" in fault({**SHAPES, "scale": (0,)})


def test_no_number_of_a_name_is_lost_in_a_group():
    shapes = {f"layers.{n}.{part}.{k}.w": (1,) for n, k, part in ((0, 1, "a"), (2, 1, "a"), (0, 2, "a"), (1, 10, "b"))}
    lines = [line for line in fault({**SHAPES, **shapes}).splitlines() if "unknown" in line]
    listed = set()
    for line in lines:
        name = re.fullmatch(r"  \d+ unknown: (\S+) \(1\)", line)[1]
        numbers = re.search(r"\{([\d,]+)\}", name)
        listed |= {name.replace(numbers[0], n) for n in numbers[1].split(",")} if numbers else {name}
    assert listed == set(shapes)


def test_share_of_a_format():
    assert share_found(KEYS, LAYERS, SHAPES) == 1
    assert share_found(KEYS, LAYERS, ["embed", "scale", "alias"]) == pytest.approx(2 / 9)


def test_shape_words_of_the_published_encoder_are_read():
    """The words of `VIT3D_KEYS` are sizes that some tensor states by itself, so none stays unknown."""
    bare = {word for key in VIT3D_KEYS for word in key.shape.split() if word.isidentifier()}
    used = {re.sub(r"^\d+\*|/\d+$", "", word) for key in VIT3D_KEYS for word in key.shape.split()}
    assert used == bare
