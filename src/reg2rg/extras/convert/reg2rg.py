"""The published weights of Reg2RG: adapters, encoders, projectors and tags are kept, Llama 2 becomes a reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from reg2rg.config.overlay import fold, packaged_folder
from reg2rg.core.errors import Reg2RGError
from reg2rg.data.published_ids import IMAGE_ID
from reg2rg.extras.convert.formats import Format, Opened, register
from reg2rg.extras.convert.key_map import Key, keys_of
from reg2rg.extras.convert.language_model import refer_to
from reg2rg.extras.convert.radfm import (
    fold_patch_embedding,
    perceiver_arguments,
    perceiver_faults,
    vit3d_arguments,
    vit3d_faults,
    vit3d_keys,
)
from reg2rg.models.encoders import Frozen, PerceiverResampler, TokenMean, ViT3D
from reg2rg.models.encoders.base import Size
from reg2rg.models.encoders.weights_radfm import PERCEIVER_KEYS
from reg2rg.models.llm.causal_lm import CausalLM
from reg2rg.models.projectors import LinearProjector
from reg2rg.pretrained.card import CardFacts, model_card
from reg2rg.pretrained.contract import InputContract
from reg2rg.pretrained.folder import write_folder

MASK_PATCH: Size = (32, 32, 16)
THETA = 10000.0
"""Base of Llama 2's rotary frequencies."""
_LLM, _OURS = "lang_model.base_model.model.", "reporter.llm.model.base_model.model."
_EMBED = "embedding_layer."
_TAGS = (f"{_EMBED}image_token_weight", f"{_EMBED}region_token_weight")
_BASE = "frozen base language model: a reference with a fingerprint"
_ROTARY = "rotary frequencies: computed anew in float32, as the published code did for its tables"
_ALIAS = "the base language model's token table once more"
_PIECE = 2**22
_COMPONENTS = {
    component.__name__: f"{component.__module__}.{component.__qualname__}"
    for component in (ViT3D, Frozen, PerceiverResampler, TokenMean, LinearProjector, CausalLM)
}


def _base(name: str, shape: str, also: str = "") -> Key:
    """A weight of the base language model, by its name there."""
    peft = also or name
    older = (_LLM + name,) if also else ()
    return Key(_LLM + peft, shape, why=_BASE, also=older, reference=name)


def _llm_keys() -> Iterator[Key]:
    """The language model in peft's wrapper, with adapters at the projections of queries and values."""
    layer = "model.layers.{llm}."
    widths = {"q": "llm.q", "k": "llm.kv", "v": "llm.kv"}
    yield _base("model.embed_tokens.weight", "llm.vocab llm.dim")
    for name, width in widths.items():
        at = f"{layer}self_attn.{name}_proj"
        if name == "k":
            yield _base(f"{at}.weight", f"{width} llm.dim")
            continue
        yield _base(f"{at}.weight", f"{width} llm.dim", also=f"{at}.base_layer.weight")
        for part, shape in (("lora_A", "rank llm.dim"), ("lora_B", f"{width} rank")):
            adapter = f"{at}.{part}.default.weight"
            yield Key(_LLM + adapter, shape, to=_OURS + adapter, also=(f"{_LLM}{at}.{part}.weight",))
    yield _base(f"{layer}self_attn.o_proj.weight", "llm.dim llm.q")
    yield Key(f"{_LLM}{layer}self_attn.rotary_emb.inv_freq", "llm.half", why=_ROTARY, optional=True)
    yield _base(f"{layer}mlp.gate_proj.weight", "llm.mlp llm.dim")
    yield _base(f"{layer}mlp.up_proj.weight", "llm.mlp llm.dim")
    yield _base(f"{layer}mlp.down_proj.weight", "llm.dim llm.mlp")
    yield _base(f"{layer}input_layernorm.weight", "llm.dim")
    yield _base(f"{layer}post_attention_layernorm.weight", "llm.dim")
    yield _base("model.norm.weight", "llm.dim")
    yield _base("lm_head.weight", "llm.vocab llm.dim")


def _projector_keys(name: str, ours: str, width: str) -> tuple[Key, Key]:
    at, to = _EMBED + name, f"reporter.{ours}.linear"
    return Key(f"{at}.weight", f"llm.dim {width}", f"{to}.weight"), Key(f"{at}.bias", "llm.dim", f"{to}.bias")


def _keys() -> tuple[Key, ...]:
    texture, masks, resampler = (f"{_EMBED}{name}." for name in ("vision_encoder", "mask_encoder", "perceiver"))
    return (
        *_llm_keys(),
        Key(f"{_EMBED}weight", "llm.vocab llm.dim", why=_ALIAS, optional=True),
        *(Key(name, "2 llm.dim", used="the tags") for name in _TAGS),
        *vit3d_keys(texture, "reporter.texture.encoder.encoder.", "vision", "vision."),
        *vit3d_keys(masks, "reporter.geometry.encoder.", "mask", "mask.", fold=False),
        *keys_of(PERCEIVER_KEYS, resampler, "reporter.texture.resampler.", "perceiver", "perceiver."),
        *_projector_keys("fc", "texture_projector", "vision.dim"),
        *_projector_keys("mask_fc", "geometry_projector", "mask.dim"),
    )


def _compute(opened: Opened) -> dict[str, Tensor]:
    """Tags in the order of the published ids, and the texture encoder's patch embedding for one channel."""
    folded = fold_patch_embedding(opened, f"{_EMBED}vision_encoder.", "reporter.texture.encoder.encoder.")
    return {"reporter.tags": torch.cat([opened.tensor(name) for name in _TAGS]), **folded}


