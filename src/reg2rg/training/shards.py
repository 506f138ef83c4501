"""Checkpoints that processes wrote in shards, made one again: DeepSpeed's folders and those of FSDP.

Both formats are pickles, and their own readers run what a pickle says. Here only tensors, plain values and the few
records that the formats consist of are unpickled.
"""

from __future__ import annotations

import io
import math
import pickle
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner import ReadItem
from torch.distributed.checkpoint.state_dict_loader import load
from torch.serialization import safe_globals

from reg2rg.core.errors import CheckpointError, ConfigError

Checkpoint = dict[str, Any]

_ZERO, _TAG = "*_optim_states.pt", "checkpoint"
_DISTRIBUTED, _REST = ".metadata", "meta.pt"
_OF_DEEPSPEED = ("module", "buffer_names", "optimizer", "param_shapes", "ds_config", "lr_scheduler")


class _Record:
    """Stands for a class of DeepSpeed, whose package need not be there: what it holds and nothing that it does."""

    def __new__(cls, *_: Any) -> _Record:
        return super().__new__(cls)


_RECORDS: list[Any] = [
    (_Record, "deepspeed.runtime.fp16.loss_scaler.LossScaler"),
    (_Record, "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler"),
    (_Record, "deepspeed.utils.tensor_fragment.fragment_address"),
    (int, "deepspeed.runtime.zero.config.ZeroStageEnum"),
]


def is_sharded(path: Path) -> bool:
    """Whether a folder is a checkpoint in shards."""
    return any((path / _TAG).glob(_ZERO)) or (path / _DISTRIBUTED).is_file()


def read_shards(path: Path) -> Checkpoint:
    """A checkpoint in shards as one process writes it, without the optimiser's state.

    Returns:
        ``state_dict`` with what trains in float32 where there are such copies, and the rest of the checkpoint.

    Raises:
        CheckpointError: a part is missing or damaged, or holds more than plain values.
        ConfigError: DeepSpeed's parameters are in shards too (stage 3).
    """
    try:
        return _of_zero(path / _TAG) if (path / _TAG).is_dir() else _of_fsdp(path)
    except (ConfigError, CheckpointError):
        raise
    except Exception as error:
        raise _unreadable(path, f"{type(error).__name__}: {error}") from error


def _unreadable(path: Path, reason: str) -> CheckpointError:
    first = reason.partition("\n")[0]
    return CheckpointError(
        f"{path}: not a readable checkpoint in shards ({first}). Only tensors and plain values are accepted. Fix: copy "
        "the whole folder again from its source, or use another checkpoint"
    )


@contextmanager
def new_shards(path: Path, first: bool, barrier: Callable[[], None]) -> Iterator[Path]:
    """A folder beside `path`, written by all processes, that takes its place at the end.

    Args:
        path: where a checkpoint of before may stand.
        first: this process is the one that renames.
        barrier: waits for the others.
    """
    new, old = (path.with_name(f".{path.name}.tmp.{state}") for state in ("new", "old"))
    if first:
        if old.exists() and not path.exists():  # killed between the two renames below
            old.rename(path)
        _remove(new, old)
    barrier()
    yield new
    barrier()
    if first:
        if path.exists():
            path.rename(old)
        new.rename(path)
        _remove(old)
    barrier()


def _remove(*paths: Path) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)


def read_rest(path: Path) -> Checkpoint:
    """What a checkpoint in shards holds beside weights, which are not read from disk."""
    zero = path / _TAG / "mp_rank_00_model_states.pt"
    return _plain(zero if zero.is_file() else path / _REST)


# ---- DeepSpeed


def _of_zero(folder: Path) -> Checkpoint:
    """Weights of stages 1 and 2 are whole in one file; the float32 copies of what trains are spread over the ranks."""
    model = _plain(folder / "mp_rank_00_model_states.pt")
    ranks = [_plain(file)["optimizer_state_dict"] for file in sorted(folder.glob(_ZERO), key=_rank)]
    if len(ranks) != model["dp_world_size"] or any("single_partition_of_fp32_groups" not in rank for rank in ranks):
        raise ConfigError(
            f"{folder}: {len(ranks)} files of {model['dp_world_size']} ranks with whole weights (expected all, of ZeRO "
            "stage 1 or 2). Fix: copy the whole folder, or train with strategies/deepspeed_zero2.yaml"
        )
    weights: dict[str, Tensor] = dict(model["module"])
    for place, shapes in enumerate(model["param_shapes"]):
        for name, shape in shapes.items():
            parts = [
                rank["single_partition_of_fp32_groups"][place].narrow(0, found.start, found.numel)
                for rank in ranks
                if (found := rank["param_slice_mappings"][place].get(name)) is not None
            ]
            weights[name] = torch.cat(parts).view(shape)
    rest = {name: value for name, value in model.items() if name not in _OF_DEEPSPEED}
    return {**rest, "state_dict": weights}


