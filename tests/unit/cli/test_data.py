"""The commands that work on data alone read the same configs as the training commands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from reg2rg.cli.main import Invocation, main
from reg2rg.cli.section import read_section
from reg2rg.core.errors import DataFault
from reg2rg.datasets import RadGenome
from reg2rg.store.store import Store

CONFIG = """\
seed_everything: 3
vars: {place: here}
data:
  dataset:
    class_path: RadGenome
    init_args: {root: phantoms, regions: "${task.regions}"}
  store: ${vars.place}/store
  read: {min_slices: 8}
  batch_size: 4
model:
  texture: {class_path: CNN3D, init_args: {size: "${task.views.size}"}}
trainer: {max_epochs: 1}
task:
  regions: radgenome
  views: {size: [16, 16, 16]}
"""


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "phantoms"
    assert main(["data", "phantom", str(out), "--studies", "5", "--size", "40", "40", "36", "--workers", "0"]) == 0
    return out


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phantoms: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("phantoms").symlink_to(phantoms)
    Path("run.yaml").write_text(CONFIG)


def test_section_is_built_from_the_whole_config() -> None:
    found = read_section(Invocation("data", ()), ["-c", "run.yaml", "--data.read.hu=trust", "--vars.place=there"])
    assert isinstance(found.data.dataset, RadGenome)
    assert found.data.store == str(Path("there/store").absolute())
    assert found.task.views.size == (16, 16, 16)
    assert (found.data.read.min_slices, found.data.read.hu) == (8, "trust")


def test_check_then_prepare_then_prepare_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "-c", "run.yaml", "--workers", "0", "--overlays", "0", "--out", "seen"]) == 0
    table = json.loads(Path("seen/check.json").read_text())
    assert sum(table["listed"].values()) == 5
    command = ["data", "prepare", "-c", "run.yaml", "--workers", "0"]
    assert main([*command, "--shard", "1/2"]) == 0
    assert main(command) == 0
    capsys.readouterr()
    assert main([*command, "--bake"]) == 0
    assert "5 of 5 studies are in the store" in capsys.readouterr().out
    assert len(Store("here/store").studies()) == 5
    assert main([*command, "--views-only", "--data.store=small"]) == 0
    assert "5 of 5 studies are in the store" in capsys.readouterr().out
    with pytest.raises(DataFault, match="views alone"):
        Store("small").read(Store("small").studies()[0])


def test_prepare_in_parts_that_take_over_what_others_leave(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "prepare", "-c", "run.yaml", "--workers", "0"]
    assert main([*command, "--data.store=one"]) == 0
    assert main([*command, "--data.store=parts", "--shards", "3", "--jobs", "0"]) == 0
    said = capsys.readouterr().out
    assert "3 of 3 parts done; " in said
    assert said.splitlines()[-1].startswith("5 of 5 studies are in the store")
    assert Path("parts/summary.json").read_text() == Path("one/summary.json").read_text()
    assert not Path("parts/.campaigns").exists()
    array = [*command, "--data.store=array", "--campaign", "job-17", "--shard"]
    assert main([*array, "2/3"]) == 0  # the others have not begun: it does all
    assert "5 of 5 studies are in the store" in capsys.readouterr().out
    assert main([*array, "1/3"]) == 0
    assert "5 built, 0 kept" in capsys.readouterr().out  # the campaign's, of which it found nothing left to do


FROZEN = """\
base: run.yaml
data: {read: {min_slices: 8}}
model:
  texture:
    class_path: Frozen
    init_args:
      encoder: {class_path: CNN3D, init_args: {size: "${task.views.size}", dim: 8, channels: [8, 8]}}
