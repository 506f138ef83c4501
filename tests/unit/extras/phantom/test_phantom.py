"""Synthetic patients: the same on every grid, told as drawn, seen where told."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from reg2rg.core.labels import FINDINGS
from reg2rg.core.regions import load_region_set
from reg2rg.evaluation.labelers import RuleLabeler
from reg2rg.extras.phantom.anatomy import draw
from reg2rg.extras.phantom.findings import DRAW
from reg2rg.extras.phantom.grid import Grid
from reg2rg.extras.phantom.patient import Patient, draw_patient
from reg2rg.extras.phantom.sentences import labels, sub_anatomy, write_report

SMALL = Grid((64, 64, 48))
SEED = 7
PATIENTS = [draw_patient(SEED, number) for number in range(500)]


def with_finding(kind: str) -> Patient:
    """A patient with this finding in a mask and with little else in its region."""
    have = [patient for patient in PATIENTS if (found := patient.has(kind)) and found.place not in OUTSIDE]
    return min(have, key=lambda patient: len(patient.findings))


def trace(patient: Patient, kind: str, grid: Grid = SMALL):
    """What the finding changes: difference of HU with and without it, masks with it, body coordinates."""
    without = replace(patient, findings=tuple(f for f in patient.findings if f.kind != kind))
    (hu, masks), (plain, plain_masks) = draw(patient, grid), draw(without, grid)
    x, y, z = grid.axes()
    body = patient.warp.to_body(x[:, None, None], y[None, :, None], z[None, None, :])
    return hu.astype(int) - plain, masks, plain_masks, body


def test_draws_every_region_of_the_set():
    names = load_region_set("radgenome").names
    assert set(names) == set(DRAW)
    patient = next(p for p in PATIENTS if p.regions == set(names))
    hu, masks = draw(patient, SMALL)
    assert hu.dtype == np.int16
    assert hu.shape == SMALL.size
    assert all(mask.any() for mask in masks.values())
    assert {name for name, mask in masks.items() if mask.mean() > 0.05} <= {"abdomen", "lung", "heart", "pleura"}
    right = masks["lung"][32:].mean() / masks["lung"][:32].mean()
    assert 0.6 < right < 1.8


def test_hu_are_those_of_a_chest():
    patient = next(
        p for p in PATIENTS if not p.has("steatosis") and not labels(p) & {"Emphysema"} and not p.has("mosaic")
    )
    hu, masks = draw(patient, SMALL)
    assert hu.min() >= -1024
    assert np.median(hu[:3, :3]) == pytest.approx(-1000, abs=15)
    assert -930 < np.median(hu[masks["lung"]]) < -780
    assert 20 < np.median(hu[masks["heart"]]) < 70
    assert np.median(hu[masks["bone"]]) > 130
    assert np.percentile(hu[masks["trachea and bronchie"]], 10) < -850


def test_any_grid_shows_the_same_patient():
    patient = PATIENTS[3]
    fine, fine_masks = draw(patient, Grid((96, 96, 64)))
    coarse, coarse_masks = draw(patient, Grid((48, 48, 32)))
    shrunk = fine.reshape(48, 2, 48, 2, 32, 2).mean((1, 3, 5))
    assert np.abs(shrunk - coarse).mean() < 25
    for name in ("lung", "heart", "abdomen", "bone"):
        part = fine_masks[name].reshape(48, 2, 48, 2, 32, 2).mean((1, 3, 5)) > 0.5
        overlap = 2 * (part & coarse_masks[name]).sum() / (part.sum() + coarse_masks[name].sum())
        assert overlap > (0.75 if name == "bone" else 0.9)


def test_large_grids_are_drawn_in_slabs(monkeypatch):
    patient = PATIENTS[0]
    whole, masks = draw(patient, Grid((40, 40, 30)))
    monkeypatch.setattr("reg2rg.extras.phantom.grid._VOXELS_AT_A_TIME", 40 * 40 * 7)
    assert len(list(Grid((40, 40, 30)).slabs())) == 5
    parts, part_masks = draw(patient, Grid((40, 40, 30)))
    assert np.abs(whole.astype(int) - parts).mean() < 15  # the grain differs, the patient does not
    assert all((masks[name] == part_masks[name]).all() for name in masks)


def test_one_number_decides_a_patient():
    assert draw_patient(1, 5).findings == draw_patient(1, 5).findings
    assert (
        draw_patient(1, 5).findings != draw_patient(2, 5).findings or draw_patient(1, 5).fat != draw_patient(2, 5).fat
    )


SIDED = (
    "nodule",
    "ground glass",
    "consolidation",
    "atelectasis",
    "bronchiectasis",
    "rib sclerosis",
    "pleural effusion",
    "pleural plaque",
    "pleural thickening",
    "thyroid nodule",
    "breast nodule",
    "breast calcification",
    "secretion",
)


OUTSIDE = {"hiatal hernia", "right hilar", "left hilar"}
"""Findings, or places of them, that no region's mask covers."""


