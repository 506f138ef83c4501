"""Training curves, read back from what Lightning logged."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from reg2rg.core.errors import ConfigError


def read_curves(path: str | Path) -> pd.DataFrame:
    """Read what Lightning's CSV logger wrote.

    Args:
        path: a ``metrics.csv``, or the logger's folder: a run that was stopped and resumed has one file in each
            ``version_<n>`` below it, which are joined; where they overlap, the later one counts.

    Raises:
        ConfigError: no such file, or one without a ``step`` column.
    """
    path = Path(path)
    files = sorted(path.glob("version_*/metrics.csv"), key=_version) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise ConfigError(
            f"{path}: not found (expected metrics.csv of a training run, or the folder of its CSV logger). "
            "Fix: run `reg2rg fit` first"
        )
    joined = pd.DataFrame({"step": []})
    for file in files:
        frame = pd.read_csv(file)
        if "step" not in frame.columns:
            raise ConfigError(f"{file}: columns {', '.join(frame.columns)} (expected 'step' among them)")
        joined = pd.concat([joined[joined["step"] < frame["step"].min()], frame], ignore_index=True)
    return joined


def _version(file: Path) -> int:
    return int(file.parent.name.removeprefix("version_"))
