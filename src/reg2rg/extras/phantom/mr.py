"""Phantoms as an MR machine might show them: arbitrary units, another order of tissues, a bias field; other regions.

No physics of any sequence: what matters is that nothing of a CT's values holds. Fat is the brightest, bone and air are
dark, the same tissue has another value in every scan and at every place of one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from reg2rg.core.files import atomic_write
from reg2rg.core.types import HU

REGIONS = {
    "abdomen": "upper belly",
    "bone": "skeleton",
    "breast": "mammary gland",
    "esophagus": "gullet",
    "heart": "cardiac muscle and chambers",
    "lung": "airspaces",
    "mediastinum": "middle compartment",
    "pleura": "pleural space",
    "thyroid": "thyroid gland",
    "trachea and bronchie": "large airways",
}
"""Region of the packaged set -> what it is called here."""
REGION_SET = "regions.yaml"
_HU = (-1024, -950, -700, -120, -60, 0, 30, 70, 150, 400, 1500)
_SIGNAL = (0.0, 0.02, 0.12, 1.0, 0.9, 0.35, 0.5, 0.6, 0.42, 0.2, 0.05)
"""Of voxels of these HU, and in between along straight lines."""


def as_mr(volume: HU, seed: int, number: int) -> npt.NDArray[np.int16]:
    """A phantom's HU as MR-like values, 0 for no signal; the same for the same seed and study.

    Args:
        volume: (H, W, D) HU.
        seed: of the collection.
        number: of the study.
    """
    random = np.random.default_rng((seed, number, 17))
    signal = np.interp(volume, _HU, _SIGNAL)
    for axis, length in enumerate(volume.shape):  # a field that rises to one side and falls to the other
        place = np.linspace(-1, 1, length) ** 2 * random.uniform(-0.25, 0.25) + np.linspace(-1, 1, length) * 0.15
        signal *= np.expand_dims(1 + place, tuple(other for other in range(3) if other != axis))
    scale = 10 ** random.uniform(2.3, 3.7)  # arbitrary units
    noise = random.normal(0, 0.015, (2, *volume.shape))
    magnitude: npt.NDArray[np.int16] = np.rint(scale * np.hypot(signal + noise[0], noise[1])).astype(np.int16)
    return magnitude


def write_region_set(out: Path) -> None:
    """Write ``regions.yaml``, the region set of these phantoms."""
    with atomic_write(out / REGION_SET, "w") as stream:
        stream.write("# Regions of the MR-like phantoms: nothing is expected of the values under their masks.\n")
        stream.write("name: mr_phantom\nregions:\n")
        stream.writelines(f"  - name: {name}\n" for name in REGIONS.values())
