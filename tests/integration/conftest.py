"""Fixtures of the tests that run whole programs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tiny_runs import make_phantoms

OWN = """
vars: {word_alignment_steps: 1}
task:
  views: {size: [32, 32, 32]}
data:
  dataset: {init_args: {root: ROOT/data}}
  store: ROOT/store
  batch_size: 1
model:
  llm: {init_args: {path: ROOT/lm}}
  max_new_tokens: 4
  val_generate: 1
trainer: {max_steps: 2, limit_val_batches: 1, val_check_interval: 1.0, check_val_every_n_epoch: 1}
"""
TWO = """
trainer: {devices: 2, strategy: {init_args: {start_method: fork, process_group_backend: gloo}}}
"""


@pytest.fixture
def components() -> Iterator[None]:
    """Registries as they were: an example may register a component that no other test shall see."""
    from reg2rg.datasets.base import DATASETS
    from reg2rg.datasets.splitters import SPLITTERS
    from reg2rg.evaluation.labelers import LABELERS
    from reg2rg.evaluation.metrics.base import METRICS
    from reg2rg.inference.exporters import EXPORTERS
    from reg2rg.models.encoders import ENCODERS
    from reg2rg.models.heads import HEADS
    from reg2rg.models.projectors import PROJECTORS
    from reg2rg.runners import RUNNERS
    from reg2rg.scans.base import READERS
    from reg2rg.scans.segmenters import SEGMENTERS

    registries = (ENCODERS, PROJECTORS, DATASETS, RUNNERS, READERS, SEGMENTERS, EXPORTERS, METRICS, LABELERS, SPLITTERS)
    registries += (HEADS,)
    before = [dict(registry._classes) for registry in registries]
    yield
    for registry, classes in zip(registries, before, strict=True):
        own = {name: cls for name, cls in registry._classes.items() if cls.__module__.startswith("reg2rg.")}
        registry._classes.clear()
        registry._classes.update(own | classes)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `make_phantoms`."""
    return make_phantoms(tmp_path_factory.mktemp("switches"), OWN, TWO)
