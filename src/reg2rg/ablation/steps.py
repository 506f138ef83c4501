"""Data that runs need and that are not there yet: made once, by the commands that the sweep names."""

from __future__ import annotations

import hashlib
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from reg2rg.ablation.execute import Call
from reg2rg.ablation.plan import Plan, filled_in, resolved
from reg2rg.ablation.state import code_digest, lock, now, read_json
from reg2rg.config.reading import Tree
from reg2rg.core.errors import Reg2RGError
from reg2rg.core.files import atomic_write, write_json

FOLDER = "data"
_WAIT_S = 2.0
EXIT_INTERRUPTED = 130


class StepFailedError(Reg2RGError):
    """A step that makes data failed; no run can start."""


class PlannedStep:
    """A step with its references filled in.

    A step that resumes is run again when the program has changed since: it finds out what is left. One that does not is
    run again when the studies have changed since the sweep ran it; what was made by hand is taken as it is.

    Args:
        run: words of the command.
        makes: what is there when it is done.
        resumes: it may run again.
        folder: of the sweep, which keeps a note of steps that were begun and finished.
        into: the folder that it fills, if it must not be somebody else's.
    """

    def __init__(self, run: Sequence[str], makes: Path, resumes: bool, folder: Path, into: Path | None = None) -> None:
        self.run, self.makes, self.resumes, self.into = list(run), makes, resumes, into
        name = hashlib.sha256("\0".join([str(makes.resolve()), *run]).encode()).hexdigest()[:16]
        self.note = folder / FOLDER / f"{name}.json"

    @property
    def text(self) -> str:
        """The command as typed."""
        return shlex.join(["reg2rg", *self.run])

    def is_elsewhere(self) -> bool:
        """Whether its folder holds data that no step of this sweep has begun to make."""
        if self.into is None or read_json(self.note):
            return False
        return any(file.is_file() and not file.name.startswith(".") for file in self.into.rglob("*"))

    def done(self, studies: str) -> bool:
        """Whether what it makes is there and still right.

        Args:
            studies: digest of the data as they are now; "" if they are not there.
        """
        if not self.makes.exists():
            return False
        note = read_json(self.note)
        if not note:
            return not self.resumes
        if self.resumes:
            return bool(note.get("code") == code_digest())
        return not studies or bool(note.get("studies", studies) == studies)


def planned_steps(plan: Plan) -> list[PlannedStep]:
    """The steps of a plan, in order, each once."""
    config = str(plan.out / FOLDER / "config.yaml")
    found: dict[tuple[str, ...], PlannedStep] = {}
    for step, run in plan.steps:
        own = next((job for job in plan.jobs if job.run.name == run), None)
        tree = plan.tree if own is None else Tree(dict(own.config))
        words = [filled_in(word, tree).replace("{config}", config) for word in shlex.split(step.run)]
        makes = Path(filled_in(step.makes, tree))
        into = Path(filled_in(step.into, tree)) if step.into else None
        found.setdefault(tuple(words), PlannedStep(words, makes, step.resumes, plan.out, into))
    return list(found.values())


def make_data(plan: Plan, call: Call, say: Callable[[str], None], studies: Callable[[], str]) -> None:
    """Run the steps that are not done, one after another. Two sweeps that need the same data wait for each other.

    Args:
        plan: of the sweep.
        call: runs a ``reg2rg`` command.
        say: told what is being done.
        studies: digest of the data as they are when it is called; "" if they are not there.

    Raises:
        StepFailedError: with the command.
        KeyboardInterrupt: the command was interrupted.
    """
    steps = planned_steps(plan)
    if not steps:
        return
    config = resolved(plan.tree, str(plan.out / FOLDER / "nowhere"))
    with atomic_write(plan.out / FOLDER / "config.yaml", "w") as stream:
        yaml.safe_dump(config, stream, sort_keys=False)
    for step in steps:
        waited = False
        while not step.done(studies()):
            with lock(step.makes.parent / f".{step.makes.name}.ablate.lock") as held:
                if held is None:
                    if not waited:
                        say(f"data: another process makes {step.makes}; waiting for it")
                    waited = True
                else:
                    if step.is_elsewhere():
                        say(f"data: {step.into} holds data that this sweep did not make; they are taken as they are")
                    elif not step.done(studies()):
                        _make(step, call, say, studies)
                    break
            time.sleep(_WAIT_S)


def _make(step: PlannedStep, call: Call, say: Callable[[str], None], studies: Callable[[], str]) -> None:
    say(f"data: {step.text}")
    write_json(step.note, {"command": step.run, "begun": now()})
    begun = time.monotonic()
    code = call(step.run)
    if code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    if code != 0 or not step.makes.exists():
        why = f"ended with exit code {code}" if code else f"did not make {step.makes}"
        raise StepFailedError(f"the data step `{step.text}` {why}. Fix: see its message above, then run again")
    write_json(
        step.note,
        {"command": step.run, "makes": str(step.makes), "code": code_digest(), "studies": studies(), "at": now(),
         "seconds": round(time.monotonic() - begun, 1)},
    )  # fmt: skip
