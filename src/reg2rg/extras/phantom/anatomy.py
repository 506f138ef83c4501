"""One phantom: from a patient and a grid to HU and masks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from reg2rg.core.types import HU, Mask
from reg2rg.extras.phantom.body import draw_glands, draw_trunk
from reg2rg.extras.phantom.bones import draw_bones
from reg2rg.extras.phantom.findings import DRAW
from reg2rg.extras.phantom.grid import Canvas, Float, Grid
from reg2rg.extras.phantom.lesions import DRAW_LESION
from reg2rg.extras.phantom.lungs import draw_lungs
from reg2rg.extras.phantom.organs import (
    draw_abdomen,
    draw_airways,
    draw_esophagus,
    draw_heart,
    draw_thyroid,
    draw_vessels,
    share_out,
)
from reg2rg.extras.phantom.patient import Patient

_LUNG_KINDS = (
    "emphysema",
    "ground glass",
    "fibrosis",
    "atelectasis",
    "consolidation",
    "bronchiectasis",
    "nodule",
    "nodules",
)
"""Drawn with the lungs, before what lies over them."""


def draw(patient: Patient, grid: Grid) -> tuple[HU, Mapping[str, Mask]]:
    """Draw a patient on a grid.

    Returns:
        (H, W, D) int16 HU, and region name -> (H, W, D) bool for the regions that the scan shows.
    """
    volume = np.empty(grid.size, dtype=np.int16)
    masks = {name: np.zeros(grid.size, dtype=bool) for name in sorted(patient.regions)}
    noise = patient.rng(6)
    for start, stop in grid.slabs():
        canvas = Canvas.of(grid, patient.warp, start, stop, DRAW)
        _draw_slab(canvas, patient)
        canvas.hu += _noise(noise, canvas, grid)
        volume[:, :, start:stop] = np.clip(np.rint(canvas.hu), -1024, 3071)
        for name, mask in masks.items():
            mask[:, :, start:stop] = canvas.masks[name]
    return volume, masks


def _draw_slab(canvas: Canvas, patient: Patient) -> None:
    draw_trunk(canvas, patient)
    share_out(canvas, patient)
    draw_glands(canvas, patient)
    draw_bones(canvas, patient)
    draw_abdomen(canvas, patient)
    draw_lungs(canvas, patient)
    for kind in _LUNG_KINDS:
        _draw_finding(canvas, patient, kind)
    draw_vessels(canvas, patient)
    draw_heart(canvas, patient)
    draw_airways(canvas, patient)
    draw_esophagus(canvas, patient)
    draw_thyroid(canvas, patient)
    for finding in patient.findings:
        if finding.kind not in _LUNG_KINDS:
            _draw_finding(canvas, patient, finding.kind)
    _tidy(canvas)


def _draw_finding(canvas: Canvas, patient: Patient, kind: str) -> None:
    finding = patient.has(kind)
    if finding and kind in DRAW_LESION:
        DRAW_LESION[kind](canvas, patient, finding)


def _tidy(canvas: Canvas) -> None:
    """Give each voxel to one region only where two overlap; the pleura's shell may share voxels with the lung."""
    masks = canvas.masks
    masks["heart"] &= ~masks["esophagus"]
    tubes = masks["heart"] | masks["esophagus"] | masks["trachea and bronchie"]
    masks["mediastinum"] &= ~(tubes | masks["bone"])
    masks["lung"] &= ~(tubes | masks["mediastinum"])
    masks["pleura"] &= ~tubes


def _noise(rng: np.random.Generator, canvas: Canvas, grid: Grid) -> Float:
    """Grain of a CT image: finer voxels are noisier, and neighbours in a slice share some of it."""
    raw = rng.standard_normal(canvas.hu.shape, dtype=np.float32)
    raw[1:] += 0.6 * raw[:-1]
    raw[:, 1:] += 0.6 * raw[:, :-1]
    level = np.clip(30 / canvas.blur, 7, 28) / 1.36
    return np.asarray(raw * np.float32(level))
