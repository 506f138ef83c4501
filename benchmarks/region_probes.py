"""Whether the features of `I3ResNet` tell regions apart on real CTs of other patients: probes without training.

    reg2rg convert astra.pth --from i3resnet --to converted/astra
    python benchmarks/region_probes.py --shared DIR --weights converted/astra     CTs below DIR/data/ct
    python benchmarks/region_probes.py --shared DIR                               without the weights

Nine regions a scan (four quarters of the lungs, mediastinum, spine, left and right wall, what lies below the lungs),
made by thresholds and geometry: not experts' masks. Leave one scan out: each of its regions gets the name of the
nearest centroid (cosine) of the other scans' regions. Three ways: features as they are; less the mean of the training
scans' regions; less the mean of the own scan's regions, which needs no names. Beside the weights: the same network with
random ones, statistics of HU under the mask, and the centre of the mask, three numbers that say how much the place of a
region alone tells. "Left or right" (last way) counts regions of a side whose given name has the same side, of those
that got a name with one. Then the first scan turned in wrong ways, its masks along: its mean feature's cosine to the
right one, and how many of its regions still are nearest to themselves.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from _measure import machine
from torch import Tensor

from reg2rg.core.task import Views
from reg2rg.core.types import RegionVolume, Volume
from reg2rg.data.scaling import fraction, to_input
from reg2rg.extras.peers import I3ResNet
from reg2rg.models.encoders import MaskPool
from reg2rg.models.encoders.weights import load_checked, read_weights
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.read import read_scan
from reg2rg.scans.segmenters.thresholds import averaged, segment
from reg2rg.store.views import compute_views

SCANS = {
    "LIDC-0314": "lidc-idri-0314_CCBY3/ct_1.56x1.56x2mm.nii.gz",
    "CIP ct-64": "chestimagingplatform_BSDstyle/ct-64.nrrd",
    "TotalSegmentator": "totalsegmentator_Apache2/example_ct.nii.gz",
    "TS aorta": "totalsegmentator_Apache2/aorta_report/ct_cropped.nii.gz",
    "TS pulmonary": "totalsegmentator_Apache2/pulmonary_report/ct_cropped.nii.gz",
}
VIEWS = Views(size=(224, 224, 160))
LEAST_ML, LEAST_REGIONS = 20.0, 3
"""A region of less is left out of its scan, a scan of fewer out of the probes."""
RESCALED = "-1 to 1 for 0 to 1"
WRONG: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "left-right flip": lambda x: x.flip(2),
    "upside down": lambda x: x.flip(4),
    "LPS for RAS": lambda x: x.flip(2, 3),
    "H and W swapped": lambda x: x.transpose(2, 3),
    RESCALED: lambda x: x * 2 - 1,  # what the network gets is then in [-1, 1]
}


@dataclass
class Scan:
    """One scan: the image in [-1, 1], (1, 1, H, W, D), its regions' masks (R, 1, H, W, D) and names."""

    image: Tensor
    masks: Tensor
    names: tuple[str, ...]


def regions_of(volume: Volume) -> dict[str, np.ndarray]:
    """Masks by thresholds and geometry, on a volume in RAS."""
    found = segment(volume)
    lung, bone, body = (found.get(name, np.zeros(volume.array.shape, bool)) for name in ("lung", "bone", "body"))
    if not lung.any():
        return {}
    right, front, up = (
        np.arange(n).reshape([-1 if a == axis else 1 for a in range(3)]) for axis, n in enumerate(lung.shape)
    )
    inside = body.nonzero()
    middle, back = np.median(inside[0]), np.percentile(inside[1], 50)
    low, high = (np.percentile(lung.nonzero()[2], q) for q in (1, 99))
    half = np.median(lung.nonzero()[2])
    edges = [np.percentile(lung.nonzero()[axis], q) for axis in (0, 1) for q in (2, 98)]
    hull = (right >= edges[0]) & (right <= edges[1]) & (front >= edges[2]) & (front <= edges[3])
    at_lungs = (up >= low) & (up <= high)
    between = np.abs(right - middle) * volume.spacing[0] < 45
    spine = bone & (front < back) & (np.abs(right - middle) * volume.spacing[0] < 30)
    masks = {
        "mediastinum": body & ~lung & hull & at_lungs & between & ~bone & (front > edges[2]),
        "spine": spine,
        "below the lungs": body & (up < low),
        "wall left": body & ~lung & at_lungs & ~hull & (right < middle),
        "wall right": body & ~lung & at_lungs & ~hull & (right > middle),
    }
    for side, where in (("left", right < middle), ("right", right > middle)):
        masks[f"lung {side} upper"], masks[f"lung {side} lower"] = (
            lung & where & (up > half),
            lung & where & (up <= half),
        )
    voxel = float(np.prod(volume.spacing)) / 1000
    return {name: mask for name, mask in masks.items() if mask.sum() * voxel >= LEAST_ML}


def load(folder: Path) -> dict[str, Scan]:
    """Those scans that are there and have regions, with views as the encoder's contract asks for."""
    scans = {}
    for name, path in SCANS.items():
        if not (folder / path).is_file():
            continue
        volume, _ = averaged(read_scan(folder / path, ReadOptions(min_slices=1)).volume)
        if len(masks := regions_of(volume)) < LEAST_REGIONS:
            continue
        views = compute_views(VIEWS, RegionVolume(volume, masks), want={"global", "geometry"})
        image = to_input(torch.from_numpy(views.global_)[None, None], VIEWS.window)
        scans[name] = Scan(image, fraction(torch.from_numpy(views.geometry)[:, None]), views.regions)
    return scans


