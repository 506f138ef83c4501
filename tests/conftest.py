"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tiny import Toy

pytest_plugins = ["skip_list"]
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# A shell ignores SIGINT for what it starts with `&`, and children inherit that; tests interrupt theirs.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _shared(part: str) -> Path:
    root = Path(os.environ.get("REG2RG_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    folder = root / "data" / part
    if not folder.is_dir():
        pytest.skip(f"real test data are not at {folder} (set REG2RG_SHARED to the folder that holds data/{part})")
    return folder


@pytest.fixture(scope="session")
def shared_ct() -> Path:
    """Folder of real CTs and masks."""
    return _shared("ct")


@pytest.fixture(scope="session")
def shared_reports() -> Path:
    """Folder of published report tables."""
    return _shared("reports")


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """A prepared data set of eight tiny studies and a language model to match, made once."""
    return Toy(tmp_path_factory.mktemp("toy"))
