"""Fixtures of the tests that run whole programs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture
def components() -> Iterator[None]:
    """Registries as they were: an example may register a component that no other test shall see."""
    from reg2rg.datasets.base import DATASETS
    from reg2rg.models.encoders import ENCODERS
    from reg2rg.models.projectors import PROJECTORS
    from reg2rg.runners import RUNNERS

    registries = (ENCODERS, PROJECTORS, DATASETS, RUNNERS)
    before = [dict(registry._classes) for registry in registries]
    yield
    for registry, classes in zip(registries, before, strict=True):
        registry._classes.clear()
        registry._classes.update(classes)
