"""Models of timm of several families keep the contract: what stands behind the map does not wait for gradients."""

import pytest

from reg2rg.encoders import TimmDepthChannels
from reg2rg.testing import check_encoder

SIZE = (64, 64, 4)


@pytest.mark.parametrize("name", ["test_convnext", "test_efficientnet_gn", "test_nfnet"])
def test_contract(name: str) -> None:
    check_encoder(lambda: TimmDepthChannels(name, SIZE, grid=(2, 2)), SIZE, tolerance=1e-4)


def test_a_norm_behind_the_map_is_frozen() -> None:
    encoder = TimmDepthChannels("test_convnext", SIZE, grid=(1, 1))
    frozen = [name for name, parameter in encoder.named_parameters() if not parameter.requires_grad]
    assert frozen == ["model.head.norm.weight", "model.head.norm.bias"]
    assert not any(parameter.grad is not None for parameter in encoder.parameters())
