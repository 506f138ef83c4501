"""The encoders against the published formulas: outputs and gradients, in double and in single precision."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from parity import reference
from parity.agreement import EXACT, ROUNDED, exactly, gradient, leaves, relative_rms
from parity.forms import (
    PerceiverForm,
    ViTForm,
    few,
    perceiver_forms,
    random_volumes,
    random_weights,
    seeds,
    vit_forms,
)
from parity.ours import Given, our_perceiver, our_vit
from reg2rg.models.encoders import TokenMean, ViT3D
from reg2rg.models.encoders.weights_radfm import fold_channels, rename_perceiver, rename_vit3d

PATCH_NORM = ("to_patch_embedding.1.weight", "to_patch_embedding.1.bias")
PATCH_LINEAR = ("to_patch_embedding.2.weight", "to_patch_embedding.2.bias")
TALL = ViTForm((16, 8, 12), (4, 4, 3), (32, 16, 24), channels=3, dim=12, depth=2, heads=3, head_dim=5, mlp=14)
"""Every size another one, so that two that are taken for each other show."""


def three(volume: Tensor, channels: int = 3) -> Tensor:
    """The published input: the one CT channel several times over."""
    return torch.stack([volume] * channels)


def published_vit(volumes: Tensor, weights: dict[str, Tensor], form: ViTForm) -> Tensor:
    return torch.stack([reference.vit(three(v, form.channels), weights, form.patch, form.heads) for v in volumes])


def test_patches_are_flattened_in_the_published_order() -> None:
    """Each voxel its own number: what stands where in a patch is then seen, not averaged away."""
    numbers = torch.arange(16 * 8 * 12, dtype=torch.float64).reshape(16, 8, 12)
    published = reference.patches(torch.stack([numbers, numbers + 0.25, numbers + 0.5]), TALL.patch)
    assert published.shape == (4 * 2 * 4, 3 * 48)
    assert published[0, :6].tolist() == [0, 0.25, 0.5, 1, 1.25, 1.5]  # channels fastest, then frames
    ours = our_vit(TALL)._patchify(numbers[None, None])
    assert torch.equal(ours[0], published[:, 0::3])


@pytest.mark.parametrize(
    ("cells", "rows", "taken"),
    [
        (8, 16, [1, 3, 5, 7, 9, 11, 13, 15]),  # 256 voxels on the published tables
        (16, 128, list(range(7, 128, 8))),  # 64 frames
        (4, 4, [0, 1, 2, 3]),  # the mask encoder
        (3, 8, [1, 3, 5]),  # a remainder is left over
    ],
)
def test_rows_of_the_position_tables(cells: int, rows: int, taken: list[int]) -> None:
    assert [reference.table_row(cell, cells, rows) for cell in range(cells)] == taken
    vit = ViT3D((cells, 1, 1), (1, 1, 1), dim=3, depth=0, table_size=(rows, 1, 1))
    assert vit.get_buffer("rows_h").tolist() == taken


@few
@given(form=st.one_of(vit_forms(channels=3), vit_forms(channels=1)), through_input=st.booleans(), seed=seeds)
def test_vit(form: ViTForm, through_input: bool, seed: int) -> None:
    """Outputs, and the gradients of every published weight and of the input, through names and folding."""
    published = leaves(random_weights(form.shapes(), seed))
    volumes = random_volumes(2, form.size, seed).double()
    theirs, ours = volumes.clone().requires_grad_(through_input), volumes.clone().requires_grad_(through_input)
    vit = our_vit(form, {name: tensor.detach() for name, tensor in published.items()})
    expected, found = published_vit(theirs, published, form), vit(ours[:, None])
    assert exactly(found, expected) < EXACT

    weighting = torch.randn(expected.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    (expected * weighting).sum().backward()
    (found * weighting).sum().backward()
    assert exactly(gradient(ours), gradient(theirs)) < EXACT
    own = dict(vit.named_parameters())
    unfolded = {**PATCH_GRADIENTS[form.channels](own, published, form)}
    for name, tensor in published.items():
        if name in (*PATCH_NORM, *PATCH_LINEAR):
            assert exactly(unfolded[name], gradient(tensor)) < EXACT, name
        else:
            (renamed,) = rename_vit3d({name: tensor})
            assert exactly(gradient(own[renamed]), gradient(tensor)) < EXACT, name


def _as_they_are(own: dict[str, Tensor], published: dict[str, Tensor], form: ViTForm) -> dict[str, Tensor]:
    return {name: gradient(own[next(iter(rename_vit3d({name: own})))]) for name in (*PATCH_NORM, *PATCH_LINEAR)}


def _unfolded(own: dict[str, Tensor], published: dict[str, Tensor], form: ViTForm) -> dict[str, Tensor]:
    """Gradients of the three-channel norm and linear map from those of the folded ones, by the chain rule.

    Folded are A[:, k] = sum over c of W[:, kc] g[kc] and d = W b + a, so dW[:, kc] = dA[:, k] g[kc] + dd b[kc],
    dg[kc] = sum over rows of dA[:, k] W[:, kc], db = W^T dd, da = dd.
    """
    dA, dd = gradient(own["patch_linear.weight"]), gradient(own["patch_linear.bias"])
    dA = dA.repeat_interleave(form.channels, dim=1)
    W, g, b = (published[name].detach() for name in (PATCH_LINEAR[0], *PATCH_NORM))
    return {
        PATCH_LINEAR[0]: dA * g + dd[:, None] * b,
        PATCH_LINEAR[1]: dd,
        PATCH_NORM[0]: (dA * W).sum(0),
        PATCH_NORM[1]: W.T @ dd,
    }


PATCH_GRADIENTS = {1: _as_they_are, 3: _unfolded}


def test_dropout_acts_where_the_published_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a dropout that squares instead of dropping, so that every place where it acts is seen in the result."""

    def attend(query: Tensor, key: Tensor, value: Tensor, dropout_p: float) -> Tensor:
        weights = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1)
        return (weights.square() if dropout_p else weights) @ value

    monkeypatch.setattr(torch.nn.functional, "dropout", lambda x, p, training: x.square() if p and training else x)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attend)
    weights, volumes = random_weights(TALL.shapes(), 0), random_volumes(2, TALL.size, 1).double()
    vit = our_vit(TALL, weights).train()
    squared = [reference.vit(three(v), weights, TALL.patch, TALL.heads, torch.square) for v in volumes]
    assert exactly(vit(volumes[:, None]), torch.stack(squared)) < EXACT
    vit.eval()
    assert exactly(vit(volumes[:, None]), published_vit(volumes, weights, TALL)) < EXACT
    masks = our_vit(TALL, weights, dropout=0.0, embedding_dropout=0.0).train()
    assert exactly(masks(volumes[:, None]), published_vit(volumes, weights, TALL)) < EXACT