@pytest.mark.parametrize(
    "kind",
    sorted({f.kind for p in PATIENTS for f in p.findings if f.place not in OUTSIDE} - {"gynecomastia"} - OUTSIDE),
)
def test_findings_show_in_their_region(kind):
    patient = with_finding(kind)
    finding = patient.has(kind)
    if kind == "cardiomegaly":
        normal = replace(patient, heart=1.0)
        assert draw(patient, SMALL)[1]["heart"].sum() > 1.4 * draw(normal, SMALL)[1]["heart"].sum()
        return
    change, masks, plain_masks, body = trace(patient, kind)
    inside = masks[finding.region] | plain_masks[finding.region]
    seen = inside & (np.abs(change) > 25)
    assert seen.sum() >= 3, "the finding is not visible in its region"
    if kind in SIDED and finding.place != "both":
        side = 1 if "right" in finding.place else -1
        assert side * np.median(body[0][seen]) > 0
    if "upper" in finding.place:
        assert np.median(body[2][seen]) > 20
    if "lower" in finding.place or "middle" in finding.place:
        assert np.median(body[2][seen]) < 10


@pytest.mark.parametrize("what", sorted(OUTSIDE))
def test_what_segmentations_leave_out_shows_in_no_mask(what):
    def told(finding):
        return finding.kind == what or (finding.kind, finding.place) == ("lymph nodes", what)

    patient = min((p for p in PATIENTS if any(map(told, p.findings))), key=lambda p: len(p.findings))
    finding = next(filter(told, patient.findings))
    change, masks, plain_masks, _ = trace(patient, finding.kind)
    large = np.abs(change) > 100  # more than grain and a faded edge
    inside = np.any(list(masks.values()), axis=0)
    assert (large & ~inside).sum() > 30, "the finding is not visible at all"
    assert (large & inside).sum() < 0.1 * large.sum()
    own = masks[finding.region] ^ plain_masks[finding.region]
    assert own.sum() < 0.05 * plain_masks[finding.region].sum(), "its own region's mask tells it"


@pytest.mark.parametrize("kind", ["nodule", "liver cyst"])
def test_sizes_are_those_told(kind):
    patient = with_finding(kind)
    change, *_ = trace(patient, kind, Grid((96, 96, 64)))
    spot = np.abs(change)
    share = spot / np.percentile(spot[spot > 0.3 * spot.max()], 70)
    volume = share[share > 0.15].sum() * np.prod(Grid((96, 96, 64)).spacing)
    assert (6 * volume / np.pi) ** (1 / 3) == pytest.approx(patient.has(kind).size, rel=0.25)


def test_reports_are_short_and_name_what_is_drawn():
    for patient in PATIENTS:
        report = write_report(patient)
        assert set(report) == patient.regions
        for region, sentences in report.items():
            text = " ".join(sentences)
            assert 1 <= len(sentences) <= 4
            assert 4 <= len(text.split()) <= 42
            told = sorted(int(size) for size in re.findall(r"(\d+) mm", text))
            assert told == sorted(
                f.size for f in patient.findings if f.region == region and f" {f.size} mm" in f" {text}"
            )
            assert all(size % 5 == 0 for size in told)
            for finding in patient.findings:
                if finding.region == region and "lobe" in finding.place:
                    assert finding.place in text


def test_reports_use_few_words():
    texts = [" ".join(" ".join(s) for s in write_report(patient).values()) for patient in PATIENTS]
    assert 200 < len(set(re.findall(r"[\w-]+", " ".join(texts)))) < 500
    assert not any("{" in text for text in texts)


def test_texts_state_what_is_true_of_their_region_and_no_more():
    """So a head that learned from truth labels would be the head that learns from texts."""
    labeler, texts, true = RuleLabeler(), [], []
    for patient in PATIENTS:
        for region, sentences in write_report(patient).items():
            texts.append(" ".join(sentences))
            true.append({one.label for one in patient.findings if one.region == region and one.label})
    read = [{label for label, stated in zip(FINDINGS, row, strict=True) if stated} for row in labeler.label(texts)]
    assert read == true


def test_every_label_is_learnable():
    counts = Counter(label for patient in PATIENTS for label in labels(patient))
    assert set(counts) == set(FINDINGS)
    assert all(0.13 < counts[label] / len(PATIENTS) < 0.36 for label in FINDINGS)


def test_every_region_has_normal_and_abnormal_variants():
    for region in DRAW:
        seen = [any(f.region == region for f in p.findings) for p in PATIENTS if region in p.regions]
        assert 0.3 < np.mean(seen) < 0.97


def test_regions_may_be_missing():
    assert 0.5 < np.mean(["breast" in p.regions for p in PATIENTS]) < 0.8
    assert 0.7 < np.mean(["thyroid" in p.regions for p in PATIENTS]) < 0.95


def test_parts_repeat_sentences_of_their_region():
    rows = [(patient, row) for patient in PATIENTS[:60] for row in sub_anatomy(write_report(patient))]
    assert rows
    for patient, (path, sentence) in rows:
        assert sentence in write_report(patient)[path.split("/")[0]]


def test_nothing_told_is_drowned_by_fluid():
    for patient in PATIENTS:
        fluid = patient.has("pleural effusion")
        if fluid:
            sides = ("right", "left") if fluid.place == "both" else (fluid.place,)
            assert not any(f.place in [f"{side} lower lobe" for side in sides] for f in patient.findings)
