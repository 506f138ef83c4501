"""Contract check of exporters."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from reg2rg.core.errors import ConfigError
from reg2rg.core.regions import load_region_set
from reg2rg.core.report import Paragraph, Report
from reg2rg.core.types import Grid, RegionFiles, RegionVolume, Study, Volume
from reg2rg.inference.exporters import Exporter
from reg2rg.inference.result import Provenance, ReportResult
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.segmenters import MadeBy
from reg2rg.store.attributes import measure
from reg2rg.store.crop import crop_to_foreground
from reg2rg.testing.contract import require


def check_exporter(build: Callable[[], Exporter], results: Sequence[ReportResult] = ()) -> None:
    """Check an exporter against the contract of `reg2rg.inference.exporters.Exporter`, on made-up results.

    Files that are there, in the folder that it was given, named after the study; the same bytes twice; nothing left
    beside them; nothing of the folders that scan and masks lie in; a result with regions and one without; the result is
    not changed. What it refuses it does not write.

    Args:
        build: makes the exporter; called some times a result.
        results: to check on too, for an exporter that refuses the made-up ones.

    Raises:
        ContractError: naming the first part that is broken.
    """
    taken = 0
    for result in (sample_result(), sample_result(regions=False), *results):
        exporter, before = build(), (str(result), {name: mask.copy() for name, mask in result.masks.items()})
        require(isinstance(exporter, Exporter), exporter, "type", "no subclass of Exporter", "one")
        if reason := exporter.refusal(result.study.image, bool(result.masks), result.made_by.options):
            _check_refused(exporter, result, reason)
            continue
        taken += 1
        contents = []
        for _ in range(2):
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder, "new", "out")
                written = build().write(result, out)
                require(bool(written) and len(set(written)) == len(written), exporter, "files", f"{written}", "some")
                for path in written:
                    require(path.is_file(), exporter, "files", f"nothing at {path}", "files that are there")
                    require(out in path.parents, exporter, "files", f"{path}", f"files below {out}")
                named = any(result.study.id in str(path.relative_to(out)) for path in written)
                require(named, exporter, "files", f"{written}", f"the study's id, {result.study.id}, in a name")
                left = {path for path in out.rglob("*") if path.is_file()} - set(written)
                require(not left, exporter, "files", f"{left} beside what it tells of", "nothing else")
                contents.append([(path.name, path.read_bytes()) for path in written])
        require(contents[0] == contents[1], exporter, "bytes", "others the second time", "the same")
        told = [name for name, content in contents[0] if PATIENT.encode() in content]
        require(not told, exporter, "identity", f"the folder of the scan in {told}", "a result that is `deidentified`")
        same = str(result) == before[0] and all(np.array_equal(before[1][name], m) for name, m in result.masks.items())
        require(same, exporter, "result", "a changed one", "the same as before")
    require(taken > 0, build(), "refusal", "a reason against every result", "none (give it results of its kind)")


def _check_refused(exporter: Exporter, result: ReportResult, reason: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        said = "nothing"
        try:
            exporter.write(result, Path(folder))
        except ConfigError as error:
            said = str(error)
        require(said == reason, exporter, "refusal", f"{said} when it wrote", f"ConfigError: {reason}")
        require(not any(Path(folder).iterdir()), exporter, "refusal", "files all the same", "none")


PATIENT = "Doe_Jane_1970"
"""The folder that scan and masks of `sample_result` lie in."""


def sample_result(regions: bool = True) -> ReportResult:
    """A made-up result: a body with a heart and a lung, and a thyroid that has no mask; or a scan alone."""
    array = np.full((24, 20, 16), -1000, np.int16, order="F")
    array[3:21, 3:17] = 40
    masks = {name: np.zeros(array.shape, bool, order="F") for name in ("heart", "lung")} if regions else {}
    parts: tuple[Paragraph, ...] = (Paragraph(0, "", "All is well."),)
    if regions:
        masks["heart"][6:11, 6:12, 3:9] = True
        masks["lung"][13:19, 5:14, 3:14] = True
        array[masks["lung"]] = -800
        parts = (Paragraph(0, "lung", "Clear."), Paragraph(1, "heart", "Of normal size & shape."))
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    stored = Grid((24, 20, 16), affine @ np.diag([-1.0, -1.0, 1.0, 1.0]))
    files = {name: Path(PATIENT, f"{name}.nii.gz") for name in masks}
    source = RegionVolume(Volume(array, affine), masks, stored=stored)
    return ReportResult(
        study=Study(
            "sample", "sample", "test", Path(PATIENT, "sample.nii.gz"), RegionFiles(files) if regions else None
        ),
        report=Report(parts),
        source=source,
        asked=("lung", "heart") if regions else (),
        absent={"thyroid": "no mask of it"} if regions else {},
        made_by=Provenance(
            {"reg2rg": "0"},
            "0123456789abcdef",
            MadeBy("files", source=PATIENT) if regions else None,
            ReadOptions(),
            (f"{PATIENT}/sample.nii.gz is not gzipped in spite of its name",),
        ),
        attributes=measure(crop_to_foreground(source), load_region_set()) if regions else None,
        codes=load_region_set().codes(),
    )