def _rank(file: Path) -> int:
    return int(file.name.partition("pp_rank_")[2].partition("_")[0])


def _plain(file: Path) -> Checkpoint:
    with safe_globals(_RECORDS):
        return dict(torch.load(file, map_location="cpu", mmap=_is_zip(file), weights_only=True))


def _is_zip(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(2) == b"PK"


def load_plain(path: str, map_location: Any = None) -> Any:
    """What DeepSpeed's reader of checkpoints is replaced by: the same, with its own records and plain values alone."""
    from deepspeed.runtime.fp16 import loss_scaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    own = [loss_scaler.LossScaler, loss_scaler.DynamicLossScaler, ZeroStageEnum, fragment_address]
    try:
        with safe_globals(own):
            return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: holds more than tensors and plain values ({str(error).partition(chr(10))[0]}). Fix: go on from "
            "a checkpoint of your own"
        ) from error


# ---- FSDP


class _Unpickler(pickle.Unpickler):
    """Makes the records of torch's distributed checkpoints and nothing else."""

    _MODULES = ("torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem")
    _NAMES = (
        *("Metadata", "MetadataIndex", "StorageMeta", "TensorProperties", "_StorageInfo", "_MEM_FORMAT_ENCODING"),
        *("TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata"),
    )
    _OTHERS = frozenset(
        {
            ("torch", "Size"),
            ("torch.serialization", "_get_layout"),
            ("collections", "OrderedDict"),
            ("pathlib", "PosixPath"),
            ("pathlib", "PurePosixPath"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module in self._MODULES and name in self._NAMES) or (module, name) in self._OTHERS:
            return super().find_class(module, name)
        kind = getattr(torch, name, None)
        if module == "torch" and isinstance(kind, torch.dtype):
            return kind
        raise pickle.UnpicklingError(f"{module}.{name} is no record of a checkpoint")


class PlainReader(FileSystemReader):
    """Torch's reader, which unpickles whatever `.metadata` says, held to the records of the format."""

    def read_metadata(self, *_: Any, **__: Any) -> Metadata:
        """The table of contents."""
        found = _Unpickler(io.BytesIO(Path(self.path, _DISTRIBUTED).read_bytes())).load()
        if not isinstance(found, Metadata) or any(
            Path(info.relative_path).name != info.relative_path for info in found.storage_data.values()
        ):
            raise pickle.UnpicklingError("no table of contents of this folder")
        return found


class _Planner(DefaultLoadPlanner):
    """Torch's planner, which unpickles whatever stands for a plain value, held to plain values."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        holder: Any = self.original_state_dict
        *path, last = self.mappings[read_item.dest_index.fqn]
        for step in path:
            holder = holder[step]
        holder[last] = torch.load(value, map_location="cpu", weights_only=True)


def load_shards(path: Path, state: Checkpoint, alone: bool = False) -> None:
    """Fill the tensors, and shards of tensors, of a nested state from a folder of FSDP.

    Args:
        path: of the folder.
        state: is changed.
        alone: this process reads for itself; otherwise all read together.

    Raises:
        CheckpointError: something is missing, damaged, or more than plain values.
    """
    try:
        load(state, storage_reader=PlainReader(path), planner=_Planner(), no_dist=alone)
    except CheckpointException as error:  # no Exception, but a BaseException
        raise _unreadable(path, "; ".join(dict.fromkeys(str(one) for one, _ in error.failures.values()))) from error


def _of_fsdp(path: Path) -> Checkpoint:
    metadata = PlainReader(path).read_metadata()
    weights: dict[str, Tensor] = {}
    whole: dict[str, Tensor] = {}
    for key, value in metadata.state_dict_metadata.items():
        parts: Sequence[Any] = (metadata.planner_data or {}).get(key, ())
        if isinstance(value, TensorStorageMetadata) and len(parts) == 2 and parts[0] in ("state_dict", "model"):
            whole[key] = torch.empty(value.size, dtype=value.properties.dtype)
            weights[str(parts[1])] = whole[key]
            held = sum(math.prod(chunk.sizes) for chunk in value.chunks)
            if held != value.size.numel():
                raise CheckpointError(f"{path}: {parts[1]} is not whole. Fix: copy the whole folder again")
    load_shards(path, whole, alone=True)
    return {**_plain(path / _REST), "state_dict": weights}


def has_table(path: Path) -> bool:
    """Whether a folder is a checkpoint of FSDP with a table of contents that torch may unpickle.

    Raises:
        CheckpointError: there is one that holds more than it should.
    """
    if not (path / _DISTRIBUTED).is_file():
        return False
    try:
        PlainReader(path).read_metadata()
    except Exception as error:
        raise CheckpointError(
            f"{path}: {_DISTRIBUTED} is no table of a checkpoint ({error}). Fix: go on from a checkpoint of your own"
        ) from error
    return True
