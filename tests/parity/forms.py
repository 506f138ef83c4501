"""Random weights of the published form at small sizes, under the published names, and how Hypothesis draws them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

Size = tuple[int, int, int]
Shapes = dict[str, tuple[int, ...]]

few = settings(max_examples=20, deadline=None, derandomize=True)
"""Small networks, few of them, the same ones in every run."""


@dataclass(frozen=True)
class ViTForm:
    """Sizes of a 3D vision transformer; its tables are made for `table` voxels an axis."""

    size: Size
    patch: Size
    table: Size
    channels: int
    dim: int
    depth: int
    heads: int
    head_dim: int
    mlp: int

    @property
    def voxels(self) -> int:
        """Of a patch, in one channel."""
        return math.prod(self.patch)

    def shapes(self, prefix: str = "") -> Shapes:
        """Published names and shapes."""
        inner, numbers = self.heads * self.head_dim, self.channels * self.voxels
        rows = [t // p for t, p in zip(self.table, self.patch, strict=True)]
        found: Shapes = {
            **_pair("to_patch_embedding.1", numbers),
            **_pair("to_patch_embedding.2", self.dim, numbers),
            **_pair("to_patch_embedding.3", self.dim),
            "pos_embedding.row_embed.weight": (rows[0], self.dim // 3),
            "pos_embedding.col_embed.weight": (rows[1], self.dim // 3),
            "pos_embedding.dep_embed.weight": (rows[2], self.dim // 3),
        }
        for n in range(self.depth):
            layer = f"transformer.layers.{n}"
            found |= {
                **_pair(f"{layer}.0.norm", self.dim),
                f"{layer}.0.fn.to_qkv.weight": (3 * inner, self.dim),
                **_pair(f"{layer}.0.fn.to_out.0", self.dim, inner),
                **_pair(f"{layer}.1.norm", self.dim),
                **_pair(f"{layer}.1.fn.net.0", self.mlp, self.dim),
                **_pair(f"{layer}.1.fn.net.3", self.dim, self.mlp),
            }
        return {prefix + name: shape for name, shape in found.items()}


@dataclass(frozen=True)
class PerceiverForm:
    """Sizes of a resampler."""

    dim: int
    latents: int
    depth: int
    heads: int
    head_dim: int
    mult: int

    def shapes(self, prefix: str = "") -> Shapes:
        """Published names and shapes."""
        inner = self.heads * self.head_dim
        found: Shapes = {"latents": (self.latents, self.dim), **_pair("norm", self.dim)}
        for n in range(self.depth):
            found |= {
                **_pair(f"layers.{n}.0.norm_media", self.dim),
                **_pair(f"layers.{n}.0.norm_latents", self.dim),
                f"layers.{n}.0.to_q.weight": (inner, self.dim),
                f"layers.{n}.0.to_kv.weight": (2 * inner, self.dim),
                f"layers.{n}.0.to_out.weight": (self.dim, inner),
                **_pair(f"layers.{n}.1.0", self.dim),
                f"layers.{n}.1.1.weight": (self.mult * self.dim, self.dim),
                f"layers.{n}.1.3.weight": (self.dim, self.mult * self.dim),
            }
        return {prefix + name: shape for name, shape in found.items()}


@dataclass(frozen=True)
class ModelForm:
    """Sizes of everything but the language model, whose width is `width`."""

    texture: ViTForm
    masks: ViTForm
    resampler: PerceiverForm
    width: int

    def shapes(self) -> Shapes:
        """Published names and shapes."""
        return {
            "embedding_layer.image_token_weight": (2, self.width),
            "embedding_layer.region_token_weight": (2, self.width),
            **self.texture.shapes("embedding_layer.vision_encoder."),
            **self.masks.shapes("embedding_layer.mask_encoder."),
            **self.resampler.shapes("embedding_layer.perceiver."),
            **_pair("embedding_layer.fc", self.width, self.resampler.dim),
            **_pair("embedding_layer.mask_fc", self.width, self.masks.dim),
        }


def _pair(name: str, out: int, *into: int) -> Shapes:
    return {f"{name}.weight": (out, *into), f"{name}.bias": (out,)}


def random_weights(shapes: Shapes, seed: int, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Weights of ordinary sizes: gains about 1, positions in [0, 1), linear maps that keep the scale of their input."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
        if name.endswith("_embed.weight"):
            drawn = torch.rand(shape, generator=generator, dtype=torch.float64)
        elif len(shape) == 1:
            drawn = 0.3 * drawn + float(name.endswith("weight"))
        elif not name.endswith(("latents", "token_weight")):
            drawn = drawn / shape[-1] ** 0.5
        weights[name] = drawn.to(dtype)
    return weights


def random_volumes(count: int, size: Size, seed: int, low: float = -1.0) -> Tensor:
    """(count, *size) float32 numbers in [low, 1]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, *size, generator=generator) * (1 - low) + low


# ---- what Hypothesis draws

seeds = st.integers(0, 2**32)


@st.composite
def vit_forms(draw: Any, channels: int = 3) -> ViTForm:
    """A small vision transformer whose tables may be larger than its grid."""
    patch = tuple(draw(st.integers(1, 3)) for _ in range(3))
    grid = tuple(draw(st.integers(1, 3)) for _ in range(3))
    more = tuple(draw(st.integers(1, 3)) for _ in range(3))  # rows of a table for each cell, and a remainder
    rest = tuple(draw(st.integers(0, n - 1)) for n in grid)
    if math.prod(patch) == 1:
        patch = (2, 1, 1)  # a LayerNorm over one number says nothing
    return ViTForm(
        size=tuple(p * n for p, n in zip(patch, grid, strict=True)),
        patch=patch,
        table=tuple(p * (n * m + r) for p, n, m, r in zip(patch, grid, more, rest, strict=True)),
        channels=channels,
        dim=3 * draw(st.integers(1, 4)),
        depth=draw(st.integers(0, 2)),
        heads=draw(st.integers(1, 3)),
        head_dim=draw(st.integers(1, 5)),
        mlp=draw(st.integers(1, 9)),
    )


@st.composite
def perceiver_forms(draw: Any) -> PerceiverForm:
    """A small resampler."""
    small = {"latents": 4, "depth": 3, "heads": 3, "head_dim": 5, "mult": 3}
    return PerceiverForm(dim=draw(st.integers(2, 8)), **{name: draw(st.integers(1, n)) for name, n in small.items()})
