"""From a published file to a folder of this package."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reg2rg import __version__
from reg2rg.core.errors import ConfigError, Reg2RGError
from reg2rg.core.files import sha256, write_json
from reg2rg.core.model_folder import WEIGHTS
from reg2rg.extras.convert.checksums import MIB
from reg2rg.extras.convert.formats import FORMATS, Format, Opened, Options, find_format, looks_like
from reg2rg.extras.convert.key_map import Account, account, share_found
from reg2rg.extras.convert.writing import check_new
from reg2rg.models.tensors import TensorSource, open_tensors
from reg2rg.pretrained.atomic_folder import new_folder

RECORD = "conversion.json"
"""File in the output folder: where it comes from and where each key went."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was done.

    Attributes:
        folder: the output.
        account: where each key of the file went.
        tensors: our name -> shape and dtype.
        notes: what a user should know.
    """

    folder: Path
    account: Account
    tensors: Mapping[str, tuple[tuple[int, ...], torch.dtype]]
    notes: tuple[str, ...]


def open_published(source: str | Path, format_name: str, options: Options | None = None) -> tuple[Format, Opened]:
    """Open a file and account for all of its keys.

    Args:
        source: the file, a folder with it, or the index of its shards.
        format_name: one of `FORMATS`.
        options: what the user chose.

    Raises:
        ConfigError: unknown format, unreadable file, a file of another format, keys that do not fit, or another
            SHA-256 than is known of the format or stated by the user.
    """
    options = options or Options()
    format_ = find_format(format_name)
    if format_.adapt is not None:
        format_ = format_.adapt(format_, options)
    tensors = open_tensors(source)
    tensors = _unwrapped(tensors.part(format_.part) if format_.part else tensors)
    what = f"{source}: not {format_.file}"
    _refuse_other_formats(format_, tensors, what)
    if tensors.others:
        held = ", ".join(f"{name} ({kind})" for name, kind in list(tensors.others.items())[:6])
        raise ConfigError(f"{what}: {len(tensors.others)} entries are no tensors: {held}. Fix: extract the state dict")
    fix = f"take the published file, or another --from; {format_.name} is {format_.file}"
    found = account(format_.keys, format_.layers, tensors.entries, what, fix)
    opened = Opened(tensors, found, options)
    faults = format_.check(opened)
    if faults:
        raise ConfigError(f"{what}: {'; '.join(faults)}. Fix: {fix}")
    return format_, replace(opened, sha256=_known_digest(format_, opened))


def convert(
    source: str | Path,
    format_name: str,
    to: str | Path,
    options: Options | None = None,
    step: Callable[[int], None] = lambda count: None,
) -> Conversion:
    """Convert a published file to a folder of this package.

    Args:
        source: the file, a folder with it, or the index of its shards.
        format_name: one of `FORMATS`.
        to: the folder to write; must be new or empty. It is whole or absent.
        options: what the user chose.
        step: called for every MiB that has been read, with the number of MiB.

    Raises:
        ConfigError: see `open_published`, numbers that are not finite, or a folder that cannot be written.
        Reg2RGError: the disk refuses while writing.
    """
    format_, opened = open_published(source, format_name, options)
    opened = replace(opened, step=step)
    to = Path(to).expanduser()
    entries = opened.source.entries
    check_new(to, sum(entries[name].nbytes for name in opened.account.kept.values()))
    tensors = _our_tensors(format_, opened)
    check_new(to, sum(tensor.nbytes for tensor in tensors.values()))
    with new_folder(to) as folder:
        said = dict(format_.write(opened, tensors, folder))
        notes = [*_size_notes(format_, opened.account), *said.pop("notes", [])]
        write_json(folder / RECORD, {**_record(format_, opened, tensors), **said, "notes": notes})
    made = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    return Conversion(to, opened.account, made, tuple(notes))


def verify_folder(
    source: str | Path, format_name: str, folder: str | Path, options: Options | None = None
) -> TensorSource:
    """Hold the tensors of a written folder against those that follow from the file.

    Args:
        source: the published file.
        format_name: one of `FORMATS`.
        folder: what `convert` wrote.
        options: those that were given to `convert`.

    Returns:
        the folder's tensors.

    Raises:
        ConfigError: as `open_published`, or an unreadable folder.
        Reg2RGError: tensors that differ, all of them named.
    """
    format_, opened = open_published(source, format_name, options)
    expected, written = _our_tensors(format_, opened), open_tensors(Path(folder) / WEIGHTS)
    wrong = [name for name in expected.keys() | written.keys() if not _same(expected.get(name), written.get(name))]
    if wrong:
        raise Reg2RGError(
            f"{folder}: {len(wrong)} tensors are not those that follow from {source}: {', '.join(sorted(wrong))}. "
            "Fix: convert again, and check the disk"
        )
    return written


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None or one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(one, other)


def bytes_to_read(opened: Opened) -> int:
    """What a conversion reads: what is kept, and the base language model if it is held against a folder."""
    names = [*opened.account.kept.values(), *opened.account.used]
    if Path(opened.options.llm).expanduser().is_dir():
        names += opened.account.reference.values()
    return sum(opened.source.entries[name].nbytes for name in names)


def _unwrapped(source: TensorSource) -> TensorSource:
    """Without the ``module.`` that distributed training puts before every name."""
    while source.entries and all(name.startswith("module.") for name in source.entries):
        source = source.part("module")
    return source


def _refuse_other_formats(format_: Format, source: TensorSource, what: str) -> None:
    if share_found(format_.keys, format_.layers, source.entries) > 0.5:
        return
    other = looks_like(source, but=format_.name)
    if other is not None:
        raise ConfigError(f"{what}. It looks like {other.file}. Fix: --from {other.name}")
    if share_found(format_.keys, format_.layers, source.entries) == 0:
        held = ", ".join(list(source.entries)[:3])
        raise ConfigError(
            f"{what}: none of its keys are there. It holds {len(source)} tensors ({held or 'none'}), and none of the "
            f"known formats has them ({', '.join(FORMATS)}). Fix: the path"
        )


def _our_tensors(format_: Format, opened: Opened) -> dict[str, Tensor]:
    """What will be written, in the dtype that was asked for; all numbers finite."""
    tensors = {ours: opened.source[name] for ours, name in opened.account.kept.items()}
    tensors |= format_.compute(opened)
    wrong, read = [], 0
    for name, tensor in tensors.items():
        wrong += [] if bool(tensor.isfinite().all()) else [name]
        read += tensor.nbytes
        opened.step(read // MIB)
        read %= MIB
    if wrong:
        raise ConfigError(
            f"{opened.source.path}: {len(wrong)} tensors hold numbers that are not finite: {', '.join(wrong)}. "
            "Fix: take a file of a training run that did not diverge"
        )
    dtype = opened.options.dtype
    return tensors if dtype is None else {name: tensor.to(dtype) for name, tensor in tensors.items()}


def _known_digest(format_: Format, opened: Opened) -> str:
    """SHA-256 of the file, whose bytes must be those that are known, or that the user stated; empty if none are."""
    stated = opened.options.sha256
    known = {stated.lower(): "as --sha256 says"} if stated is not None else format_.sha256
    if not known:
        return ""
    if len(opened.source.files) != 1:
        raise ConfigError(
            f"{opened.source.path}: {len(opened.source.files)} files (expected one, whose SHA-256 is known). Fix: "
            "name the whole file"
        )
    found = sha256(opened.source.files[0])
    if found not in known:
        expected = " or ".join(f"{digest} ({what})" for digest, what in known.items())
        fix = (
            "get the file again" if stated is not None else f"get the file again, or, if you know it, --sha256 {found}"
        )
        raise ConfigError(f"{opened.source.path}: its SHA-256 is {found} (expected {expected}). Fix: {fix}")
    return found


def _size_notes(format_: Format, found: Account) -> list[str]:
    other = [
        f"{name} {found.sizes[name]} (published {size})"
        for name, size in format_.sizes.items()
        if found.sizes.get(name, size) != size
    ]
    return [f"sizes differ from the published ones: {', '.join(other)}"] if other else []


def _record(format_: Format, opened: Opened, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    account_ = opened.account
    dtypes = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values())
    return {
        "reg2rg": __version__,
        "from": format_.name,
        "files": {file.name: file.stat().st_size for file in opened.source.files},
        **({"sha256": opened.sha256} if opened.sha256 else {}),
        "keys": account_.summary(),
        "kept": account_.kept,
        "used": account_.used,
        "dropped": account_.dropped,
        "sizes": account_.sizes,
        "layers": account_.layers,
        "dtypes": dict(dtypes),
    }