"""


def test_encode_then_again_in_parts_and_what_it_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    Path("frozen.yaml").write_text(FROZEN)
    assert main(["data", "prepare", "-c", "run.yaml", "--workers", "0"]) == 0
    command = ["data", "encode", "-c", "frozen.yaml", "--device", "cpu"]
    assert main(command) == 0
    assert "5 of 5 studies have tokens" in capsys.readouterr().out
    [folder] = Path("here/store/encoded").glob("texture-*")
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert main([*command, "--seed_everything=4"]) == 0  # other weights: another folder
    assert len(list(Path("here/store/encoded").glob("texture-*"))) == 2
    capsys.readouterr()
    assert main(command) == 0
    assert "0 encoded, 5 kept" in capsys.readouterr().out
    shutil.rmtree("here/store/encoded")
    assert main([*command, "--shards", "2", "--jobs", "0"]) == 0
    assert capsys.readouterr().out.splitlines()[-2].startswith("5 of 5 studies have tokens")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole
    assert main(["data", "encode", "-c", "run.yaml"]) == 2
    assert "no encoder of the model is frozen (texture view: CNN3D is trained" in capsys.readouterr().err
    assert main([*command, "--data.augment=Augment"]) == 2
    assert "data.augment changes the scans at every epoch" in capsys.readouterr().err
    assert main([*command, "--model.texture.chunck=2"]) == 2
    assert "Did you mean 'chunk'?" in capsys.readouterr().err


def test_check_of_a_folder_without_a_config(capsys: pytest.CaptureFixture[str]) -> None:
    check = ["data", "check", "--workers", "0", "--overlays", "0", "--out", "seen"]
    assert main([*check, "phantoms", "--data.read.min_slices", "8"]) == 0
    said = capsys.readouterr().out
    assert "phantoms: RadGenome-ChestCT's layout (splits: train, valid). Read as RadGenome." in said
    assert sum(json.loads(Path("seen/check.json").read_text())["listed"].values()) == 5
    scan = next(Path("phantoms").glob("train_preprocessed/*/*/*.nii.gz"))
    Path("alone").mkdir()
    (Path("alone") / scan.name).symlink_to(scan.resolve())
    assert main([*check, "--data.read.min_slices=8", "alone"]) == 0  # no mask is no fault where there are none
    assert "scans at {id}, without masks. Read as ScanFolder." in capsys.readouterr().out
    assert main(["data", "check", "phantoms", "-c", "run.yaml"]) == 2
    assert "both a folder, phantoms, and --config" in capsys.readouterr().err
    assert main(["data", "check", "phantoms", "alone"]) == 2
    assert "one folder is expected, found phantoms, alone" in capsys.readouterr().err
    assert main(["data", "check", "phantoms", "--data.red.min_slices=8"]) == 2
    assert "Did you mean 'read'?" in capsys.readouterr().err
    Path("other").mkdir()
    assert main(["data", "check", "other"]) == 2
    assert "no layout that is known (it holds nothing)" in capsys.readouterr().err


def test_three_phantoms_are_a_whole_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "phantom", "three", "--studies", "3", "--size", "40", "40", "36", "--workers", "0"]) == 0
    options = ["-c", "run.yaml", "--data.dataset.init_args.root=three", "--workers", "0"]
    assert main(["data", "check", *options, "--overlays", "0", "--out", "seen"]) == 0
    assert json.loads(Path("seen/check.json").read_text())["usable"] == {"test": 1, "train": 1, "val": 1}
    assert main(["data", "prepare", *options]) == 0
    assert "3 of 3 studies are in the store" in capsys.readouterr().out


MISTAKES = {
    "unknown key": ("  batch_size: 4", "  bath_size: 4", "run.yaml:9: data.bath_size: ", "Did you mean 'batch_size'?"),
    "unknown section": ("trainer:", "trianer:", "run.yaml:12: trianer: ", "Did you mean 'trainer'?"),
    "unknown dataset": ("RadGenome", "RadGnome", "run.yaml:5: data.dataset: ", "Did you mean 'RadGenome'?"),
    "unknown argument": ("root: ph", "rot: ph", "run.yaml:6: data.dataset.init_args.rot: ", "Did you mean 'root'?"),
    "wrong type": ("min_slices: 8", "min_slices: x", "run.yaml:8: data.read.min_slices: ", "a whole number"),
    "not a choice": ("min_slices: 8", "hu: maybe", "run.yaml:8: data.read.hu: ", "one of 'check', 'trust'"),
    "no folder": (
        "root: phantoms",
        "root: gone",
        "run.yaml:6: data.dataset.init_args.root: ",
        "/gone', and nothing is",
    ),
    "no reference": ("${vars.place}", "${vars.plac}", "run.yaml:7: data.store: ", "Did you mean 'vars.place'?"),
    "no region set": ("regions: radgenome", "regions: radgnome", "run.yaml:14: task.regions: ", "radgenome"),
    "no data": ("data:", "dat:", "", "no config gives a 'data' section"),
    "no window": ("{size: [16, 16, 16]}", "{window: [9, 1]}", "run.yaml:13: task (Views): ", "low < high"),
    "a key of the task": ("read: {", "target: whole\n  read: {", "run.yaml:8: data.target: ", "in the section 'task'"),
    "negative": ("min_slices: 8", "min_slices: -8", "run.yaml:8: data.read.min_slices: ", "1 or more"),
}


@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.parametrize("command", ["check", "prepare"])
def test_mistakes(name: str, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    old, new, where, words = MISTAKES[name]
    assert CONFIG.count(old) >= 1
    Path("run.yaml").write_text(CONFIG.replace(old, new, 1))
    assert main(["data", command, "-c", "run.yaml"]) == 2
    message = capsys.readouterr().err
    assert where in message
    assert words in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["prepare", "-c", "run.yaml", "--shard", "3/2"], "--shard: expected I/N"),
        (["prepare", "-c", "run.yaml", "--shard", "1/2", "--shards", "2"], "both --shard and --shards"),
        (["prepare", "-c", "run.yaml", "--campaign", "a"], "--campaign without --shard"),
        (["prepare", "-c", "run.yaml", "--shard", "1/2", "--campaign", "a/b"], "expected a name without slashes"),
        (["prepare", "-c", "run.yaml", "--data.batchsize=3"], "command line: data.batchsize: "),
        (["prepare", "-c", "run.yaml", "--workers=-1"], "expected a whole number, 0 or more"),
        (["phantom", "out", "--bogus"], "unexpected --bogus"),
        (["phantom"], "OUT"),
        (["prepare"], "no config gives a 'data' section"),
    ],
)
def test_wrong_options(args: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", *args]) == 2
    assert words in capsys.readouterr().err


def test_keys_that_only_training_needs_are_left_alone() -> None:
    config = yaml.safe_load(CONFIG)
    config["data"]["cache"] = True
    Path("full.yaml").write_text(yaml.safe_dump(config))
    assert read_section(Invocation("data", ()), ["-c", "full.yaml"]).data.store == str(Path("here/store").absolute())


def test_no_torch_is_imported_to_prepare(phantoms: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys\nfrom reg2rg.cli.main import main\n"
        "assert main(['data', 'prepare', '-c', 'run.yaml', '--workers', '0']) == 0\n"
        "assert not {'torch', 'lightning', 'transformers'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_check_lists_the_series_of_a_dicom_study_and_reads_the_one_that_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from dicom_files import chest, localizer, save, slices

    save(slices(), Path("study/a"))
    save(slices(chest() + 5, uid="1.2.3.4.6", ConvolutionKernel="B70f"), Path("study/b"))
    save([localizer()], Path("study/c"))
    words = ["data", "check", "study", "--workers", "0", "--overlays", "0"]
    assert main(words) == 3
    said = " ".join(capsys.readouterr().out.split())
    assert "one DICOM study. Read as ScanFolder" in said
    for line in ("1 1.2.3.4.7 CT 1 B30f localizer", "3 mm B70f fits as well as another"):
        assert line in said
    assert "error SERIES_CHOICE study" in said
    assert main([*words, "--series", "1.2.3.4.6"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "3 mm B70f taken" in said
    assert "another series was asked for" in said
