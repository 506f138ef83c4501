"""One holder an item, among processes that share a folder; who was frozen writes nothing afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from reg2rg.core.claims import Campaign, Claim, ClaimLostError, Claims
from reg2rg.core.errors import ConfigError, Reg2RGError
from reg2rg.core.files import fenced, write_json
from reg2rg.core.parallel import own_first, run_shared, shard_of


def taken(claims: Claims, *items: str, suspects: bool = False) -> list[str]:
    return [claim.item for claim in claims.take(items, suspects)]


def test_an_item_has_one_holder_and_is_finished_once(tmp_path: Path) -> None:
    with Claims(tmp_path, seconds=30) as one, Claims(tmp_path, seconds=30) as other:
        [a, b] = one.take(["a", "b"])
        assert taken(other, "a", "b", "c") == ["c"]
        assert taken(other, "a", suspects=True) == []
        one.finish(a, {"status": "built"})
        assert taken(other, "a") == []
        assert other.finished() == {"a"}
        one.give_back(b)
        assert taken(other, "b") == ["b"]
        assert other.outcomes() == {"a": {"status": "built"}}
        assert (a.attempt, b.attempt) == (1, 1)
    assert not list(tmp_path.glob("attempts/*"))


def test_what_a_line_was_cut_short_of_is_not_finished(tmp_path: Path) -> None:
    with Claims(tmp_path) as claims:
        (tmp_path / "manifests/dead.jsonl").write_text('{"item": "a", "status": "built"}\n{"item": "b", "stat')
        assert claims.finished() == {"a"}
        with open(tmp_path / "manifests/dead.jsonl", "a") as stream:
            stream.write('us": "kept"}\n')
        assert claims.finished() == {"a", "b"}


HOLD = """
import sys, time
from pathlib import Path
from reg2rg.core.claims import Claims
from reg2rg.core.files import fenced, write_json
with Claims(Path(sys.argv[1]), seconds=1.0) as claims:
    [claim] = claims.take(["a"], suspects=sys.argv[2] == "suspects")
    print(claim.attempt, flush=True)
    sys.stdin.readline()
    with fenced(claim.check):
        write_json(sys.argv[3], "frozen")
"""


def holder(folder: Path, out: Path, suspects: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, str(folder), suspects, str(out)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    return process


def wait_for(claims: Claims, item: str) -> Claim:
    limit = time.monotonic() + 20
    while time.monotonic() < limit:
        for claim in claims.take([item], suspects=True):
            return claim
        time.sleep(0.05)
    raise AssertionError("never to be had")


def test_a_frozen_holder_loses_its_item_and_writes_nothing(tmp_path: Path) -> None:
    process, out = holder(tmp_path, tmp_path / "out.json"), tmp_path / "out.json"
    try:
        with Claims(tmp_path, seconds=1.0) as claims:
            assert claims.alive(["a"])
            os.kill(process.pid, signal.SIGSTOP)
            claim = wait_for(claims, "a")
            assert claim.attempt == 2
            with fenced(claim.check):
                write_json(out, "second")
            os.kill(process.pid, signal.SIGCONT)
            _, said = process.communicate("go\n", timeout=30)
            assert "ClaimLostError: a: another process has taken over" in said
            assert json.loads(out.read_text()) == "second"
            claims.finish(claim, {})
            assert claims.finished() == {"a"}
    finally:
        process.kill()
        process.wait()


def test_a_killed_holder_is_taken_over_and_counted(tmp_path: Path) -> None:
    process = holder(tmp_path, tmp_path / "out.json")
    process.kill()
    process.wait()
    with Claims(tmp_path, seconds=1.0) as claims:
        assert taken(claims, "a") == []  # an attempt did not survive it
        assert wait_for(claims, "a").attempt == 2


def test_a_claim_that_was_taken_over_is_not_written_down(tmp_path: Path) -> None:
    with Claims(tmp_path) as claims:
        [claim] = claims.take(["a"])
        claim.record.unlink()
        with pytest.raises(ClaimLostError):
            claims.finish(claim, {})
        assert claims.finished() == set()


def test_another_campaign_where_settings_differ(tmp_path: Path) -> None:
    one, same, other = (Campaign("run").claims(tmp_path, facts).folder for facts in ([1], [1], [2]))
    assert one == same != other
    assert one.parent == tmp_path / ".campaigns"


# ---- work that is shared


@dataclass(frozen=True)
class Note:
    """Writes its name into a file of its own."""

    name: str
    folder: Path


def write(note: Note) -> str:
    write_json(note.folder / f"{note.name}.json", os.getpid())
    return "written"


def kill_at_c(note: Note) -> str:
    if note.name == "c":
        os.kill(os.getpid(), signal.SIGKILL)
    return write(note)


def given_up(note: Note, attempts: int) -> str:
    return f"given up after {attempts}"


def share(folder: Path, notes: dict[str, Note], task=write, workers: int = 0, **options) -> dict[str, str]:
    with Claims(folder / "claims", **options) as claims:
        tasks = run_shared(
            task,
            notes,
            claims=claims,
            told=lambda found: {"found": found},
            given_up=given_up,
            workers=workers,
            title="",
        )
        return {note.name: found for note, found in tasks}


def notes_in(folder: Path, names: str = "abcdef") -> dict[str, Note]:
    return {name: Note(name, folder / "out") for name in names}


def test_what_others_hold_is_left_to_them(tmp_path: Path) -> None:
    with Claims(tmp_path / "claims") as other:
        [held] = other.take(["b"])
        assert share(tmp_path, notes_in(tmp_path)) == dict.fromkeys("acdef", "written")
        other.finish(held, {"found": "elsewhere"})
        assert share(tmp_path, notes_in(tmp_path)) == {}
        assert other.outcomes()["b"] == {"found": "elsewhere"}


def test_what_the_dead_left_is_taken_over(tmp_path: Path) -> None:
    process = holder(tmp_path / "claims", tmp_path / "out.json")
    process.kill()
    process.wait()
    assert share(tmp_path, notes_in(tmp_path), seconds=1.0) == dict.fromkeys("abcdef", "written")


def test_what_kills_its_worker_is_given_up_and_takes_no_others_with_it(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(Reg2RGError, match="a worker process was ended from outside"):
            share(tmp_path, notes_in(tmp_path), kill_at_c, workers=2, attempts=2)
    share(tmp_path, notes_in(tmp_path), kill_at_c, workers=2, attempts=2)
    with Claims(tmp_path / "claims") as claims:
        assert claims.outcomes() == {
            name: {"found": "given up after 2" if name == "c" else "written"} for name in "abcdef"
        }
    assert sorted(path.stem for path in (tmp_path / "out").iterdir()) == list("abdef")


def test_shards(tmp_path: Path) -> None:
    assert [shard_of("abcde", (part, 2)) for part in (1, 2)] == [["a", "c", "e"], ["b", "d"]]
    assert own_first("abcde", (2, 3)) == ["b", "e", "c", "a", "d"]
    with pytest.raises(ConfigError, match=r"shard is 3/2 \(expected i/n"):
        shard_of("ab", (3, 2))
