"""Pictures of a scan with its regions outlined, as a radiologist looks at it: patient's right on the left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reg2rg.core.files import atomic_write
from reg2rg.core.types import Mask, RegionVolume

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WINDOW = (-1000, 500)  # HU; shows lung and soft tissue at once
COLOURS = (
    "#4d9fff", "#ffe119", "#f799c1", "#ff8c1a", "#ff3030", "#35e06f", "#b48cff", "#2de2e6", "#ff2fd0", "#c6f432",
    "#ffffff", "#b08968",
)  # fmt: skip
_WIDTH = 15.0  # inches
_DPI = 80


@dataclass(frozen=True, slots=True)
class Plane:
    """One slice through the volume.

    Attributes:
        axis: array axis at right angles to it: 2 is axial, 1 is coronal.
        index: place along that axis.
    """

    axis: int
    index: int

    @property
    def name(self) -> str:
        """``axial`` or ``coronal`` with the place."""
        return f"{'axial' if self.axis == 2 else 'coronal'} {self.index}"

    def view(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The slice as rows from the top and columns from the left of the screen.

        In RAS the first axis runs from the patient's left to the right: it is reversed, so that the right side stands
        on the left, as if one looked from the feet (axial) or at the patient's face (coronal).

        Args:
            array: (H, W, D) in RAS.

        Returns:
            axial: front at the top; coronal: head at the top; both with the patient's right on the left.
        """
        plane: npt.NDArray[Any] = np.take(array, self.index, self.axis)
        return plane[::-1, ::-1].T


def choose_planes(masks: Mapping[str, Mask], shape: tuple[int, ...]) -> tuple[Plane, ...]:
    """A coronal and two axial slices that together show as many regions as three can; the same every time.

    Args:
        masks: region -> (H, W, D).
        shape: of the scan; without regions slices at even distances are chosen.
    """
    if not masks:
        return Plane(2, shape[2] * 2 // 3), Plane(2, shape[2] // 3), Plane(1, shape[1] // 2)
    seen: set[str] = set()
    planes: list[Plane] = []
    for axis in (1, 2, 2):
        across = tuple(other for other in range(3) if other != axis)
        areas = {name: np.count_nonzero(mask, axis=across) for name, mask in masks.items()}
        new = sum((area > 0).astype(int) for name, area in areas.items() if name not in seen)
        # Each region counts by the share of its largest cross-section, so that a slice through its rim is not chosen.
        score = 100.0 * np.asarray(new) + sum(np.sqrt(area / area.max()) for area in areas.values())
        for plane in planes:
            if plane.axis == axis:  # not twice nearly the same slice
                apart = max(1, len(score) // 6)
                score[max(0, plane.index - apart) : plane.index + apart + 1] = -1.0
        best = Plane(axis, int(np.argmax(score)))
        seen |= {name for name, area in areas.items() if area[best.index]}
        planes.append(best)
    return (*sorted(planes[1:], key=lambda plane: -plane.index), planes[0])


def write_overlay(path: Path, found: RegionVolume, regions: Sequence[str], title: str) -> None:
    """Write one PNG: two axial slices and a coronal one, outlines of the regions, sides marked, legend.

    Args:
        path: the picture; written atomically, the same bytes for the same study.
        found: the scan and its masks, in RAS.
        regions: all regions of the set: each has its colour by its place, those without a mask are named as missing.
        title: stands above.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    planes = choose_planes(found.masks, found.volume.array.shape)
    spacing = found.volume.spacing
    extents = [_extent(plane, found.volume.array.shape, spacing) for plane in planes]
    widths = [extent[1] for extent in extents]
    height = _WIDTH / sum(widths) * max(extent[2] for extent in extents)
    figure = Figure(figsize=(_WIDTH, height + 1.3), dpi=_DPI, facecolor="black")
    grid = figure.add_gridspec(
        1, len(planes), width_ratios=widths, left=0.005, right=0.995, top=1 - 0.75 / (height + 1.3),
        bottom=0.5 / (height + 1.3), wspace=0.02,
    )  # fmt: skip
    colours = {region: COLOURS[place % len(COLOURS)] for place, region in enumerate(regions)}
    for place, (plane, extent) in enumerate(zip(planes, extents, strict=True)):
        _draw(figure.add_subplot(grid[0, place]), plane, extent, found, colours)
    handles = [Line2D([], [], color=colours[name], lw=3, label=name) for name in regions if name in found.masks]
    legend = figure.legend(handles=handles, loc="lower center", ncol=max(1, len(handles)), frameon=False, fontsize=11)
    for text in legend.get_texts():
        text.set_color("white")
    absent = [name for name in regions if name not in found.masks]
    figure.suptitle(title + (f"    no mask: {', '.join(absent)}" if absent else ""), color="white", fontsize=13, y=0.99)
    with atomic_write(path) as stream:
        # Not savefig, which a user's matplotlibrc changes.
        FigureCanvasAgg(figure).print_png(stream, metadata={"Software": None})  # type: ignore[no-untyped-call]


def _extent(plane: Plane, shape: tuple[int, ...], spacing: Sequence[float]) -> tuple[float, float, float, float]:
    """(left, right, bottom, top) in mm on the screen; y runs down."""
    across, down = (0, 1) if plane.axis == 2 else (0, 2)
    return 0.0, shape[across] * spacing[across], shape[down] * spacing[down], 0.0


def _draw(
    axes: Axes,
    plane: Plane,
    extent: tuple[float, float, float, float],
    found: RegionVolume,
    colours: Mapping[str, str],
) -> None:
    from matplotlib.patheffects import withStroke

    image = plane.view(found.volume.array)
    axes.imshow(image, cmap="gray", vmin=WINDOW[0], vmax=WINDOW[1], extent=extent, interpolation="bilinear")
    rows, columns = image.shape
    x = (np.arange(columns) + 0.5) * extent[1] / columns
    y = (np.arange(rows) + 0.5) * extent[2] / rows
    outlines = {name: plane.view(mask) for name, mask in found.masks.items()}
    # Small regions last: where outlines meet, the large one is still seen elsewhere.
    for name in sorted(outlines, key=lambda region: -np.count_nonzero(outlines[region])):
        if outlines[name].any():
            axes.contour(x, y, outlines[name].astype(np.float32), [0.5], colors=[colours[name]], linewidths=1.4)
    for place, side, align in ((0.02, "R", "left"), (0.98, "L", "right")):
        letter = axes.text(place, 0.5, side, ha=align, va="center", transform=axes.transAxes)
        letter.set(
            color="white", fontsize=16, fontweight="bold", path_effects=[withStroke(linewidth=4, foreground="k")]
        )
    axes.set_title(f"{plane.name} of {found.volume.array.shape[plane.axis]}", color="white", fontsize=11)
    axes.set_axis_off()
