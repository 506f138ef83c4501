"""Regions pooled out of a grid of tokens."""

from __future__ import annotations

import pytest
import torch

from reg2rg.core.errors import ConfigError
from reg2rg.models.encoders import CNN3D, GridCells, MaskPool, ViT3D
from reg2rg.testing import check_encoder

SIZE, CHANNELS = (3, 2, 2), 8


def features(studies: int = 2) -> torch.Tensor:
    return torch.randn(studies, CHANNELS, *SIZE, generator=torch.Generator().manual_seed(0))


def masks(regions: int = 3) -> torch.Tensor:
    shares = torch.rand(regions, 1, *SIZE, generator=torch.Generator().manual_seed(1))
    return shares * (shares > 0.4)


def pooled(pool: str, tokens: int = 1) -> MaskPool:
    torch.manual_seed(2)
    return MaskPool(GridCells(SIZE, CHANNELS), pool, tokens, heads=2, depth=1).eval()


def test_cells_are_tokens_with_the_last_axis_fastest() -> None:
    cells = GridCells(SIZE, CHANNELS)
    tokens = cells(features())
    assert tokens.shape == (2, 12, CHANNELS)
    assert torch.equal(tokens[1, 2 * 4 + 1 * 2 + 1], features()[1, :, 2, 1, 1])
    with pytest.raises(ValueError, match=r"got features of shape \(2, 8, 3, 2, 2\), expected \(N, 4, 3, 2, 2\)"):
        GridCells(SIZE, 4)(features())


def test_a_mean_weighs_cells_by_their_share() -> None:
    found = pooled("mean").of_regions(features(), masks(), [("a",), ("b", "c")])
    for region, study in enumerate((0, 1, 1)):
        share = masks()[region, 0]
        by_hand = (features()[study] * share).sum((1, 2, 3)) / share.sum()
        torch.testing.assert_close(found[region, 0], by_hand)
    assert list(pooled("mean").parameters()) == []


@pytest.mark.parametrize("pool", ["attention", "perceiver"])
def test_attention_sees_the_cells_of_the_region_alone(pool: str) -> None:
    model, shares = pooled(pool, 3), masks()
    found = model.of_regions(features(), shares, [("a",), ("b", "c")])
    assert found.shape == (3, 3, CHANNELS)
    outside = torch.where(
        shares[1:2] == 0, features().flip(1) * 3, features()
    )  # other features where region 1 has no share
    changed = model.of_regions(outside, shares, [("a",), ("b", "c")])
    torch.testing.assert_close(changed[1], found[1])
    assert not torch.allclose(changed[0], found[0])


@pytest.mark.parametrize("pool", ["attention", "perceiver"])
def test_two_halves_of_a_cell_count_as_one(pool: str) -> None:
    """The weight stands before the softmax: a share of one is two equal cells with half a share."""
    torch.manual_seed(2)
    model = MaskPool(GridCells((2, 1, 1), CHANNELS), pool, 2, heads=2, depth=1).eval()
    cell = features(1)[:, :, :1, :1, :1].expand(1, CHANNELS, 2, 1, 1)
    one, halves = torch.tensor([1.0, 0.0]).view(1, 1, 2, 1, 1), torch.tensor([0.5, 0.5]).view(1, 1, 2, 1, 1)
    torch.testing.assert_close(model.of_regions(cell, one, [("a",)]), model.of_regions(cell, halves, [("a",)]))


@pytest.mark.parametrize("pool", ["mean", "attention", "perceiver"])
def test_a_region_does_not_depend_on_the_others(pool: str) -> None:
    model = pooled(pool)
    together = model.of_regions(features(), masks(), [("a", "b"), ("c",)])
    alone = model.of_regions(features()[1:], masks()[2:], [("a",)])
    torch.testing.assert_close(together[2:], alone)


@pytest.mark.parametrize("pool", ["mean", "attention", "perceiver"])
def test_the_whole_image_is_a_region_of_everything(pool: str) -> None:
    model = pooled(pool)
    everywhere = torch.ones(2, 1, *SIZE)
    torch.testing.assert_close(model(features()), model.of_regions(features(), everywhere, [("a",), ("b",)]))


@pytest.mark.parametrize("pool", ["mean", "attention", "perceiver"])
def test_the_contract_over_an_encoder_of_scans(pool: str) -> None:
    def build() -> MaskPool:
        encoder = CNN3D(size=(16, 16, 8), channels=(8, 16), grid=(2, 2, 1), dim=16)
        return MaskPool(encoder, pool, 1 if pool == "mean" else 2, heads=4, depth=1)

    check_encoder(build, size=(16, 16, 8), tolerance=1e-4)


def test_masks_finer_than_the_tokens_are_averaged() -> None:
    model = MaskPool(GridCells((2, 1, 1), 1))
    image = torch.tensor([1.0, 3.0]).view(1, 1, 2, 1, 1)
    fine = torch.tensor([1.0, 1.0, 1.0, 0.0]).view(1, 1, 4, 1, 1)  # shares of 1 and 1/2
    assert model.of_regions(image, fine, [("a",)]).item() == pytest.approx((1 + 3 / 2) / 1.5)


@pytest.mark.parametrize("pool", ["mean", "attention", "perceiver"])
def test_regions_without_weight_are_named(pool: str) -> None:
    empty = masks() * torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1, 1, 1)
    regions = [("lung",), ("heart", "thyroid")]
    with pytest.raises(ConfigError, match=r"any share of heart of study s2, thyroid of study s2 \(expected"):
        pooled(pool).of_regions(features(), empty, regions, ("s1", "s2"))
    with pytest.raises(ConfigError, match="heart of study 1 of the batch"):
        pooled(pool).of_regions(features(), empty, regions)


def test_what_cannot_be_pooled() -> None:
    with pytest.raises(ValueError, match="a mean is one token"):
        MaskPool(GridCells(SIZE, CHANNELS), "mean", 2)
    with pytest.raises(ValueError, match="3 heads do not divide"):
        MaskPool(GridCells(SIZE, CHANNELS), "attention", heads=3)
    with pytest.raises(ValueError, match="pool is 'max'"):
        MaskPool(GridCells(SIZE, CHANNELS), "max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="MaskPool has no grid"):
        MaskPool(MaskPool(GridCells(SIZE, CHANNELS), "attention", 2, heads=2))
    vit = ViT3D(size=(16, 16, 8), patch=(8, 8, 4), dim=12, depth=1, heads=2, mlp_dim=8)
    assert MaskPool(vit).grid == (2, 2, 2)
