"""What every exporter does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from reg2rg.core.registry import Registry
from reg2rg.inference.result import ReportResult
from reg2rg.scans.base import ReadOptions


class Exporter(ABC):
    """Writes a result in one format."""

    def refusal(self, scan: Path, regions: bool, read: ReadOptions) -> str:
        """Why no result of a scan can be written, with the remedy; ``""`` if it can. Asked before the model runs.

        Args:
            scan: file or folder; it may be none that can be read, which is said elsewhere.
            regions: the report is one region by region.
            read: how the scan is read.
        """
        return ""

    @abstractmethod
    def write(self, result: ReportResult, out: Path) -> list[Path]:
        """Write one result.

        Each file is whole or absent: see `reg2rg.core.files.atomic_write`. The same result gives the same bytes. What
        is no DICOM says nothing of whose scan it is, unless an argument ``identified`` asks for that: it is written
        from `reg2rg.inference.identity.deidentified(result)`.

        Args:
            result: not changed. It may have no regions.
            out: folder, made if it is not there. Files are named after the study, so that a folder holds many.

        Returns:
            the files, the main one first.

        Raises:
            ConfigError: with the reason that `refusal` gives.
        """


EXPORTERS: Registry[Exporter] = Registry("exporter", Exporter)  # type: ignore[type-abstract]
