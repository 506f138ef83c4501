from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from reg2rg.core.errors import ConfigError, Reg2RGError, TooManySkippedError
from reg2rg.core.files import sha256
from reg2rg.core.regions import load_region_set
from reg2rg.core.task import Views
from reg2rg.core.types import RegionFiles, Study
from reg2rg.scans import footprint
from reg2rg.scans.base import ReadOptions
from reg2rg.store import inputs, prepare_study
from reg2rg.store.prepare import prepare
from reg2rg.store.prepare_study import entry_key
from reg2rg.store.store import Store

BAKE = Views(size=(16, 12, 8))
REGIONS = ("lung", "heart", "bone")


def make_study(folder: Path, number: int, shape=(40, 36, 20)) -> Study:
    rng = np.random.default_rng(number)
    hu = np.full(shape, -1000, dtype=np.int16)
    hu[2:-2, 2:-2, 1:-1] = rng.normal(20, 40, (shape[0] - 4, shape[1] - 4, shape[2] - 2))
    hu[8:18, 8:28, 3:15] = rng.normal(-850, 30, (10, 20, 12))
    affine = np.diag([0.9, 0.9, 2.0, 1.0])
    here = folder / f"s{number}"
    here.mkdir(parents=True)
    nib.save(nib.Nifti1Image(hu, affine), here / "ct.nii.gz")
    files = {}
    for index, name in enumerate(REGIONS):
        mask = np.zeros(shape, dtype=np.uint8)
        mask[4 + 6 * index : 16 + 6 * index, 6:30, 2:16] = rng.random((12, 24, 14)) > 0.3
        files[name] = here / f"{name}.nii.gz"
        nib.save(nib.Nifti1Image(mask, affine), files[name])
    return Study(
        id=f"s{number}", patient=f"p{number}", split="train", image=here / "ct.nii.gz", masks=RegionFiles(files)
    )


@pytest.fixture(scope="module")
def studies(tmp_path_factory) -> list[Study]:
    folder = tmp_path_factory.mktemp("scans")
    return [make_study(folder, number) for number in range(6)]


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
        and path.name not in ("inputs.json", "done.json")  # times and inodes of the inputs: of this machine
    }


def run(studies, root, **options):
    return prepare(studies, root, **{"bake": BAKE, "workers": 0, **options})


