"""Models of timm of several families keep the contract: what stands behind the map does not wait for gradients."""

import logging

import pytest
import timm
import torch

from reg2rg.core.errors import ConfigError
from reg2rg.models.encoders import TimmDepthChannels
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


def test_no_pretrained_weight_is_left_at_random(tmp_path, monkeypatch, caplog) -> None:
    """With another number of classes timm loads what it finds."""
    weights, create, name = (
        timm.create_model("test_convnext").state_dict(),
        timm.create_model,
        "stages.0.blocks.0.gamma",
    )
    file = tmp_path / "weights.pth"
    overlay = {"pretrained_cfg_overlay": {"file": str(file)}}
    monkeypatch.setattr(timm, "create_model", lambda *args, **options: create(*args, **options, **overlay))
    torch.save(weights, file)
    encoder = TimmDepthChannels("test_convnext", SIZE, pretrained=True)
    assert torch.equal(encoder.model.get_parameter(name), weights[name])
    torch.save({key: value for key, value in weights.items() if key != name}, file)
    with pytest.raises(
        ConfigError, match=r"'test_convnext' lack stages\.0\.blocks\.0\.gamma, which would be random\. Fix"
    ):
        TimmDepthChannels("test_convnext", SIZE, pretrained=True)
    assert not caplog.records
    assert logging.getLogger("timm.models._builder").level == logging.NOTSET
    torch.save(weights | {name: torch.ones(3)}, file)
    with pytest.raises(ConfigError, match=r"size mismatch for stages\.0\.blocks\.0\.gamma"):
        TimmDepthChannels("test_convnext", SIZE, pretrained=True)
