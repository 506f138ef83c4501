"""Frozen and TokenMean, and weights from files."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from reg2rg.core.errors import ConfigError
from reg2rg.models.encoders import CNN3D, Encoder, Frozen, PerceiverResampler, TokenMean, ViT3D
from reg2rg.models.encoders.weights import read_weights

SIZE = (16, 16, 8)


def vit(**changes: object) -> ViT3D:
    arguments: dict[str, object] = {
        "size": SIZE, "patch": (8, 8, 4), "dim": 6, "depth": 1, "heads": 1, "head_dim": 4, "mlp_dim": 8,
        "table_size": SIZE, "dropout": 0.5,
    }  # fmt: skip
    return ViT3D(**{**arguments, **changes})  # type: ignore[arg-type]


def test_frozen_stays_in_eval_mode_and_out_of_the_graph() -> None:
    model = nn.ModuleDict({"encoder": Frozen(vit()), "projector": nn.Linear(6, 2)}).train()
    frozen = model["encoder"]
    assert frozen.training
    assert not any(module.training for module in frozen.encoder.modules())
    assert not any(p.requires_grad for p in frozen.parameters())
    volumes = torch.rand(2, 1, *SIZE)
    tokens = frozen(volumes)
    assert not tokens.requires_grad
    assert torch.equal(tokens, frozen(volumes))
    model["projector"](tokens).sum().backward()  # frozen tokens may be saved for a backward pass


def test_frozen_with_the_published_dropout_acts_in_training_alone() -> None:
    frozen, volumes = Frozen(vit(), dropout=True).train(), torch.rand(1, 1, *SIZE)
    assert not torch.equal(frozen(volumes), frozen(volumes))
    frozen.eval()
    assert torch.equal(frozen(volumes), frozen(volumes))


def test_frozen_in_chunks_is_the_same() -> None:
    encoder, volumes = vit().eval(), torch.rand(5, 1, *SIZE)
    torch.testing.assert_close(Frozen(encoder, chunk=2)(volumes), Frozen(encoder)(volumes))
    with pytest.raises(ValueError, match="chunk is -1"):
        Frozen(encoder, chunk=-1)


@pytest.mark.parametrize(("size", "expected"), [(SIZE, [3]), ((80, 80, 48), [1, 1, 1])])
def test_frozen_takes_a_thousand_tokens_at_a_time_on_a_cpu(size: tuple[int, int, int], expected: list[int]) -> None:
    """8 tokens a volume: all three at once; 1,200: one by one."""
    encoder, passed = vit(size=size, table_size=size).eval(), []
    encoder.register_forward_hook(lambda _, args, __: passed.append(len(args[0])))
    Frozen(encoder)(torch.rand(3, 1, *size))
    assert passed == expected


def test_only_the_resampler_above_a_frozen_encoder_trains() -> None:
    model = PerceiverResampler(Frozen(vit()), num_latents=2, depth=1, heads=1, head_dim=4).train()
    model(torch.rand(1, 1, *SIZE)).square().sum().backward()
    assert all((p.grad is not None) == name.startswith("resampler.") for name, p in model.named_parameters())


def test_token_mean() -> None:
    encoder, volumes = vit().eval(), torch.rand(2, 1, *SIZE)
    assert torch.equal(TokenMean(encoder)(volumes), encoder(volumes).mean(1, keepdim=True))


def test_frozen_loads_own_weights(tmp_path: Path) -> None:
    source: Encoder = CNN3D(SIZE, channels=(8, 8), grid=(1, 1, 1), dim=4)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    frozen = Frozen(CNN3D(SIZE, channels=(8, 8), grid=(1, 1, 1), dim=4), weights=str(tmp_path / "w.safetensors"))
    volumes = torch.rand(1, 1, *SIZE)
    assert torch.equal(frozen(volumes), source.eval()(volumes))


def test_refuses_weights_of_another_encoder(tmp_path: Path) -> None:
    save_file({**vit(mlp_dim=9).state_dict(), "extra": torch.zeros(1)}, tmp_path / "w.safetensors")
    encoder = vit()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    with pytest.raises(ConfigError, match=r"unknown extra; blocks\.0\.mlp_in\.\w+ has shape \(9.*expected \(8"):
        Frozen(encoder, weights=str(tmp_path / "w.safetensors"))
    assert all(torch.equal(encoder.state_dict()[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("name", ["missing.safetensors", "broken.safetensors", "code.pth", "list.pth", "empty.pth"])
def test_a_file_that_holds_no_weights_is_one_message(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "broken.safetensors":
        path.write_bytes(b"not tensors")
    elif name == "code.pth":
        torch.save({"a": Path("x")}, path)
    elif name == "list.pth":
        torch.save({"a": [1, 2]}, path)
    elif name == "empty.pth":
        torch.save({}, path)
    with pytest.raises(ConfigError, match=f"weights .*{name}"):
        read_weights(path)
