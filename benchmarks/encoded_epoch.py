"""Epochs of `reg2rg fit` on phantoms with a frozen ViT of 12 x 768: on tokens, beside another checkout that encodes.

    git worktree add ../before COMMIT
    python benchmarks/encoded_epoch.py ../before               200 phantoms, views of 128 x 128 x 32, an hour and more
    python benchmarks/encoded_epoch.py ../before --studies 24  the same of fewer

Both sides read the same phantoms, each from a store that it prepared itself (finished views), and train two epochs by
the published recipe with a random tiny language model, in one thread. The ViT's weights are one file. Counted are CPU
seconds of the second epoch. This checkout trains live as well: the losses of its two ways must agree to 1e-4.
Exit status 1 where the ratio is below its bar.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import yaml
from _measure import machine

HERE = Path(__file__).resolve().parents[1]
BAR, LOSS_BAR = 3.0, 1e-4
SIZE = [128, 128, 32]
MAIN = """
import importlib.metadata, importlib.util, sys
every = importlib.metadata.entry_points
def has(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of its parent
        return False
def entry_points(**chosen):  # what is installed may name plug-ins that another checkout does not have
    found = every(**chosen)
    return [one for one in found if has(one.module)] if "reg2rg" in chosen.get("group", "") else found
importlib.metadata.entry_points = entry_points
from reg2rg.cli.main import main
"""
SIDE = f"""{MAIN}
import json, time
import torch
try:
    from reg2rg.training.module import Reg2RG
except ImportError:
    from reg2rg.training import Reg2RG
torch.set_num_threads(1)
epochs, losses = [], []
step = Reg2RG.training_step
def training_step(self, batch, batch_idx):
    loss = step(self, batch, batch_idx)
    losses.append(float(loss.detach()))
    return loss
Reg2RG.training_step = training_step
Reg2RG.on_train_epoch_start = lambda self: epochs.append([time.process_time()])
Reg2RG.on_train_epoch_end = lambda self: epochs[-1].append(time.process_time())
code = main(["fit", *sys.argv[2:]])
if code == 0:
    open(sys.argv[1], "w").write(json.dumps({{"epochs": [b - a for a, b in epochs], "losses": losses}}))
sys.exit(code)
"""


def config(checkout: Path, folder: Path, phantoms: Path, weights: Path, patch: list[int]) -> dict[str, object]:
    """The published recipe at the size of the phantoms' views."""
    has_task = (checkout / "src/reg2rg/core/task.py").exists()
    seen = {"views": {"size": SIZE}, "max_length": 1024}
    vit = {"size": SIZE, "patch": patch, "table_size": [512, 512, 512]}
    mask = {
        "size": SIZE,
        "patch": [32, 32, 16],
        "dim": 255,
        "depth": 3,
        "mlp_dim": 512,
        "table_size": SIZE,
        "shift": 0.0,
    }
    frozen = {"encoder": {"class_path": "ViT3D", "init_args": vit}, "weights": str(weights)}
    return {
        "base": "reg2rg.yaml",
        **({"task": seen} if has_task else {}),
        "data": {
            "dataset": {"class_path": "RadGenome", "init_args": {"root": str(phantoms)}},
            "store": str(folder / "store"), "workers": 0, **({} if has_task else seen),
        },
        "model": {
            "texture": {"class_path": "PerceiverResampler",
                        "init_args": {"encoder": {"class_path": "Frozen", "init_args": frozen}, "weights": None}},
            "geometry": {"class_path": "TokenMean",
                         "init_args": {"encoder": {"class_path": "ViT3D", "init_args": mask}}},
            "llm": {"class_path": "CausalLM", "init_args": {"path": str(folder / "lm"), "dtype": "float32"}},
            "val_generate": 0,
        },
        "trainer": {
            "default_root_dir": str(folder / "runs"), "accelerator": "cpu", "devices": 1, "precision": "32-true",
            "max_epochs": 2, "accumulate_grad_batches": 1, "logger": False, "callbacks": [], "limit_val_batches": 0,
            "enable_checkpointing": False, "enable_progress_bar": False,
        },
    }  # fmt: skip


def call(checkout: Path, *words: str) -> None:
    """Run Python over the package of a checkout, in one thread."""
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{checkout}: {' '.join(words[1:])[-300:]} ended with {done.returncode}\n{done.stderr[-3000:]}")


def command(checkout: Path, *words: str) -> None:
    """Run a command of a checkout."""
    call(checkout, "-c", f"{MAIN}sys.exit(main(sys.argv[1:]))", *words)


def train(checkout: Path, folder: Path, name: str, *options: str) -> dict[str, list[float]]:
    """CPU seconds of each epoch, and the losses."""
    out = folder / f"{name}.json"
    call(checkout, "-c", SIDE, str(out), "-c", str(folder / "run.yaml"), *options)
    found: dict[str, list[float]] = json.loads(out.read_text())
    print(f"{name:10} epochs of {' and '.join(f'{seconds:.1f}' for seconds in found['epochs'])} CPU s", flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="a checkout of another commit")
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--patch", type=int, nargs=3, default=[32, 32, 4], help="of the ViT: fewer voxels, more tokens")
    parser.add_argument("--live", action="store_true", help="time this checkout live as well, for both epochs")
    options = parser.parse_args()
    print(f"{options.studies} phantoms, patches of {options.patch}; {machine(1)}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        weights, phantoms = root / "vit.safetensors", root / "phantoms"
        write_weights(weights, options.patch)
        command(HERE, "data", "phantom", str(phantoms), "--studies", str(options.studies), "--size", "96", "96", "64",
                "--workers", "1")  # fmt: skip
        found = {}
        for side, checkout in (("before", options.before.resolve()), ("now", HERE)):
            folder = root / side
            folder.mkdir()
            (folder / "run.yaml").write_text(yaml.safe_dump(config(checkout, folder, phantoms, weights, options.patch)))
            given = ("-c", str(folder / "run.yaml"))
            command(checkout, "data", "prepare", *given, "--bake", "--workers", "1")
            command(checkout, "lm", str(folder / "lm"), *given, "--steps", "0", "--hidden_size", "128", "--layers", "2",
                    "--heads", "2")  # fmt: skip
            if side == "before":
                found[side] = train(checkout, folder, side)
                continue
            plain = ("--data.region_dropout=0",)
            command(checkout, "data", "encode", *given, "--device", "cpu")
            found[side] = train(checkout, folder, side, *plain, "--data.features=required")
            epochs = () if options.live else ("--trainer.max_epochs=1", "--trainer.limit_train_batches=8")
            found["live"] = train(checkout, folder, "live", *plain, "--data.features=never", *epochs)
    pairs = list(zip(found["now"]["losses"], found["live"]["losses"], strict=False))
    apart = max(abs(a - b) / abs(b) for a, b in pairs[:1])
    ratio = found["before"]["epochs"][1] / found["now"]["epochs"][1]
    met = ratio >= BAR and apart <= LOSS_BAR
    print(f"loss of the first step on tokens and live: {apart:.1e} apart (bar {LOSS_BAR:.0e});\n"
          f"second epoch: {ratio:.2f} x less CPU (bar {BAR}): {'met' if met else 'missed'}")  # fmt: skip
    return int(not met)


def write_weights(path: Path, patch: list[int]) -> None:
    """Random weights of the ViT, as a file."""
    from safetensors.torch import save_file

    from reg2rg.models.encoders import ViT3D

    torch.manual_seed(0)
    save_file(ViT3D(tuple(SIZE), tuple(patch)).state_dict(), path)


if __name__ == "__main__":
    sys.exit(main())
