"""CNN3D: independence of batch mates, where findings go, and sizes."""

import math

import pytest
import torch
from torch import Tensor

from reg2rg.models.encoders import CNN3D

SIZE = (32, 32, 16)


def cnn(**changes: object) -> CNN3D:
    torch.manual_seed(0)
    arguments: dict[str, object] = {"size": SIZE, "channels": (8, 16), "dim": 12}
    return CNN3D(**{**arguments, **changes})  # type: ignore[arg-type]


def test_batch_mates_do_not_matter_in_training_either() -> None:
    encoder, volumes = cnn().train(), torch.rand(3, 1, *SIZE) * 2 - 1
    torch.testing.assert_close(encoder(volumes)[1:2], encoder(volumes[1:2]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("voxel", "token"), [((3, 3, 2), 0), ((3, 3, 13), 1), ((3, 28, 2), 2), ((28, 28, 13), 7)])
def test_a_bright_voxel_changes_the_token_of_its_cell_most(voxel: tuple[int, int, int], token: int) -> None:
    encoder, volume = cnn().eval(), torch.full((1, 1, *SIZE), -0.8)
    spotted = volume.clone()
    spotted[0, 0, *voxel] = 1.0
    with torch.no_grad():
        moved = (encoder(spotted) - encoder(volume)).norm(dim=-1)[0]
    assert moved.argmax() == token
    assert moved[token] > 0.1


def test_tokens_keep_the_grid_order() -> None:
    encoder = cnn(grid=(2, 1, 3)).eval()
    assert encoder.num_tokens == 6
    assert encoder(torch.zeros(1, 1, *SIZE)).shape == (1, 6, 12)


def test_histograms_count_patches() -> None:
    encoder = cnn(grid=(1, 1, 2), bins=4)
    volume = torch.full((1, 1, *SIZE), -0.9)
    volume[0, 0, 0, 0, 0] = 0.9  # one patch of the 128 of the first cell has a brightest voxel in the last bin
    patches = encoder._patchify(volume)
    found = encoder._histograms(torch.stack([patches.amin(-1), patches.mean(-1), patches.amax(-1)], dim=-1))
    shares, above = found.reshape(2, 3, 2, 4).unbind(2)
    counts = torch.zeros(2, 3, 4)
    counts[:, :, 0] = 128
    counts[0, 2] = torch.tensor([127, 0, 0, 1])
    torch.testing.assert_close(shares**2, counts / 128)
    reached = torch.zeros(2, 3, 4)  # patches at or above each bin's lower edge
    reached[:, :, 0] = 128
    reached[0, 2, 1:] = 1
    torch.testing.assert_close(above, 2 * (1 + reached).log() / math.log(129) - 1)
    assert cnn(bins=0)(volume).shape == (1, 8, 12)


def test_single_precision_and_double_agree() -> None:
    encoder, volumes = cnn().eval(), torch.rand(2, 1, *SIZE) * 2 - 1
    single = encoder(volumes)
    double: Tensor = encoder.double()(volumes.double())
    assert (single - double).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": (30, 32, 16)}, r"\(30, 32, 16\) does not divide into patches of \(4, 4, 4\)"),
        ({"channels": (8, 12)}, "each a multiple of 8"),
        ({"channels": (8,)}, "at least two"),
        ({"grid": (9, 1, 1)}, "grid is"),
    ],
)
def test_refuses_sizes_that_cannot_be(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cnn(**changes)
