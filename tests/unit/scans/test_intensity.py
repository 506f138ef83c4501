"""Values that are no Hounsfield units."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.regions import load_region_set
from reg2rg.core.task import ReportTask, Views
from reg2rg.core.types import RegionFiles, Study
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.read import read_study, read_volume
from reg2rg.scans.segmenters import segmenter_named
from reg2rg.store.prepare import prepare
from reg2rg.store.prepare_study import entry_key
from reg2rg.store.store import Store
from reg2rg.store.views import views_key

SHAPE = (20, 18, 16)
PERCENTILE, ZSCORE = ReadOptions(intensity="percentile"), ReadOptions(intensity="zscore")


def body() -> np.ndarray:
    """Dark air with a little noise around a body of values from 1000 to 3000."""
    random = np.random.default_rng(0)
    array = np.abs(random.normal(0, 10, SHAPE))
    array[3:17, 3:15] = random.uniform(1000, 3000, (14, 12, SHAPE[2]))
    return array.astype(np.float32)


def save(path: Path, array: np.ndarray) -> Path:
    nib.Nifti1Image(array, np.diag([2.0, 2.0, 3.0, 1.0])).to_filename(path)
    return path


def test_percentiles_of_the_foreground_become_the_window(tmp_path: Path) -> None:
    array = body()
    low, high = np.percentile(array[3:17, 3:15], (0.5, 99.5))
    volume, notes = read_volume(save(tmp_path / "a.nii.gz", array), PERCENTILE)
    expected = np.clip(-1000 + 1200 * (array - low) / (high - low), -1024, 3071)
    assert np.abs(volume.array - expected).max() <= 1
    assert (volume.array[0] == -1024).all()  # what is dark is background
    assert any("not HU" in note and "percentile 0.5 to 99.5" in note for note in notes)
    assert not any("clipped" in note for note in notes)


def test_zscore_of_the_foreground_becomes_the_window(tmp_path: Path) -> None:
    array = body()
    inside = array[3:17, 3:15]
    volume, _ = read_volume(
        save(tmp_path / "a.nii.gz", array), ReadOptions(intensity="zscore", intensity_range=(-1, 2))
    )
    expected = -1000 + 1200 * ((inside - inside.mean()) / inside.std() + 1) / 3
    assert np.abs(volume.array[3:17, 3:15] - np.clip(expected, -1024, None)).max() <= 1


@pytest.mark.parametrize("options", [PERCENTILE, ZSCORE])
def test_units_do_not_matter(tmp_path: Path, options: ReadOptions) -> None:
    one, _ = read_volume(save(tmp_path / "a.nii.gz", body()), options)
    other, _ = read_volume(save(tmp_path / "b.nii.gz", body() * 0.037 + 5), options)
    assert np.abs(one.array - other.array).max() <= 1


def test_what_cannot_be_normalised(tmp_path: Path) -> None:
    with pytest.raises(DataFault, match=r"INVERTED .*invert the values"):
        read_volume(save(tmp_path / "a.nii.gz", body().max() - body()), PERCENTILE)
    with pytest.raises(DataFault, match="CONSTANT"):
        read_volume(save(tmp_path / "b.nii.gz", np.full(SHAPE, 7.0, np.float32)), PERCENTILE)
    with pytest.raises(DataFault, match="NOT_HU"):
        read_volume(save(tmp_path / "c.nii.gz", body()), ReadOptions())


def test_what_knows_hounsfield_units_is_off(tmp_path: Path) -> None:
    """Masks are not judged by HU, nothing is measured in HU, and no segmenter looks at HU."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[5:10, 5:10, 5:10] = 1
    files = RegionFiles({"lung": save(tmp_path / "lung.nii.gz", mask)})
    one = Study("s", "s", "train", save(tmp_path / "a.nii.gz", body()), files, {"lung": "Dark."})
    regions = load_region_set("radgenome")
    assert read_study(one, regions, PERCENTILE).masks["lung"].sum() == 125  # a lung without air
    summary = prepare([one], tmp_path / "store", options=PERCENTILE, workers=0)
    assert (summary.built, summary.skipped) == (1, ())
    assert not (tmp_path / "store" / "attributes").exists()
    assert prepare([one], tmp_path / "store", options=PERCENTILE, workers=0).kept == 1
    assert prepare([one], tmp_path / "store", options=ZSCORE, workers=0).rebuilt == 1
    with pytest.raises(DataFault, match="not in Hounsfield units"):
        Store(tmp_path / "store").attributes("s")
    with pytest.raises(ConfigError, match="Thresholds knows Hounsfield units"):
        segmenter_named("Thresholds").segment(one.image, regions, PERCENTILE)


def test_old_keys_stay(tmp_path: Path) -> None:
    """Digests as they were before there were intensities and features."""
    one = Study("s", "s", "train", tmp_path / "a.nii.gz")
    key = entry_key(one, load_region_set("radgenome"), ReadOptions(), lambda file: "x")
    assert key == "dbb86d0b1d8176a783d608fdb866da14ad0420169d00695896a511aa2fda0ab7"
    assert views_key(Views()) == "1c81c3b934527a2c"
    assert "intensity" not in ReadOptions().as_facts()
    assert PERCENTILE.as_facts()["intensity"] == "percentile"


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ({"intensity": "suv"}, "views.intensity is 'suv' .*hu, percentile, zscore"),
        ({"intensity_range": (1, 99)}, "whose range is views.window"),
        ({"intensity": "percentile", "intensity_range": (99, 1)}, "the lower one first"),
        ({"intensity": "percentile", "intensity_range": (-1, 99)}, "from 0 to 100"),
        ({"channels": 768}, "views.channels is 768"),
        ({"features": "toy", "orientation": "LPS"}, "views.orientation is 'LPS'"),
        ({"features": "toy", "intensity": "zscore"}, "views.intensity is 'zscore'"),
    ],
)
def test_views_that_cannot_be(views: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Views(**views)  # type: ignore[arg-type]


def test_a_task_tells_other_intensities_from_hu() -> None:
    hu, other = ReportTask(), ReportTask(views=Views(intensity="zscore", intensity_range=(-2, 2)))
    assert (hu.views.is_hu, other.views.is_hu, Views(features="toy").is_hu) == (True, False, False)
    assert other.differences(hu) == {
        "views.intensity": ("zscore", "hu"),
        "views.intensity_range": ([-2, 2], None),
    }
    older = hu.values()
    for name in ("intensity", "intensity_range", "features", "channels"):
        del older["views"][name]
    assert hu.differences(older) == {}
    named = {"regions": "radgenome", "instruction": ""}
    assert ReportTask.of({**older, **named}) == hu
    assert ReportTask.of({**other.values(), **named}) == other
