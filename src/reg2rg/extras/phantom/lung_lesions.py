"""How findings of lungs, pleura and airways look. Each drawing takes the patient's own record of the finding."""

from __future__ import annotations

import numpy as np

from reg2rg.extras.phantom.brushes import Rows, ball, cloud
from reg2rg.extras.phantom.findings import Finding
from reg2rg.extras.phantom.grid import Canvas
from reg2rg.extras.phantom.organs import TRACHEA
from reg2rg.extras.phantom.patient import Patient
from reg2rg.extras.phantom.shapes import boxed_capsule, boxed_ellipsoid


def _turn(rng: np.random.Generator, angle: float) -> Rows:
    """A rotation by `angle` radians about a random horizontal line."""
    phi = rng.uniform(0, 2 * np.pi)
    axis = np.array([np.cos(phi), np.sin(phi), 0])
    cross = np.cross(np.eye(3), axis)
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)


def nodule(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """One round calcified spot, or several of which the first is the largest."""
    for i, point in enumerate(finding.points):
        radius = finding.size / 2 * (1 if i == 0 else 0.7)
        ball(canvas, patient.warp.to_scanner(point), radius, 320, within=canvas.fields["lung"])


def ground_glass(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """A hazy patch through which vessels are still seen."""
    middle = patient.warp.to_scanner(finding.points[0])
    found = cloud(canvas, middle, np.array([1, 0.85, 0.9]) * finding.size / 2, 8, finding.salt)
    if found:
        box, share = found
        canvas.hu[box] += share * np.clip(-canvas.hu[box] - 40, 0, 330)


def consolidation(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """Airless lung with open bronchi in it."""
    middle = patient.warp.to_scanner(finding.points[0])
    found = cloud(canvas, middle, np.array([1, 0.9, 0.85]) * finding.size / 2, canvas.blur, finding.salt)
    if found:
        box, share = found
        canvas.paint(share, 38, box)
        rng = patient.rng(finding.salt)
        for _ in range(4):
            ends = middle + rng.normal(0, finding.size / 5, (2, 3))
            rod = boxed_capsule(canvas, ends[0], ends[1], 2.6, 1.6)
            if rod:
                canvas.paint(canvas.cover(rod[1]) * canvas.fields["lung"][rod[0]], -750, rod[0])


def fibrosis(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """Apical scars: irregular streaks that draw together towards the hilum, and a cap on the apex."""
    rng = patient.rng(finding.salt)
    for side in (1, -1):
        if finding.place != "both" and (side == 1) != (finding.place == "right"):
            continue
        knot = np.array([52.0 * side, -10, 78]) + rng.normal(0, 5, 3)
        for _ in range(9):
            far = knot + rng.normal([8 * side, 0, 4], [18, 26, 18])
            _streak(canvas, patient, knot + rng.normal(0, 4, 3), far, 4.8, 2.4)
        _streak(canvas, patient, knot, np.array([40.0 * side, -24, 40]), 3.0, 1.5)
        cap = boxed_ellipsoid(canvas, patient.warp.to_scanner([44 * side, -24, 112]), [28, 30, 15])
        if cap:
            canvas.paint(canvas.cover(cap[1]) * canvas.fields["lung"][cap[0]], 20, cap[0])


def _streak(canvas: Canvas, patient: Patient, a: Rows, b: Rows, ra: float, rb: float) -> None:
    ends = patient.warp.to_scanner(np.array([a, b]))
    found = boxed_capsule(canvas, ends[0], ends[1], ra, rb)
    if found:
        box, distance = found
        canvas.paint(canvas.cover(distance) * canvas.fields["lung"][box], 25, box)


def atelectasis(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """Plate-like collapse: two flat bands one above the other, tilted."""
    rng = patient.rng(finding.salt)
    turn = _turn(rng, rng.uniform(0.35, 0.6))
    for lift in (-9, 10):
        middle = patient.warp.to_scanner(np.add(finding.points[0], [0, 0, lift]))
        found = boxed_ellipsoid(canvas, middle, [38, 30, 5.5], turn)
        if found:
            canvas.paint(canvas.cover(found[1]) * canvas.fields["lung"][found[0]], 25, found[0])


def bronchiectasis(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """A bunch of wide airways with thick walls: rings and tram lines."""
    rng = patient.rng(finding.salt)
    hub = np.asarray(finding.points[0])
    side = np.sign(hub[0])
    rods = []
    for i in range(9):
        angle = 2 * np.pi * i / 8
        offset = np.array([24 * np.cos(angle), 24 * np.sin(angle), 0]) * (i > 0)
        start = hub + offset + [-4 * side, 3, 17]
        rods.append(
            patient.warp.to_scanner(np.array([start, start + np.array([8 * side, -4, -32]) + rng.normal(0, 4, 3)]))
        )
    lung = canvas.fields["lung"]
    for extra, hu in ((3.6, 30.0), (0.0, -985.0)):
        for a, b in rods:
            found = boxed_capsule(canvas, a, b, 5.4 + extra, 6.4 + extra)
            if found:
                canvas.paint(canvas.cover(found[1]) * lung[found[0]], hu, found[0])


def emphysema(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """Holes without walls all over the upper lungs, and thin-walled bullae between them."""
    rng = patient.rng(finding.salt)
    lung = canvas.fields["lung"]
    for side in (1, -1):
        for i in range(36):
            bulla = i < 13
            deep = 40 * rng.random() ** 3
            spot = np.array([side * rng.uniform(28, 108), rng.uniform(-70, 66), rng.uniform(10, 108) - deep])
            middle = patient.warp.to_scanner(spot)
            radius = rng.uniform(11, 19) if bulla else rng.uniform(7, 12)
            if bulla:
                ball(canvas, middle, radius + 2.8, -600, within=lung)
            ball(canvas, middle, radius, -1000, within=lung)


def pleural_thickening(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """A broad soft layer on the side wall of the chest; as a plaque it is narrow and dense."""
    plaque = finding.kind == "pleural plaque"
    side = 1 if finding.place == "right" else -1
    x, y, z = canvas.body
    space = canvas.fields["lungs"]
    depth = np.float32((7 if plaque else finding.size) / patient.scale)
    middle = np.float32(-4 if plaque else 10)
    reach = np.sqrt(((y - 0) / (40 if plaque else 62)) ** 2 + ((z - middle) / (34 if plaque else 52)) ** 2)
    layer = depth * np.clip(2.2 * (1 - reach), 0, 1)
    inner = np.maximum(canvas.fields["wall"], -canvas.fields["diaphragm"])
    distance = np.maximum(-inner - layer, space)
    distance = np.where((x * side > 20) & (layer > 0.5), distance, np.float32(9)).astype(np.float32)
    share = canvas.cover(distance)
    canvas.paint(share, 420 if plaque else 32)
    canvas.mark("pleura", share > 0.5)
    canvas.masks["lung"] &= share <= 0.5


def secretion(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """Mucus that half fills a main bronchus."""
    side = 1 if finding.place == "right" else -1
    ends = patient.warp.to_scanner(np.array([[12.0 * side, -31, 33], [30 * side, -34, 16]]))
    found = boxed_capsule(canvas, ends[0], ends[1], 5.5, 5.5)
    if found:
        canvas.paint(canvas.cover(found[1]), 15, found[0])
        canvas.mark("trachea and bronchie", found[1] < 0, found[0])


def tracheal_diverticulum(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """An air cyst behind and right of the upper trachea."""
    at = np.add(TRACHEA[1][:3], [15, -9, -22])
    ball(canvas, patient.warp.to_scanner(at), finding.size / 2 + 1.5, 30, region="trachea and bronchie")
    ball(canvas, patient.warp.to_scanner(at), finding.size / 2, -980)
