"""The worker of a listener: takes complete studies from the queue, has each reported on, and sends what came of it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from reg2rg.core.documents import parse_json
from reg2rg.core.errors import ConfigError, Reg2RGError
from reg2rg.core.files import sync_folder, write_json
from reg2rg.inference.listen.sending import NotSentError, later, send
from reg2rg.inference.listen.settings import ListenSettings
from reg2rg.inference.listen.spool import Entry, Spool, State, only_one
from reg2rg.scans.dicom.frames import study_uid

RUNNING = "running.json"
"""Of the spool: which study the worker is at, and since when; its supervisor reads it."""
_MADE = "listen.json"
_POLL_SECONDS = 0.5

Report = Callable[[Path, Path], None]
"""Reports on the slices in one folder, and writes the files into another."""


def work(
    spool: Spool,
    settings: ListenSettings,
    report: Report,
    tell: Callable[[str], None],
    until: Callable[[], bool] = lambda: False,
) -> None:
    """Work on the queue, one study after the other.

    Args:
        spool: the listener's folder.
        settings: where results go.
        report: makes them.
        tell: is told of each study.
        until: asked between studies; ends the work.
    """
    with only_one(spool.root / "worker.lock", wait=True):  # one that lost its listener ends first
        while not until():
            now = time.time()
            due = (entry for entry in spool.entries() if spool.state(entry.key).next_try <= now)
            entry = next(due, None)
            if entry is None:
                time.sleep(_POLL_SECONDS)
            else:
                _do(spool, settings, report, tell, entry)


def _do(spool: Spool, settings: ListenSettings, report: Report, tell: Callable[[str], None], entry: Entry) -> None:
    key = entry.key
    scan, fingerprint = spool.frozen(key)
    state = spool.state(key)
    if fingerprint and not (state.fingerprint == fingerprint and state.status):
        crashes = state.crashes if state.fingerprint == fingerprint else 0
        state = State(fingerprint, sent=state.sent, crashes=crashes)
        _make(spool, settings, report, tell, key, scan, state)
    if state.status == "made":
        try:
            send(spool, key, state, settings.out / state.result, settings, tell)
        except NotSentError as error:
            state = later(state)
            spool.save(key, state)
            tell(f"study {key}: not sent, {error}; again in {state.next_try - time.time():.0f} s")
            return
        state.status, state.finished, state.next_try = "done", time.time(), 0.0
        spool.save(key, state)
    spool.drop(entry)
    shutil.rmtree(scan, ignore_errors=True)


def _make(
    spool: Spool,
    settings: ListenSettings,
    report: Report,
    tell: Callable[[str], None],
    key: str,
    scan: Path,
    state: State,
) -> None:
    spool.save(key, state)
    write_json(spool.root / RUNNING, {"study": key, "since": time.time()})
    made = settings.out / ".work" / key
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    begun = time.monotonic()
    tell(f"study {key}: {len(list(scan.iterdir()))} slices, reporting")
    try:
        report(scan, made)
    except OSError:  # a full disk says nothing of the study
        raise
    except Exception as error:
        give_up(
            spool,
            key,
            state,
            str(error) if isinstance(error, Reg2RGError) else f"{type(error).__name__}: {error}",
            tell,
        )
        shutil.rmtree(made, ignore_errors=True)
    else:
        write_json(made / _MADE, {"study": key, "fingerprint": state.fingerprint})
        state.result, state.status = _place(made, settings.out, key, state.fingerprint), "made"
        spool.save(key, state)
        spool.accept_study(key)
        tell(f"study {key}: {time.monotonic() - begun:.1f} s, results in {settings.out / state.result}")
    (spool.root / RUNNING).unlink(missing_ok=True)


def give_up(spool: Spool, key: str, state: State, why: str, tell: Callable[[str], None]) -> None:
    """Put a study aside that there is no report on, and say why."""
    slices = spool.slices(key)
    uid = f"StudyInstanceUID: {study_uid(slices[0])}\n" if slices else ""
    kept = spool.refuse_study(key, f"{uid}{why}")
    state.status, state.reason, state.finished = "failed", why, time.time()
    spool.save(key, state)
    tell(f"study {key}: no report, {why.splitlines()[0]} (kept in {kept})")


def _place(made: Path, out: Path, key: str, fingerprint: str) -> str:
    """Put results where they belong, whole: under the study's key, or, of other content, that with a number."""
    for number in range(1, 10_000):
        name = key if number == 1 else f"{key}-{number}"
        try:
            known = parse_json((out / name / _MADE).read_text(encoding="utf-8"), name)
        except (FileNotFoundError, ConfigError):
            known = {}
        if known.get("fingerprint") == fingerprint:
            shutil.rmtree(made)  # a kill came after they were there
            return name
        if not (out / name).exists():
            for file in made.rglob("*"):
                if file.is_file():
                    with open(file, "rb") as stream:
                        os.fsync(stream.fileno())
            made.rename(out / name)
            sync_folder(out)
            return name
    raise Reg2RGError(f"{out / key}: 10,000 results of one study. Fix: move some elsewhere")
