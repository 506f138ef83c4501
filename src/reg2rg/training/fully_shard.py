"""FSDP2: weights, gradients and optimiser state in shards, each weight in its own dtype."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from reg2rg.core.errors import ConfigError
from reg2rg.models.reporter import RegionReporter
from reg2rg.models.state import kept_names
from reg2rg.training.checkpoints import read_checkpoint
from reg2rg.training.shards import has_table, load_shards, new_shards, read_rest

_TIMEOUT = timedelta(minutes=30)
_CALLED = ("losses", "detect", "generate")


class FullyShard(ModelParallelStrategy):
    """Layers of the language model and encoders in shards over all GPUs, each put together while it is used.

    Unlike FSDP1 it takes a language model in bfloat16 with adapters in float32, and clips the norm of gradients. Steps
    are those of one process. A checkpoint is one file, the one that one process writes: either goes on from it.

    Args:
        save_distributed_checkpoint: write a folder of shards instead, for weights that one process cannot hold.
        process_group_backend: by default that of the device.
        timeout: of what processes wait for each other.
    """

    def __init__(
        self,
        save_distributed_checkpoint: bool = False,
        process_group_backend: str | None = None,
        timeout: timedelta | None = _TIMEOUT,
    ) -> None:
        super().__init__(
            tensor_parallel_size=1,
            save_distributed_checkpoint=save_distributed_checkpoint,
            process_group_backend=process_group_backend,
            timeout=timeout,
        )
        self._from_one_file = False

    def setup_environment(self) -> None:
        """All processes share in one copy of the model."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    @property
    def lightning_restore_optimizer(self) -> bool:
        """A folder of shards has restored it already."""
        return self._from_one_file

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds: whole, unless it is written in shards."""
        module = self.lightning_module
        assert module is not None
        kept = kept_names(module)
        state = {name: value for name, value in module.state_dict().items() if name in kept}
        return state if self._save_distributed_checkpoint else {name: _whole(value) for name, value in state.items()}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """As one process has it, tensors whole; Lightning's numbers them otherwise than the optimiser does."""
        if self._save_distributed_checkpoint:
            return dict(super().optimizer_state(optimizer))
        plain = optimizer._optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        return dict(_each_tensor(plain.state_dict(), _whole))

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None) -> None:
        """Write a file, or a folder that takes its place when it is whole; the processes share the disk then."""
        if not self._save_distributed_checkpoint:
            super().save_checkpoint(checkpoint, filepath, storage_options)
            return
        with new_shards(Path(self.broadcast(filepath)), self.is_global_zero, self.barrier) as new:
            super().save_checkpoint(checkpoint, new, storage_options)

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Read tensors and plain values alone: one file, or for training a folder that this strategy wrote."""
        path = Path(self.broadcast(checkpoint_path))
        assert self.lightning_module is not None
        fits = self.lightning_module.trainer.state.fn == TrainerFn.FITTING
        self._from_one_file = not (path.is_dir() and fits)
        if self._from_one_file:
            return read_checkpoint(path)
        if not has_table(path):
            raise ConfigError(
                f"{path}: no shards of FSDP2 (expected them, or one file, to go on from). Fix: go on with the strategy "
                "that wrote it"
            )
        return self._load_shards(path)

    def _load_shards(self, path: Path) -> dict[str, Any]:
        module = self.lightning_module
        assert module is not None
        weights = self.lightning_module_state_dict()
        load_shards(path, {"state_dict": weights})
        module.load_state_dict(weights)
        for place, optimizer in enumerate(self.optimizers):
            state = {f"optimizer_{place}": get_optimizer_state_dict(module, optimizer)}
            load_shards(path, state)
            set_optimizer_state_dict(module, optimizer, optim_state_dict=state[f"optimizer_{place}"])
        return read_rest(path)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Give each process its shards of whole weights."""
        module = self.lightning_module
        assert module is not None
        if self._from_one_file:
            own = module.state_dict()
            shards = {name: _like(value, own.get(name)) for name, value in checkpoint["state_dict"].items()}
            module.load_state_dict(shards, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Give each process its shards of whole moments."""
        for optimizer, given in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            state = {
                place: {name: _like(value, weights[place]) for name, value in values.items()}
                for place, values in given["state"].items()
            }
            optimizer.load_state_dict({**given, "state": state})


def _each_tensor(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {name: _each_tensor(item, change) for name, item in value.items()}
    return value


def _whole(tensor: Tensor) -> Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().cpu()


def _like(value: Any, own: Any) -> Any:
    """A whole tensor in the shards of another of its size; all else as it is."""
    if not isinstance(own, DTensor) or not isinstance(value, Tensor) or value.shape != own.shape:
        return value
    return distribute_tensor(value.to(own.to_local().device), own.device_mesh, own.placements)


def shard(reporter: RegionReporter, mesh: DeviceMesh) -> None:
    """Put a model in shards, once: the layers of the language model, each encoder, and as one what is left.

    Args:
        reporter: is changed.
        mesh: the processes.

    Raises:
        ConfigError: weights that cannot be split.
    """
    if isinstance(reporter, FSDPModule):
        return
    wrong = [name for name, weight in reporter.named_parameters() if not weight.is_floating_point() or not weight.ndim]
    if wrong:
        raise ConfigError(
            f"trainer.strategy: FullyShard splits neither packed weights nor scalars ({len(wrong)}: {wrong[0]}, ...). "
            "Fix: quantize_4bit: false, or strategies/ddp.yaml"
        )
    encoders = [one for one in (reporter.texture, reporter.geometry, reporter.global_) if one is not None]
    for unit in [*_layers(reporter.llm), *encoders]:
        fully_shard(unit, mesh=mesh)
    fully_shard(reporter, mesh=mesh)
    for name in _CALLED:
        register_fsdp_forward_method(reporter, name)


def _layers(model: nn.Module) -> list[nn.Module]:
    """Layers of the outermost stack, which every pass goes through; none where layers share weights."""
    stacks = [part for part in model.modules() if isinstance(part, nn.ModuleList)]
    layers = list(max(stacks, key=lambda stack: sum(p.numel() for p in stack.parameters()), default=()))
    weights = [id(weight) for layer in layers for weight in layer.parameters()]
    return layers if len(weights) == len(set(weights)) else []


@contextmanager
def in_step(reporter: RegionReporter) -> Iterator[None]:
    """Let processes write reports of different lengths: one that is done puts layers together for the others.

    A layer is there while all processes ask for it, once a token; who has ended would leave the others waiting for
    ever. Without shards nothing happens.
    """
    layers = [layer for layer in _layers(reporter.llm) if isinstance(layer, FSDPModule)]
    if not layers or dist.get_world_size() == 1:
        yield
        return
    device = next(reporter.parameters()).device

    def others_go_on(here: int) -> bool:
        active = torch.tensor(here, device=device)
        dist.all_reduce(active)
        return bool(active)

    first: Any = layers[0]
    hook = first.register_forward_pre_hook(lambda *_: others_go_on(1) and None, prepend=True)
    try:
        yield
    finally:
        hook.remove()
    while others_go_on(0):
        for layer in layers:
            layer.unshard()
            layer.reshard()
