"""A file several times larger than the allowed memory is checked and converted within it."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from published_files import WIDTH, reg2rg_shapes

FILE_MIB, ALLOWED_MIB = 600, 150
IMPORTS = (
    "from reg2rg.cli.main import main; import reg2rg.data.datamodule, reg2rg.extras.convert, reg2rg.core.progress\n"
)
_STATUS = re.compile(r"RssAnon:\s+(\d+) kB")
pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads anonymous memory from /proc")


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A file of the published form whose base language model is wide: 600 MiB in name, a few MiB on the disk."""
    shapes = reg2rg_shapes(vocab=400)
    mlp = FILE_MIB * 2**20 // (2 * 3 * 32 * WIDTH)
    wide = {
        name: tuple(mlp if n == 48 else n for n in shape) if ".mlp." in name and "lang_model" in name else shape
        for name, shape in shapes.items()
    }
    folder = tmp_path_factory.mktemp("large")
    with torch.serialization.skip_data():  # leaves holes where the numbers would be
        torch.save(
            {name: torch.empty(shape, dtype=torch.bfloat16) for name, shape in wide.items()}, folder / "large.bin"
        )
    path = folder / "large.bin"
    assert path.stat().st_size > FILE_MIB * 2**20
    yield path
    path.unlink()


def peak_above_imports(folder: Path, code: str, *words: str) -> tuple[float, str]:
    """Run `code` in a process; anonymous MiB at its peak beyond those at its call of ``ready()``; its output."""
    start = "import sys, pathlib\ndef ready(): pathlib.Path('ready').touch(); sys.stdin.readline()\n"
    with (folder / "out").open("w") as out:  # a pipe would fill up, for nobody reads while memory is watched
        process = subprocess.Popen(
            [sys.executable, "-c", start + code, *words], stdin=subprocess.PIPE, stdout=out, text=True, cwd=folder
        )
    status, deadline = Path(f"/proc/{process.pid}/status"), time.monotonic() + 300
    while not (folder / "ready").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    base = peak = int(_STATUS.search(status.read_text())[1])
    process.stdin.write("go\n")
    process.stdin.flush()
    try:
        while process.poll() is None:
            assert time.monotonic() < deadline
            found = _STATUS.search(status.read_text())
            peak = max(peak, int(found[1]) if found else 0)
            time.sleep(0.002)
    finally:
        process.kill()
    assert process.returncode == 0
    return (peak - base) / 1024, (folder / "out").read_text()


@pytest.mark.slow
def test_check_and_convert(large, tmp_path):
    words = ["--from", "reg2rg", "--to", "converted", "--check"]
    code = IMPORTS + f"ready(); sys.exit(main(['convert', sys.argv[1], *{words}]))"
    grown, out = peak_above_imports(tmp_path, code, str(large))
    assert grown < ALLOWED_MIB
    assert sum(line.startswith("710 tensors, ") for line in out.splitlines()) == 1
    assert "written: converted, 385 tensors" in out.splitlines()
    assert (tmp_path / "converted" / "model.safetensors").stat().st_size < 2 * 2**20


def test_the_probe_sees_memory(tmp_path):
    code = "import time\nready(); x = b'x' * 100 * 2**20; time.sleep(0.5)"
    assert 95 < peak_above_imports(tmp_path, code)[0] < 140
