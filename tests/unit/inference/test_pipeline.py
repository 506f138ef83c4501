"""From files to a report without a store: the report that predict writes, whatever way the files lie."""

import json
from dataclasses import replace

import lightning as L
import nibabel as nib
import numpy as np
import pytest
import torch

from reg2rg import Reg2RG, RegionReportDataModule, report_on
from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.report import parse_report
from reg2rg.core.task import ReportTask
from reg2rg.core.types import LabelMap
from reg2rg.datasets import Manifest
from reg2rg.extras.phantom.anatomy import draw
from reg2rg.extras.phantom.grid import Grid
from reg2rg.extras.phantom.patient import draw_patient
from reg2rg.inference.exporters import JSON
from reg2rg.models.encoders.cnn3d import CNN3D
from reg2rg.models.llm.causal_lm import CausalLM
from reg2rg.models.projectors import LinearProjector
from reg2rg.models.reporter import RegionReporter
from reg2rg.scans.segmenters import MadeBy, SATFolder
from reg2rg.show.page_exporter import Page
from reg2rg.store.prepare import prepare

SIZE = (16, 16, 8)
CONFIG = {
    "model": {"texture": {}, "geometry": {}, "global_": "texture"},
    "task": {"views": {"size": list(SIZE)}, "instruction": "Report.", "max_length": 512, "order": "shuffled"},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A scan that looks like a CT, with three masks; the third is empty."""
    root = tmp_path_factory.mktemp("scan")
    random = np.random.default_rng(0)
    array = np.full((40, 36, 24), -1000, np.int16)
    array[6:34, 6:30, 2:22] = random.integers(-100, 100, (28, 24, 20))
    array[10:18, 12:24, 4:20] = -800
    array[18:22, 8:12, 4:20] = 700
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    nib.save(nib.Nifti1Image(array, affine), root / "ct.nii.gz")
    labels = np.zeros(array.shape, np.uint8)
    labels[10:18, 12:24, 4:20] = 10  # TotalSegmentator: lobes of the lung
    labels[24:30, 10:20, 6:14] = 51  # heart
    (root / "masks").mkdir()
    for name, value in (("lung", 10), ("heart", 51), ("thyroid", 99)):
        nib.save(nib.Nifti1Image((labels == value).astype(np.uint8), affine), root / "masks" / f"{name}.nii.gz")
    nib.save(nib.Nifti1Image(labels, affine), root / "labels.nii.gz")
    return root


@pytest.fixture
def model(toy):
    return built(toy, CONFIG)


def built(toy, config):
    torch.manual_seed(0)
    made = Reg2RG(
        texture=CNN3D(size=SIZE, channels=(8, 8), patch=(2, 2, 2), grid=(1, 1, 1), dim=8),
        geometry=CNN3D(size=SIZE, channels=(8, 8), patch=(2, 2, 2), grid=(1, 1, 1), dim=6),
        global_="texture",
        projector=LinearProjector,
        llm=CausalLM(str(toy.lm)),
        task=ReportTask.of(config["task"]),
        max_new_tokens=12,
        val_generate=0,
    ).eval()
    made.describe(config)
    return made


@pytest.fixture
def asked(monkeypatch):
    """What the model was asked, batch by batch."""
    batches = []
    generate = RegionReporter.generate

    def record(self, batch, decoding=None, **options):
        batches.append((batch, self.embed(batch)))
        return generate(self, batch, decoding, **options)

    monkeypatch.setattr(RegionReporter, "generate", record)
    return batches


def test_it_is_the_report_of_predict(files, model, asked, tmp_path):
    result = report_on(files / "ct.nii.gz", str(files / "masks" / "{region}.nii.gz"), model, min_slices=8)
    report = result.report
    assert sorted(report.by_region()) == ["heart", "lung"]
    assert report.missing == report.invalid == ()

    row = {"id": "ct", "split": "test", "image": str(files / "ct.nii.gz")}
    row["masks"] = {name: str(files / "masks" / f"{name}.nii.gz") for name in ("lung", "heart", "thyroid")}
    (tmp_path / "one.jsonl").write_text(json.dumps(row) + "\n")
    dataset = Manifest(str(tmp_path / "one.jsonl"), root="/")
    prepare(dataset, tmp_path / "store", workers=0, max_skip=0.0)
    data = RegionReportDataModule(dataset, str(tmp_path / "store"), model.tokenizer, model.token_counts, workers=0,
                                  task=model.task, test_regions="all")  # fmt: skip
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    [[answer]] = trainer.predict(model, datamodule=data)
    (mine, embedded), (theirs, wanted) = asked
    assert mine.regions == theirs.regions
    assert torch.equal(mine.input_ids, theirs.input_ids)
    for view in ("texture", "geometry", "global_"):
        assert torch.equal(getattr(mine, view), getattr(theirs, view))
    assert torch.equal(embedded, wanted)
    assert parse_report(answer.text, answer.regions) == report


@pytest.mark.parametrize("way", ["folder", "mapping", "labels", "label map", "aliases"])
def test_masks_in_every_form(files, model, asked, tmp_path, way):
    folder = files / "masks"
    forms = {
        "folder": folder,
        "mapping": {"LUNG": folder / "lung.nii.gz", "heart": str(folder / "heart.nii.gz")},
        "labels": files / "labels.nii.gz",
        "label map": LabelMap(files / "labels.nii.gz", {"lung": (10,), "heart": (51,)}),
        "aliases": str(tmp_path / "{region}.nii.gz"),
    }
    for name in ("lungs", "heart"):
        (tmp_path / f"{name}.nii.gz").symlink_to(folder / f"{name.removesuffix('s')}.nii.gz")
    wanted = report_on(files / "ct.nii.gz", str(folder / "{region}.nii.gz"), model, min_slices=8)
    if way == "aliases" and "lungs" not in model.contract.task.region_set:
        pytest.skip("the set has no alias 'lungs'")
    found = report_on(files / "ct.nii.gz", forms[way], model, min_slices=8)
    assert found.report == wanted.report
    assert list(found.masks) == ["heart", "lung"]
    assert torch.equal(asked[0][1], asked[1][1])


@pytest.mark.parametrize("flips", [(1, 0, 0), (0, 1, 1), (1, 1, 1)])
def test_files_in_another_orientation_give_the_same_input(files, model, asked, tmp_path, flips):
    (tmp_path / "masks").mkdir()
    for path in (files / "ct.nii.gz", files / "masks" / "lung.nii.gz"):
        image = nib.load(path)
        ornt = np.array([[1, -1 if flips[0] else 1], [0, -1 if flips[1] else 1], [2, -1 if flips[2] else 1]])
        nib.save(image.as_reoriented(ornt), tmp_path / path.relative_to(files))
    report_on(files / "ct.nii.gz", {"lung": files / "masks" / "lung.nii.gz"}, model, min_slices=8)
    report_on(tmp_path / "ct.nii.gz", {"lung": tmp_path / "masks" / "lung.nii.gz"}, model, min_slices=8)
    assert torch.equal(asked[0][1], asked[1][1])


def test_a_stated_spacing_makes_fine_and_coarse_scans_alike(files, model, asked, tmp_path):
    """The same patient in slices half as thick: closer to each other at the contract's spacing than at their own."""
    import dataclasses

    for path in (files / "ct.nii.gz", files / "masks" / "lung.nii.gz"):
        image = nib.load(path)
        fine = np.repeat(np.asarray(image.dataobj), 2, axis=2)
        affine = image.affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0.5, -0.25], [0, 0, 0, 1]])
        nib.save(nib.Nifti1Image(fine, affine), tmp_path / path.name)
    views = dataclasses.replace(model.task.views, spacing=(2.0, 2.0, 3.0))
    model.contract = dataclasses.replace(model.contract, task=dataclasses.replace(model.task, views=views))
    for root, masks in ((files, files / "masks"), (tmp_path, tmp_path)):
        report_on(root / "ct.nii.gz", {"lung": masks / "lung.nii.gz"}, model, min_slices=8)
    (one, _), (other, _) = asked
    assert torch.equal(one.geometry, other.geometry)
    assert torch.equal(one.texture, other.texture)


