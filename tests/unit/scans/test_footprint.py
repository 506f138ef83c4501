"""Headers tell how much memory a study takes."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from reg2rg.core.types import LabelMap, RegionFiles, Study
from reg2rg.scans import footprint
from reg2rg.scans.footprint import estimated_peak

SCRIPT = """
import sys
from pathlib import Path
from reg2rg.core.regions import load_region_set
from reg2rg.core.types import RegionFiles, Study
from reg2rg.scans.base import ReadOptions
from reg2rg.store.prepare_study import Job, prepare_one
folder, regions = Path(sys.argv[1]), load_region_set("radgenome")
files = RegionFiles({name: folder / "mask.nii.gz" for name in regions.names[:4]})
study = Study(
    id="s", image=folder / "ct.nii.gz", masks=files, patient="p", split="train")
outcome = prepare_one(Job(study, folder / "store", regions, ReadOptions(hu="trust", implausible="ignore"), None, True))
assert outcome.status == "built", outcome.message
lines = Path("/proc/self/status").read_text().splitlines()  # getrusage would tell of the process that started this one
print(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")))
"""


def study(image: Path, masks: RegionFiles | LabelMap | None = None) -> Study:
    return Study(id="s", image=image, masks=masks, patient="p", split="train")


def save(path: Path, shape: tuple[int, int, int], dtype: str = "int16") -> Path:
    nib.save(nib.Nifti1Image(np.zeros(shape, dtype), np.eye(4)), path)
    return path


def test_it_grows_with_voxels_masks_and_width(tmp_path):
    small = save(tmp_path / "a.nii.gz", (64, 64, 20))
    plain, none = save(tmp_path / "b.nii", (64, 64, 40)), estimated_peak(study(tmp_path / "gone.nii.gz"))
    assert (estimated_peak(study(plain)) - none) == 2 * (estimated_peak(study(small)) - none)
    wide = save(tmp_path / "c.nii.gz", (64, 64, 40), "float64")
    assert estimated_peak(study(wide)) > estimated_peak(study(plain))
    files = study(plain, RegionFiles(dict.fromkeys("abcdefghij", plain)))
    labels = study(plain, LabelMap(plain, dict.fromkeys("abcdefghij", (1,))))
    assert estimated_peak(study(plain)) < estimated_peak(files) == estimated_peak(labels)


def test_files_of_another_kind_go_by_their_size(tmp_path):
    (tmp_path / "x.nrrd").write_bytes(b"NRRD0004\n" + bytes(10**6))
    (tmp_path / "noise.nii.gz").write_bytes(gzip.compress(b"noise"))
    none = estimated_peak(study(tmp_path / "gone.nii.gz"))
    assert estimated_peak(study(tmp_path / "x.nrrd")) - none > 10**7
    assert estimated_peak(study(tmp_path / "noise.nii.gz")) - none < 10**5


def test_fewer_workers_where_memory_does_not_hold_them(tmp_path, monkeypatch, caplog):
    studies = [study(tmp_path / "gone.nii")] * 48
    monkeypatch.setattr(footprint, "available_memory", lambda: 5 * 10**9)
    for peak, fitting in ((10**9, 4), (2 * 10**9, 2), (20 * 10**9, 1), (1, 8)):
        monkeypatch.setattr(footprint, "estimated_peak", lambda study, peak=peak: peak)
        assert footprint.workers_that_fit(8, studies) == fitting
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 3
    assert told[0] == (
        "4 of 8 workers: the largest of 48 scans looked at takes about 1.0 GB while it is read, and 5.0 GB of memory "
        "are free here"
    )
    assert footprint.workers_that_fit(0, studies) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read as Linux counts it")
def test_a_process_stays_below_it(tmp_path):
    rng = np.random.default_rng(0)
    ct = rng.integers(-900, 900, (192, 192, 160)).astype(np.int16)
    mask = np.zeros(ct.shape, np.uint8)
    mask[10:-10, 10:-10, 5:-5] = 1
    for name, array in (("ct", ct), ("mask", mask)):
        nib.save(nib.Nifti1Image(array, np.diag([1, 1, 2, 1.0])), tmp_path / f"{name}.nii.gz")
    files = RegionFiles(dict.fromkeys("abcd", tmp_path / "mask.nii.gz"))
    plain = {
        name: value for name, value in os.environ.items() if not name.startswith("COV")
    }  # coverage takes memory too
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path], capture_output=True, text=True, check=True, env=plain
    )
    peak, told = int(done.stdout), estimated_peak(study(tmp_path / "ct.nii.gz", files))
    assert 0.5 * told < peak < told
