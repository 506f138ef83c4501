"""What a region is expected to be like in a chest CT: how much air, which HU, how large, where. Data of a region set.

The bounds are wide: they hold for disease, contrast and every build, and tell a lung from a bone, not a sick lung from
a healthy one. Each is optional; a region without any is never judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from reg2rg.core.errors import ConfigError
from reg2rg.core.registry import did_you_mean

Range = tuple[float, float]
Side = Literal["left", "right"]
_BOUNDS = {"air": (0, 1), "median": (-1024, 3071), "inside": (0, 1), "volume": (0, 20000), "height": (-1000, 1000)}


@dataclass(frozen=True, slots=True)
class Expected:
    """Of one region: inclusive ranges, ``None`` where nothing is expected.

    Attributes:
        air: share of its voxels below -500 HU.
        median: median of its voxels, HU.
        inside: share of its voxels that lie inside the body.
        volume: ml, in a scan of any part of it.
        side: of the patient, for regions that lie on one side of the body's middle.
        height: mm from the middle of the air in the chest to the region's middle, upwards.
    """

    air: Range | None = None
    median: Range | None = None
    inside: Range | None = None
    volume: Range | None = None
    side: Side | None = None
    height: Range | None = None

    def __bool__(self) -> bool:
        return self != Expected()


def parse_expected(value: Any, where: str) -> Expected:
    """Read the key ``expected`` of a region.

    Args:
        value: as YAML gives it.
        where: file and key, for messages.

    Raises:
        ConfigError: not a mapping, an unknown key, or a value that is no range or side.
    """
    if value is None:
        return Expected()
    known = (*_BOUNDS, "side")
    if not isinstance(value, dict):
        raise ConfigError(f"{where} is {value!r} (expected a mapping with some of {', '.join(known)}).")
    for key in value:
        if key not in known:
            hint = did_you_mean(str(key), known)
            raise ConfigError(f"{where}: unknown key '{key}'.{hint} Known: {', '.join(known)}.")
    side = value.get("side")
    if side not in (None, "left", "right"):
        raise ConfigError(f"{where}.side is {side!r} (expected left or right, of the patient). Fix: write one of them.")
    ranges = {key: _range(value[key], f"{where}.{key}", *_BOUNDS[key]) for key in _BOUNDS if key in value}
    return Expected(**ranges, side=side)


def _range(value: Any, where: str, least: float, most: float) -> Range:
    numbers = isinstance(value, list) and len(value) == 2 and all(type(bound) in (int, float) for bound in value)
    if not numbers or not least <= value[0] <= value[1] <= most:
        raise ConfigError(
            f"{where} is {value!r} (expected two numbers from {least:g} to {most:g}, the smaller one first). "
            f"Fix: write a range, for example [{least:g}, {most:g}]."
        )
    return float(value[0]), float(value[1])
