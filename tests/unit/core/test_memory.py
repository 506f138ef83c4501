"""A limit of a job or a container counts as much as the machine's memory."""

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from reg2rg.core.memory import available_memory

GB = 10**9


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with 50 GB free, its control groups and the file that says which one is ours."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=50 * GB))
    (tmp_path / "groups").mkdir()
    return tmp_path / "groups", tmp_path / "own"


def group(folder: Path, names: tuple[str, str, str], limit: str, used: int, cached: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in zip(names, (limit, str(used), f"anon 1\n{names[2]} {cached}\n"), strict=True):
        (folder / ("memory.stat" if name == names[2] else name)).write_text(value)


V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def test_without_limits_it_is_the_machines(machine):
    groups, own = machine
    assert available_memory(groups, own) == 50 * GB
    own.write_text("0::/\n")
    assert available_memory(groups, own) == 50 * GB
    group(groups / "job", V2, "max\n", 3 * GB, 0)
    own.write_text("0::/job\n")
    assert available_memory(groups, own) == 50 * GB
    assert 0 < available_memory() <= 50 * GB


def test_the_narrowest_limit_counts_and_cached_pages_are_free(machine):
    groups, own = machine
    group(groups / "slurm" / "job", V2, "max\n", 5 * GB, 0)
    group(groups / "slurm", V2, f"{16 * GB}\n", 9 * GB, 2 * GB)
    group(groups, V2, f"{40 * GB}\n", 1 * GB, 0)
    own.write_text("0::/slurm/job\n")
    assert available_memory(groups, own) == 9 * GB
    group(groups / "slurm" / "job", V2, f"{4 * GB}\n", 5 * GB, 0)  # over its limit already
    assert available_memory(groups, own) == 0


def test_the_first_version_of_control_groups(machine):
    groups, own = machine
    group(groups / "memory" / "docker" / "x", V1, f"{8 * GB}\n", 6 * GB, 1 * GB)
    own.write_text("12:cpu,cpuacct:/other\n5:memory:/docker/x\n")
    assert available_memory(groups, own) == 3 * GB
