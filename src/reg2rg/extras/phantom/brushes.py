"""Small strokes that many findings are drawn with: balls, wires, clouds. Places are scanner mm."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from reg2rg.extras.phantom.grid import Box, Canvas, Float
from reg2rg.extras.phantom.shapes import boxed_capsule, boxed_ellipsoid, ripple

Rows = npt.NDArray[np.floating]
"""Points, one a row, or one point."""

CALCIUM, METAL = 1200.0, 3000.0


def ball(
    canvas: Canvas, middle: Rows, radius: float, hu: float, *, within: Float | None = None, region: str = ""
) -> None:
    """A solid ball in scanner mm, kept `within` a share of each voxel, marked as `region`."""
    found = boxed_ellipsoid(canvas, middle, [radius] * 3)
    if found is None:
        return
    box, distance = found
    share = canvas.cover(distance)
    if within is not None:
        share = share * within[box]
    canvas.paint(share, hu, box)
    if region:
        canvas.mark(region, share > 0.5, box)


def cloud(canvas: Canvas, middle: Rows, radii: npt.ArrayLike, soft: float, salt: int) -> tuple[Box, Float] | None:
    """An ellipsoid with an uneven surface inside the lung: its box and share."""
    found = boxed_ellipsoid(canvas, middle, radii, margin=6)
    if found is None:
        return None
    box, distance = found
    distance = distance + 4 * ripple(*canvas.local(box), 38, salt)
    return box, canvas.cover(distance, soft) * canvas.fields["lung"][box]


def wire(canvas: Canvas, track: Sequence[Rows], radius: float, region: str = "") -> None:
    """A metal thread through the points of `track`."""
    for a, b in pairwise(track):
        found = boxed_capsule(canvas, a, b, radius, radius)
        if found:
            canvas.paint(canvas.cover(found[1]), METAL, found[0])
            if region:
                canvas.mark(region, found[1] < 0, found[0])
