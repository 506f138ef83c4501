"""A trained model exported, moved and used by somebody else, from the command line and from Python."""

from __future__ import annotations

import hashlib
import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest
import yaml

from reg2rg import Reg2RG, generate_report, report_on
from reg2rg.cli.main import main
from reg2rg.cli.shards import Shard
from reg2rg.config.saving import read_config
from reg2rg.core.errors import ConfigError
from reg2rg.core.report import parse_report
from reg2rg.evaluation.records import read_records
from reg2rg.extras.dicom_study import write_dicom_study
from reg2rg.runners import Outcome, Stop

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

    steps = ["--trainer.max_steps", "1", "--trainer.limit_val_batches", "0"]
    assert main(["fit", "--ckpt_path", str(theirs), "--config", "mine.yaml", *steps]) == 0


def test_predict_in_parts(trained, theirs, capsys, monkeypatch) -> None:
    ended = []

    def in_this_process(shard: Shard, stop: Stop) -> Outcome:
        ended.append(main(shard.words))
        return Outcome("failed" if ended[-1] else "done", code=ended[-1])

    monkeypatch.setattr(Shard, "execute", in_this_process)
    command = ["predict", "--ckpt_path", str(theirs), "--config", "mine.yaml", "--data.predict_split", "train"]
    command += ["--model.max_new_tokens", "4", "--trainer.default_root_dir"]
    parts = ["--shards", "2", "--jobs", "0"]
    assert main([*command, "one"]) == 0
    assert main([*command, "parts", *parts]) == 0
    files = {out: {path.relative_to(out): path.read_bytes() for path in Path(out, "predictions").rglob("*.*")
             if path.is_file() and path.name != "done.json"} for out in ("one", "parts")}  # fmt: skip
    assert len(files["one"]) >= 4
    assert files["parts"] == files["one"]  # and nothing is left of the campaign
    said = capsys.readouterr().out
    assert "2 of 2 parts done; " in said
    assert said.rstrip().endswith("parts/predictions are complete")
    assert main([*command, "one"]) == main([*command, "parts", *parts]) == 0
    assert capsys.readouterr().out.count("studies are complete; nothing to do") == 2

    ended.clear()
    monkeypatch.setattr("reg2rg.training.prediction_writer.PredictionWriter.setup", not_as_expected)
    assert main([*command, "two", *parts]) == 2
    assert ended == [2, 2]  # what is wrong stays wrong: no part is handed out again
    assert main([*command, "none", *parts, "--ckpt_path", "nowhere.ckpt"]) == 2
    assert main([*command, "none", *parts, "--data.bogus=1"]) == 2
    assert ended == [2, 2]  # said before any part begins


def not_as_expected(*arguments, **named) -> None:
    raise ConfigError("data: not as expected")


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


def test_calibrated_on_studies_of_its_own_and_told_in_every_output(trained, theirs, capsys) -> None:
    _, _, image, masks = trained
    words = ["calibrate", "--config", "mine.yaml"]
    assert main([*words, "--model", str(theirs), "--check"]) == 2
    assert "was not calibrated" in capsys.readouterr().err
    assert main([*words, "--model", str(theirs), "--out", "calibrated", "--alpha", "1.5"]) == 2
    assert main([*words, "--model", str(theirs)]) == 2
    assert main([*words, "--model", str(theirs), "--out", "calibrated", "--alpha", "0.4"]) == 0
    told = capsys.readouterr().out
    assert "at most 40% of the paragraphs" in told
    assert "exchangeable" in told
    assert main([*words, "--model", "calibrated", "--check"]) == 0
    assert capsys.readouterr().out.startswith("p = 1 over")

    point = ["--operating-point", "recall=.9"]
    assert main(["predict", "--ckpt_path", "calibrated", "--config", "mine.yaml", *point]) == 0
    with_a_model = ["--config", str(theirs / "config.yaml"), "--config", "mine.yaml", "--ckpt_path", "calibrated"]
    assert main(["predict", *with_a_model, *point]) == 0  # the same predictions: all are complete
    given = ["report", str(image), "--model", "calibrated", "--masks", masks, "-o", "out", "--formats", "JSON"]
    assert main([*given, *point]) == 0
    [file] = (path for path in Path("out").glob("*.json") if not path.name.endswith(".run.json"))
    for found in [
        json.loads(file.read_text())["findings"],
        *(one["findings"] for one in predictions("run/predictions")),
    ]:
        assert found["operating_point"] == "recall=0.9"
        assert found["cued"]
        assert found["omissions"]["alpha"] == 0.4
        assert "exchangeable" in found["omissions"]["caveat"]
        assert found["review"] == [name for name, own in found["regions"].items() if own["review"]]
        assert all(own["review"] == bool(own["wanting"]) for own in found["regions"].values())
    assert main([*given, "--operating-point", "best"]) == 2
    assert "expected f1, or precision= or recall=" in capsys.readouterr().err