@few
@given(form=perceiver_forms(), tokens=st.integers(1, 6), seed=seeds)
def test_perceiver(form: PerceiverForm, tokens: int, seed: int) -> None:
    published = leaves(random_weights(form.shapes(), seed))
    media = random_volumes(3, (tokens, form.dim, 1), seed).double()
    theirs, ours = media.clone().requires_grad_(True), media.clone().requires_grad_(True)
    weights = {name: tensor.detach() for name, tensor in published.items()}
    resampler = our_perceiver(Given(tokens, form.dim), form, weights)
    expected = torch.stack([reference.perceiver(one[..., 0], published, form.heads) for one in theirs])
    found = resampler(ours[:, None])
    assert exactly(found, expected) < EXACT

    weighting = torch.randn(expected.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    (expected * weighting).sum().backward()
    (found * weighting).sum().backward()
    assert exactly(gradient(ours), gradient(theirs)) < EXACT
    own = dict(resampler.resampler.named_parameters())
    for name, tensor in published.items():
        (renamed,) = rename_perceiver({name: tensor})
        assert exactly(gradient(own[renamed]), gradient(tensor)) < EXACT, name


@few
@given(form=vit_forms(channels=1), seed=seeds)
def test_mask_encoder(form: ViTForm, seed: int) -> None:
    """One channel of soft fractions, the mean over the tokens."""
    published = leaves(random_weights(form.shapes(), seed))
    masks = random_volumes(2, form.size, seed, low=0.0).double()
    encoder = TokenMean(our_vit(form, {n: t.detach() for n, t in published.items()}, shift=0.0))
    means = [tokens.sum(0, keepdim=True) / len(tokens) for tokens in published_vit(masks, published, form)]
    expected, found = torch.stack(means), encoder(masks[:, None])
    assert found.shape == (2, 1, form.dim)
    assert exactly(found, expected) < EXACT
    expected.square().sum().backward()
    found.square().sum().backward()
    own = dict(encoder.encoder.named_parameters())
    for name, tensor in published.items():
        (renamed,) = rename_vit3d({name: tensor})
        assert exactly(gradient(own[renamed]), gradient(tensor)) < EXACT, name


@few
@given(form=vit_forms(), resampler=perceiver_forms(), seed=seeds)
def test_single_precision(form: ViTForm, resampler: PerceiverForm, seed: int) -> None:
    """Ours in float32 against the reference in float64, on the same float32 numbers."""
    form = replace(form, dim=3 * resampler.dim)
    resampler = replace(resampler, dim=form.dim)
    weights = random_weights(form.shapes(), seed, torch.float32)
    more = random_weights(resampler.shapes(), seed, torch.float32)
    volumes = random_volumes(2, form.size, seed)
    chain = our_perceiver(our_vit(form, weights, torch.float32), resampler, more, torch.float32)
    doubled = [{name: tensor.double() for name, tensor in one.items()} for one in (weights, more)]
    tokens = published_vit(volumes.double(), doubled[0], form)
    expected = torch.stack([reference.perceiver(one, doubled[1], resampler.heads) for one in tokens])
    with torch.no_grad():
        assert relative_rms(chain(volumes[:, None]), expected) < ROUNDED


def folded_error(dtype: torch.dtype, stored: torch.dtype) -> float:
    """Relative rms of ours, folded from weights stored in one dtype and run in another."""
    weights = random_weights(TALL.shapes(), 0, stored)
    volumes = random_volumes(2, TALL.size, 1)
    expected = published_vit(volumes.double(), {name: tensor.double() for name, tensor in weights.items()}, TALL)
    with torch.no_grad():
        return relative_rms(our_vit(TALL, weights, dtype)(volumes[:, None].to(dtype)), expected)


def test_folding_loses_nothing() -> None:
    """Also where the file holds half precision, as the published checkpoint does: sums need more digits than terms."""
    assert folded_error(torch.float64, torch.float64) < 1e-12
    assert folded_error(torch.float32, torch.float32) < ROUNDED
    assert folded_error(torch.float32, torch.bfloat16) < ROUNDED
    assert folded_error(torch.float32, torch.float16) < ROUNDED


def test_folding_leaves_the_rest_and_the_input_alone() -> None:
    weights = random_weights(TALL.shapes(), 0)
    before = {name: tensor.clone() for name, tensor in weights.items()}
    folded = fold_channels(weights, voxels=TALL.voxels)
    assert all(torch.equal(weights[name], tensor) for name, tensor in before.items())
    assert set(folded) == set(weights)
    assert folded["to_patch_embedding.2.weight"].shape == (TALL.dim, TALL.voxels)
    again = fold_channels(folded, voxels=TALL.voxels)
    assert all(torch.equal(again[name], tensor) for name, tensor in folded.items())
    with pytest.raises(ValueError, match="expected a multiple of the 7 voxels"):
        fold_channels(weights, voxels=7)


def test_unequal_channels_cannot_be_folded() -> None:
    """What the derivation needs: with channels that differ, one channel cannot stand for them."""
    weights = random_weights(TALL.shapes(), 0)
    volume = random_volumes(1, TALL.size, 1)[0].double()
    coloured = torch.stack([volume, volume, volume + 0.1])
    expected = reference.vit(coloured, weights, TALL.patch, TALL.heads)
    assert exactly(our_vit(TALL, weights)(volume[None, None])[0], expected) > 1e-3


# ---- near-constant patches


def flat_error(contrast: float, shift: float, dtype: torch.dtype = torch.float32) -> float:
    """Relative rms of the tokens of volumes that are air, -1, but for differences of about `contrast`."""
    weights = random_weights(TALL.shapes(), 0, dtype)
    noise = random_volumes(4, TALL.size, 1, low=0.0)
    volumes = (-1 + contrast * noise).float()
    expected = published_vit(volumes.double(), {name: tensor.double() for name, tensor in weights.items()}, TALL)
    with torch.no_grad():
        found = our_vit(TALL, weights, dtype, shift=shift)(volumes[:, None].to(dtype))
    return relative_rms(found, expected)


@pytest.mark.parametrize("contrast", [1e-2, 1e-3, 1e-4])
def test_shift_keeps_near_constant_patches_exact(contrast: float) -> None:
    """The LayerNorm over a patch divides by its spread, and so multiplies rounding; it does not see a shift."""
    without, with_shift = flat_error(contrast, 0.0), flat_error(contrast, 1.0)
    assert with_shift < ROUNDED / 20
    assert without > 5 * with_shift
    assert flat_error(contrast, 1.0, torch.float64) < 1e-9
