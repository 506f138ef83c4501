"""Errors that reach users: they survive pickling, carry their code, and say what, where and how to mend it."""

from __future__ import annotations

import importlib
import inspect
import multiprocessing
import pickle
import pkgutil
from concurrent.futures import ProcessPoolExecutor

import pytest

import reg2rg
from reg2rg.core.errors import (
    EXIT_RUNTIME,
    EXIT_SKIPPED,
    EXIT_USAGE,
    ConfigError,
    DataFault,
    MissingExtraError,
    Reg2RGError,
)
from reg2rg.datasets.names import study_id


def make_fault() -> DataFault:
    return DataFault.of("NOT_HU", found="0 to 1", expected="HU", fix="rescale", path="a/b.nii.gz", study="s1")


def test_fault_message_has_all_its_parts() -> None:
    fault = make_fault()
    assert str(fault) == "NOT_HU s1 a/b.nii.gz: 0 to 1 (expected HU). Fix: rescale"
    assert (fault.code, fault.study, fault.path) == ("NOT_HU", "s1", "a/b.nii.gz")


def test_fault_learns_its_study_once() -> None:
    fault = DataFault.of("NO_MASK", found="none", expected="one", fix="segment", path="x")
    named = fault.for_study("s1")
    assert str(named) == "NO_MASK s1 x: none (expected one). Fix: segment"
    assert (named.code, named.study, named.path) == ("NO_MASK", "s1", "x")
    assert named.for_study("s2") is named
    assert fault.for_study("") is fault


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_fault_survives_pickling(protocol: int) -> None:
    copy = pickle.loads(pickle.dumps(make_fault(), protocol))
    assert type(copy) is DataFault
    assert str(copy) == str(make_fault())
    assert (copy.code, copy.study, copy.path) == ("NOT_HU", "s1", "a/b.nii.gz")


def test_every_error_class_is_picklable_from_one_string() -> None:
    """An exception that cannot be pickled in a worker makes its parent wait for ever."""
    for module in pkgutil.walk_packages(reg2rg.__path__, "reg2rg."):
        if any(part in module.name for part in (".data.datasets", ".errors", ".registry", ".regions")):
            importlib.import_module(module.name)
    classes = [Reg2RGError]
    for parent in classes:
        classes += [child for child in parent.__subclasses__() if child not in classes]
    ours = [found for found in classes if found.__module__.startswith("reg2rg.")]
    assert {Reg2RGError, ConfigError, DataFault, MissingExtraError} <= set(ours)
    for found in ours:
        assert "<locals>" not in found.__qualname__
        copy = pickle.loads(pickle.dumps(found("one string")))
        assert type(copy) is found
        assert str(copy) == "one string"
        assert inspect.getdoc(found)


def test_fault_crosses_a_process_border() -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool, pytest.raises(DataFault) as error:
        pool.submit(study_id, "../etc").result(timeout=60)
    assert error.value.code == "UNSAFE_ID"
    assert "Fix: rename the study" in str(error.value)


def test_exit_codes() -> None:
    assert (EXIT_RUNTIME, EXIT_USAGE, EXIT_SKIPPED) == (1, 2, 3)
    assert Reg2RGError.exit_code == EXIT_RUNTIME
    assert {kind.exit_code for kind in (ConfigError, DataFault, MissingExtraError)} == {EXIT_USAGE}
