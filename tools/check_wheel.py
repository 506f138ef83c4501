"""Build sdist and wheel, install the wheel outside the checkout, and go from phantoms to two training steps with it.

    python tools/check_wheel.py

The wheel is built from the unpacked sdist, so both are whole. It goes into a fresh virtual environment that reads its
dependencies from the one that runs this script: nothing is downloaded. Every file of the package that git knows must be
in the wheel, byte for byte: configs, region sets, templates, phrases and tables are as much a part of it as code.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "--config phantom_small.yaml"
COMMANDS = (
    "--version",
    "list",
    "data phantom ablations/data --studies 6 --size 48 48 32 --workers 0",
    f"data prepare {CONFIG} --workers 0",
    f"lm ablations/lm {CONFIG} --steps 2 --hidden_size 32 --layers 2 --heads 2",
    f"fit {CONFIG} --trainer.max_steps 2 --trainer.val_check_interval 2 --trainer.limit_val_batches 1 "
    "--data.batch_size 2 --vars.word_alignment_steps 1 --task.views.size [32,32,16]",
)


def build(folder: Path) -> Path:
    """The wheel of the sdist of the checkout."""
    _run([sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(folder)], ROOT)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    source = folder / sdist.name.removesuffix(".tar.gz")
    _run([sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)], source)
    (wheel,) = folder.glob("*.whl")
    return wheel


def check_files(wheel: Path) -> int:
    """Hold the wheel's files to those of the checkout; returns how many there are."""
    names = _run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "src/reg2rg"], ROOT).splitlines()
    names = [name for name in names if (ROOT / name).is_file()]
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
        for name in names:
            inside = name.removeprefix("src/")
            if inside not in packed:
                sys.exit(f"{wheel.name} lacks {inside}. Fix: see [tool.hatch.build] in pyproject.toml and .gitignore")
            if archive.read(inside) != (ROOT / name).read_bytes():
                sys.exit(f"{wheel.name} has other bytes in {inside} than the checkout")
    return len(names)


def install(wheel: Path, folder: Path) -> Path:
    """The folder of programs of a new environment with the wheel in it."""
    venv.create(folder, with_pip=False)
    _run([sys.executable, "-m", "pip", "--python", str(folder), "install", "--quiet", "--no-deps", "--no-index",
          str(wheel)], folder)  # fmt: skip
    places = {"base": str(folder), "platbase": str(folder)}
    own = Path(sysconfig.get_path("purelib", "venv", places))
    heavy = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    # Read as paths alone: an editable install of the checkout over there stays out.
    (own / "dependencies.pth").write_text("".join(f"{path}\n" for path in heavy))
    return Path(sysconfig.get_path("scripts", "venv", places))


def _run(words: list[str], cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        sys.exit(f"{shlex.join(words)}\nended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def main() -> None:
    """Build, install, run."""
    with tempfile.TemporaryDirectory(prefix="reg2rg-wheel-") as name:
        folder = Path(name)
        wheel = build(folder)
        print(f"{wheel.name}: {check_files(wheel)} files of the checkout, {wheel.stat().st_size / 1e6:.1f} MB")
        programs = install(wheel, folder / "venv")
        work = folder / "work"
        work.mkdir()
        where = _run([str(programs / "python"), "-c", "import reg2rg; print(reg2rg.__file__)"], work).strip()
        if not Path(where).is_relative_to(folder / "venv"):
            sys.exit(f"the new environment imports reg2rg from {where}, expected a place under {folder / 'venv'}")
        for command in COMMANDS:
            begun = time.monotonic()
            _run([str(programs / "reg2rg"), *shlex.split(command)], work)
            print(f"{time.monotonic() - begun:5.1f} s  reg2rg {command}", flush=True)
        made = work / "ablations/runs/checkpoints/last.ckpt"
        if not made.is_file():
            sys.exit(f"two steps of fit left no checkpoint at {made.relative_to(work)}")


if __name__ == "__main__":
    main()