@pytest.fixture
def dicom(trained, tmp_path) -> Path:
    """The held-out scan as a DICOM study, in a folder of its name."""
    pytest.importorskip("pydicom", reason="pydicom is not installed (extra 'dicom')")
    image = trained[2]
    return write_dicom_study(image, tmp_path / image.name.removesuffix(".nii.gz"))


def test_report_on_dicom_and_its_masks(trained, theirs, dicom, tmp_path, capsys) -> None:
    _, _, image, masks = trained
    wanted = generate_report(image, theirs, masks)
    words = ["report", str(dicom), "--model", str(theirs), "--masks", masks]
    assert main([*words, "-o", "out", "--name", dicom.name]) == 0
    said = capsys.readouterr()
    assert said.err.startswith("report: looking at the input\n")
    assert re.search(r"report: \d+\.\d s, \d+\.\d\d GiB at the peak\n$", said.err)
    assert re.search(r"\n1 .* localizer\n", said.out)
    record = json.loads(Path(f"out/{dicom.name}.json").read_text())
    assert record["text"] == wanted.text
    assert record["image"] == dicom.name
    assert record["absent"] == dict(wanted.absent)
    for region, why in wanted.absent.items():
        assert f"no report on {region}: {why}" in said.out
    assert Path(f"out/{dicom.name}.html").is_file()

    archive = shutil.make_archive(str(tmp_path / "zipped" / dicom.name), "zip", dicom)
    found = generate_report(archive, theirs, masks, out="zip", formats=("JSON",), name=dicom.name)
    assert found.report == wanted.report
    assert sorted(file.name for file in Path("zip").iterdir()) == [f"{dicom.name}.json", f"{dicom.name}.run.json"]


def test_a_run_again_from_its_record(trained, theirs, dicom, tmp_path, capsys) -> None:
    """The same files byte by byte, but for the listed times of the record; another input is refused with the reason."""
    masks = trained[3]
    words = ["report", str(dicom), "--model", str(theirs), "--masks", masks, "--min_slices", "17"]
    assert main([*words, "-o", "out", "--formats", "JSON,FHIR"]) == 0
    [record] = Path("out").glob("*.run.json")
    assert re.fullmatch(r"ct-[0-9a-f]{12}\.run\.json", record.name)
    capsys.readouterr()
    again = ["report", str(dicom), "--masks", masks, "--rerun", str(record), "-o", "again"]
    assert main(again) == 0
    assert "all 2 files are the same" in capsys.readouterr().out
    files = {file.name: file.read_bytes() for file in Path("out").iterdir() if file != record}
    assert files == {file.name: file.read_bytes() for file in Path("again").iterdir() if file.name != record.name}
    before, after = (json.loads(path.read_text()) for path in (record, Path("again", record.name)))
    assert set(before["times"]) == {"seconds", "finished"}
    assert {key: before[key] for key in before if key not in before["times"]} == {
        key: after[key] for key in after if key not in after["times"]
    }
    assert before["options"]["min_slices"] == 17
    assert set(before["seconds"]) == {"choosing", "segmenting", "reading", "measuring", "writing"}
    assert before["model"]["sha256"] == hashlib.sha256((theirs / "SHA256SUMS").read_bytes()).hexdigest()
    assert before["input"]["files"] == len(list(dicom.iterdir())) - 1  # the localizer is not read

    other = tmp_path / "other"
    shutil.copytree(dicom, other)
    file = next(
        file for file in sorted(other.iterdir()) if len(file.read_bytes()) == len((other / "IM0000").read_bytes())
    )
    file.write_bytes(file.read_bytes()[:-2] + b"\1\1")
    assert main(["report", str(other), *again[2:]]) == 2
    assert re.search(r"the scan is another: SHA-256 was \w{16}\.\.\., is \w{16}", capsys.readouterr().err)
    copied = tmp_path / "masks"
    shutil.copytree(Path(masks).parent, copied)
    (copied / "lung.nii.gz").write_bytes((copied / "heart.nii.gz").read_bytes())
    assert main(["report", str(dicom), "--masks", str(copied), *again[4:]]) == 2
    said = capsys.readouterr().err
    assert "the mask of lung is another" in said
    assert "heart" not in said.partition("Fix")[0]
    assert main(["report", str(dicom), "--rerun", str(theirs / "language_model.json")]) == 2
    assert "expected 'reg2rg.run/1'" in capsys.readouterr().err

    assert main([*words, "-o", "full", "--formats", "JSON", "--identified"]) == 0  # needs nothing but its record
    [record] = Path("full").glob("*.run.json")
    assert main(["report", "--rerun", str(record), "-o", "again"]) == 0
    assert str(dicom) in (Path("again") / f"{dicom.name}.json").read_text()


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
        (["--masks", "m", "--formats", "SEG", "--series", "9.9.9"], "SERIES_UNKNOWN"),
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


