"""How far ours is from the reference."""

from __future__ import annotations

import torch
from torch import Tensor

EXACT = 1e-9
"""Largest difference in float64, as a share of the larger of the reference's largest number and 1."""
ROUNDED = 1e-5
"""Largest relative rms in float32."""


def exactly(ours: Tensor, reference: Tensor) -> float:
    """Largest difference, as a share of the reference's largest number where that is above 1."""
    assert ours.shape == reference.shape, (ours.shape, reference.shape)
    ours, reference = ours.detach().double(), reference.detach().double()
    return float((ours - reference).abs().max() / reference.abs().max().clamp(min=1.0))


def relative_rms(ours: Tensor, reference: Tensor) -> float:
    """Root mean square of the difference over that of the reference."""
    assert ours.shape == reference.shape, (ours.shape, reference.shape)
    ours, reference = ours.detach().double(), reference.detach().double()
    return float(((ours - reference).square().mean() / reference.square().mean()).sqrt())


def leaves(weights: dict[str, Tensor], *prefixes: str) -> dict[str, Tensor]:
    """Copies that gather gradients: all, or those whose names begin so."""
    chosen = prefixes or ("",)
    return {name: tensor.double().clone().requires_grad_(name.startswith(chosen)) for name, tensor in weights.items()}


def gradient(tensor: Tensor) -> Tensor:
    """Its gradient; zeros where nothing depends on it."""
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