def test_what_cannot_be_done_is_said(files, model, tmp_path):
    scan, masks = files / "ct.nii.gz", files / "masks"
    (tmp_path / "tail.nii.gz").symlink_to(masks / "lung.nii.gz")
    for given, said in (
        (None, "masks is None"),
        (tmp_path / "nothing", "not there"),
        (str(tmp_path / "{region}.nii.gz"), "no file for any region. Looked for: abdomen"),
        (tmp_path, "holds tail, which the model does not know"),
    ):
        with pytest.raises(ConfigError, match=said):
            report_on(scan, given, model, min_slices=8)
    with pytest.raises(DataFault, match=r"UNKNOWN_REGION.*spleen"):
        report_on(scan, {"spleen": masks / "lung.nii.gz"}, model, min_slices=8)
    with pytest.raises(DataFault, match="FEW_SLICES"):
        report_on(scan, masks, model, min_slices=99)
    with pytest.raises(DataFault, match="NOT_HU"):
        report_on(files / "labels.nii.gz", masks, model, min_slices=8)
    for name in ("../x", "a/b", "/x", "..\\x"):  # files of a result are named by it
        with pytest.raises(ConfigError, match="expected no path"):
            report_on(scan, masks, model, min_slices=8, name=name)
    model.contract = None
    with pytest.raises(ConfigError, match="knows no input contract"):
        report_on(scan, masks, model)


