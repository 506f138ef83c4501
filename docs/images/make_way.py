"""Draw way.svg, the picture of docs/concepts/overview.md: the way of the data, with the views of a phantom.

python docs/images/make_way.py [--out docs/images/way.svg]
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import textwrap
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from reg2rg.core.regions import load_region_set
from reg2rg.core.task import Views
from reg2rg.core.types import RegionVolume
from reg2rg.datasets import RadGenome
from reg2rg.extras.phantom.writer import write_phantoms
from reg2rg.scans.read import read_study
from reg2rg.store.views import HU_SCALE, StudyViews, compute_views

REGION = "heart"
BLUE, GREY, GREEN = "#e3eefb", "#f3f3f3", "#e6f4ea"

# Boxes: left, bottom, width, height in a frame of 100 x 64; colour; heading; text below it.
BOXES = (
    (1, 37, 17, 26, GREY, "scan, masks, texts", "one text a region\n\ndatasets, scans"),
    (
        22,
        37,
        13,
        26,
        GREY,
        "store",
        "one file a study,\nnative detail,\nevery byte checked\n\nmade once, by\ndata prepare\n\nstore",
    ),
    (39, 1, 25, 62, GREY, "views of one region", "store/views"),
    (68, 44, 15, 19, BLUE, "encoders", "texture, geometry,\nglobal\n\n(N,1,H,W,D) to (N,T,C)\n\nmodels/encoders"),
    (68, 24, 15, 16, BLUE, "projector", "(N,T,C) to (N,T,E)\n\nmodels/projectors"),
    (68, 1, 15, 19, BLUE, "prompt", "text with slots\nfor tokens,\nregions shuffled\n\ndata/prompt"),
    (
        87,
        24,
        12,
        39,
        BLUE,
        "language\nmodel",
        "\n\nany causal LM\nof Hugging Face,\nLoRA\n\nloss on the\ntarget alone,\ngreedy reports\n\nmodels/llm",
    ),
    (87, 1, 12, 19, GREEN, "report", "paragraph,\nregion, mask\n\ncore/report, show"),
    (1, 1, 34, 32, GREEN, "what a model reads and writes", ""),
)
ARROWS = (
    ((18, 50), (22, 50)),
    ((35, 50), (39, 50)),
    ((64, 54), (68, 54)),
    ((75.5, 44), (75.5, 40)),
    ((75.5, 24), (75.5, 20)),
    ((83, 10), (85, 10), (85, 44), (87, 44)),
    ((93, 24), (93, 20)),
)


def phantom() -> tuple[RegionVolume, StudyViews, str]:
    """A scan, its views, and the text of `REGION`."""
    with tempfile.TemporaryDirectory() as folder:
        write_phantoms(folder, studies=1, seed=0, size=(96, 96, 64), workers=0, first=7)
        study = RadGenome(folder, test=None).studies()[0]
        volume = read_study(study, load_region_set("radgenome"))
    return volume, compute_views(Views(size=(96, 96, 64)), volume, [REGION]), study.reports[REGION]


def thumbnail(figure: Figure, place: tuple[float, float, float, float], picture: np.ndarray, title: str) -> None:
    """A slice in radiological convention at `place`, in the frame of the boxes."""
    left, bottom, width, height = place
    axes = figure.add_axes((left / 100, bottom / 64, width / 100, height / 64))
    axes.imshow(picture[::-1, ::-1].T, cmap="gray", aspect="auto")
    axes.set_title(title, fontsize=9, pad=2)
    axes.set_axis_off()


def draw_frame(axes: Axes) -> None:
    """Boxes and arrows."""
    axes.set(xlim=(0, 100), ylim=(0, 64))
    axes.set_axis_off()
    for left, bottom, width, height, colour, heading, text in BOXES:
        style = "round,pad=0,rounding_size=0.8"
        axes.add_patch(FancyBboxPatch((left, bottom), width, height, style, facecolor=colour, edgecolor="#888888"))
        middle, top = left + width / 2, bottom + height
        axes.text(middle, top - 1.2, heading, ha="center", va="top", fontsize=11, weight="bold")
        below = heading.startswith(("scan", "views"))  # a picture stands between heading and text
        y = bottom + 1.2 if below else top - 5.2
        axes.text(middle, y, text, ha="center", va="bottom" if below else "top", fontsize=9.5, linespacing=1.3)
    for *via, before, end in ARROWS:
        path = [*via, before]
        for a, b in itertools.pairwise(path):
            axes.plot((a[0], b[0]), (a[1], b[1]), color="#444444", lw=1.2, solid_capstyle="round")
        axes.annotate("", end, before, arrowprops={"arrowstyle": "-|>", "color": "#444444", "lw": 1.2, "shrinkA": 0})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("way.svg"))
    options = parser.parse_args()
    volume, views, text = phantom()
    plt.rcParams.update({"svg.hashsalt": "reg2rg", "svg.fonttype": "path", "svg.image_inline": True})
    figure = plt.figure(figsize=(11, 7.04), facecolor="white")
    draw_frame(figure.add_axes((0, 0, 1, 1)))

    middle = int(np.argwhere(volume.masks[REGION]).mean(axis=0)[2])
    thumbnail(figure, (3, 44, 13, 14.5), np.clip(volume.volume.array[:, :, middle], -1000, 200), "")
    assert views.texture is not None
    assert views.geometry is not None
    assert views.global_ is not None
    half = views.texture.shape[3] // 2
    place = int(views.geometry[0].sum(axis=(0, 1)).argmax())
    shown = (
        ("texture: full detail, no place", views.texture[0, :, :, half] / HU_SCALE),
        ("geometry: place and size, no detail", views.geometry[0, :, :, place]),
        ("global: the whole scan, once a study", views.global_[:, :, place] / HU_SCALE),
    )
    for row, (title, picture) in enumerate(shown):
        thumbnail(figure, (44, 42 - 18.3 * row, 15, 13.8), picture, title)
    said = (
        "... The region 0 is [texture tokens]\n[geometry tokens]. The region 1 is ... Given the\n"
        f"provided global and regional information ...\n\nThe region 0 is {REGION}: "
    )
    lines = textwrap.wrap(f"{text} The region 1 is ...", 48)
    figure.text(0.025, 28 / 64, said + "\n" + "\n".join(lines[:8]), fontsize=10, va="top", linespacing=1.4)
    figure.savefig(options.out, metadata={"Date": None})
    print(f"{options.out}: {options.out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