def test_report_refuses_formats_that_a_scan_has_no_headers_for(trained, theirs, dicom, capsys, monkeypatch) -> None:
    _, _, image, masks = trained
    words = ["report", "--model", str(theirs), "--formats", "SEG,JSON,TextSR", "-o", "out"]
    with monkeypatch.context() as patch:
        patch.setattr("reg2rg.inference.generate.load_model", lambda *_: pytest.fail("the model was loaded"))
        assert main([*words, str(image), "--masks", masks]) == 2
    said = capsys.readouterr().err
    assert "no DICOM, and SEG takes patient" in said
    assert "leave TextSR out of the formats" in said
    assert not Path("out").exists()
    with pytest.raises(ConfigError, match=r"no DICOM, and PDF takes"):
        generate_report(image, Reg2RG.from_pretrained(theirs), masks, out="out", formats=["PDF"])

    # Of several studies those that can be written are; what one format cannot write keeps no other from it.
    shutil.copy(image, "a.nii.gz")
    shutil.copytree(dicom, "b")
    shutil.copytree(Path(masks).parent, "masks/a")
    shutil.copytree(Path(masks).parent, "masks/b")
    Path("studies.csv").write_text("id,image,split\na,a.nii.gz,test\nb,b,test\n")
    words += ["studies.csv", "--masks", "masks/{id}"]
    assert main([*words, "--formats", "JSON,MeasurementSR,TextSR"]) == 3
    said = capsys.readouterr().err
    assert "error: " in said
    assert "a.nii.gz: no DICOM, and MeasurementSR" in said
    names = {file.name for file in Path("out").iterdir()}
    assert {"b.json", "b.text.dcm", "b.measurements.dcm", "b.seg.dcm"} <= names
    assert not [name for name in names if name.startswith("a")]
    with monkeypatch.context() as patch:
        patch.setattr("reg2rg.inference.exporters.dicom.pdf._families", refuse)
        assert main([*words, "--formats", "PDF,JSON"]) == 3
    said = capsys.readouterr().err
    assert re.search(r"\[1/1\] error: no such letters \(written all the same: .*b.json\)", said)
    assert "2 of 2 studies have no report" in said


def refuse(text: str) -> tuple[str, ...]:
    raise ConfigError("no such letters")


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
    assert sorted(file.name for file in Path("out").iterdir()) == ["a.json", "a.run.json"]

    stamp = Path("out/a.json").stat().st_mtime_ns
    for more, done in (
        ([], True),
        (["--again"], False),
        ([], True),
        (["--decoding", "free"], False),
        (["--decoding", "free"], True),
        (["--min_slices", "15"], False),
    ):
        main([*words, "--masks", "masks/{id}", *more])
        assert ("a was done before" in capsys.readouterr().out) is done, more
        assert (Path("out/a.json").stat().st_mtime_ns == stamp) is done
        stamp = Path("out/a.json").stat().st_mtime_ns
    Path("out/a.json").write_text("{}")  # a file that is no longer the record's
    main([*words, "--masks", "masks/{id}", "--min_slices", "15"])
    assert "a was done before" not in capsys.readouterr().out

    for study in ("images/a.nii.gz", "images/b.nii.gz"):
        Path(study).parent.mkdir(exist_ok=True)
        shutil.copy(image, study)
    for study in "ab":
        shutil.copytree(Path(masks).parent, f"folder/masks/{study}")
    shutil.move("images", "folder/images")
    checkpoint = str(trained[0] / "runs/checkpoints/last.ckpt")
    words = ["report", "folder", "--model", checkpoint, "-o", "both", "--formats", "JSON", "--decoding", "forced"]
    assert main(words) == 0
    assert sorted(file.name for file in Path("both").iterdir()) == ["a.json", "a.run.json", "b.json", "b.run.json"]
    forced = json.loads(Path("both/a.json").read_text())
    assert forced["decoding"] == "forced"
    assert [paragraph["region"] for paragraph in forced["paragraphs"]] == forced["asked"]

    shutil.rmtree("folder/masks/b")  # who makes masks needs none
    words = ["report", "folder", "--model", checkpoint, "--segmenter", "Thresholds", "-o", "made"]
    main([*words, "--formats", "JSON"])
    assert "[2/2]" in capsys.readouterr().err


