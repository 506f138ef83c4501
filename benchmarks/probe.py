"""What the view of the whole image tells of each finding: a linear probe, to tell a weak model from a blind task.

    python benchmarks/probe.py --config phantom_small.yaml

Ridge regression from the coarse voxels of the global view to a finding's label, fitted on the training split, ranked on
the held-out one. An area under the curve far above 0.5 means that the view shows the finding, whatever a model makes of
it; near 0.5, that a linear look at coarse voxels does not see it, which proves nothing. Needs a prepared store.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
import torch.nn.functional as F

from reg2rg.cli.main import Invocation
from reg2rg.cli.section import read_section
from reg2rg.data.store import Store
from reg2rg.labels import FINDINGS

COARSE = (24, 24, 12)
RIDGE = 300.0


def area(scores: np.ndarray, present: np.ndarray) -> float:
    """Area under the receiver operating characteristic: the share of pairs in the right order."""
    ranks = scores.argsort().argsort() + 1.0
    positive = int(present.sum())
    return float((ranks[present].sum() - positive * (positive + 1) / 2) / (positive * (~present).sum()))


def main() -> None:
    """Print one line a finding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="as for reg2rg fit")
    section = read_section(Invocation("data", ()), ["--config", parser.parse_args().config])
    if section.store is None:
        raise SystemExit("data.store: the config names no store. Fix: name a prepared one")
    store, low, high = Store(section.store), *section.views.window
    rows: dict[bool, list[np.ndarray]] = {True: [], False: []}
    labels: dict[bool, list[list[bool]]] = {True: [], False: []}
    ready = set(store.studies())
    for study in section.dataset.studies():
        if study.id not in ready or study.findings is None:
            continue
        view = store.views(study.id, section.views, want={"global"}).global_
        hu = torch.from_numpy(view.astype(np.float32) / 16).clamp(low, high)
        coarse = F.adaptive_avg_pool3d(hu[None], COARSE).flatten() / 400
        rows[study.split == "train"].append(coarse.numpy())
        labels[study.split == "train"].append([bool(study.findings.get(name)) for name in FINDINGS])
    fitted, tested = np.stack(rows[True]), np.stack(rows[False])
    fitted, tested = fitted - fitted.mean(0), tested - fitted.mean(0)
    kernel = fitted @ fitted.T + RIDGE * np.eye(len(fitted))
    known, present = np.asarray(labels[True]), np.asarray(labels[False])
    weights = fitted.T @ np.linalg.solve(kernel, known - known.mean(0))
    print(f"{len(fitted)} studies fitted, {len(tested)} held out\n{'finding':38}{'held out':>9}{'AUC':>7}")
    for i, name in enumerate(FINDINGS):
        if 0 < present[:, i].sum() < len(present):
            print(f"{name:38}{present[:, i].sum():9}{area(tested @ weights[:, i], present[:, i]):7.3f}")


if __name__ == "__main__":
    main()
