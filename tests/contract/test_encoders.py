"""Every registered encoder keeps the contract. A new one needs a line in BUILD."""

from collections.abc import Callable

import pytest
import torch

import reg2rg.extras.peers  # noqa: F401 (registers the encoders of other systems)
from reg2rg.models.encoders import CNN3D, ENCODERS, Encoder
from reg2rg.store.attributes import VECTOR
from reg2rg.testing import check_encoder
from summed_gradients import unordered_sums

SIZE = (32, 32, 16)
BUILT_IN = [name for name in ENCODERS if ENCODERS.get(name).__module__.startswith("reg2rg.")]


def make(name: str, **arguments: object) -> Callable[[], Encoder]:
    return lambda: ENCODERS.get(name)(**arguments)


def small_cnn() -> CNN3D:
    return CNN3D(SIZE, channels=(8, 16), grid=(1, 1, 2), dim=24)


def around(name: str, **arguments: object) -> Callable[[], Encoder]:
    return lambda: ENCODERS.get(name)(encoder=small_cnn(), **arguments)


BUILD: dict[str, tuple[Callable[[], Encoder], tuple[int, int, int]]] = {
    "AttentionPool": (around("AttentionPool", num_queries=4, heads=3), SIZE),
    "AttributeEncoder": (make("AttributeEncoder", dim=24, hidden=16, waves=2), (VECTOR, 1, 1)),
    "CNN3D": (small_cnn, SIZE),
    "CTViT": (
        make(
            "CTViT",
            size=SIZE,
            patch=(8, 16, 4),
            dim=24,
            spatial_depth=1,
            temporal_depth=2,
            heads=2,
            head_dim=8,
            codes=9,
        ),
        SIZE,
    ),
    "Frozen": (around("Frozen", chunk=2), SIZE),
    "GridCells": (make("GridCells", size=(4, 3, 2), channels=1), (4, 3, 2)),
    "I3ResNet": (make("I3ResNet", size=SIZE, width=2, blocks=(1, 1, 1, 1)), SIZE),
    "M3DViT": (make("M3DViT", size=SIZE, patch=(8, 16, 4), dim=24, depth=2, heads=2, mlp_dim=32), SIZE),
    "ModifiedResNet": (make("ModifiedResNet", size=SIZE, image_size=32, width=16, blocks=(1, 2, 1)), SIZE),
    "MaskPool": (around("MaskPool", pool="attention", tokens=4, heads=3), SIZE),
    "MonaiSwinUNETR": (
        make("MonaiSwinUNETR", size=(32, 32, 32), feature_size=12, depths=(1, 1, 1, 1), window=4),
        (32, 32, 32),
    ),
    "MonaiViT": (
        make("MonaiViT", size=SIZE, patch=(16, 16, 8), dim=24, depth=2, heads=2, mlp_dim=32, dropout=0.0),
        SIZE,
    ),
    "PerceiverResampler": (around("PerceiverResampler", num_latents=4, depth=2, heads=2, head_dim=8), SIZE),
    "Pretrained": (around("Pretrained"), SIZE),
    "QueryDecoder": (around("QueryDecoder", num_queries=4, depth=2, heads=3, mlp_dim=16), SIZE),
    "Resize": (around("Resize", to=SIZE), (20, 40, 16)),
    "SwinDepthChannels": (
        make("SwinDepthChannels", size=SIZE, image_size=32, embed_dim=12, depths=(2, 1), heads=(2, 4), window=4),
        SIZE,
    ),
    "TimmDepthChannels": (make("TimmDepthChannels", model_name="test_resnet", size=SIZE, grid=(1, 1)), SIZE),
    "TimmSlices": (make("TimmSlices", model_name="test_vit", size=(160, 160, 4), groups=2), (160, 160, 4)),
    "TokenMean": (around("TokenMean"), SIZE),
    "TokenPool": (around("TokenPool", window=(1, 1, 2)), SIZE),
    "ViT3D": (
        make(
            "ViT3D",
            size=SIZE,
            patch=(8, 16, 4),
            dim=24,
            depth=2,
            heads=2,
            head_dim=8,
            mlp_dim=32,
            table_size=(32, 64, 64),
        ),
        SIZE,
    ),
}

ANY_ORDER = {"MonaiSwinUNETR", "SwinDepthChannels"}
"""Position biases of Swin, as MONAI and timm look them up; `trainer.deterministic: true` makes them keep an order."""


@pytest.mark.parametrize("name", BUILT_IN)
def test_contract(name: str) -> None:
    if name not in BUILD:
        pytest.fail(f"the encoder {name} has no small arguments in BUILD of {__file__}: add a line for it")
    build, size = BUILD[name]
    check_encoder(build, size)


@pytest.mark.parametrize("name", [name for name in BUILT_IN if name not in {"Frozen", "GridCells"}])  # nothing trains
def test_threads_do_not_decide_in_which_order_gradients_are_summed(name: str) -> None:
    build, size = BUILD[name]
    encoder = build().train()
    views = torch.rand(2, 1, *size)
    found = unordered_sums(lambda: encoder(views).sum())
    assert bool(found) == (name in ANY_ORDER), found


def test_every_entry_is_a_registered_encoder() -> None:
    assert sorted(BUILD) == BUILT_IN