@pytest.fixture(scope="module")
def finished(studies, tmp_path_factory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("finished") / "store"
    run(studies, root)
    return digests(root)


def test_first_and_second_run(studies, tmp_path, finished):
    first = run(studies, tmp_path / "store")
    assert (first.built, first.kept, first.ready, first.skipped) == (6, 0, 6, ())
    assert first.regions["heart"] == 6
    store = Store(tmp_path / "store")
    assert store.studies() == tuple(f"s{n}" for n in range(6))
    assert store.regions("s0") == ("bone", "heart", "lung")
    second = run(studies, tmp_path / "store")
    assert (second.built, second.kept) == (0, 6)
    assert digests(tmp_path / "store") == finished
    assert first.size == sum(path.stat().st_size for path in (tmp_path / "store").rglob("*.r2g"))
    assert "6 of 6 studies" in first.describe()


def test_workers_and_shards_give_the_same_bytes(studies, tmp_path, finished, capfd):
    for index in (1, 2):
        summary = run(studies, tmp_path / "store", workers=2 if index == 1 else 0, shard=(index, 2))
        assert summary.built == 3
    assert "prepare: 3/3" in capfd.readouterr().err
    assert json.loads((tmp_path / "store" / "summary-2-of-2.json").read_text())["ready"] == 3
    ours = {name: digest for name, digest in digests(tmp_path / "store").items() if name.endswith(".r2g")}
    assert ours == {name: digest for name, digest in finished.items() if name.endswith(".r2g")}
    assert Store(tmp_path / "store").index().keys() == {f"s{n}" for n in range(6)}
    with pytest.raises(ConfigError, match="shard is 3/2"):
        run(studies, tmp_path / "store", shard=(3, 2))


def test_views_alone_and_native_detail_afterwards(studies, tmp_path, finished):
    root = tmp_path / "store"
    small = run(studies, root, native=False)
    assert (small.built, small.skipped) == (6, ())
    assert run(studies, root, native=False).kept == 6
    whole = run(studies, root)
    assert (whole.rebuilt, whole.kept) == (6, 0)
    assert {name: digest for name, digest in digests(root).items() if name.endswith(".r2g")} == {
        name: digest for name, digest in finished.items() if name.endswith(".r2g")
    }
    assert small.size < 0.8 * whole.size
    assert run(studies, root, native=False).kept == 6  # what is there already stays
    with pytest.raises(ConfigError, match="nothing would be kept"):
        run(studies, root, native=False, bake=None)


def test_stale_damaged_and_unbaked_entries(studies, tmp_path):
    root = tmp_path / "store"
    run(studies, root, bake=None)
    baked = run(studies, root)
    assert (baked.baked, baked.built) == (6, 0)
    store = Store(root)
    whole = digests(root)
    paths = [store.native_path("s0"), store.views_path("s1", BAKE)]
    rng = random.Random(0)
    for path in paths:
        data = bytearray(path.read_bytes())
        data[rng.randrange(len(data))] ^= 4
        path.write_bytes(data)
    store.native_path("s2").write_bytes(store.native_path("s2").read_bytes()[:-5])
    repaired = run(studies, root)
    assert (repaired.repaired, repaired.kept) == (3, 3)
    assert digests(root) == whole
    times = studies[3].image.stat()
    os.utime(studies[3].image, ns=(times.st_atime_ns, times.st_mtime_ns + 10**9))
    try:
        assert run(studies, root).kept == 6  # another date, the same contents
    finally:
        os.utime(studies[3].image, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert run(studies, root, options=ReadOptions(min_slices=4)).rebuilt == 6


def test_key_depends_on_inputs_and_settings(studies):
    regions, options = load_region_set(), ReadOptions()
    key = entry_key(studies[0], regions, options, sha256)
    assert key == entry_key(studies[0], regions, options, sha256)
    assert key != entry_key(studies[1], regions, options, sha256)
    assert key != entry_key(studies[0], load_region_set("lobes"), options, sha256)
    assert key != entry_key(studies[0], regions, ReadOptions(hu="trust"), sha256)


def test_a_mask_rewritten_with_equal_size_and_date_is_noticed(tmp_path, monkeypatch):
    study = make_study(tmp_path / "scans", 0)
    image = nib.load(study.masks.files["lung"])
    mask = tmp_path / "lung.nii"  # not compressed, so that every content has one size
    nib.save(image, mask)
    study = dataclasses.replace(study, masks=RegionFiles({**study.masks.files, "lung": mask}))
    root = tmp_path / "store"
    run([study], root)
    old, content = mask.stat(), mask.read_bytes()
    nib.save(nib.Nifti1Image(np.roll(np.asarray(image.dataobj), 1, 0), image.affine), mask)
    os.utime(mask, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert (mask.stat().st_size, mask.stat().st_mtime_ns) == (old.st_size, old.st_mtime_ns)
    assert run([study], root).rebuilt == 1
    mask.write_bytes(content)
    assert run([study], root).rebuilt == 1

    reads = []
    monkeypatch.setattr(inputs, "sha256", lambda file: reads.append(file) or sha256(file))
    os.utime(mask)  # another date, the same contents: read, and kept
    assert (run([study], root).kept, reads) == (1, [mask])
    reads.clear()
    assert (run([study], root).kept, reads) == (1, [])
    assert run([study], root, check_contents=True).kept == 1
    assert len(reads) == 1 + len(study.masks.files)
    (root / "inputs.json").write_text("{")
    (root / "done.json").write_text("{")  # both damaged: everything is read again
    reads.clear()
    assert run([study], root).kept == 1
    assert len(reads) == 1 + len(study.masks.files)


def test_bad_studies_are_skipped_and_listed(studies, tmp_path, monkeypatch):
    folder = tmp_path / "scans"
    bad = [make_study(folder, number) for number in (90, 91, 92)]
    bad[0].image.write_bytes(bad[0].image.read_bytes()[:-40])
    bad[1].image.unlink()
    real = prepare_study.read_study

    def reader(study, *rest):
        if study.id == "s92":
            raise ZeroDivisionError("a bug")
        return real(study, *rest)

    monkeypatch.setattr(prepare_study, "read_study", reader)
    with pytest.raises(TooManySkippedError, match="3 of 9 studies were skipped") as caught:
        run([*studies, *bad], tmp_path / "store")
    assert caught.value.exit_code == 3
    summary = run([*studies, *bad], tmp_path / "store", max_skip=0.5)
    assert summary.kept == 6
    listed = json.loads((tmp_path / "store" / "summary.json").read_text())
    assert [skip["study"] for skip in listed["skipped"]] == ["s90", "s91", "s92"]
    assert listed["skipped_by_code"]["UNEXPECTED"] == 1
    for skip in listed["skipped"]:
        assert skip["study"] in skip["message"]
    assert str(bad[0].image) in listed["skipped"][0]["message"]
    assert Store(tmp_path / "store").studies() == tuple(f"s{n}" for n in range(6))


def test_entry_is_removed_when_its_input_became_bad(tmp_path):
    studies = [make_study(tmp_path / "scans", number) for number in range(2)]
    run(studies, tmp_path / "store")
    studies[0].image.write_bytes(b"not a scan")
    run(studies, tmp_path / "store", max_skip=1.0)
    assert [path.name for path in sorted((tmp_path / "store").rglob("*.r2g"))] == ["s1.r2g", "s1.r2g"]


@pytest.mark.parametrize("call", [0, 1, 2, 8, 17, 18, 19])
def test_full_disk_stops_the_run_and_harms_nothing(studies, tmp_path, monkeypatch, call, finished):
    """ENOSPC at the n-th write to a file of the store."""
    import reg2rg.core.files as files

    count = 0
    real = files.os.fsync

    def fsync(descriptor):  # called twice for each file: for its content, then for its folder
        nonlocal count
        count += 1
        if count == 2 * call + 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor)

    root = tmp_path / "store"
    monkeypatch.setattr(files.os, "fsync", fsync)
    with pytest.raises(Reg2RGError, match=r"cannot write to the store .*No space left") as caught:
        run(studies, root)
    if call < 18:  # 18 entries, views and attributes, then the index and the summary
        assert str(caught.value).startswith(f"s{call // 3}: ")
    monkeypatch.undo()
    assert not list(root.rglob("*.tmp.*"))
    resumed = run(studies, root)
    assert resumed.repaired == 0
    assert digests(root) == finished


RUN = """
import pickle, sys
from pathlib import Path
from reg2rg.core.task import Views
from reg2rg.store.prepare import prepare
if __name__ == "__main__":
    studies = pickle.loads(Path(sys.argv[1]).read_bytes())  # written by this test
    prepare(studies, sys.argv[2], bake=Views(size=(16, 12, 8)), workers=int(sys.argv[3]))
"""


@pytest.fixture(scope="module")
def script(studies, tmp_path_factory) -> list[str]:
    import pickle

    folder = tmp_path_factory.mktemp("script")
    (folder / "run.py").write_text(RUN)
    (folder / "studies.pkl").write_bytes(pickle.dumps(studies))
    return [sys.executable, str(folder / "run.py"), str(folder / "studies.pkl")]


def start(script, root, workers) -> subprocess.Popen:
    return subprocess.Popen(
        [*script, str(root), str(workers)], stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for_entries(root: Path, count: int, process: subprocess.Popen) -> None:
    while len(list(root.glob("native/s*.r2g"))) < count and process.poll() is None:
        time.sleep(0.0005)


def check_all_readable(root: Path) -> None:
    store = Store(root)
    for study in store.studies():
        store.read(study)


def test_killed_at_any_moment_and_run_again(studies, tmp_path, finished):
    """SIGKILL of a forked preparation, at 12 moments spread over its whole course."""
    root = tmp_path / "store"
    context = multiprocessing.get_context("fork")
    start = time.monotonic()
    run(studies, tmp_path / "timed")
    whole = time.monotonic() - start
    killed = 0
    for moment in range(12):
        process = context.Process(target=run, args=(studies, root))
        process.start()
        time.sleep(whole * (0.08 + 0.04 * moment) * random.Random(moment).uniform(0.5, 1.5))
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        check_all_readable(root)
    assert killed > 2
    assert run(studies, root).repaired == 0
    assert not list(root.rglob("*.tmp.*"))
    assert digests(root) == finished


def test_killed_with_workers_and_run_again(studies, tmp_path, script, finished):
    root = tmp_path / "store"
    process = start(script, root, 2)
    wait_for_entries(root, 2, process)
    process.kill()
    process.communicate()
    check_all_readable(root)
    time.sleep(0.5)  # orphaned workers end by themselves
    assert run(studies, root).repaired == 0
    assert digests(root) == finished


def test_interrupt_is_clean(tmp_path, script):
    root = tmp_path / "store"
    process = start(script, root, 2)
    wait_for_entries(root, 1, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the parent and its workers
    _, error = process.communicate(timeout=90)
    assert process.returncode != 0
    assert error.count("Traceback") == 1  # the parent's KeyboardInterrupt; the command line turns it into exit code 130
    assert "KeyboardInterrupt" in error


def test_killed_worker_is_a_clear_error(tmp_path, script):
    root = tmp_path / "store"
    process = start(script, root, 1)
    wait_for_entries(root, 1, process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        process.kill()
        pytest.skip("this system does not list child processes")
    for child in children.read_text().split():
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
            os.kill(int(child), signal.SIGKILL)
    _, error = process.communicate(timeout=90)
    assert process.returncode == 1
    assert "a worker process was ended from outside" in error
    assert "fewer workers" in error


def test_two_runs_of_one_shard_are_refused(studies, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / ".lock-1-of-1").touch()
    with open(tmp_path / ".lock-1-of-1", "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(Reg2RGError, match="another run is preparing"):
            run(studies, tmp_path)
    with pytest.raises(ConfigError, match="more than once"):
        run([studies[0], studies[0]], tmp_path)


def test_memory_bounds_the_workers(studies, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(footprint, "estimated_peak", lambda study: 4 * 10**9)
    monkeypatch.setattr(footprint, "available_memory", lambda: 5 * 10**9)
    assert prepare(studies[:2], tmp_path, workers=3).built == 2
    assert "1 of 3 workers: the largest of 2 scans looked at takes about 4.0 GB" in caplog.text
