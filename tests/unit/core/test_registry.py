from __future__ import annotations

import abc
import sys
from importlib.metadata import EntryPoint

import pytest

from reg2rg.core import registry as module
from reg2rg.core.errors import EXIT_USAGE
from reg2rg.core.registry import Registry, UnknownComponentError, did_you_mean, load_plugins


class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self):
        """Area."""


@pytest.fixture
def shapes():
    return Registry("shape", Shape)


def make(name, base=Shape, **members):
    return type(name, (base,), {"area": lambda self: 1, "__module__": __name__, **members})


def test_registered_under_its_own_name(shapes):
    square = shapes.register(make("Square"))
    circle = shapes.register(make("Circle"))
    assert shapes.get("Square") is square
    assert list(shapes) == ["Circle", "Square"]
    assert len(shapes) == 2
    assert "Circle" in shapes
    assert "circle" not in shapes
    assert circle.__name__ == "Circle"


def test_looking_up_constructs_nothing(shapes):
    def refuse(self):
        raise AssertionError("constructed")

    assert shapes.get(shapes.register(make("Square", __init__=refuse)).__name__)


def test_unknown_name_offers_the_closest(shapes):
    shapes.register(make("Square"))
    shapes.register(make("Circle"))
    with pytest.raises(
        UnknownComponentError, match=r"Unknown shape 'sqare'. Did you mean 'Square'\? Known: Circle, Square\."
    ) as caught:
        shapes.get("sqare")
    assert caught.value.exit_code == EXIT_USAGE
    with pytest.raises(UnknownComponentError, match=r"Unknown shape 'xyz'\. Known"):
        shapes.get("xyz")


def test_only_concrete_subclasses(shapes):
    with pytest.raises(TypeError, match="does not extend Shape"):
        shapes.register(dict)
    with pytest.raises(TypeError, match="does not implement area"):
        shapes.register(type("Vague", (Shape,), {}))
    assert len(shapes) == 0


def test_a_name_has_one_class(shapes):
    shapes.register(make("Square"))
    shapes.register(make("Square"))  # the same module again, as after a reload
    with pytest.raises(TypeError, match=r"the shape name Square is taken by .*; other\.Square needs another name"):
        shapes.register(make("Square", __module__="other"))


def test_did_you_mean():
    assert did_you_mean("LUNGS", ["lung", "heart"]) == " Did you mean 'lung'?"
    assert did_you_mean("zzz", ["lung", "heart"]) == ""
    assert did_you_mean("x", []) == ""


def test_plugins_are_imported_by_their_entry_points(monkeypatch, tmp_path):
    (tmp_path / "my_plugin_for_test.py").write_text("LOADED = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    entries = [
        EntryPoint("second", "my_plugin_for_test:Thing", module.PLUGIN_GROUP),
        EntryPoint("first", "my_plugin_for_test", module.PLUGIN_GROUP),
    ]
    monkeypatch.setattr(module, "entry_points", lambda group: entries if group == module.PLUGIN_GROUP else [])
    assert load_plugins() == ["my_plugin_for_test"]
    assert sys.modules.pop("my_plugin_for_test").LOADED


def test_a_broken_plugin_raises_its_own_error(monkeypatch, tmp_path):
    (tmp_path / "broken_plugin_for_test.py").write_text("raise RuntimeError('plug-in is broken')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(
        module, "entry_points", lambda group: [EntryPoint("a", "broken_plugin_for_test", module.PLUGIN_GROUP)]
    )
    with pytest.raises(RuntimeError, match="plug-in is broken"):
        load_plugins()