def _check(opened: Opened) -> list[str]:
    sizes = opened.account.sizes
    faults = vit3d_faults(opened, "vision.") + perceiver_faults(opened, "perceiver.")
    faults += vit3d_faults(opened, "mask.", MASK_PATCH, channels=(1,))
    if sizes["vision.dim"] != sizes["perceiver.dim"]:
        faults.append(
            f"the resampler is {sizes['perceiver.dim']} wide (expected {sizes['vision.dim']}, as its encoder)"
        )
    alias, table = f"{_EMBED}weight", f"{_LLM}model.embed_tokens.weight"
    if alias in opened.account.named and not _same(opened.tensor(alias), opened.tensor(table)):
        faults.append(f"{alias} differs from {table} (expected the same numbers: one is an alias of the other)")
    return faults


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same numbers, looked at piece by piece."""
    if one.data_ptr() == other.data_ptr() or 0 in (one.numel(), other.numel()):
        return True
    pieces = zip(one.reshape(-1).split(_PIECE), other.reshape(-1).split(_PIECE), strict=True)  # type: ignore[no-untyped-call]
    return all(torch.equal(a, b) for a, b in pieces)


def _rotary_note(opened: Opened) -> str:
    """What the file's rotary frequencies are, which are not kept."""
    names = [name for name, why in opened.account.dropped.items() if why == _ROTARY]
    found = {name: opened.source[name].double() for name in names if opened.source.entries[name].numbers}
    if not found:
        return "the file holds no rotary frequencies"
    half = opened.account.sizes["llm.half"]
    exact = THETA ** -(torch.arange(half, dtype=torch.float64) / half)
    far = [name for name, values in found.items() if not bool(((values / exact - 1).abs() <= 2**-7).all())]
    if far:
        return f"rotary frequencies of {len(far)} layers are not of base {THETA:.0f}; the language model brings its own"
    dtype = str(opened.source.entries[names[0]].dtype).removeprefix("torch.")
    return f"rotary frequencies are those of base {THETA:.0f}, rounded to {dtype}"


def recipe(opened: Opened) -> dict[str, Any]:
    """The packaged recipe, with what the tensors say in its place and components by their full names."""
    folded = OmegaConf.create(fold([str(packaged_folder() / "reg2rg.yaml")]).values)
    config: Any = OmegaConf.to_container(folded, resolve=True)
    model: dict[str, Any] = _full_names(config["model"])
    texture, geometry, llm = (model[part]["init_args"] for part in ("texture", "geometry", "llm"))
    texture["encoder"]["init_args"]["encoder"]["init_args"] |= vit3d_arguments(opened, "vision", "vision.")
    texture |= perceiver_arguments(opened, "perceiver", "perceiver.")
    geometry["encoder"]["init_args"] |= vit3d_arguments(opened, "mask", "mask.", MASK_PATCH)
    llm["lora"]["rank"] = opened.account.sizes["rank"]
    published = opened.account.sizes.get("llm.vocab", IMAGE_ID) == IMAGE_ID  # not a smaller model of the same form
    return {"task": config["task"], "model": model, "data": {**config["data"], "published_ids": published}}


def _full_names(value: Any) -> Any:
    """Short class names as full ones, which need no registry to be read."""
    if isinstance(value, list):
        return [_full_names(item) for item in value]
    if not isinstance(value, dict):
        return value
    named = {key: _full_names(item) for key, item in value.items()}
    if "class_path" in named:
        named["class_path"] = _COMPONENTS[named["class_path"]]
    return named


def _write(opened: Opened, tensors: Mapping[str, Tensor], folder: Path) -> Mapping[str, Any]:
    """A model folder, see `reg2rg.pretrained.folder`."""
    language_model, notes = refer_to(opened)
    config = recipe(opened)
    contract = InputContract.of_config(config)
    notes = [_rotary_note(opened), *notes]
    facts = CardFacts(
        name="Reg2RG, published weights",
        summary="The weights that the authors of Reg2RG (Chen et al., IEEE TMI 2025) publish, converted by reg2rg. "
        f"{opened.account.summary()}.",
        training_data="RadGenome-ChestCT, training split, according to the paper",
        notes=notes,
    )
    try:
        write_folder(
            folder,
            config=config,
            tensors=tensors,
            contract=contract,
            language_model=language_model,
            card=model_card(config, contract, language_model, facts),
        )
    except Reg2RGError as error:
        if isinstance(error.__cause__, OSError):  # a full disk: the message must name the folder that the user named
            raise error.__cause__ from None
        raise
    return {"notes": notes, "language_model": language_model.path}


REG2RG = register(
    Format(
        name="reg2rg",
        file="pytorch_model.bin, the weights of Reg2RG",
        keys=_keys(),
        layers={"llm": 32, "vision": 12, "mask": 3, "perceiver": 6},
        sizes={
            "llm.vocab": 32000,
            "llm.dim": 4096,
            "llm.q": 4096,
            "llm.kv": 4096,
            "llm.mlp": 11008,
            "rank": 8,
            "vision.patch": 12288,
            "vision.dim": 768,
            "vision.inner": 512,
            "vision.mlp": 2048,
            "mask.patch": 16384,
            "mask.dim": 255,
            "mask.inner": 512,
            "mask.mlp": 512,
            "perceiver.latents": 32,
            "perceiver.inner": 512,
            "perceiver.mlp": 3072,
        },
        compute=_compute,
        check=_check,
        write=_write,
    )
)