def test_the_result_ties_the_report_to_the_voxels_of_the_file(files, model, asked, tmp_path):
    image = nib.load(files / "ct.nii.gz").as_reoriented(np.array([[1, -1], [0, 1], [2, 1]]))  # no longer RAS
    nib.save(image, tmp_path / "ct.nii.gz")
    result = report_on(tmp_path / "ct.nii.gz", files / "masks", model, min_slices=8)
    assert result.asked == asked[0][0].regions[0]
    assert sorted(result.asked) == list(result.masks) == ["heart", "lung"]
    assert result.stored_grid.shape == image.shape
    np.testing.assert_allclose(result.stored_grid.affine, image.affine)
    np.testing.assert_array_equal(result.grid.affine, np.diag([2.0, 2.0, 3.0, 1.0]))
    stored = np.asarray(image.dataobj)[result.stored_mask("lung")]
    assert stored.tolist() == [-800] * (8 * 12 * 16)
    assert result.volume_ml("lung") == pytest.approx(8 * 12 * 16 * 12 / 1000)
    low, high = result.box_mm("lung")
    np.testing.assert_allclose((low, high), [(19, 23, 10.5), (35, 47, 58.5)])
    assert result.absent["thyroid"] == "the mask is empty"
    assert result.absent["bone"] == "no mask of it from files"
    assert set(result.absent) | set(result.asked) == set(model.contract.task.region_set.names)
    made_by = result.made_by
    assert made_by.masks == MadeBy("files", source=str(files / "masks"))
    assert (made_by.options.min_slices, made_by.truncated) == (8, True)  # twelve tokens end no report
    assert "thyroid: the mask is empty" in made_by.notes
    assert str(result) == "\n".join(f"{part.region}: {part.text}" for part in result.report.paragraphs)

    assert report_on(tmp_path / "ct.nii.gz", files / "masks", model, min_slices=8).made_by.model == made_by.model
    with torch.no_grad():
        next(model.reporter.parameters()).add_(1)
    assert report_on(tmp_path / "ct.nii.gz", files / "masks", model, min_slices=8).made_by.model != made_by.model


def test_a_segmenter_gives_the_masks(files, model, asked, tmp_path):
    (tmp_path / "seg_ct").mkdir()
    for name in ("lung", "heart"):
        (tmp_path / "seg_ct" / f"{name}.nii.gz").symlink_to(files / "masks" / f"{name}.nii.gz")
    (tmp_path / "seg_ct" / "left kidney.nii.gz").symlink_to(files / "masks" / "lung.nii.gz")  # no region of the model
    found = report_on(files / "ct.nii.gz", None, model, segmenter=SATFolder(str(tmp_path)), min_slices=8)
    wanted = report_on(files / "ct.nii.gz", str(files / "masks" / "{region}.nii.gz"), model, min_slices=8)
    assert found.report == wanted.report
    assert found.made_by.masks == MadeBy("SATFolder", source=str(tmp_path / "seg_ct"))
    with pytest.raises(ConfigError, match="both masks and a segmenter"):
        report_on(files / "ct.nii.gz", files / "masks", model, segmenter=SATFolder(str(tmp_path)))
    with pytest.raises(DataFault, match=r"NO_MASK .*seg_ct_other: no mask folder"):
        SATFolder(str(tmp_path), "seg_{id}_other").segment(files / "ct.nii.gz", model.contract.task.region_set)
    with pytest.raises(ConfigError, match="all scans share one"):
        SATFolder(str(tmp_path), "seg")


