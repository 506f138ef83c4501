"""What stands in the store of a study whose features take the place of a scan: their grid, and regions' weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reg2rg.core.errors import ConfigError
from reg2rg.core.task import Views
from reg2rg.scans.features import FeatureVolume, Weights
from reg2rg.scans.grid_layout import GridLayout
from reg2rg.store.container import Header, read_arrays, write_container
from reg2rg.store.files import chosen_regions
from reg2rg.store.index import NATIVE_FORMAT
from reg2rg.store.views import FRACTION_SCALE, StudyViews

KIND = "features"


def write_grid(path: Path, study: str, key: str, volume: FeatureVolume, layout: GridLayout) -> None:
    """Write a study's features as they were made, and the weights of its regions in steps of 1/32767."""
    arrays = [(KIND, volume.features, "view")]
    for name, weight in volume.weights.items():
        arrays.append((f"weight/{name}", fixed_weights(weight), "share"))
    meta = {
        "format": NATIVE_FORMAT,
        "kind": KIND,
        "whole": True,
        "id": study,
        "key": key,
        "regions": list(volume.weights),
        "encoder": layout.encoder,
        "cells": {name: float(weight.sum()) for name, weight in volume.weights.items()},
        "notes": list(volume.notes),
    }
    write_container(path, meta, arrays)


def fixed_weights(weight: Weights) -> npt.NDArray[np.int16]:
    """Weights of a region in steps of 1/32767, of which some stays some."""
    fixed = np.rint(weight * FRACTION_SCALE).astype(np.int16)
    return np.maximum(fixed, (weight > 0).astype(np.int16))


def read_grid_views(path: Path, header: Header, views: Views, regions: Sequence[str] | None, root: Path) -> StudyViews:
    """The features, and the weights of some regions as geometry.

    Raises:
        ConfigError: the store holds scans, or features of another encoder or grid than the views are of.
        DataFault: ``STORE_CORRUPT``.
    """
    meta = header.meta
    found = (meta.get("encoder", ""), *(header.blocks[KIND].shape if meta["kind"] == KIND else ()))
    expected = (views.features, *views.size, views.channels)
    if found != expected:
        holds = f"features {found[0]!r} of shape {found[1:]}" if meta["kind"] == KIND else "scans"
        raise ConfigError(
            f"the store {root} holds {holds}, but the task's views are features {expected[0]!r} of shape "
            f"{expected[1:]}. Fix: prepare another store for these features (data.store)"
        )
    names = chosen_regions(meta, regions)
    arrays = read_arrays(path, header, [KIND, *(f"weight/{name}" for name in names)])
    weights = np.empty((len(names), *views.size), np.int16)
    for row, name in enumerate(names):
        weights[row] = arrays[f"weight/{name}"]
    return StudyViews(names, None, weights, arrays[KIND])
