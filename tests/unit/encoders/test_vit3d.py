"""ViT3D against a plain float64 rewriting of the published equations, and against the published names."""

import json
import math
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from reg2rg.encoders import TokenMean, ViT3D, fold_channels
from reg2rg.encoders.published import rename_vit3d
from reg2rg.encoders.weights import load_checked

SIZE, PATCH, TABLES = (16, 8, 12), (4, 4, 3), (32, 16, 24)
DIM, DEPTH, HEADS, HEAD_DIM, MLP = 12, 2, 3, 5, 14
Weights = dict[str, Tensor]


def published_weights(channels: int, seed: int = 0) -> Weights:
    """Random weights under the published names; the norms' gains and offsets too."""
    generator = torch.Generator().manual_seed(seed)
    voxels = channels * math.prod(PATCH)
    rows = [t // p for t, p in zip(TABLES, PATCH, strict=True)]
    shapes: dict[str, tuple[int, ...]] = {
        "to_patch_embedding.1.weight": (voxels,),
        "to_patch_embedding.1.bias": (voxels,),
        "to_patch_embedding.2.weight": (DIM, voxels),
        "to_patch_embedding.2.bias": (DIM,),
        "to_patch_embedding.3.weight": (DIM,),
        "to_patch_embedding.3.bias": (DIM,),
        "pos_embedding.row_embed.weight": (rows[0], DIM // 3),
        "pos_embedding.col_embed.weight": (rows[1], DIM // 3),
        "pos_embedding.dep_embed.weight": (rows[2], DIM // 3),
    }
    for n in range(DEPTH):
        layer = f"transformer.layers.{n}"
        shapes |= {
            f"{layer}.0.norm.weight": (DIM,),
            f"{layer}.0.norm.bias": (DIM,),
            f"{layer}.0.fn.to_qkv.weight": (3 * HEADS * HEAD_DIM, DIM),
            f"{layer}.0.fn.to_out.0.weight": (DIM, HEADS * HEAD_DIM),
            f"{layer}.0.fn.to_out.0.bias": (DIM,),
            f"{layer}.1.norm.weight": (DIM,),
            f"{layer}.1.norm.bias": (DIM,),
            f"{layer}.1.fn.net.0.weight": (MLP, DIM),
            f"{layer}.1.fn.net.0.bias": (MLP,),
            f"{layer}.1.fn.net.3.weight": (DIM, MLP),
            f"{layer}.1.fn.net.3.bias": (DIM,),
        }
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


def layer_norm(x: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
    mean = x.sum(-1, keepdim=True) / x.shape[-1]
    variance = ((x - mean) ** 2).sum(-1, keepdim=True) / x.shape[-1]
    return (x - mean) / torch.sqrt(variance + 1e-5) * gain + offset


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def plain_vit(volume: Tensor, w: Weights) -> Tensor:
    """One volume (c, H, W, D) to (T, C) by loops, as the published code describes itself."""
    channels, grid = volume.shape[0], [s // p for s, p in zip(SIZE, PATCH, strict=True)]
    tokens = []
    for a in range(grid[0]):
        for b in range(grid[1]):
            for c in range(grid[2]):
                numbers = [
                    volume[k, a * PATCH[0] + i, b * PATCH[1] + j, c * PATCH[2] + f]
                    for i in range(PATCH[0])
                    for j in range(PATCH[1])
                    for f in range(PATCH[2])
                    for k in range(channels)
                ]
                x = layer_norm(torch.stack(numbers), w["to_patch_embedding.1.weight"], w["to_patch_embedding.1.bias"])
                x = w["to_patch_embedding.2.weight"] @ x + w["to_patch_embedding.2.bias"]
                x = layer_norm(x, w["to_patch_embedding.3.weight"], w["to_patch_embedding.3.bias"])
                place = []
                for cell, cells, name in zip((a, b, c), grid, ("row", "col", "dep"), strict=True):
                    table = w[f"pos_embedding.{name}_embed.weight"]
                    place.append(table[(cell + 1) * (len(table) // cells) - 1])
                tokens.append(x + torch.cat(place))
    x = torch.stack(tokens)
    for n in range(DEPTH):
        layer = f"transformer.layers.{n}"
        normed = layer_norm(x, w[f"{layer}.0.norm.weight"], w[f"{layer}.0.norm.bias"])
        qkv = (normed @ w[f"{layer}.0.fn.to_qkv.weight"].T).reshape(-1, 3, HEADS, HEAD_DIM)
        logits = torch.einsum("thk,shk->hts", qkv[:, 0], qkv[:, 1]) * HEAD_DIM**-0.5
        share = logits.exp() / logits.exp().sum(-1, keepdim=True)
        mixed = torch.einsum("hts,shk->thk", share, qkv[:, 2]).reshape(-1, HEADS * HEAD_DIM)
        x = x + mixed @ w[f"{layer}.0.fn.to_out.0.weight"].T + w[f"{layer}.0.fn.to_out.0.bias"]
        normed = layer_norm(x, w[f"{layer}.1.norm.weight"], w[f"{layer}.1.norm.bias"])
        hidden = gelu(normed @ w[f"{layer}.1.fn.net.0.weight"].T + w[f"{layer}.1.fn.net.0.bias"])
        x = x + hidden @ w[f"{layer}.1.fn.net.3.weight"].T + w[f"{layer}.1.fn.net.3.bias"]
    return x


def small_vit(**changes: object) -> ViT3D:
    arguments: dict[str, object] = {
        "size": SIZE,
        "patch": PATCH,
        "dim": DIM,
        "depth": DEPTH,
        "heads": HEADS,
        "head_dim": HEAD_DIM,
        "mlp_dim": MLP,
        "table_size": TABLES,
    }
    return ViT3D(**{**arguments, **changes})  # type: ignore[arg-type]


@pytest.fixture
def volumes() -> Tensor:
    return torch.rand(2, 1, *SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize("channels", [1, 3])
def test_equals_the_published_equations(channels: int, volumes: Tensor) -> None:
    weights = published_weights(channels)
    vit = small_vit().double().eval()
    load_checked(vit, vit.adapt_weights(weights), "random")
    expected = torch.stack([plain_vit(volume.expand(channels, -1, -1, -1), weights) for volume in volumes])
    with torch.no_grad():
        assert (vit(volumes) - expected).abs().max() < 1e-9


def test_shift_is_not_seen_but_keeps_flat_patches_exact(volumes: Tensor) -> None:
    weights = published_weights(1)
    found = []
    for shift in (0.0, 1.0):
        vit = small_vit(shift=shift).double().eval()
        load_checked(vit, vit.adapt_weights(weights), "random")
        found.append(vit(volumes))
    assert (found[0] - found[1]).abs().max() < 1e-9


def test_folding_leaves_the_rest_and_the_input_alone() -> None:
    weights = published_weights(3)
    before = {name: tensor.clone() for name, tensor in weights.items()}
    folded = fold_channels(weights, voxels=math.prod(PATCH))
    assert all(torch.equal(weights[name], tensor) for name, tensor in before.items())
    assert set(folded) == set(weights)
    assert folded["to_patch_embedding.2.weight"].shape == (DIM, math.prod(PATCH))
    assert fold_channels(folded, voxels=math.prod(PATCH)).keys() == folded.keys()
    with pytest.raises(ValueError, match="expected a multiple of the 7 voxels"):
        fold_channels(weights, voxels=7)


def test_checkpointing_gives_the_same_gradients(volumes: Tensor) -> None:
    plain, recomputing = (small_vit(dropout=0.0, embedding_dropout=0.0).double() for _ in range(2))
    recomputing.checkpointing = True
    recomputing.load_state_dict(plain.state_dict())
    for vit in (plain, recomputing):
        vit(volumes).square().sum().backward()
    for (name, a), b in zip(plain.named_parameters(), recomputing.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)


def test_gradients_are_right() -> None:
    vit = ViT3D((2, 2, 2), patch=(1, 2, 2), dim=3, depth=1, heads=1, head_dim=2, mlp_dim=4, table_size=(2, 2, 2))
    vit = vit.double().eval()
    inputs = torch.rand(1, 1, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(vit, inputs)


def test_dropout_acts_in_training_alone(volumes: Tensor) -> None:
    vit = small_vit().double()
    assert not torch.equal(vit(volumes), vit(volumes))
    vit.eval()
    assert torch.equal(vit(volumes), vit(volumes))


def test_default_is_the_published_size() -> None:
    with torch.device("meta"):
        vit = ViT3D()
        mask = TokenMean(ViT3D(patch=(32, 32, 16), table_size=(256, 256, 64), dim=255, depth=3, mlp_dim=512, shift=0.0))
    assert (vit.num_tokens, vit.out_channels) == (1024, 768)
    assert sum(p.numel() for p in vit.parameters()) == 66_208_000 - 2 * 4096 * (768 + 2)  # two channels folded away
    assert len(vit.state_dict()) == 141
    assert (mask.num_tokens, mask.out_channels, mask.encoder.num_tokens) == (1, 255, 256)
    assert sum(p.numel() for p in mask.parameters()) == 6_569_359
    assert len(mask.state_dict()) == 42


def test_position_rows_follow_the_published_rule() -> None:
    with torch.device("cpu"):
        vit = ViT3D(depth=0, dim=3)
    assert vit.get_buffer("rows_h").tolist() == list(range(1, 16, 2))
    assert vit.get_buffer("rows_d").tolist() == list(range(7, 128, 8))


@pytest.mark.parametrize(
    ("file", "prefix"), [("keys_radfm_vit3d", ""), ("keys_reg2rg", "embedding_layer.mask_encoder.")]
)
def test_names_and_shapes_of_the_published_files(file: str, prefix: str) -> None:
    shared = Path(os.environ.get("REG2RG_SHARED", Path(__file__).resolve().parents[4] / "shared"))
    path = shared / "facts" / "state_dict_keys" / f"{file}.json"
    if not path.is_file():
        pytest.skip(f"no list of published names at {path}")
    listed = {
        name.removeprefix(prefix): torch.empty(shape, device="meta")
        for name, (shape, _) in json.loads(path.read_text()).items()
        if name.startswith(prefix)
    }
    with torch.device("meta"):
        vit = ViT3D()
        if prefix:
            vit = ViT3D(patch=(32, 32, 16), table_size=(256, 256, 64), dim=255, depth=3, mlp_dim=512)
    renamed = {name: tuple(tensor.shape) for name, tensor in rename_vit3d(listed).items()}
    own = {name: tuple(tensor.shape) for name, tensor in vit.state_dict().items()}
    if not prefix:  # the only difference are the two channels that are folded away
        assert renamed.pop("patch_norm.weight") == renamed.pop("patch_norm.bias") == (12288,)
        assert renamed.pop("patch_linear.weight") == (768, 12288)
        own = {name: shape for name, shape in own.items() if name in renamed}
        assert len(own) == 138
    assert renamed == own


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 16}, "expected a multiple of 3"),
        ({"size": (15, 8, 12)}, "does not divide into patches"),
        ({"table_size": (8, 16, 24)}, "raise table_size"),
    ],
)
def test_refuses_sizes_that_cannot_be(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_vit(**changes)


def test_names_both_shapes_when_the_input_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"\(2, 1, 16, 8, 9\), expected \(N, 1, 16, 8, 12\)"):
        small_vit()(torch.zeros(2, 1, 16, 8, 9))


def test_whole_model_in_bfloat16_takes_float32_views(volumes: Tensor) -> None:
    vit = small_vit().bfloat16().eval()
    assert vit(volumes.float()).dtype == torch.bfloat16
    assert F.mse_loss(vit(volumes.float()).float(), small_like(vit)(volumes.float())) < 1e-2


def small_like(vit: ViT3D) -> ViT3D:
    copy = small_vit().eval()
    copy.load_state_dict(vit.state_dict())
    return copy