def test_a_region_that_is_not_what_it_is_called_is_absent_by_option(tmp_path, model):
    grid = Grid((96, 96, 64))
    array, masks = draw(draw_patient(77, 2), grid)
    files = {"ct": array} | {name: masks[name] for name in ("heart", "abdomen", "mediastinum")}
    files |= {"lung": masks["bone"], "bone": masks["lung"]}
    for name, content in files.items():
        content = content.astype(np.int16 if name == "ct" else np.uint8)
        nib.save(nib.Nifti1Image(content, grid.affine), tmp_path / f"{name}.nii.gz")
    given = {name: tmp_path / f"{name}.nii.gz" for name in files if name != "ct"}
    result = report_on(tmp_path / "ct.nii.gz", given, model, implausible="drop")
    assert sorted(result.asked) == ["abdomen", "heart", "mediastinum"]
    assert result.absent["lung"].startswith("implausible, left out: lung ")
    assert result.absent["bone"].startswith("implausible, left out: bone ")
    with pytest.raises(DataFault, match="MASK_IMPLAUSIBLE"):
        report_on(tmp_path / "ct.nii.gz", given, model)


def test_a_segmenter_by_name_whose_masks_are_no_measurement(tmp_path, model, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    grid = Grid((48, 48, 40))
    nib.save(nib.Nifti1Image(draw(draw_patient(77, 2), grid)[0], grid.affine), tmp_path / "ct.nii.gz")
    result = report_on(tmp_path / "ct.nii.gz", None, model, segmenter="Thresholds")
    assert "lung" in result.asked
    assert result.absent["heart"].startswith("Thresholds does not give it")
    assert not result.made_by.masks.for_measurements
    [path] = JSON().write(result, tmp_path)
    assert json.loads(path.read_text())["made_by"]["masks"]["for_measurements"] is False
    [page] = Page(max_pixels=32).write(result, tmp_path)
    html = page.read_text(encoding="utf-8")
    assert "(not for measurements)" in html
    assert "Not for measurements: the masks were made by Thresholds." in html
    with pytest.raises(ConfigError, match=r"Unknown segmenter 'Threshold'\. Did you mean 'Thresholds'"):
        report_on(tmp_path / "ct.nii.gz", None, model, segmenter="Threshold")
    with pytest.raises(ConfigError, match=r"segmenter SATFolder needs root\. Fix: build it, SATFolder\(root=\.\.\.\)"):
        report_on(tmp_path / "ct.nii.gz", None, model, segmenter="SATFolder")


def test_a_result_of_independent_paragraphs_certifies_that_their_order_plays_no_part(files, toy, tmp_path):
    model = built(toy, CONFIG | {"task": CONFIG["task"] | {"independent_paragraphs": True}})
    result = report_on(files / "ct.nii.gz", files / "masks", model, min_slices=8)
    assert sorted(result.report.by_region()) == ["heart", "lung"]
    told = json.loads(JSON().write(result, tmp_path)[0].read_text())["order"]
    assert told == {"tokens": told["tokens"], "rounding": result.order.rounding, "margin": result.order.margin,
                    "holds": result.order.holds}  # fmt: skip
    assert told["tokens"] > 10
    assert told["rounding"] < 1e-4


@pytest.mark.parametrize("labels", [False, True])
def test_a_result_as_json(files, model, asked, tmp_path, labels):
    given = LabelMap(files / "labels.nii.gz", {"LUNGS": (10,), "heart": (51,)}) if labels else files / "masks"
    result = report_on(files / "ct.nii.gz", given, model, min_slices=8)
    [path] = JSON().write(result, tmp_path / "out")
    assert path == tmp_path / "out" / "ct.json"
    assert json.loads(path.read_text())["image"] == "ct.nii.gz"
    assert str(files) not in path.read_text()
    [path] = JSON(identified=True).write(result, tmp_path / "out")
    content = json.loads(path.read_text())
    assert content["schema"] == "reg2rg.report/1"
    assert content["decoding"] == "constrained"
    for told, paragraph, written in zip(content["paragraphs"], result.report.paragraphs, result.written, strict=True):
        assert [told[key] for key in ("slot", "region", "text")] == [paragraph.slot, paragraph.region, paragraph.text]
        assert (told["forced"], told["truncated"]) == (False, written.truncated)
        assert told["referring"] == pytest.approx(written.referring, abs=1e-3)
        assert sum(told["referring"].values()) == pytest.approx(1, abs=1e-9)
        assert set(told["referring"]) == set(model.task.region_set.names)
    assert content["asked"] == list(result.asked)
    lung = content["regions"]["lung"]
    assert lung["volume_ml"] == pytest.approx(18.432)
    assert lung["box_mm"] == [[19.0, 23.0, 10.5], [35.0, 47.0, 58.5]]
    assert lung["measured"]["volume_ml"] == lung["volume_ml"]
    assert (lung["measured"]["mean_hu"], lung["measured"]["air"], lung["measured"]["cut"]) == (-800, 1.0, False)
    assert lung["measured"]["extent_mm"] == [16.0, 24.0, 48.0]
    assert set(content["measured"]) == {"body_extent_mm", "cardiothoracic_ratio"}
    file = files / "labels.nii.gz" if labels else files / "masks" / "lung.nii.gz"
    assert (lung["file"], lung["labels"]) == (str(file), [10] if labels else None)
    assert content["grid"]["stored"] == {"shape": [40, 36, 24], "affine": np.diag([2.0, 2.0, 3.0, 1.0]).tolist()}
    assert content["made_by"]["masks"]["name"] == "files"
    assert set(content) >= {"study", "image", "text", "faults", "absent", "made_by"}


def test_names_that_are_given_are_said_to_be(files, model, asked, tmp_path):
    model.decoding = replace(model.decoding, form=replace(model.decoding.form, forced=True))
    result = report_on(files / "ct.nii.gz", files / "masks", model, min_slices=8)
    assert [paragraph.region for paragraph in result.report.paragraphs] == list(result.asked)
    content = json.loads(JSON().write(result, tmp_path)[0].read_text())
    assert content["decoding"] == "forced"
    assert all(told["forced"] for told in content["paragraphs"])
    html = Page().write(result, tmp_path)[0].read_text(encoding="utf-8")
    assert "name given, with referring probability" in html
    assert "they are no recognition" in html


def test_a_result_as_a_page(files, model, asked, tmp_path):
    result = report_on(files / "ct.nii.gz", files / "masks", model, min_slices=8)
    [path] = Page().write(result, tmp_path)
    html = path.read_text(encoding="utf-8")
    data = json.loads(html.partition('id="data">')[2].partition("</script>")[0])
    [study] = data["studies"]
    assert [slot["said"][0]["region"] for slot in study["slots"]] == [one.region for one in result.written]
    for slot, one in zip(study["slots"], result.written, strict=True):
        assert slot["how"].startswith(f"called {one.region} with referring probability {one.probability:.2f}")
    assert "not whether its text is true" in html
    assert [(row["name"], row["status"], row["volume"]) for row in study["regions"][:3]] == [
        ("heart", "given", "5.8"),
        ("lung", "given", "18"),
        ("abdomen", "absent", ""),
    ]
    assert study["window"] == {"lung": "lung", "heart": "soft"}
    table = html.partition("Measured under the masks")[2]
    for words in ("18.43", "16 x 24 x 48", "100.0%", "-800"):
        assert words in table
    assert "Not for measurements" not in html
    assert set(study["planes"]["axial"]["best"]) == set(result.masks)
    assert result.made_by.model in html


def test_a_model_without_regions_needs_no_masks(files, toy, asked):
    torch.manual_seed(0)
    made = Reg2RG(texture=None, geometry=None, global_=CNN3D(size=SIZE, channels=(8, 8), patch=(2, 2, 2), dim=8),
                  projector=LinearProjector, llm=CausalLM(str(toy.lm)), max_new_tokens=6, val_generate=0)  # fmt: skip
    made.describe(
        {"model": {"texture": None, "geometry": None, "global_": {}}, "task": CONFIG["task"] | {"target": "whole"}}
    )
    result = report_on(files / "ct.nii.gz", None, made, min_slices=8)
    assert [(paragraph.slot, paragraph.region) for paragraph in result.report.paragraphs] == [(0, "")]
    assert (result.asked, dict(result.masks), dict(result.absent), result.made_by.masks) == ((), {}, {}, None)
    assert str(result) == result.text == result.report.paragraphs[0].text
    assert asked[0][0].texture is None
    assert asked[0][0].global_.shape == (1, 1, *SIZE)
