"""reg2rg: chest-CT reports, region by region."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0.dev0"

# Public names load on first use, so that `import reg2rg` costs nothing before torch is needed.
_PUBLIC = {
    "Paragraph": "reg2rg.core.report",
    "Reg2RG": "reg2rg.training.module",
    "RegionReportDataModule": "reg2rg.data.datamodule",
    "Report": "reg2rg.core.report",
    "ReportTask": "reg2rg.core.task",
    "Study": "reg2rg.core.types",
    "Views": "reg2rg.core.task",
    "Volume": "reg2rg.core.types",
    "generate_report": "reg2rg.inference.generate",
    "parse_report": "reg2rg.core.report",
    "report_on": "reg2rg.inference.pipeline",
}

__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'reg2rg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
