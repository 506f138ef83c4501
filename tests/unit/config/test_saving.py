from __future__ import annotations

import pytest
from torch import nn

from reg2rg.config.saving import CONFIG_KEY, build, read_config
from reg2rg.core.errors import ConfigError
from reg2rg.models.encoders import CNN3D, Encoder, TokenMean


class Holder(nn.Module):
    def __init__(self, texture: Encoder | None, width: int = 3) -> None:
        super().__init__()
        self.texture, self.width = texture, width


def test_a_module_is_rebuilt_from_its_section() -> None:
    text = (
        "model:\n  width: 5\n  texture:\n    class_path: reg2rg.models.encoders.TokenMean\n"
        "    init_args:\n      encoder:\n"
        "        class_path: CNN3D\n        init_args: {size: [16, 16, 16], channels: [8, 16], dim: 8}\n"
    )
    section = read_config({CONFIG_KEY: text})["model"]
    built = build(Holder, section)
    assert built.width == 5
    assert isinstance(built.texture, TokenMean)
    assert isinstance(built.texture.encoder, CNN3D)


def test_a_checkpoint_without_config_says_so() -> None:
    with pytest.raises(ConfigError, match=r"a\.ckpt: holds no config"):
        read_config({"state_dict": {}}, "a.ckpt")


def test_a_checkpoint_cannot_import_what_a_config_may_not() -> None:
    with pytest.raises(Exception, match="not allowed"):
        build(Holder, {"texture": {"class_path": "antigravity.Thing"}})