def test_the_listeners_report_is_that_of_the_command(theirs, dicom, tmp_path, monkeypatch) -> None:
    from reg2rg.cli import listen
    from reg2rg.cli.main import Invocation

    masks = ["--segmenter", "Thresholds", "--implausible", "ignore", "--formats", "JSON,FHIR"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    options = listen.parser().parse_args(["--model", str(theirs), *masks])
    listen._report(options, Invocation("listen", ()))(dicom, tmp_path / "listened")
    assert main(["report", str(dicom), "--model", str(theirs), *masks, "-o", "report"]) == 0
    names = sorted(file.name for file in Path("report").iterdir())
    assert names == sorted(file.name for file in Path("listened").iterdir())
    assert len(names) == 3
    for name in names:
        same = Path("report", name).read_bytes() == Path("listened", name).read_bytes()
        assert same or name.endswith(".run.json")


def test_a_listener_without_masks_receives_nothing(theirs, capsys) -> None:
    assert main(["listen", "--model", str(theirs)]) == 2
    said = capsys.readouterr().err
    assert f"{theirs} reports region by region, and nothing makes masks. Fix: --segmenter NAME" in said


def test_a_listener_reports_and_an_archive_gets_it(trained, theirs, dicom, tmp_path) -> None:
    """The whole way with real programs: slices by C-STORE, the pipeline, results by C-STORE, fetched and compared."""
    from tests.integration.test_orthanc import Archive, free_port

    from listen_parts import wait_for
    from reg2rg.inference.listen.settings import Node
    from reg2rg.testing.dicom_node import send_objects

    asked = {
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
    }  # by default it leaves strangers' questions unanswered
    archive = Archive(tmp_path / "archive", overwrite=False, **asked)
    port, log = free_port(), tmp_path / "log.txt"
    words = [
        "listen",
        "--model",
        str(theirs),
        "--segmenter",
        "Thresholds",
        "--formats",
        "JSON,FHIR,SEG,TextSR",
        "-o",
        "out",
    ]
    words += [
        "--implausible",
        "ignore",
        "--quiet",
        "1",
        "--port",
        str(port),
        "--send_to",
        f"ORTH@127.0.0.1:{archive.dicom}",
    ]
    with log.open("w") as stream:
        process = subprocess.Popen([sys.executable, "-m", "reg2rg.cli.main", *words], stdout=stream, stderr=stream)
    try:
        wait_for(lambda: f" at 127.0.0.1:{port}" in log.read_text(), 60)
        objects = [pydicom.dcmread(file) for file in sorted(dicom.iterdir())]
        assert send_objects(Node("REG2RG", "127.0.0.1", port), objects) == [0] * len(objects)
        [sent] = wait_for(lambda: list(Path("out").glob("*/sent.json")), 120)
        found = json.loads(sent.read_text())
        assert (
            sorted(one["verified"] for one in found["objects"].values())
            == ["fetched and equal, element by element"] * 2
        )
        assert send_objects(
            Node("REG2RG", "127.0.0.1", port), [pydicom.dcmread(f) for f in sent.parent.glob("*.dcm")]
        ) == [0, 0]
        for uid in found["objects"]:
            archive.find(uid)
    finally:
        process.terminate()
        assert process.wait() == 143
        archive.end()
    assert len(list(Path("out").glob("*/sent.json"))) == 1
    for told in (str(objects[0].StudyInstanceUID), str(objects[0].PatientName), objects[0].PatientID):
        assert told not in log.read_text()

    words = ["report", str(dicom), "--model", str(theirs), "--segmenter", "Thresholds", "--implausible", "ignore"]
    assert main([*words, "--formats", "JSON,FHIR,SEG,TextSR", "-o", "report"]) == 0
    for file in Path("report").iterdir():
        if not file.name.endswith(".run.json"):
            assert file.read_bytes() == (sent.parent / file.name).read_bytes(), file.name


def test_a_checkpoints_config_is_the_folders(trained) -> None:
    from reg2rg.training.checkpoints import read_checkpoint

    root, folder, _, _ = trained
    trained_with = read_config(read_checkpoint(root / "runs" / "checkpoints" / "last.ckpt"))
    written = yaml.safe_load((folder / "config.yaml").read_text())
    for name in ("texture", "geometry", "global_", "projector", "optimizer", "max_new_tokens"):
        assert written["model"][name] == trained_with["model"][name], name
    assert {name: written["task"][name] for name in trained_with["task"]} == trained_with["task"]
    assert not set(written["task"]) & set(written["data"])
