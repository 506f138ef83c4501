"""How findings look, and the table of all drawings. Each takes the patient's own record of the finding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from reg2rg.extras.phantom import lung_lesions as lung
from reg2rg.extras.phantom.body import SPINE_Y
from reg2rg.extras.phantom.bones import VERTEBRA, rib_phase
from reg2rg.extras.phantom.brushes import CALCIUM, METAL, ball, wire
from reg2rg.extras.phantom.findings import Finding
from reg2rg.extras.phantom.grid import Canvas
from reg2rg.extras.phantom.organs import ARCH, ASCENDING, DESCENDING, heart_point, thyroid_middle
from reg2rg.extras.phantom.patient import Patient
from reg2rg.extras.phantom.shapes import boxed_ellipsoid


def coronary_calcification(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """Dense beads along the coronary arteries, in the grooves of the heart's surface."""
    rng = patient.rng(finding.salt)
    beads = [(-0.1 - 0.13 * i, 0.62 - 0.03 * i, 0.66 - 0.1 * i) for i in range(4)]  # anterior descending
    beads += [(0.18, 0.9 - 0.2 * i, 0.1 - 0.25 * i) for i in range(2)]  # right
    beads += [(0.14, -0.3 - 0.25 * i, 0.82 - 0.2 * i) for i in range(2)]  # circumflex
    keep = rng.permutation(len(beads))[: int(rng.integers(5, 8))]
    for i in keep:
        ball(
            canvas,
            heart_point(patient, *beads[i]),
            float(rng.uniform(3.4, 4.4)),
            CALCIUM,
            within=canvas.cover(canvas.fields["heart"]),
        )


