"""A trained model exported, moved and used by somebody else, from the command line and from Python."""

from __future__ import annotations

import json
import re
import runpy
import shutil
from pathlib import Path

import pytest
import yaml

from reg2rg import Reg2RG, generate_report, report_on
from reg2rg.cli.main import main
from reg2rg.config.saving import read_config
from reg2rg.core.report import parse_report
from reg2rg.evaluation.records import read_records
from reg2rg.extras.dicom_study import write_dicom_study

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "predict_one_scan.py"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Path, Path, str]:
    """Folder of a run, its exported model, a held-out scan and its masks."""
    root = tmp_path_factory.mktemp("trained")
    return root, *runpy.run_path(str(EXAMPLE))["train_toy"](root)


@pytest.fixture
def theirs(trained, tmp_path, monkeypatch) -> Path:
    """Somebody else's machine: the exported folder elsewhere, and a config of their data."""
    root, folder, _, _ = trained
    shutil.copytree(folder, tmp_path / "downloads" / "model")
    data = {
        "dataset": {"class_path": "RadGenome", "init_args": {"root": str(root / "data")}},
        "store": str(root / "store"),
    }
    trainer = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "default_root_dir": "run"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"data": data | {"workers": 0}, "trainer": trainer}))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "downloads" / "model"


def predictions(out: str) -> list[dict]:
    return sorted(read_records(Path(out)), key=lambda record: record["study"])


def test_predict_test_and_go_on_with_somebodys_folder(trained, theirs, capsys) -> None:
    root = trained[0]
    configs = ["--config", "phantom.yaml", "--config", str(root / "toy.yaml"), "--trainer.logger", "false"]
    checkpoint = str(root / "runs" / "checkpoints" / "last.ckpt")
    out = ["--trainer.default_root_dir", "by_checkpoint", "--trainer.accelerator", "cpu"]
    assert main(["predict", *configs, "--ckpt_path", checkpoint, *out]) == 0
    assert main(["predict", "--ckpt_path", str(theirs), "--config", "mine.yaml"]) == 0
    wanted = predictions("by_checkpoint/predictions")
    assert wanted
    assert predictions("run/predictions") == wanted

    window = ["--task.views.window", "[-500, 900]", "--trainer.default_root_dir", "window"]
    assert main(["predict", "--ckpt_path", str(theirs), "--config", "mine.yaml", *window]) == 0
    assert predictions("window/predictions") == wanted

    capsys.readouterr()
    lobes = ["--task.regions", "lobes", "--trainer.default_root_dir", "lobes"]
    assert main(["predict", "--ckpt_path", str(theirs), "--config", "mine.yaml", *lobes]) == 2
    assert "which the model was not trained on" in capsys.readouterr().err
    assert (
        main(["test", "--config", str(theirs / "config.yaml"), "--config", "mine.yaml", "--ckpt_path", str(theirs)])
        == 0
    )

    steps = ["--trainer.max_steps", "1", "--trainer.limit_val_batches", "0", "--model.word_alignment_steps", "0"]
    assert main(["fit", "--ckpt_path", str(theirs), "--config", "mine.yaml", *steps]) == 0


def test_the_card_has_the_figures_and_names_nobodys_disk(trained, theirs, tmp_path) -> None:
    root = trained[0]
    metrics = {"numbers": [], "studies": 2, "patients": 2, "protocol": {"name": "strict"}, "intervals": {}}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    words = ["--name", "Phantom reader", "--training_data", "Phantoms", "--licence", "mit", "--metrics", "metrics.json"]
    assert main(["export", "--ckpt_path", str(theirs), "--out", "again", *words]) == 0
    card = (tmp_path / "again" / "README.md").read_text()
    for said in (
        "# Phantom reader",
        "Phantoms",
        "license: mit",
        "2 studies of 2 patients",
        "Report on each region"[:0],
    ):
        assert said in card
    for file in (tmp_path / "again").iterdir():
        if file.suffix in (".md", ".yaml", ".json"):
            assert str(root) not in file.read_text(), file.name
    for name in ("model.safetensors", "config.yaml", "input_contract.yaml"):
        assert (tmp_path / "again" / name).read_bytes() == (theirs / name).read_bytes(), name


def test_report_on_a_scan_is_what_predict_wrote(trained, theirs) -> None:
    _, _, image, masks = trained
    model = Reg2RG.from_pretrained(theirs, max_new_tokens=8)
    assert main(["predict", "--ckpt_path", str(theirs), "--config", "mine.yaml", "--model.max_new_tokens", "8",
                 "--data.test_regions", "all"]) == 0  # fmt: skip
    [record] = [record for record in predictions("run/predictions") if image.name.startswith(record["study"])]
    wanted = parse_report(record["text"], record["regions"])
    assert report_on(image, masks, model).report == wanted
    assert report_on(image, Path(masks).parent, model).report == wanted


@pytest.fixture
def dicom(trained, tmp_path) -> Path:
    """The held-out scan as a DICOM study, in a folder of its name."""
    pytest.importorskip("pydicom", reason="pydicom is not installed (extra 'dicom')")
    image = trained[2]
    return write_dicom_study(image, tmp_path / image.name.removesuffix(".nii.gz"))


