"""The package's modules, loaded from weights of the published form through the package's own loading."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from parity.forms import ModelForm, PerceiverForm, ViTForm
from reg2rg.models.encoders import Encoder, Frozen, PerceiverResampler, TokenMean, ViT3D
from reg2rg.models.encoders.weights import load_checked
from reg2rg.models.encoders.weights_radfm import rename_perceiver
from reg2rg.models.llm.base import LanguageModel
from reg2rg.models.projectors import LinearProjector
from reg2rg.models.reporter import RegionReporter


class Given(Encoder):
    """Tokens as they are, in the shape of volumes: an encoder that a test can see through."""

    def __init__(self, tokens: int, dim: int) -> None:
        super().__init__()
        self.num_tokens, self.out_channels = tokens, dim

    def forward(self, volumes: Tensor) -> Tensor:
        return volumes.reshape(len(volumes), self.num_tokens, self.out_channels)


def part(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


def our_vit(
    form: ViTForm, weights: Mapping[str, Tensor] | None = None, dtype: torch.dtype = torch.float64, **changes: Any
) -> ViT3D:
    """`ViT3D` in eval mode; without weights as it is made."""
    vit = ViT3D(
        size=form.size,
        patch=form.patch,
        dim=form.dim,
        depth=form.depth,
        heads=form.heads,
        head_dim=form.head_dim,
        mlp_dim=form.mlp,
        table_size=form.table,
        **changes,
    ).to(dtype)
    if weights is not None:
        load_checked(vit, vit.adapt_weights(weights), "weights of the published form")
    return vit.eval()


def our_perceiver(
    encoder: Encoder,
    form: PerceiverForm,
    weights: Mapping[str, Tensor] | None = None,
    dtype: torch.dtype = torch.float64,
) -> PerceiverResampler:
    """`PerceiverResampler` in eval mode."""
    resampler = PerceiverResampler(encoder, form.latents, form.depth, form.heads, form.head_dim, form.mult).to(dtype)
    if weights is not None:
        load_checked(resampler.resampler, rename_perceiver(weights), "weights of the published form")
    return resampler.eval()


def our_reporter(
    form: ModelForm,
    llm: LanguageModel,
    weights: Mapping[str, Tensor],
    dtype: torch.dtype = torch.float64,
    frozen_dropout: bool = False,
) -> RegionReporter:
    """`RegionReporter` as ``reg2rg.yaml`` composes it, in eval mode."""
    texture = our_perceiver(
        Frozen(our_vit(form.texture, part(weights, "embedding_layer.vision_encoder."), dtype), dropout=frozen_dropout),
        form.resampler,
        part(weights, "embedding_layer.perceiver."),
        dtype,
    )
    masks = our_vit(form.masks, part(weights, "embedding_layer.mask_encoder."), dtype, shift=0.0)
    reporter = RegionReporter(texture, TokenMean(masks), "texture", LinearProjector, llm).to(dtype)
    load_checked(reporter.texture_projector.linear, part(weights, "embedding_layer.fc."), "fc")
    load_checked(reporter.geometry_projector.linear, part(weights, "embedding_layer.mask_fc."), "mask_fc")
    tags = [weights[f"embedding_layer.{kind}_token_weight"] for kind in ("image", "region")]
    with torch.no_grad():
        reporter.tags.copy_(torch.cat(tags))
    return reporter.eval()
