"""Low-rank adapters (Hu et al., 2022, "LoRA"): which layers get one, and which may be folded into their weights."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from reg2rg.core.errors import ConfigError
from reg2rg.core.types import PositiveFloat, PositiveInt, UnitFloat

log = logging.getLogger(__name__)


@dataclass(frozen=True)  # no slots: jsonargparse reads a default through vars()
class LoRA:
    """Low-rank adapters; the defaults are the published ones.

    Attributes:
        rank: inner width r.
        alpha: the update is scaled by alpha / rank.
        dropout: on the adapters' input.
        targets: names of the linear layers that get an adapter.
    """

    rank: PositiveInt = 8
    alpha: PositiveFloat = 32
    dropout: UnitFloat = 0.1
    targets: tuple[str, ...] = ("q_proj", "v_proj")


def with_adapters(base: Any, lora: LoRA) -> Any:
    """The model with adapters; it is changed.

    Raises:
        ConfigError: a target that no layer is named, that is never called, or that names experts, whose weights are no
            layers; a family that peft gives no embeddings.
    """
    from peft import LoraConfig, get_peft_model

    if base.config.model_type == "mpt":  # the one family that PeftModelForCausalLM.forward keeps embeddings from
        raise ConfigError(
            "lora: peft gives MPT ids alone (expected a family that trains from embeddings). Fix: train the model's "
            "own weights (lora: null), or take a model of another family"
        )

    layers: dict[str, list[nn.Module]] = {}
    for name, module in base.named_modules():
        layers.setdefault(name.rpartition(".")[2], []).append(module)
    linear = {name for name, found in layers.items() if name and any(isinstance(one, _adaptable()) for one in found)}
    wrong = [target for target in lora.targets if target not in linear]
    if wrong:
        experts = [target for target in wrong if _of_experts(base, target)]
        others = (
            f"; it has {', '.join(sorted(linear))}. Fix: name the attention projections of this family (GPT-2: c_attn)"
        )
        if experts:
            raise ConfigError(
                f"lora.targets: {', '.join(experts)} are weights of experts, which get no adapters{others}"
            )
        raise ConfigError(f"lora.targets: the model has no layer named {', '.join(wrong)}{others}")
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
        bias="none",
        fan_in_fan_out=type(base).__name__.startswith("GPT2"),
    )
    trainable = [parameter for parameter in base.parameters() if parameter.requires_grad]
    named = ", ".join(lora.targets)
    with_experts = f"lora.targets: {named} reach weights of experts, which get no adapters here. Fix: "
    try:
        model = get_peft_model(base, config)
    except ValueError as error:
        if "ParamWrapper" not in str(error):
            raise
        raise ConfigError(f"{with_experts}name the attention projections of this family") from None
    if any(type(module).__name__ == "ParamWrapper" for module in model.modules()):
        raise ConfigError(f"{with_experts}name the attention projections of this family")
    for parameter in trainable:  # peft freezes the base; weights_trainable beside lora asked for both
        parameter.requires_grad_(True)
    _require_reached(base, lora)
    _tell_reach(base, lora)
    return model


@torch.no_grad()
def _require_reached(base: nn.Module, lora: LoRA) -> None:
    """Refuse targets whose layers are never called: Jamba reads the weights of its ``dt_proj`` beside them."""
    from peft.tuners.lora import LoraLayer

    called: set[str] = set()
    adapted = [(name.rpartition(".")[2], part) for name, part in base.named_modules() if isinstance(part, LoraLayer)]
    hooks = [part.register_forward_pre_hook(lambda *_, name=name: called.add(name)) for name, part in adapted]
    training = base.training
    try:
        base.eval()(input_ids=torch.arange(4, device=next(base.parameters()).device)[None], use_cache=False)
    finally:
        base.train(training)
        for hook in hooks:
            hook.remove()
    if missed := sorted({name for name, _ in adapted} - called):
        raise ConfigError(
            f"lora.targets: {type(base).__name__} never calls {', '.join(missed)}, so adapters there would not train "
            "(expected layers that it calls). Fix: leave them out"
        )


def _adaptable() -> tuple[type[nn.Module], ...]:
    from transformers.pytorch_utils import Conv1D

    return nn.Linear, nn.Embedding, Conv1D


def _of_experts(base: nn.Module, target: str) -> bool:
    """Whether experts hold a stack of weights under that name, or one that was made of it."""
    return any(
        parameter.ndim == 3 and (target in name or target.removesuffix("_proj").split("_")[0] in name)
        for name, parameter in base.named_parameters()
    )


def _tell_reach(base: nn.Module, lora: LoRA) -> None:
    """Say how many layers of a hybrid get an adapter: its recurrent ones have no such projections."""
    from peft.tuners.lora import LoraLayer

    blocks = [block for block in base.modules() if isinstance(block, nn.ModuleList) and len(block) > 1]
    if not blocks:
        return
    layers = max(blocks, key=lambda block: sum(p.numel() for p in block.parameters()))
    reached = [any(isinstance(part, LoraLayer) for part in layer.modules()) for layer in layers]
    if not all(reached):
        places = ", ".join(str(place) for place, one in enumerate(reached) if one)
        log.warning(
            "lora: %s are in %d of %d layers (%s); the others stay as they are. Name their projections in lora.targets "
            "to train them too",
            ", ".join(lora.targets),
            sum(reached),
            len(reached),
            places or "none",
        )


def weights_to_fold(model: nn.Module) -> list[Tensor]:
    """The weights that adapters are folded into; none where folding would change what is not adapted.

    A weight that two layers share takes up the adapters of both, and a head that is the table of embeddings takes the
    table with it: such a model predicts with its adapters beside the weights.
    """
    from peft.tuners.lora import LoraLayer

    adapted = [layer.get_base_layer().weight for layer in model.modules() if isinstance(layer, LoraLayer)]
    owners = Counter(
        id(parameter)
        for module in model.modules()
        for parameter in module._parameters.values()
        if parameter is not None
    )
    shared = [weight for weight in adapted if owners[id(weight)] > 1]
    twice = len({id(weight) for weight in adapted}) < len(adapted)
    if shared or twice:
        log.info("adapters stay beside the weights: %d adapted weights are shared with other layers", len(shared) or 1)
        return []
    return adapted
