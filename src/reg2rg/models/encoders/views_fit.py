"""Whether a model's encoders may be given the views of a task."""

from __future__ import annotations

from reg2rg.core.errors import ConfigError
from reg2rg.core.task import Views
from reg2rg.models.encoders.base import Encoder
from reg2rg.models.encoders.grids import require_pooled


def require_fit(texture: Encoder | None, global_: Encoder | str | None, geometry: Encoder | None, views: Views) -> None:
    """Refuse views that an encoder's weights were not made for (`Encoder.reads`), and features without a `MaskPool`.

    Args:
        texture: of the model.
        global_: of the model; a word where it shares another encoder.
        geometry: of the model.
        views: of the task.

    Raises:
        ConfigError: names the encoder, what differs, and the fix.
    """
    require_pooled(texture, views.features)
    for part, encoder in (("texture", texture), ("global_", global_), ("geometry", geometry)):
        for module in encoder.modules() if isinstance(encoder, Encoder) else ():
            if isinstance(module, Encoder) and module.reads is not None:
                _require(f"model.{part}: {type(module).__name__}", part, module, views)


def _require(name: str, part: str, encoder: Encoder, views: Views) -> None:
    wanted = encoder.reads
    assert wanted is not None
    if part == "geometry":
        raise ConfigError(f"{name} reads CTs, but the geometry view is a mask. Fix: an encoder that takes any view")
    if not views.is_hu:
        found = f"features of {views.features}" if views.features else f"intensities by {views.intensity}"
        raise ConfigError(f"{name} reads HU, but the task's views are {found}. Fix: another encoder, or CTs")
    if views.orientation.upper() != wanted.orientation:
        raise ConfigError(
            f"{name} reads axes that point to {wanted.orientation}, but task.views.orientation is "
            f"{views.orientation}: its map would be another patient's. Fix: task.views.orientation: "
            f"{wanted.orientation}"
        )
    if tuple(views.window) != wanted.window:
        low, high = wanted.window
        raise ConfigError(
            f"{name} reads {low} to {high} HU as -1 to 1, but task.views.window is {views.window[0]}, "
            f"{views.window[1]}. Fix: task.views.window: [{low}, {high}]"
        )
