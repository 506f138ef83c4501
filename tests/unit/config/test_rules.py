"""Values that have the right type and cannot work: sizes below an encoder that resizes its views, counts."""

from __future__ import annotations

from typing import Any

import pytest

from reg2rg.config.reading import Tree
from reg2rg.config.rules import check_values
from reg2rg.config.schema import Checker
from reg2rg.core.types import PositiveFloat, PositiveInt


def config(size: list[int], to: list[int] | None = None, patch: list[int] | None = None) -> dict[str, Any]:
    inner: dict[str, Any] = {"class_path": "CTViT", "init_args": {"size": size, "patch": patch or [8, 8, 4]}}
    outer = {"class_path": "Resize", "init_args": {"to": to, "encoder": inner}} if to else inner
    pooled = {"class_path": "TokenPool", "init_args": {"window": [2, 2, 2], "encoder": outer}}
    return {"task": {"views": {"size": [32, 32, 16]}}, "model": {"global_": pooled}}


def mistakes(values: dict[str, Any]) -> list[str]:
    return check_values(values, Tree(values))


def test_the_size_is_the_one_that_it_is_resized_to() -> None:
    assert mistakes(config([48, 48, 24], to=[48, 48, 24])) == []
    assert mistakes(config([32, 32, 16])) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (config([32, 32, 16], to=[48, 48, 24]), r"encoder.init_args.size: [32, 32, 16] is not the size of what the"),
        (config([48, 48, 24]), "[48, 48, 24] is not the size of the views the encoder is given, task.views.size"),
        (
            config([48, 48, 24], to=[48, 48, 24], patch=[7, 8, 4]),
            "patches of [7, 8, 4] do not fill a view of [48, 48, 24]",
        ),
    ],
)
def test_other_sizes_are_named(values: dict[str, Any], message: str) -> None:
    (line,) = mistakes(values)
    assert message in line


class Deep:
    """A component whose depth may be 0, as another one's may not."""

    def __init__(
        self, depth: int = 0, blocks: tuple[PositiveInt, ...] = (1,), rate: PositiveFloat | None = None
    ) -> None:
        raise AssertionError("nothing is built")


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        ({"depth": 0, "blocks": [1, 2], "rate": 0.5}, []),
        ({"depth": -1, "rate": None}, []),
        ({"blocks": [1, 0]}, ["command line: it.blocks.1: must be 1 or more, found 0."]),
        ({"rate": 0}, ["command line: it.rate: must be above 0, found 0."]),
        ({"rate": "${rate}"}, ["command line: it.rate: must be above 0, found -1."]),
        ({"rate": True, "blocks": "x"}, []),  # of another type: that is jsonargparse's to say
    ],
)
def test_bounds_are_in_the_types_of_arguments_and_not_in_their_names(arguments, lines) -> None:
    tree = Tree({"it": arguments, "rate": -1})
    assert Checker(tree, ()).check({"it": Deep, "rate": None}) == lines


def test_counts_are_those_of_the_package_and_of_the_trainer_itself() -> None:
    """DDPStrategy has an argument ``dim``, whose default is 0."""
    strategy = {"class_path": "DDPStrategy", "init_args": {"dim": 0}}
    assert mistakes({"trainer": {"strategy": strategy}}) == []
    (line,) = mistakes({"trainer": {"strategy": strategy, "accumulate_grad_batches": 0}})
    assert "trainer.accumulate_grad_batches: must be 1 or more, found 0." in line
