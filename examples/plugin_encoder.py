"""An own encoder as a plug-in: an installed package names its module, and configs use the encoder by its name.

The script writes such a package where Python looks for packages, as `pip install` would, and trains two steps with it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from reg2rg.cli.main import main as reg2rg

MODULE = '''
from torch import Tensor, nn

from reg2rg.models.encoders import ENCODERS, Encoder


@ENCODERS.register
class SlabMeans(Encoder):
    """The mean over blocks of voxels, one token a slab of slices.

    Args:
        side: blocks across, in both directions.
        slabs: tokens.
        dim: width of a token.
    """

    def __init__(self, side: int = 8, slabs: int = 4, dim: int = 64) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool3d((side, side, slabs))
        self.linear = nn.Linear(side * side, dim)
        self.out_channels, self.num_tokens = dim, slabs

    def forward(self, volumes: Tensor) -> Tensor:
        return self.linear(self.pool(volumes).flatten(1, 3).transpose(1, 2))  # (N, slabs, dim)
'''
ENTRY_POINTS = (
    "[reg2rg.plugins]\nmylab = mylab_encoders\n"  # in pyproject.toml: [project.entry-points."reg2rg.plugins"]
)
OVERLAY = """
data: {dataset: {init_args: {root: OUT/data}}, store: OUT/store, workers: 0}
task: {views: {size: [32, 32, 32]}}
model:
  texture: {class_path: SlabMeans, init_args: {side: 8, slabs: 4}}
  llm: {init_args: {path: OUT/lm}}
  val_generate: 0
trainer: {default_root_dir: OUT/runs, max_steps: 2, limit_val_batches: 1}
"""


def main() -> None:
    """Write the package, then use it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/plugin_encoder"))
    out = parser.parse_args().out.resolve()
    site = out / "site-packages"
    installed = site / "mylab_encoders-1.0.dist-info"
    installed.mkdir(parents=True, exist_ok=True)
    (site / "mylab_encoders.py").write_text(MODULE)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: mylab-encoders\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(ENTRY_POINTS)
    sys.path.insert(0, str(site))
    (out / "own.yaml").write_text(OVERLAY.replace("OUT", str(out)))
    config = ["--config", "phantom.yaml", "--config", str(out / "own.yaml")]
    for command in (
        ["data", "phantom", str(out / "data"), "--studies", "5", "--size", "48", "48", "32", "--workers", "1"],
        ["data", "prepare", *config, "--workers", "1"],
        ["lm", str(out / "lm"), *config, "--steps", "0"],
        ["fit", *config],
    ):
        print("reg2rg", *command)
        if code := reg2rg(command):
            raise SystemExit(code)


if __name__ == "__main__":
    main()