@torch.no_grad()
def encoded(pool: MaskPool, image: Tensor, masks: Tensor, names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Features (R, C) of the regions of a scan, and (C,) of all of it, of one pass."""
    cells = pool.encoder(image)
    return pool.under(cells, masks, [names])[:, 0], pool.everywhere(cells)[0, 0]


def hu_statistics(scan: Scan) -> Tensor:
    """Mean, deviation and percentiles of HU under each mask."""
    hu = scan.image[0, 0] * 600 - 400
    rows = []
    for mask in scan.masks[:, 0]:
        inside = hu[mask > 0.5] if bool((mask > 0.5).any()) else hu[mask > 0]
        rows.append(torch.stack([inside.mean(), inside.std(), *(inside.quantile(q) for q in (0.1, 0.5, 0.9))]))
    return torch.stack(rows)


def centres(scan: Scan) -> Tensor:
    """Centre of each mask in shares of the view, less a half."""
    axes = [torch.linspace(-0.5, 0.5, n) for n in scan.image.shape[2:]]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    return torch.stack([(grid * mask).flatten(1).sum(1) / mask.sum() for mask in scan.masks])


def named(features: Mapping[str, Tensor], scans: Mapping[str, Scan], way: str) -> list[tuple[str, str]]:
    """Leave one scan out: (name, name that the nearest centroid gives) of each region that another scan has."""
    pairs = []
    for left in scans:
        others = [name for name in scans if name != left]
        own = {name: f - f.mean(0) if way == "scan" else f for name, f in features.items()}
        every = torch.cat([own[name] for name in others])
        labels = [region for name in others for region in scans[name].names]
        offset = every.mean(0) if way == "training" else torch.zeros_like(every[0])
        known = sorted(set(labels))
        means = torch.stack([(every - offset)[[label == name for label in labels]].mean(0) for name in known])
        given = F.cosine_similarity((own[left] - offset)[:, None], means[None], dim=2).argmax(1)
        pairs += [(n, known[i]) for n, i in zip(scans[left].names, given.tolist(), strict=True) if n in known]
    return pairs


def side(name: str) -> str:
    return next((word for word in ("left", "right") if word in name), "")


def line(title: str, features: Mapping[str, Tensor], scans: Mapping[str, Scan]) -> None:
    shown = []
    for way in ("raw", "training", "scan"):
        pairs = named(features, scans, way)
        shown.append(f"{sum(a == b for a, b in pairs) / len(pairs):10.2f}")
    sided = [(a, b) for a, b in pairs if side(a) and side(b)]
    shown.append(f"{sum(side(a) == side(b) for a, b in sided) / max(1, len(sided)):15.2f}")
    print(f"{title:32}{''.join(shown)}", flush=True)


def turned(pool: MaskPool, scan: Scan) -> None:
    """A scan turned in wrong ways: what a mean shows of it, and what its regions do."""
    right, mean = encoded(pool, scan.image, scan.masks, scan.names)
    print(f"\n{'change':24}{'cosine of the mean':>20}{'regions found again':>22}")
    for name, change in WRONG.items():
        masks = scan.masks if name == RESCALED else change(scan.masks)
        found, whole = encoded(pool, change(scan.image), masks, scan.names)
        # Centred by the right scan's mean: what a head that was trained on right scans would do.
        offset = right.mean(0)
        again = F.cosine_similarity((found - offset)[:, None], (right - offset)[None], dim=2).argmax(1)
        hits = int((again == torch.arange(len(right))).sum())
        cosine = float(F.cosine_similarity(whole, mean, dim=0))
        print(f"{name:24}{cosine:20.3f}{f'{hits} of {len(right)}':>22}", flush=True)


def main() -> None:
    """Print the probes, or say what is not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=os.environ.get("REG2RG_SHARED"), help="folder with data/ct")
    parser.add_argument("--weights", type=Path, help="what reg2rg convert wrote")
    options = parser.parse_args()
    scans = {} if options.shared is None else load(Path(options.shared) / "data" / "ct")
    if len(scans) < 2:
        print(f"{len(scans)} of {len(SCANS)} CTs are there, two are needed: not measured (--shared DIR)")
        return
    print(
        f"{machine(torch.get_num_threads())}\n{len(scans)} scans, {sum(len(s.names) for s in scans.values())} regions"
    )
    for name, scan in scans.items():
        print(f"  {name}: {', '.join(scan.names)}")
    print(f"\n{'right names, one scan left out':32}{'raw':>10}{'training':>10}{'scan':>10}{'left or right':>15}")
    line("HU mean, std, p10, p50, p90", {n: hu_statistics(s) for n, s in scans.items()}, scans)
    line("centre of the mask", {n: centres(s) for n, s in scans.items()}, scans)
    torch.manual_seed(0)
    networks = {"random": I3ResNet(maps="both")}
    if options.weights is not None:
        encoder = I3ResNet(maps="both")
        load_checked(encoder, encoder.adapt_weights(read_weights(options.weights)), options.weights)
        networks["weights"] = encoder
    else:
        print("no --weights: what the trained network does is not measured")
    for title, encoder in networks.items():
        pool = MaskPool(encoder).eval()
        begun = time.process_time()
        both = {name: encoded(pool, s.image, s.masks, s.names)[0] for name, s in scans.items()}
        seconds = (time.process_time() - begun) / len(scans)
        for part, columns in (("layer 3", slice(None, 1024)), ("layer 4", slice(1024, None)), ("both", slice(None))):
            line(f"{title}, {part}", {name: f[:, columns] for name, f in both.items()}, scans)
        print(f"{'':32}{seconds:.1f} CPU s a scan, all regions")
        if title == "weights":
            turned(pool, next(iter(scans.values())))


if __name__ == "__main__":
    main()
