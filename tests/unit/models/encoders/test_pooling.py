"""Encoders around another: resized views, pooled tokens."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from reg2rg.extras.peers import AttentionPool, M3DViT
from reg2rg.models.encoders import CNN3D, Encoder, Frozen, Pretrained, Resize, TokenPool


class Voxels(Encoder):
    """Every voxel a token, in the order of the axes."""

    def __init__(self, size: tuple[int, int, int]) -> None:
        super().__init__()
        self.size, self.grid = size, size
        self.out_channels, self.num_tokens = 1, size[0] * size[1] * size[2]

    def forward(self, volumes: Tensor) -> Tensor:
        assert volumes.shape[1:] == (1, *self.size)
        return volumes.flatten(2).transpose(1, 2)


def test_axes_that_shrink_are_averaged() -> None:
    volumes = torch.rand(2, 1, 4, 4, 8)
    halved = Resize(Voxels((4, 4, 4)), (4, 4, 4))(volumes).reshape(2, 4, 4, 4)
    torch.testing.assert_close(halved, volumes[:, 0].reshape(2, 4, 4, 4, 2).mean(-1))


def test_axes_that_grow_are_interpolated_and_others_averaged() -> None:
    volumes = torch.rand(1, 1, 4, 6, 8)
    found = Resize(Voxels((8, 6, 4)), (8, 6, 4))(volumes).reshape(1, 1, 8, 6, 4)
    averaged = volumes.reshape(1, 1, 4, 6, 4, 2).mean(-1)
    torch.testing.assert_close(found, F.interpolate(averaged, size=(8, 6, 4), mode="trilinear"))


def test_views_of_the_size_itself_pass_untouched() -> None:
    volumes = torch.rand(1, 1, 2, 3, 4)
    assert torch.equal(Resize(Voxels((2, 3, 4)), (2, 3, 4))(volumes), Voxels((2, 3, 4))(volumes))


@pytest.mark.parametrize("wrap", [lambda e: e, Frozen, Pretrained, lambda e: Resize(Frozen(e), (4, 4, 8))])
def test_the_grid_is_found_inside_wrappers(wrap: Any) -> None:
    pool = TokenPool(wrap(Voxels((4, 4, 8))), (2, 1, 4))
    assert (pool.num_tokens, pool.grid) == (2 * 4 * 2, (2, 4, 2))
    volumes = torch.rand(1, 1, 4, 4, 8)
    expected = F.avg_pool3d(volumes, (2, 1, 4)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(pool(volumes), expected)


def test_pools_can_be_stacked() -> None:
    assert TokenPool(TokenPool(Voxels((4, 4, 8)), (2, 2, 2)), (2, 2, 2)).num_tokens == 2


def test_a_grid_that_is_not_the_tokens_is_refused() -> None:
    cnn = CNN3D((32, 32, 16), channels=(8, 16), grid=(1, 2, 2), dim=24)
    assert TokenPool(cnn, (1, 2, 1)).num_tokens == 2
    with pytest.raises(
        ValueError, match=r"grid is \(2, 2, 2\), expected three numbers whose product is the 4 tokens of"
    ):
        TokenPool(cnn, (1, 1, 1), grid=(2, 2, 2))
    with pytest.raises(ValueError, match="grid is None"):
        TokenPool(AttentionPool(cnn, num_queries=4, heads=3), (1, 1, 1))
    with pytest.raises(ValueError, match="does not divide into blocks of"):
        TokenPool(cnn, (1, 3, 1))


def test_m3ds_pooling() -> None:
    """2,048 tokens of 8 x 16 x 16 to 256 of 4 x 8 x 8, as published; sizes on the meta device."""
    with torch.device("meta"):
        pool = TokenPool(Resize(M3DViT(), (256, 256, 32)), (2, 2, 2))
        assert pool(torch.zeros(1, 1, 256, 256, 64)).shape == (1, 256, 768)
    assert pool.grid == (4, 8, 8)


def test_sizes_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="to is"):
        Resize(Voxels((1, 1, 1)), (0, 1, 1))
    with pytest.raises(ValueError, match="5 heads on a width of 1"):
        AttentionPool(Voxels((1, 1, 1)), heads=5)
    with pytest.raises(ValueError, match="0 queries"):
        AttentionPool(Voxels((1, 1, 1)), num_queries=0, heads=1)
