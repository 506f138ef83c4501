"""What a view tells of each finding: a linear probe, to tell a weak model from a task that leaves nothing to see.

    python benchmarks/probe.py --config phantom_small.yaml                                 the whole image
    python benchmarks/probe.py --config phantom_small.yaml --view geometry --region heart  a region's view

Ridge regression from the coarse voxels of the view to a finding's label, fitted on the training split, ranked on the
held-out one. An area under the curve far above 0.5 means that the view shows the finding, whatever a model makes of it;
near 0.5, that a linear look at coarse voxels does not see it, which proves nothing. Needs a prepared store.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
import torch.nn.functional as F
from torchmetrics.functional.classification import binary_auroc

from reg2rg.cli.main import Invocation
from reg2rg.cli.section import read_section
from reg2rg.core.labels import FINDINGS
from reg2rg.data.scaling import fraction, to_input
from reg2rg.store.store import Store

COARSE = (24, 24, 12)
RIDGE = 200.0


def main() -> None:
    """Print one line a finding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="as for reg2rg fit")
    parser.add_argument("--view", choices=("global", "texture", "geometry"), default="global")
    parser.add_argument("--region", help="whose view; studies without it are left out")
    options = parser.parse_args()
    if (options.view == "global") != (options.region is None):
        parser.error("--region goes with --view texture or geometry, and they with it")
    section = read_section(Invocation("data", ()), ["--config", options.config])
    names = section.task.region_set.names
    if options.region not in (None, *names):
        parser.error(f"--region {options.region}: expected one of {', '.join(names)}")
    if section.data.store is None:
        raise SystemExit("data.store: the config names no store. Fix: name a prepared one")
    store = Store(section.data.store)
    rows: dict[bool, list[np.ndarray]] = {True: [], False: []}
    labels: dict[bool, list[list[bool]]] = {True: [], False: []}
    ready = set(store.studies())
    for study in section.data.dataset.studies():
        if study.id not in ready or study.findings is None:
            continue
        wanted = () if options.region is None else (options.region,)
        if not set(wanted) <= set(store.regions(study.id)):
            continue
        view = store.views(study.id, section.task.views, wanted, want={options.view})
        voxels = {"global": view.global_, "texture": view.texture, "geometry": view.geometry}[options.view]
        tensor = torch.from_numpy(voxels)[None] if options.view == "global" else torch.from_numpy(voxels)
        scaled = fraction(tensor) if options.view == "geometry" else to_input(tensor, section.task.views.window)
        rows[study.split == "train"].append(F.adaptive_avg_pool3d(scaled, COARSE).flatten().numpy())
        labels[study.split == "train"].append([bool(study.findings.get(name)) for name in FINDINGS])
    fitted, tested = np.stack(rows[True]), np.stack(rows[False])
    fitted, tested = fitted - fitted.mean(0), tested - fitted.mean(0)
    kernel = fitted @ fitted.T + RIDGE * np.eye(len(fitted))
    known, present = np.asarray(labels[True]), np.asarray(labels[False])
    weights = fitted.T @ np.linalg.solve(kernel, known - known.mean(0))
    print(f"{len(fitted)} studies fitted, {len(tested)} held out\n{'finding':38}{'held out':>9}{'AUC':>7}")
    for i, name in enumerate(FINDINGS):
        if 0 < present[:, i].sum() < len(present):
            scores, truth = torch.from_numpy(tested @ weights[:, i]), torch.from_numpy(present[:, i])
            # Ranks: it takes what is not a probability through a sigmoid, and ties there.
            area = float(binary_auroc(scores.argsort().argsort() / len(scores), truth))
            print(f"{name:38}{present[:, i].sum():9}{area:7.3f}")


if __name__ == "__main__":
    main()