def aortic_calcification(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """Dense flecks on the wall of arch and descending aorta."""
    rng = patient.rng(finding.salt)
    outside = (~canvas.masks["trachea and bronchie"]).astype(np.float32)
    chain = np.array([*ASCENDING[2:], *ARCH[1:], *DESCENDING[1:4]], dtype=float)
    for i in range(11):
        t = 0.4 + (len(chain) - 1.5) * (i + rng.random() * 0.6) / 11
        k = min(int(t), len(chain) - 2)
        at = chain[k] + (chain[k + 1] - chain[k]) * (t - k)
        along = chain[k + 1, :3] - chain[k, :3]
        out = np.cross(along, rng.normal(0, 1, 3))
        spot = at[:3] + out / np.linalg.norm(out) * (at[3] - 1)
        radius = float(rng.uniform(4.4, 5.8))
        ball(canvas, patient.warp.to_scanner(spot), radius, CALCIUM, within=outside, region="mediastinum")


def lymph_nodes(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """Large round enhancing nodes at one station; the first is the largest.

    Those at the hila lie outside of all masks: segmentations of the mediastinum end before them, those of the lung
    leave them out. They are reported with the mediastinum all the same.
    """
    hilar = "hilar" in finding.place
    for i, point in enumerate(finding.points):
        middle = patient.warp.to_scanner(point)
        radius = finding.size / 2 * (1 if i == 0 else 0.8)
        found = boxed_ellipsoid(canvas, middle, [radius, radius * 0.9, radius])
        if found:
            box, distance = found
            outside = ~canvas.masks["trachea and bronchie"][box]
            fat = canvas.cover(distance - 2) * outside
            canvas.paint(fat, -115, box)
            canvas.paint(canvas.cover(distance) * outside, 110, box)
            if hilar:
                canvas.leave_out(fat > 0, box)
            else:
                canvas.mark("mediastinum", distance < 0, box)


def hiatal_hernia(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """Part of the stomach behind the heart: a thick-walled sac with fluid and an air bubble in front.

    It lies beside the esophagus and outside of all masks, as in segmentations, to which it is stomach. It is reported
    with the esophagus.
    """
    middle = patient.warp.to_scanner([-16, -40, -72])
    radii = np.array([1.0, 0.85, 0.95]) * finding.size / 2
    found = boxed_ellipsoid(canvas, middle, radii)
    if found:
        box, distance = found
        outside = ~canvas.masks["esophagus"][box]
        sac = canvas.cover(distance) * outside
        canvas.paint(sac, 45, box)
        level = canvas.local(box)[1] - np.float32(middle[1])
        contents = np.where(level > 1, np.float32(-950), np.float32(15))
        canvas.paint(canvas.cover(distance + 5) * outside, contents, box)
        canvas.leave_out(sac > 0, box)


def liver_cyst(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """A round pool of water in the right lobe."""
    rng = patient.rng(finding.salt)
    middle = np.array([72, 8, -98]) + rng.uniform(-1, 1, 3) * [14, 22, 10]
    ball(canvas, patient.warp.to_scanner(middle), finding.size / 2, 4, within=canvas.cover(canvas.fields["liver"]))


def gallstone(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """A dense stone in the gallbladder."""
    ball(canvas, patient.warp.to_scanner([47, 36, -140]), finding.size / 2, 600)


def degeneration(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """Bony spurs at the front and sides of the vertebral edges."""
    for level in range(1, 9):
        z = -150 + level * VERTEBRA
        y = float(SPINE_Y(np.array([z], np.float32))[0])
        for dx, dy in ((-17, 5), (17, 5), (8, 14), (-8, 14)):
            spot = patient.warp.to_scanner([dx, y + dy, z])
            ball(canvas, spot, 4.6, 800, region="bone")


def rib_sclerosis(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """One rib is dense and swollen over a few centimetres of the side wall."""
    side = 1 if finding.place == "right" else -1
    x, y, z = canvas.body
    wall = canvas.fields["wall"]
    rib = 5 + finding.salt % 3
    spot = (x * side > 60) & (np.abs(y + 18) < 22) & (np.abs(wall - 5.5) < 7.5)
    distance = np.abs(rib_phase(x, y, z) - np.float32(rib)) * 21 - 8
    share = canvas.cover(np.where(spot, distance, np.float32(9)).astype(np.float32))
    canvas.paint(share, 1200)
    canvas.mark("bone", share > 0.5)


def thyroid_nodule(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """A dark round spot in one lobe."""
    middle = thyroid_middle(patient, 1 if finding.place == "right" else -1)
    ball(canvas, middle, finding.size / 2 + 1.5, 105, region="thyroid")
    ball(canvas, middle, finding.size / 2, 15, region="thyroid")


def breast_finding(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """A solid round mass, or a group of coarse flecks of calcium."""
    side = 1 if finding.place == "right" else -1
    rng = patient.rng(finding.salt)
    middle = np.array([(80 + rng.uniform(-6, 6)) * side, 98 + 0.8 * patient.fat, rng.uniform(-14, 12)])
    inside = canvas.masks["breast"].astype(np.float32)
    if finding.kind == "breast nodule":
        ball(canvas, patient.warp.to_scanner(middle), finding.size / 2, 55, within=inside)
        return
    for offset in ((0, 0, 0), (9, 3, 5), (-8, -2, 8), (2, 4, -10)):
        ball(canvas, patient.warp.to_scanner(middle + np.array(offset)), 3.8, CALCIUM, within=inside)


def pacemaker(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """A metal can under the skin of the upper chest and a lead to the right ventricle."""
    side = 1 if finding.place == "right" else -1
    can = patient.warp.to_scanner([72 * side, 62 + patient.fat * 0.6, 62])
    turn = np.array([[0.9, 0.44 * side, 0], [-0.44 * side, 0.9, 0], [0, 0, 1.0]])
    found = boxed_ellipsoid(canvas, can, [23, 6, 25], turn)
    if found:
        canvas.paint(canvas.cover(found[1]), METAL, found[0])
    stops = [[50 * side, 34, 98], [29, 12, 82], [30, 10, 30]]
    track = [can, *patient.warp.to_scanner(np.array(stops, float))]
    track += [
        heart_point(patient, *uvw)
        for uvw in ((0.5, 0.2, 0.25), (0.3, 0.4, -0.25), (-0.2, 0.5, -0.35), (-0.55, 0.42, -0.3))
    ]
    wire(canvas, track, 2.1)


def catheter(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """A port under the skin on the right and its line in the superior vena cava."""
    port = patient.warp.to_scanner([70, 60 + patient.fat * 0.6, 50])
    found = boxed_ellipsoid(canvas, port, [12, 7, 12])
    if found:
        canvas.paint(canvas.cover(found[1]), METAL, found[0])
    stops = np.array([[60, 30, 98], [36, 10, 98], [29, 12, 82], [30, 10, 52], [28, 8, 16]], float)
    wire(canvas, [port, *patient.warp.to_scanner(stops)], 3.0)


def spinal_rods(canvas: Canvas, patient: Patient, finding: Finding) -> None:
    """Two metal rods behind the lower thoracic spine, held by screws that go through into the vertebrae."""
    levels = np.array([-104.0, -79.0, -54.0, -29.0])
    backs = SPINE_Y(levels.astype(np.float32))
    for side in (1, -1):
        heads = [patient.warp.to_scanner([24 * side, y - 40, z]) for y, z in zip(backs, levels, strict=True)]
        tips = [patient.warp.to_scanner([10 * side, y - 2, z]) for y, z in zip(backs, levels, strict=True)]
        wire(canvas, heads, 6.0, region="bone")
        for head, tip in zip(heads, tips, strict=True):
            wire(canvas, [head, tip], 3.0, region="bone")


DRAW_LESION: dict[str, Callable[[Canvas, Patient, Finding], None]] = {
    "nodule": lung.nodule,
    "nodules": lung.nodule,
    "ground glass": lung.ground_glass,
    "consolidation": lung.consolidation,
    "fibrosis": lung.fibrosis,
    "atelectasis": lung.atelectasis,
    "bronchiectasis": lung.bronchiectasis,
    "emphysema": lung.emphysema,
    "coronary calcification": coronary_calcification,
    "aortic calcification": aortic_calcification,
    "lymph nodes": lymph_nodes,
    "hiatal hernia": hiatal_hernia,
    "pleural thickening": lung.pleural_thickening,
    "pleural plaque": lung.pleural_thickening,
    "secretion": lung.secretion,
    "tracheal diverticulum": lung.tracheal_diverticulum,
    "liver cyst": liver_cyst,
    "gallstone": gallstone,
    "degeneration": degeneration,
    "rib sclerosis": rib_sclerosis,
    "thyroid nodule": thyroid_nodule,
    "breast nodule": breast_finding,
    "breast calcification": breast_finding,
    "pacemaker": pacemaker,
    "catheter": catheter,
    "spinal rods": spinal_rods,
}
"""Findings drawn on top. The others are part of the anatomy (a large heart, fluid, a thick wall) and drawn with it."""
