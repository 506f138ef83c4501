from __future__ import annotations

import errno
import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reg2rg.core.files import atomic_write, disk_trouble, sha256, write_json


def test_writes_bytes_and_text(tmp_path):
    with atomic_write(tmp_path / "new" / "a.bin") as stream:
        stream.write(b"\x00\x01")
    with atomic_write(str(tmp_path / "a.txt"), "w") as stream:
        stream.write("é\n")
    assert (tmp_path / "new/a.bin").read_bytes() == b"\x00\x01"
    assert (tmp_path / "a.txt").read_bytes() == "é\n".encode()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "new"]


def test_an_error_leaves_the_old_file_and_no_litter(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail():
        with atomic_write(target, "w") as stream:
            stream.write("half")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        fail()
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_the_temporary_file_stands_beside_its_target(tmp_path):
    """A rename between file systems would be a copy, which a kill can tear."""
    with atomic_write(tmp_path / "a.bin") as stream:
        assert Path(stream.name).parent == tmp_path
        assert not (tmp_path / "a.bin").exists()


def test_a_kill_while_writing_leaves_the_old_file(tmp_path):
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    code = (
        "import sys, time\nfrom reg2rg.core.files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as stream:\n"
        "    stream.write(b'x' * 1000000); stream.flush(); print('ready', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"ready\n"
        writer.kill()
    assert target.read_bytes() == b"old"
    with atomic_write(target) as stream:  # what the killed one left is no obstacle
        stream.write(b"new")
    assert target.read_bytes() == b"new"


def test_json_is_readable_and_strict(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"région": [1, 2.5, None]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"région": [1, 2.5, None]}
    assert "région" in path.read_text(encoding="utf-8")
    assert path.read_bytes().endswith(b"}\n")
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"loss": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8")) == {"région": [1, 2.5, None]}


def test_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert sha256(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_reader_never_sees_half_a_file(tmp_path):
    """One process replaces a file again and again; another reads only whole versions."""
    target = tmp_path / "a.json"
    write_json(target, [0] * 2000)
    code = (
        "import sys\nfrom reg2rg.core.files import write_json\n"
        "for value in range(60):\n    write_json(sys.argv[1], [value] * 2000)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(target)]) as writer:
        while writer.poll() is None:
            assert len(set(json.loads(target.read_text()))) == 1
            time.sleep(0.001)
    assert writer.returncode == 0
    assert json.loads(target.read_text()) == [59] * 2000


def test_a_full_disk_names_the_file_that_was_being_written(tmp_path):
    with pytest.raises(OSError, match="No space left") as caught, atomic_write(tmp_path / "a.txt", "w"):
        raise OSError(errno.ENOSPC, "No space left on device")
    told = disk_trouble(caught.value)
    assert told == (
        f"{tmp_path / 'a.txt'}: no space left on device. Fix: free some space, lift the limit, or name a folder on "
        "another disk"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no /proc, where nothing can be made")
def test_a_place_that_cannot_be_made_is_named():
    with pytest.raises(OSError, match="/proc/nowhere") as caught, atomic_write("/proc/nowhere/a.txt"):
        pass
    assert disk_trouble(caught.value) == "/proc/nowhere: no such file or directory. Fix: correct the path"
    assert disk_trouble(ConnectionError("of a network")) is None
