"""ViT3D: sizes, names, dropout, checkpointing. Its numbers are held in tests/parity."""

import json
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from reg2rg.models.encoders import TokenMean, ViT3D
from reg2rg.models.encoders.weights_radfm import rename_vit3d

SIZE, PATCH, TABLES = (16, 8, 12), (4, 4, 3), (32, 16, 24)
DIM, DEPTH, HEADS, HEAD_DIM, MLP = 12, 2, 3, 5, 14


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


def test_checkpointing_gives_the_same_gradients(volumes: Tensor) -> None:
    plain, recomputing = (small_vit(dropout=0.0, embedding_dropout=0.0).double() for _ in range(2))
    recomputing.checkpointing = True
    recomputing.load_state_dict(plain.state_dict())
    for vit in (plain, recomputing):
        vit(volumes).square().sum().backward()
    for (name, a), b in zip(plain.named_parameters(), recomputing.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)


def test_folding_the_norm_over_a_patch_changes_no_gradient(volumes: Tensor) -> None:
    """Volumes that need no gradient take the shorter way."""
    vit = small_vit(shift=0.0).double().eval()
    for parameter in (vit.patch_norm.weight, vit.patch_norm.bias):
        torch.nn.init.normal_(parameter)
    found = []
    for volume in (volumes, volumes.clone().requires_grad_()):
        tokens = vit(volume)
        found.append([tokens, *torch.autograd.grad(tokens.square().sum(), list(vit.parameters()))])
    with torch.no_grad():
        torch.testing.assert_close(vit(volumes), found[0][0])
    torch.testing.assert_close(found[0], found[1])


def test_the_norm_over_a_patch_keeps_no_more_than_it_needs(volumes: Tensor) -> None:
    """Of all that is as large as the patches, the standardised ones alone are kept for the backward pass."""
    vit, kept = small_vit().double(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t.numel()), t)[1], lambda t: t):
        vit(volumes)
    assert sum(size == volumes.numel() for size in kept) == 1


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


@pytest.mark.parametrize(
    ("file", "prefix"), [("keys_radfm_vit3d", ""), ("keys_reg2rg", "embedding_layer.mask_encoder.")]
)
def test_names_and_shapes_of_the_published_files(file: str, prefix: str) -> None:
    shared = Path(os.environ.get("REG2RG_SHARED", Path(__file__).resolve().parents[5] / "shared"))
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
