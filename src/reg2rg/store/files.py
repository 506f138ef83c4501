"""What stands in the store's two kinds of files: native detail, and views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.task import Views
from reg2rg.scans.boxed import RegionMask
from reg2rg.store.codecs import view_codec
from reg2rg.store.container import SUFFIX, Header, read_arrays, read_into, write_container
from reg2rg.store.crop import Detail
from reg2rg.store.index import NATIVE_FORMAT, VIEWS_FORMAT
from reg2rg.store.views import STORE_FRAME, StudyViews, compute_views, framed_detail, views_key


def file_name(study: str) -> str:
    """File name of a study.

    Raises:
        ConfigError: an id that cannot be a file name.
    """
    if not study or study.startswith(".") or any(sign in study for sign in '/\\:*?"<>|\0'):
        raise ConfigError(f"study id {study!r} cannot be a file name (expected letters, digits, '_', '-', '.')")
    return study + SUFFIX


def write_native(path: Path, study: str, key: str, detail: Detail, *, whole: bool = True) -> None:
    """Write native detail; without `whole` what is told of it alone. Arrays go in with their first axis fastest."""
    arrays = [("ct", np.ascontiguousarray(detail.array.transpose(2, 1, 0)), "scan")] if whole else []
    for name, mask in detail.masks.items() if whole else ():
        arrays.append((f"mask/{name}", np.ascontiguousarray(mask.array.transpose(2, 1, 0)), "bits"))
    meta = {
        "format": NATIVE_FORMAT,
        "kind": "native",
        "whole": whole,
        "id": study,
        "key": key,
        "regions": list(detail.regions),
        "boxes": {name: mask.box for name, mask in detail.masks.items()},
        "affine": detail.affine.tolist(),
        "origin": detail.origin,
        "shape": detail.shape,
        "spacing": detail.spacing,
        "notes": list(detail.notes),
    }
    write_container(path, meta, arrays)


def read_native(path: Path, header: Header, regions: Sequence[str] | None) -> Detail:
    """Read native detail with the masks of some regions, all by default.

    Raises:
        DataFault: ``NOT_PREPARED``, it was left out; ``STORE_CORRUPT``.
    """
    meta = header.meta
    if meta["format"] != NATIVE_FORMAT:
        found, fix = (
            f"an entry of format {meta['format']}",
            "run `reg2rg data prepare` again: it rebuilds what is older",
        )
        raise DataFault.of("NOT_PREPARED", found=found, expected=f"format {NATIVE_FORMAT}", fix=fix, study=meta["id"])
    if meta["kind"] != "native":
        found, fix = f"{meta['kind']} in place of a scan", "give the store of the scans, or the task of these features"
        raise DataFault.of("NOT_PREPARED", found=found, expected="a scan", fix=fix, study=meta["id"])
    if not meta["whole"]:
        raise DataFault.of(
            "NOT_PREPARED",
            found="views alone (--views-only), and none of these settings",
            expected="native detail",
            fix="run `reg2rg data prepare` again without --views-only, or use the settings of the views that are there",
            study=meta["id"],
        )
    names = chosen_regions(meta, regions)
    arrays = read_arrays(path, header, ["ct", *(f"mask/{name}" for name in names)])
    masks = {name: RegionMask(_box(meta["boxes"][name]), arrays[f"mask/{name}"].transpose(2, 1, 0)) for name in names}
    return Detail(
        array=arrays["ct"].transpose(2, 1, 0),
        affine=np.array(meta["affine"], dtype=np.float64),
        origin=tuple(meta["origin"]),
        shape=tuple(meta["shape"]),
        masks=masks,
        notes=tuple(meta["notes"]),
    )


def write_views(path: Path, study: str, key: str, detail: Detail, views: Views) -> None:
    """Compute and write views, one region at a time, so that memory holds one."""
    framed, plain = framed_detail(views, detail), replace(views, **STORE_FRAME)
    whole = compute_views(plain, framed, (), {"global"}).global_
    assert whole is not None  # asked for
    arrays: list[tuple[str, Any, str]] = [("global", whole, view_codec(whole))]
    for name in framed.regions:
        one = compute_views(plain, framed, (name,), {"texture", "geometry"})
        assert one.texture is not None
        assert one.geometry is not None
        arrays.append((f"texture/{name}", one.texture[0], view_codec(one.texture[0])))
        arrays.append((f"geometry/{name}", one.geometry[0], "share"))
    meta = {"format": VIEWS_FORMAT, "kind": "views", "id": study, "key": key, "views": views_key(views)}
    meta["regions"] = list(framed.regions)
    write_container(path, meta, arrays)


def read_views(
    path: Path, header: Header, regions: Sequence[str] | None, asked: frozenset[str], size: tuple[int, int, int]
) -> StudyViews:
    """Unpack baked views straight into the arrays that a batch is made of."""
    names = chosen_regions(header.meta, regions)
    stacks = {kind: np.empty((len(names), *size), dtype=np.int16) for kind in ("texture", "geometry") if kind in asked}
    targets = {f"{kind}/{name}": stack[row] for kind, stack in stacks.items() for row, name in enumerate(names)}
    whole = np.empty(size, dtype=np.int16) if "global" in asked else None
    if whole is not None:
        targets["global"] = whole
    read_into(path, header, targets)
    return StudyViews(names, stacks.get("texture"), stacks.get("geometry"), whole)


def chosen_regions(meta: dict[str, Any], regions: Sequence[str] | None) -> tuple[str, ...]:
    """The asked regions, or all of the study.

    Raises:
        ConfigError: a region that the study does not have.
    """
    present = tuple(meta["regions"])
    if regions is None:
        return present
    if unknown := [name for name in regions if name not in present]:
        raise ConfigError(f"study {meta['id']} has no region {unknown[0]!r} in the store; it has: {', '.join(present)}")
    return tuple(regions)


def _box(value: Any) -> Any:
    return tuple((int(low), int(high)) for low, high in value)
