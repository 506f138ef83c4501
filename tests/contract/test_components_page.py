"""The code on the page about components runs, in order, and its components keep their contracts."""

import re
from pathlib import Path

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

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "components.md"


def test_code_on_the_page_runs() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 12
    registries = (
        *(ENCODERS, PROJECTORS, DATASETS, METRICS, LABELERS, RUNNERS),
        *(READERS, SEGMENTERS, EXPORTERS, SPLITTERS, HEADS),
    )
    before = [dict(registry._classes) for registry in registries]
    scope = {"__name__": "components_page"}
    try:
        for block in blocks:
            exec(compile(block, str(PAGE), "exec"), scope)
    finally:
        for registry, classes in zip(registries, before, strict=True):
            registry._classes.clear()
            registry._classes.update(classes)
