"""Real scans to report files: a chest CT with masks of its regions, and TotalSegmentator's own multilabel output."""

import json
from pathlib import Path

import lightning as L
import nibabel as nib
import numpy as np
import pytest
import torch

from reg2rg.core.task import ReportTask, Views
from reg2rg.data.datamodule import RegionReportDataModule
from reg2rg.datasets import Manifest
from reg2rg.evaluation.records import read_records
from reg2rg.models.encoders.cnn3d import CNN3D
from reg2rg.models.llm.causal_lm import CausalLM
from reg2rg.models.projectors import LinearProjector
from reg2rg.scans.read import read_image
from reg2rg.store.prepare import prepare
from reg2rg.store.store import Store
from reg2rg.training.module import Reg2RG
from reg2rg.training.prediction_writer import PredictionWriter

SIZE = (32, 32, 16)


def report_on(dataset: Manifest, store: Path, lm: Path, out: Path) -> list[dict]:
    """The way of every scan: prepare, views, model, one JSON a study. The model's weights are random."""
    prepare(dataset, store, workers=0, max_skip=0.0)
    torch.manual_seed(0)
    module = Reg2RG(
        texture=CNN3D(size=SIZE, channels=(8, 16), dim=24, grid=(1, 1, 1)),
        geometry=CNN3D(size=SIZE, channels=(8, 8), dim=16, grid=(1, 1, 1)),
        global_="texture",
        projector=LinearProjector,
        llm=CausalLM(str(lm)),
        task=ReportTask(views=Views(size=SIZE)),
        max_new_tokens=12,
        val_generate=0,
    )
    data = RegionReportDataModule(
        dataset, str(store), str(lm), module.token_counts, task=module.task, workers=0, test_regions="all"
    )
    writer = PredictionWriter(str(out))
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[writer])
    trainer.predict(module, datamodule=data, return_predictions=False)
    return list(read_records(out))


@pytest.fixture
def lidc(shared_ct: Path) -> Path:
    return shared_ct / "lidc-idri-0314_CCBY3"


def test_chest_ct_with_a_mask_a_region(lidc: Path, toy, tmp_path: Path) -> None:
    masks = lidc / "masks_derived"
    left = nib.load(masks / "lung_left.nii.gz")
    both = np.asarray(left.dataobj) | np.asarray(nib.load(masks / "lung_right.nii.gz").dataobj)
    nib.save(nib.Nifti1Image(both, left.affine), tmp_path / "lung.nii.gz")
    files = {
        "lung": tmp_path / "lung.nii.gz",
        "bone": masks / "bone_over220HU.nii.gz",
        "trachea and bronchie": masks / "trachea.nii.gz",
    }
    row = {"id": "lidc", "image": str(lidc / "ct_1.56x1.56x2mm.nii.gz"), "split": "test"}
    row["masks"] = {region: str(file) for region, file in files.items()}
    (tmp_path / "one.jsonl").write_text(json.dumps(row))
    dataset = Manifest(str(tmp_path / "one.jsonl"), root="/")

    [record] = report_on(dataset, tmp_path / "store", toy.lm, tmp_path / "out")
    assert sorted(record["regions"]) == sorted(files)
    assert record["study"] == "lidc"
    assert (tmp_path / "out" / "studies" / "lidc.json").is_file()

    # Nothing was lost or mirrored on the way: the left lung, of 1.912 litres, is on the left.
    detail = Store(tmp_path / "store").read("lidc").detail
    lung, cell = detail.mask("lung"), np.prod(detail.spacing) / 1e6
    assert lung.sum() * cell == pytest.approx((1912 + 919) / 1000, rel=0.01)  # litres, as measured on the files
    middle = np.argwhere(detail.mask("trachea and bronchie"))[:, 0].mean()
    left = lung[: int(middle)].sum() * cell  # the first axis of RAS runs from the patient's left to the right
    assert detail.affine[0, 0] > 0
    assert left == pytest.approx(1.912, rel=0.1)


def test_totalsegmentators_multilabel_output(shared_ct: Path, toy, tmp_path: Path) -> None:
    folder = shared_ct / "totalsegmentator_Apache2"
    row = {"id": "torso", "image": str(folder / "example_ct.nii.gz"), "split": "test"}
    row["mask"] = str(folder / "example_seg_fast_force_split.nii.gz")
    (tmp_path / "one.jsonl").write_text(json.dumps(row))
    dataset = Manifest(str(tmp_path / "one.jsonl"), root="/", label_map="totalsegmentator")

    [record] = report_on(dataset, tmp_path / "store", toy.lm, tmp_path / "out")
    assert sorted(record["regions"]) == ["abdomen", "bone", "lung"]
    assert all(paragraph["region"] in record["regions"] for paragraph in record["paragraphs"])


def test_chest_ct_and_labels_in_nrrd(shared_ct: Path, toy, tmp_path: Path) -> None:
    folder = shared_ct / "chestimagingplatform_BSDstyle"
    stored = read_image(folder / "lm-64.nrrd").stored
    lung = [int(value) for value in np.unique(stored) if 9 <= value % 256 <= 14]  # thirds of either lung, by low byte
    row = {"id": "cip", "image": str(folder / "ct-64.nrrd"), "split": "test", "mask": str(folder / "lm-64.nrrd")}
    (tmp_path / "one.jsonl").write_text(json.dumps(row))
    dataset = Manifest(str(tmp_path / "one.jsonl"), root="/", label_map={"lung": lung})

    [record] = report_on(dataset, tmp_path / "store", toy.lm, tmp_path / "out")
    assert record["regions"] == ["lung"]
    detail = Store(tmp_path / "store").read("cip").detail
    assert detail.mask("lung").sum() == np.isin(stored, lung).sum()
    assert detail.array[detail.mask("lung")].mean() < -700
