"""Other people's readers of DICOM objects: each gives what it found in one form, or says why it is not there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).parent / "javascript"
NODE_MODULES = os.environ.get("REG2RG_NODE_MODULES", "")
STANDARD = os.environ.get("REG2RG_DICOM_STANDARD", "")


def need(name: str) -> str:
    """A program on the path, or beside this Python; skips the test where it is not there."""
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    return found or absent(f"{name} is not installed")


def absent(why: str) -> Any:
    """Skip, or fail where the readers were installed (REG2RG_READERS=1, which .ci/run sets)."""
    if os.environ.get("REG2RG_READERS") == "1":
        pytest.fail(f"{why}, and REG2RG_READERS=1 says that all readers are there")
    pytest.skip(why)


def run(*command: object, **environment: str) -> str:
    """What a program prints; it has to end well."""
    text = [str(part) for part in command]
    done = subprocess.run(text, capture_output=True, timeout=120, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-3000:]
    return done.stdout.decode()


def node(script: str, *arguments: object) -> Any:
    """What a script of tests/javascript prints as JSON."""
    if not NODE_MODULES or not Path(NODE_MODULES).is_dir():
        absent("no npm packages (set REG2RG_NODE_MODULES)")
    return json.loads(run(need("node"), HERE / script, *arguments))


def by_dicom_validator(files: list[Path]) -> str:
    """What dicom-validator says of files, by the newest edition in the folder of the standard, without network.

    The standard is not part of the package and is none of the readers that are installed: without it the test is
    skipped. The folder is one that dicom-validator made: ``editions.json``, and ``<edition>/docbook`` or ``/json``.
    """
    if not STANDARD or not (Path(STANDARD) / "editions.json").is_file():
        pytest.skip("no copy of the DICOM standard (set REG2RG_DICOM_STANDARD to a folder of dicom-validator)")
    program = shutil.which("validate_iods") or shutil.which("validate_iods", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("dicom-validator is not installed")
    text = [program, "--standard-path", STANDARD, "--edition", "local", *map(str, files)]
    done = subprocess.run(text, capture_output=True, text=True, timeout=600)
    return done.stdout + done.stderr


def by_highdicom(seg: Path, slices: list[Any]) -> dict[str, np.ndarray]:
    """Label -> (columns, rows, slices) on the CT's slices in their order."""
    hd = pytest.importorskip("highdicom", reason="highdicom is not installed (extra 'dev')")
    found = hd.seg.segread(seg)
    numbers = list(found.segment_numbers)
    pixels = found.get_pixels_by_source_instance(
        [one.SOPInstanceUID for one in slices], ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    labels = [found.get_segment_description(number).SegmentLabel for number in numbers]
    return {label: pixels[..., place].transpose(2, 1, 0) > 0 for place, label in enumerate(labels)}


def by_dcmqi(seg: Path, slices: list[Any], out: Path) -> dict[str, np.ndarray]:
    """The same; dcmqi crops to the slices in use, so that its files are laid on the CT by their affine."""
    import nibabel

    out.mkdir(parents=True, exist_ok=True)
    run(need("segimage2itkimage"), "--inputDICOM", seg, "--outputDirectory", out, "--outputType", "nii")
    labels = {
        one["labelID"]: one["SegmentLabel"]
        for [one] in json.loads((out / "meta.json").read_text())["segmentAttributes"]
    }
    first, last = slices[0], slices[-1]
    affine = np.eye(4)
    rows, columns = np.array(first.ImageOrientationPatient, float).reshape(2, 3)
    between, across = map(float, first.PixelSpacing)
    start, end = (np.array(one.ImagePositionPatient, float) for one in (first, last))
    affine[:3] = np.stack([rows * across, columns * between, (end - start) / (len(slices) - 1), start], axis=1)
    affine = np.diag([-1, -1, 1, 1]) @ affine
    found = {}
    for number, label in labels.items():
        image = nibabel.load(out / f"{number}.nii.gz")
        array = np.asarray(image.dataobj) > 0
        moved = np.linalg.inv(affine) @ image.affine
        there = np.rint(np.argwhere(array) @ moved[:3, :3].T + moved[:3, 3]).astype(int)
        assert np.abs(moved[:3, :3] - np.rint(moved[:3, :3])).max() < 1e-2
        found[label] = np.zeros((first.Columns, first.Rows, len(slices)), bool)
        found[label][tuple(there.T)] = True
    return found


def by_cornerstone(segs: list[Path], slices: list[Any], folder: Path) -> dict[str, np.ndarray]:
    """The same of several files, by the adapters that OHIF uses."""
    places = {one.SOPInstanceUID: k for k, one in enumerate(slices)}
    rows, columns = slices[0].Rows, slices[0].Columns
    found = {}
    for said in node("seg.mjs", folder, *segs):
        found |= {label: np.zeros((columns, rows, len(slices)), bool) for label in said["labels"]}
        for volume in said["volumes"]:
            for uid, segments in volume.items():
                for number, pixels in segments.items():
                    plane = np.zeros(rows * columns, bool)
                    plane[pixels] = True
                    found[said["labels"][int(number) - 1]][:, :, places[uid]] |= plane.reshape(rows, columns).T
    return found


def dice(first: np.ndarray, second: np.ndarray) -> float:
    """Overlap of two masks; 1 for equal ones."""
    return 2 * int((first & second).sum()) / (int(first.sum()) + int(second.sum()))


def errors_of(dciodvfy: str, file: Path) -> list[str]:
    """The lines of dciodvfy that are errors; it ends with status 0 or 1."""
    done = subprocess.run([dciodvfy, file], capture_output=True, timeout=60, check=False)
    said = done.stderr.decode(errors="replace").splitlines()
    assert said, "dciodvfy prints what kind of object it sees"
    return [line for line in said if line.startswith("Error")]
