"""Scans without regions, from a table without masks to training: no mask is asked for and none is made up."""

from __future__ import annotations

import csv

import lightning as L
import nibabel as nib
import numpy as np
import pytest
import torch

from reg2rg.check.run import check_dataset
from reg2rg.cli.main import main
from reg2rg.core.errors import DataFault, TooManySkippedError
from reg2rg.core.regions import load_region_set
from reg2rg.core.task import ReportTask, Views
from reg2rg.core.types import RegionFiles, RegionVolume, Study, Volume
from reg2rg.data.datamodule import RegionReportDataModule
from reg2rg.datasets import Manifest
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.read import read_study
from reg2rg.store.crop import crop_to_foreground
from reg2rg.store.prepare import prepare
from reg2rg.store.store import Store
from reg2rg.store.views import compute_views

SIZE = (16, 16, 8)
LOOSE = ReadOptions(min_slices=8)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Four scans that look like CTs, each with a whole report and two texts of regions."""
    root, rng = tmp_path_factory.mktemp("alone"), np.random.default_rng(0)
    rows = []
    for number, split in enumerate(("train", "train", "val", "test")):
        array = np.full((30, 28, 20), -1000, np.int16)
        array[5:25, 4:24, 2:18] = rng.integers(-100, 100, (20, 20, 16))
        array[8:14, 8:18, 4:16] = -800
        nib.save(nib.Nifti1Image(array, np.diag([2.0, 2.0, 3.0, 1.0])), root / f"s{number}.nii.gz")
        texts = {"report": f"Whole report of s{number}.", "report:lung": "Lungs.", "report:heart": "Heart."}
        rows.append({"id": f"s{number}", "image": f"s{number}.nii.gz", "split": split} | texts)
    with open(root / "studies.csv", "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return root / "studies.csv"


def test_a_table_without_masks_lists_scans_alone(table, tmp_path):
    studies = Manifest(str(table)).studies()
    assert [study.masks for study in studies] == [None] * 4
    whole = tmp_path / "whole.csv"
    whole.write_text("id,image,report\ns0,s0.nii.gz,All is well.\n")
    [study] = Manifest(str(whole), root=str(table.parent)).studies()
    assert (study.reports, study.whole) == ({}, "All is well.")
    empty = tmp_path / "empty.csv"
    empty.write_text("id,image,report,mask:lung\ns0,s0.nii.gz,All is well.,\n")
    listing = Manifest(str(empty), root=str(table.parent), max_skip=1.0).listing()
    assert [skip.code for skip in listing.skipped] == ["NO_MASK"]  # this table says where masks are; one is missing


def test_it_is_read_as_a_scan_alone_where_no_region_is_needed(table):
    study = Study("s0", "s0", "train", table.parent / "s0.nii.gz")
    found = read_study(study, load_region_set(), LOOSE, needs_regions=False)
    assert found.masks == {}
    assert crop_to_foreground(found).regions == ()
    with pytest.raises(DataFault, match=r"NO_REGION s0 .*: no mask \(expected a mask for at least one of abdomen"):
        read_study(study, load_region_set(), LOOSE)


def test_views_of_a_scan_alone_are_those_of_one_with_regions(table):
    volume = read_study(Study("s0", "s0", "train", table.parent / "s0.nii.gz"), load_region_set(), LOOSE, False).volume
    mask = np.zeros(volume.array.shape, bool)
    mask[8:14, 8:18, 4:16] = True
    alone, other = (compute_views(Views(SIZE), RegionVolume(volume, masks)) for masks in ({}, {"lung": mask}))
    np.testing.assert_array_equal(alone.global_, other.global_)
    assert alone.regions == ()
    assert alone.texture.shape == alone.geometry.shape == (0, *SIZE)


def test_check_and_prepare_ask_for_regions_only_if_they_are_needed(table, tmp_path):
    dataset = Manifest(str(table))
    found = check_dataset(dataset, options=LOOSE, workers=0, overlays=1, out=tmp_path / "check", needs_regions=False)
    assert [finding for finding in found.findings if finding.severity == "error"] == []
    assert len(list((tmp_path / "check" / "overlays").glob("*.png"))) == 1
    needed = check_dataset(dataset, options=LOOSE, workers=0)
    assert {finding.code for finding in needed.findings if finding.severity == "error"} == {"NO_REGION"}

    for bake in (None, Views(SIZE)):
        summary = prepare(dataset, tmp_path / "store", options=LOOSE, bake=bake, workers=0, needs_regions=False)
        assert (summary.ready, summary.skipped) == (4, ())
    assert Store(tmp_path / "store").regions("s0") == ()
    with pytest.raises(TooManySkippedError, match="NO_REGION 4"):
        prepare(dataset, tmp_path / "store", options=LOOSE, workers=0)
    assert Store(tmp_path / "store").studies() == ()


def test_masks_that_hold_nothing_are_no_fault_without_regions(table, tmp_path):
    image = table.parent / "s0.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((30, 28, 20), np.uint8), nib.load(image).affine), tmp_path / "lung.nii.gz")
    study = Study("s0", "s0", "train", image, RegionFiles({"lung": tmp_path / "lung.nii.gz"}))
    found = read_study(study, load_region_set(), LOOSE, needs_regions=False)
    assert (found.masks, found.notes) == ({}, ("lung: the mask is empty",))
    outside = np.zeros(found.volume.array.shape, bool)
    outside[0, 0, 0] = True
    source = RegionVolume(Volume(found.volume.array, found.volume.affine), {"lung": outside})
    assert crop_to_foreground(source, needs_regions=False).regions == ()


@pytest.mark.parametrize("bake", [True, False])
def test_training_on_whole_reports(table, toy, tmp_path, bake):
    dataset = Manifest(str(table))
    views = Views(SIZE)
    prepare(dataset, tmp_path, options=LOOSE, bake=views if bake else None, workers=0, needs_regions=False)
    module = toy.module(texture=None, geometry=None, global_=toy.encoder(), val_generate=1)
    options = {"workers": 0, "batch_size": 2}
    whole, joined = (ReportTask(views=views, target=target) for target in ("whole", "joined"))
    module.task = whole
    data = RegionReportDataModule(dataset, str(tmp_path), str(toy.lm), module.token_counts, task=whole, **options)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
                        enable_checkpointing=False, num_sanity_val_steps=0, max_epochs=1)  # fmt: skip
    trainer.fit(module, datamodule=data)
    assert trainer.callback_metrics["val/loss"].isfinite()
    [batch] = data.train_dataloader()
    assert (batch.regions, batch.texture) == (((), ()), None)
    assert torch.isfinite(batch.global_.float()).all()

    other = RegionReportDataModule(dataset, str(tmp_path), str(toy.lm), module.token_counts, task=joined, **options)
    assert [entry.reports for entry in other.entries("train")] == [("Heart. Lungs.",)] * 2


def test_the_commands_follow_the_target(table, tmp_path, capsys):
    config = tmp_path / "alone.yaml"
    config.write_text(
        f"data:\n  dataset: {{class_path: Manifest, init_args: {{path: {table}}}}}\n  store: {tmp_path / 'store'}\n"
        "  read: {min_slices: 8}\ntask: {target: whole}\n"
    )
    words = ["--config", str(config), "--workers", "0"]
    assert main(["data", "check", *words, "--out", str(tmp_path / "check"), "--overlays", "0"]) == 0
    assert main(["data", "prepare", *words]) == 0
    assert "4 of 4 studies are in the store" in capsys.readouterr().out
    assert main(["data", "check", *words, "--out", str(tmp_path / "check"), "--task.target", "regions"]) != 0
