"""Draw overview.png, the picture of README: slices of a phantom with regions outlined, beside its paragraphs.

python docs/images/make_overview.py [--out docs/images/overview.png] [--study N]
"""

from __future__ import annotations

import argparse
import io
import tempfile
import textwrap
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from reg2rg.core.regions import load_region_set
from reg2rg.core.types import RegionVolume, Study
from reg2rg.datasets import RadGenome
from reg2rg.extras.phantom.writer import write_phantoms
from reg2rg.scans.read import read_study

SHOWN = ("lung", "heart", "bone", "trachea and bronchie", "abdomen")
COLOURS = ("#56b4e9", "#e6553a", "#f0e442", "#4dd0a5", "#e69f00")
WINDOW = (-1000, 400)
AIR_BELOW = -500


def phantom(number: int, size: int) -> tuple[Study, RegionVolume]:
    """A phantom as a lab would read it: written to disk, listed, read with its masks."""
    with tempfile.TemporaryDirectory() as folder:
        write_phantoms(folder, studies=1, seed=0, size=(size, size, size * 2 // 3), workers=0, first=number)
        study = RadGenome(folder, test=None).studies()[0]
        return study, read_study(study, load_region_set("radgenome"))


def draw_slice(axes: Axes, volume: RegionVolume, axis: int, index: int, title: str) -> None:
    """One slice in radiological convention: the patient's right on the left."""

    body = np.argwhere(volume.volume.array > AIR_BELOW)
    first, last = body.min(axis=0), body.max(axis=0) + 1
    box = tuple(slice(max(0, a - 2), b + 2) for a, b in zip(first, last, strict=True))

    def on_screen(array: np.ndarray) -> np.ndarray:
        kept = tuple(slice(None) if i == axis else part for i, part in enumerate(box))
        return array[kept].take(index, axis)[::-1, ::-1].T

    spacing = volume.volume.spacing
    across, up = (spacing[i] for i in range(3) if i != axis)
    low, high = WINDOW
    axes.imshow(
        on_screen(volume.volume.array), cmap="gray", vmin=low, vmax=high, aspect=up / across, interpolation="bilinear"
    )
    for region, colour in zip(SHOWN, COLOURS, strict=True):
        if region in volume.masks and (mask := on_screen(volume.masks[region])).any():
            axes.contour(mask.astype(float), levels=[0.5], colors=[colour], linewidths=1.3)
    axes.set_title(title, fontsize=9, color="#444444")
    for place, side in ((0.03, "R"), (0.97, "L")):
        axes.text(place, 0.5, side, transform=axes.transAxes, color="white", fontsize=9, ha="center", va="center")
    axes.set_axis_off()


def draw_report(axes: Axes, study: Study) -> None:
    """The paragraphs, each with its region's colour."""
    axes.set_axis_off()
    y = 1.0
    for region, colour in zip(SHOWN, COLOURS, strict=True):
        lines = textwrap.wrap(study.reports.get(region, ""), 60)[:4]
        if not lines:
            continue
        height = 0.05 * (len(lines) + 1)
        axes.add_patch(plt.Rectangle((0, y - height), 0.012, height - 0.006, color=colour, transform=axes.transAxes))
        axes.text(0.03, y, region, fontsize=9.5, weight="bold", va="top", transform=axes.transAxes)
        axes.text(0.03, y - 0.05, "\n".join(lines), fontsize=9, va="top", linespacing=1.3, transform=axes.transAxes)
        y -= height + 0.022


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("overview.png"))
    parser.add_argument("--study", type=int, default=7)
    parser.add_argument("--size", type=int, default=144, help="voxels across")
    options = parser.parse_args()
    study, volume = phantom(options.study, options.size)
    figure, (axial, coronal, report) = plt.subplots(1, 3, figsize=(12, 3.9), width_ratios=(1.15, 0.95, 1.4))
    heart = np.argwhere(volume.masks["heart"]).mean(axis=0).astype(int)
    draw_slice(axial, volume, 2, heart[2], "axial")
    draw_slice(coronal, volume, 1, heart[1] - volume.volume.array.shape[1] // 14, "coronal")
    draw_report(report, study)
    figure.subplots_adjust(left=0.005, right=0.995, top=0.92, bottom=0.03, wspace=0.03)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=110, facecolor="white")
    Image.open(drawn).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(options.out, optimize=True)
    print(f"{options.out}: {options.out.stat().st_size / 1e3:.0f} kB, {study.id}")


if __name__ == "__main__":
    main()