def test_report_on_dicom_and_its_masks(trained, theirs, dicom, tmp_path, capsys) -> None:
    _, _, image, masks = trained
    wanted = generate_report(image, theirs, masks)
    assert main(["report", str(dicom), "--model", str(theirs), "-o", "out", "--masks", masks]) == 0
    said = capsys.readouterr()
    assert said.err.startswith(f"report: looking at {dicom}\n")
    assert re.search(r"report: \d+\.\d s, \d+\.\d\d GiB at the peak\n$", said.err)
    assert re.search(r"\n1 .* localizer\n", said.out)
    record = json.loads(Path(f"out/{dicom.name}.json").read_text())
    assert record["text"] == wanted.text
    assert record["image"] == str(dicom)
    assert record["absent"] == dict(wanted.absent)
    for region, why in wanted.absent.items():
        assert f"no report on {region}: {why}" in said.out
    assert Path(f"out/{dicom.name}.html").is_file()

    archive = shutil.make_archive(str(tmp_path / "zipped" / dicom.name), "zip", dicom)
    found = generate_report(archive, theirs, masks, out="zip", formats=("JSON",))
    assert found.report == wanted.report
    assert [file.name for file in Path("zip").iterdir()] == [f"{dicom.name}.json"]


def test_report_refuses_what_it_cannot_do_before_the_model_is_loaded(theirs, dicom, capsys) -> None:
    words = ["report", str(dicom), "--model", str(theirs)]
    for more, said in (
        (
            [],
            "no masks, and .* reports region by region. Fix, one of:\n  --masks FOLDER(.|\n)*--segmenter .*SATFolder",
        ),
        (["--masks", "m", "--segmenter", "SATFolder"], "both --masks and --segmenter are given"),
        (["--segmenter", "SATFolder"], "SATFolder.*root"),
        (["--segmenter", "Nobody"], "Unknown segmenter 'Nobody'"),
        (["--masks", "m", "--formats", "Words"], "format 'Words': there is no such exporter. Known: .*JSON.*Page"),
    ):
        assert main([*words, *more]) == 2
        assert re.search(said, capsys.readouterr().err), said
    assert main([*words, "--masks", "m", "--series", "9.9.9"]) == 2
    said = capsys.readouterr()
    assert "SERIES_UNKNOWN" in said.err
    assert "another series was asked for" in said.out
    assert "loading" not in said.err
    assert main(["report", "gone", "--model", str(theirs)]) == 2
    assert "gone: not there" in capsys.readouterr().err


def test_report_on_a_list_of_studies(trained, theirs, dicom, capsys) -> None:
    _, _, image, masks = trained
    shutil.copy(image, "a.nii.gz")
    shutil.copytree(dicom, "b")
    next(Path("b").iterdir()).write_bytes(b"not DICOM")
    for study in "ab":
        shutil.copytree(Path(masks).parent, f"masks/{study}")
    Path("studies.csv").write_text("id,image,split\na,a.nii.gz,test\nb,b,test\nc,gone.nii.gz,test\n")
    words = ["report", "studies.csv", "--model", str(theirs), "-o", "out", "--formats", "JSON"]
    assert main([*words, "--masks", "masks/a"]) == 2
    assert "{id} does not stand in it" in capsys.readouterr().err
    assert main([*words, "--masks", "masks/{id}"]) == 3
    said = capsys.readouterr().err
    assert re.search(r"error: VOLUME_MISSING c .*gone.nii.gz", said)
    assert re.search(r"\[2/2\] error: .*b", said)
    assert "2 of 3 studies have no report" in said
    assert [file.name for file in Path("out").iterdir()] == ["a.json"]

    for study in ("images/a.nii.gz", "images/b.nii.gz"):
        Path(study).parent.mkdir(exist_ok=True)
        shutil.copy(image, study)
    for study in "ab":
        shutil.copytree(Path(masks).parent, f"folder/masks/{study}")
    shutil.move("images", "folder/images")
    checkpoint = str(trained[0] / "runs/checkpoints/last.ckpt")
    words = ["report", "folder", "--model", checkpoint, "-o", "both", "--formats", "JSON", "--decoding", "forced"]
    assert main(words) == 0
    assert sorted(file.name for file in Path("both").iterdir()) == ["a.json", "b.json"]
    forced = json.loads(Path("both/a.json").read_text())
    assert forced["decoding"] == "forced"
    assert [paragraph["region"] for paragraph in forced["paragraphs"]] == forced["asked"]

    shutil.rmtree("folder/masks/b")  # who makes masks needs none
    words = ["report", "folder", "--model", checkpoint, "--segmenter", "Thresholds", "-o", "made"]
    main([*words, "--formats", "JSON"])
    assert "[2/2]" in capsys.readouterr().err


def test_a_checkpoints_config_is_the_folders(trained) -> None:
    from reg2rg.training.checkpoints import read_checkpoint

    root, folder, _, _ = trained
    trained_with = read_config(read_checkpoint(root / "runs" / "checkpoints" / "last.ckpt"))
    written = yaml.safe_load((folder / "config.yaml").read_text())
    for name in ("texture", "geometry", "global_", "projector", "optimizer", "max_new_tokens"):
        assert written["model"][name] == trained_with["model"][name], name
    assert {name: written["task"][name] for name in trained_with["task"]} == trained_with["task"]
    assert not set(written["task"]) & set(written["data"])
