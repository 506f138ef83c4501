"""Without the folder `extras` everything else imports, trains, predicts and scores."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import reg2rg

SCRIPT = """
import importlib, pkgutil, sys
from pathlib import Path
import lightning as L
import reg2rg
from tiny import Toy
from reg2rg.cli.main import commands, main
from reg2rg.training.prediction_writer import PredictionWriter

work = Path(sys.argv[1])
assert Path(reg2rg.__file__).is_relative_to(work), reg2rg.__file__
for module in pkgutil.walk_packages(reg2rg.__path__, "reg2rg."):
    importlib.import_module(module.name)
assert not [name for name in sys.modules if name.startswith("reg2rg.extras")]
assert "lm" not in commands() and "data check" in commands()
toy = Toy(work / "toy")
module = toy.module()
quiet = dict(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
             enable_model_summary=False, default_root_dir=work)
L.Trainer(max_steps=2, num_sanity_val_steps=0, **quiet).fit(module, datamodule=toy.data(module))
writer = PredictionWriter(str(work / "predictions"))
L.Trainer(callbacks=[writer], **quiet).predict(module, datamodule=toy.data(module), return_predictions=False)
words = ["evaluate", str(work / "predictions"), "--resamples", "20", "--out", str(work / "scores")]
assert main([*words, "--protocol", "strict"]) == 0
assert (work / "scores" / "metrics.json").is_file()
"""


def test_the_rest_works_without_them(tmp_path: Path) -> None:
    package = Path(reg2rg.__file__).parent
    shutil.copytree(package, tmp_path / "reg2rg", ignore=shutil.ignore_patterns("__pycache__", "extras"))
    described = tmp_path / f"reg2rg-{version('reg2rg')}.dist-info"  # without the entry points of `extras`
    described.mkdir()
    (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: reg2rg\nVersion: {version('reg2rg')}\n")
    paths = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
