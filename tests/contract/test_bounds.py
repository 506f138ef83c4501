"""Numbers of components have their bounds in their types, so that a config with others is refused by file and line."""

import dataclasses
import inspect
import types
import typing
from typing import Any

import pytest

import reg2rg.extras.peers  # noqa: F401 (registers the encoders of other systems)
from reg2rg.core.types import Bound
from reg2rg.data.datamodule import RegionReportDataModule
from reg2rg.datasets.base import DATASETS
from reg2rg.datasets.splitters import SPLITTERS
from reg2rg.evaluation.labelers import LABELERS
from reg2rg.evaluation.metrics.base import METRICS
from reg2rg.extras.word_alignment import WordAlignment
from reg2rg.inference.exporters import EXPORTERS
from reg2rg.models.encoders import ENCODERS
from reg2rg.models.heads import HEADS
from reg2rg.models.llm.base import LANGUAGE_MODELS
from reg2rg.models.projectors import PROJECTORS
from reg2rg.runners import RUNNERS
from reg2rg.scans.base import READERS
from reg2rg.scans.segmenters import SEGMENTERS
from reg2rg.training.module import Reg2RG
from reg2rg.training.save_last import SaveLast

KINDS = (DATASETS, SPLITTERS, LABELERS, METRICS, EXPORTERS, ENCODERS, HEADS, LANGUAGE_MODELS, PROJECTORS)
CLASSES = {registry.get(name) for registry in (*KINDS, RUNNERS, READERS, SEGMENTERS) for name in registry}
ANY = {
    *("Reg2RG.seed", "RegionReportDataModule.seed", "Sampling.seed"),
    *("Views.window", "Rescale.slope", "Rescale.inter", "ViT3D.shift"),  # HU, and numbers with either sign
    *("Views.intensity_range", "ReadOptions.intensity_range"),  # two percentiles in order, checked together
    *("Views.spacing", "Rescale.spacing"),  # checked with their unit
    *("HeadInputs", "TokenCounts"),  # what the model computes
    *("in_channels", "out_channels"),
    *("Local.jobs", "Local.threads"),  # options of a command, which bounds them; its help imports no NumPy
}


def unbounded(hint: Any) -> bool:
    """Whether a type takes any number."""
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Annotated:
        return unbounded(inner[0]) and not any(isinstance(part, Bound) for part in inner[1:])
    if typing.get_origin(hint) in (typing.Union, types.UnionType, tuple, list):
        return any(unbounded(part) for part in inner)
    return hint in (int, float)


def records(hint: Any) -> list[type]:
    """Dataclasses of this package that a type names."""
    own = inspect.isclass(hint) and dataclasses.is_dataclass(hint) and hint.__module__.startswith("reg2rg.")
    return ([hint] if own else []) + [one for inner in typing.get_args(hint) for one in records(inner)]


def arguments(cls: type, seen: set[type]) -> list[tuple[str, str, Any]]:
    """Class, name and type of its arguments, and of those of the dataclasses among them."""
    if cls in seen:
        return []
    seen.add(cls)
    hints = typing.get_type_hints(cls if dataclasses.is_dataclass(cls) else cls.__init__, include_extras=True)
    found = [(cls.__name__, name, hints[name]) for name in inspect.signature(cls).parameters if name in hints]
    return found + [one for _, _, hint in found for inner in records(hint) for one in arguments(inner, seen)]


def test_numbers_are_bounded() -> None:
    seen: set[type] = set()
    every = [
        one
        for cls in sorted({*CLASSES, Reg2RG, RegionReportDataModule, WordAlignment, SaveLast}, key=lambda c: c.__name__)
        if cls.__module__.startswith("reg2rg.")
        for one in arguments(cls, seen)
    ]
    assert len(every) > 200
    loose = [f"{cls}.{name}" for cls, name, hint in every if unbounded(hint) and not ANY & {f"{cls}.{name}", cls, name}]
    assert not loose, f"without a bound in their type: {', '.join(loose)}"


@pytest.mark.parametrize(
    ("bound", "said", "held", "refused"),
    [
        (Bound(0, most=1), "0 to 1", (0, 0.5, 1), (-0.01, 1.01, float("nan"))),
        (Bound(0, above=True), "above 0", (1e-9, 7), (0, -1, float("nan"))),
        (Bound(0, above=True, most=1), "above 0, 1 at most", (0.1, 1), (0, 1.1)),
        (Bound(1), "1 or more", (1, 2), (0, -3)),
    ],
)
def test_what_a_bound_holds(bound: Bound, said: str, held: tuple[float, ...], refused: tuple[float, ...]) -> None:
    assert str(bound) == said
    assert all(bound.holds(value) for value in held)
    assert not any(bound.holds(value) for value in refused)
