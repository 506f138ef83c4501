"""What a reconstruction filled the frame with around the scan: a constant such as -3024, -2000 or 0, which is no air.

Outside a circular field of view, beside a scan that was turned, or as a block where volumes were brought to one size. A
value near that of air does no harm; any other is taken for tissue by whatever crops, averages or measures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from reg2rg.scans.base import StoredImage
from reg2rg.scans.grid import Orientation

AIR_HU = -1024
_LIKE_AIR = (-1100, -900)  # HU
_MIN_CORNERS = 0.1  # of the voxels on the four edges along the patient's axis; one value of tissue has a few percent
_MIN_SHARE = 0.01  # of all voxels


@dataclass(frozen=True, slots=True)
class Padding:
    """A constant frame.

    Attributes:
        hu: its value.
        inside: (X, Y, Z) bool in RAS, first axis fastest; its voxels.
        share: of all voxels.
    """

    hu: float
    inside: npt.NDArray[np.bool_]
    share: float

    @classmethod
    def of(cls, image: StoredImage, orientation: Orientation) -> Padding | None:
        """The constant frame of a CT, ``None`` if it has none or one like air.

        Voxels of the same value inside the patient are none of it: in each axial slice it reaches the border.

        Args:
            image: the CT as its file holds it.
            orientation: brings it to RAS.
        """
        array = orientation.to_ras(image.stored)
        for value in _on_the_edges(array[:: max(1, array.shape[0] - 1), :: max(1, array.shape[1] - 1)]):
            hu = float(value) * image.slope + image.inter
            if np.isfinite(hu) and not _LIKE_AIR[0] <= hu <= _LIKE_AIR[1]:
                found = cls._filled_with(value, hu, array)
                if found.share >= _MIN_SHARE:
                    return found
        return None

    @classmethod
    def _filled_with(cls, value: Any, hu: float, array: npt.NDArray[Any]) -> Padding:
        inside = np.zeros(array.shape, bool, order="F")
        for k in range(array.shape[2]):
            _reaching_the_border(array[:, :, k] == value, inside[:, :, k])
        return cls(hu, inside, float(np.count_nonzero(inside) / inside.size))

    def note(self, as_air: bool) -> str:
        """What it is and what became of it."""
        done = f"read as {AIR_HU}" if as_air else f"kept (data.read.padding: air sets it to {AIR_HU})"
        return f"a constant frame of {self.hu:g} HU around the scan, {self.share:.0%} of its voxels: {done}"


def _on_the_edges(edges: npt.NDArray[Any]) -> list[Any]:
    """Common values on the four edges along the patient's axis, the commonest first."""
    values, counts = np.unique(edges, return_counts=True)
    common = counts >= _MIN_CORNERS * edges.size
    return [value for _, value in sorted(zip(-counts[common], values[common], strict=True))]


def _reaching_the_border(plane: npt.NDArray[np.bool_], out: npt.NDArray[np.bool_]) -> None:
    """Write into `out` the connected parts of a plane that touch its border."""
    parts, _ = ndimage.label(plane)
    border = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
    out[...] = np.isin(parts, np.unique(border[border > 0]))
