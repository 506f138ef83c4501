"""A synthetic patient: build, position and findings, all of it from (seed, number) alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reg2rg.extras.phantom.findings import DRAW, Finding
from reg2rg.extras.phantom.grid import FIELD_OF_VIEW, Warp

TOP_OF_LUNGS = 118.0
"""Apex of the lungs in the standard body, mm."""


@dataclass(frozen=True, slots=True)
class Patient:
    """Everything that the drawing and the report need to know.

    Attributes:
        seed: seed of the collection.
        number: number of the study in it.
        warp: scanner millimetres -> standard body.
        scale: mean ratio of the patient's millimetres to the standard body's.
        female: has breasts.
        gynecomastia: a man with breast tissue.
        fat: thickness of the fat under the skin, mm.
        heart: size of the heart, 1 is normal.
        domes: height in mm of the right and left half of the diaphragm.
        thyroid: the scan reaches up to the thyroid.
        tone: HU added to soft tissue, liver, lung: patients differ.
        empty_masks: regions that are not there have an all-zero mask file instead of none.
        findings: what the patient has.
    """

    seed: int
    number: int
    warp: Warp
    scale: float
    female: bool
    gynecomastia: bool
    fat: float
    heart: float
    domes: tuple[float, float]
    thyroid: bool
    tone: tuple[float, float, float]
    empty_masks: bool
    findings: tuple[Finding, ...]

    @property
    def regions(self) -> frozenset[str]:
        """Regions that this patient's scan shows."""
        gone = set()
        if not self.thyroid:
            gone.add("thyroid")
        if not (self.female or self.gynecomastia):
            gone.add("breast")
        return frozenset(DRAW) - gone

    def has(self, kind: str) -> Finding | None:
        """The finding of this kind, if the patient has it."""
        return next((finding for finding in self.findings if finding.kind == kind), None)

    def rng(self, purpose: int) -> np.random.Generator:
        """A generator of its own for one purpose, so that one drawing step cannot shift another's chance."""
        return np.random.default_rng([self.seed, self.number, purpose])


def _warp(rng: np.random.Generator, thyroid: bool) -> tuple[Warp, float]:
    scale = rng.normal(1.0, 0.035, 3).clip(0.92, 1.08) * rng.uniform(0.95, 1.04)
    turn = np.deg2rad(rng.normal(0, [1.5, 1.5, 2.5])).clip(-0.08, 0.08)
    (sx, sy, sz), (cx, cy, cz) = np.sin(turn), np.cos(turn)
    matrix: npt.NDArray[np.float64] = np.diag(1 / scale)
    matrix = matrix @ np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    matrix = matrix @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    matrix = matrix @ np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    top = rng.uniform(158, 168) if thyroid else TOP_OF_LUNGS + rng.uniform(2, 5)
    shift = np.array([rng.normal(0, 4), rng.normal(0, 5), top - FIELD_OF_VIEW[2] / 2 / scale[2]])
    waves = np.stack(
        [
            rng.uniform(1.0, 3.5, (3, 2)),
            2 * np.pi / rng.uniform(150, 320, (3, 2)),
            2 * np.pi / rng.uniform(150, 320, (3, 2)),
            rng.uniform(0, 2 * np.pi, (3, 2)),
            rng.uniform(0, 2 * np.pi, (3, 2)),
        ],
        axis=-1,
    )
    return Warp(matrix, shift, waves), float(np.cbrt(np.prod(scale)))


def draw_patient(seed: int, number: int) -> Patient:
    """Draw the build and the findings of patient `number` of the collection `seed`."""
    rng = np.random.default_rng([seed, number])
    thyroid = bool(rng.random() < 0.82)
    female = bool(rng.random() < 0.55)
    gynecomastia = not female and bool(rng.random() < 0.3)
    warp, scale = _warp(rng, thyroid)
    findings: dict[str, list[Finding]] = {}
    for region, draw in DRAW.items():
        findings[region] = draw(rng, [finding for earlier in findings.values() for finding in earlier])
    if not thyroid:
        findings["thyroid"] = []
    if not female:
        findings["breast"] = [Finding("gynecomastia", "breast")] if gynecomastia else []
    flat = tuple(finding for region in findings.values() for finding in region)
    kinds = {finding.kind for finding in flat}
    flattening = 0.62 if "emphysema" in kinds else 1.0
    return Patient(
        seed=seed,
        number=number,
        warp=warp,
        scale=scale,
        female=female,
        gynecomastia=gynecomastia,
        fat=float(np.clip(rng.gamma(3.0, 2.6), 2, 20)) + 3 * female,
        heart=float(rng.uniform(1.2, 1.31) if "cardiomegaly" in kinds else rng.uniform(0.93, 1.04)),
        domes=(float(rng.uniform(58, 72) * flattening), float(rng.uniform(48, 60) * flattening)),
        thyroid=thyroid,
        tone=(float(rng.normal(0, 4)), float(rng.normal(0, 5)), float(rng.normal(0, 14))),
        empty_masks=bool(rng.random() < 0.5),
        findings=flat,
    )
