"""A table of DICOM studies with a SEG each, from the listing to the store."""

from __future__ import annotations

import numpy as np

from dicom_files import SHAPE, chest, in_ras, localizer, save, slices, store
from dicom_regions import seg, write
from reg2rg.datasets import Manifest
from reg2rg.scans.base import ReadOptions
from reg2rg.store.prepare import prepare
from reg2rg.store.store import Store


def test_from_a_table_to_the_store(tmp_path) -> None:
    series = slices()
    save([*series, localizer()], tmp_path / "ct" / "a")
    lung = np.zeros(SHAPE, bool)
    lung[8:28, 10:40, 3:20] = True
    lung &= chest() < -600
    write(seg({"lung_upper_lobe_left": lung}), tmp_path / "a_seg.dcm")
    (tmp_path / "studies.csv").write_text("id,image,mask,split,report:lung\na,ct/a,a_seg.dcm,train,Clear.\n")
    dataset = Manifest(str(tmp_path / "studies.csv"), label_map="totalsegmentator")

    def run():
        return prepare(dataset, tmp_path / "store", "radgenome", ReadOptions(), workers=0, max_skip=0.0)

    assert run().built == 1
    assert run().kept == 1
    detail = Store(tmp_path / "store").read("a").detail
    assert detail.regions == ("lung",)
    origin = np.rint(np.linalg.solve(np.diag([5, 4, 3]), detail.affine[:3, 3] - (-155, -106, 100))).astype(int)
    place = tuple(slice(start, start + size) for start, size in zip(origin, detail.array.shape, strict=True))
    assert np.array_equal(detail.array, in_ras(chest())[place])
    assert np.array_equal(detail.mask("lung"), in_ras(lung)[place])
    assert detail.mask("lung").sum() == lung.sum() > 1000

    store(series[3], chest()[:, :, 3] + 1)
    save([*series, localizer()], tmp_path / "ct" / "a")
    assert run().rebuilt == 1
