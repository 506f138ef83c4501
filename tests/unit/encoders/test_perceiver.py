"""PerceiverResampler against a plain float64 rewriting of the published equations."""

import json
import math
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from reg2rg.encoders import Encoder, PerceiverResampler
from reg2rg.encoders.published import rename_perceiver
from reg2rg.errors import ConfigError

DIM, LATENTS, DEPTH, HEADS, HEAD_DIM, MULT, TOKENS = 6, 3, 2, 2, 5, 2, 4
Weights = dict[str, Tensor]


class Columns(Encoder):
    """The voxels of each row as a token: an encoder that a test can see through."""

    def __init__(self, tokens: int = TOKENS, dim: int = DIM) -> None:
        super().__init__()
        self.num_tokens, self.out_channels = tokens, dim

    def forward(self, volumes: Tensor) -> Tensor:
        return volumes.reshape(len(volumes), self.num_tokens, self.out_channels)


def published_weights() -> Weights:
    generator = torch.Generator().manual_seed(0)
    inner, hidden = HEADS * HEAD_DIM, MULT * DIM
    shapes: dict[str, tuple[int, ...]] = {"latents": (LATENTS, DIM), "norm.weight": (DIM,), "norm.bias": (DIM,)}
    for n in range(DEPTH):
        shapes |= {
            f"layers.{n}.0.norm_{kind}.{part}": (DIM,) for kind in ("media", "latents") for part in ("weight", "bias")
        }
        shapes |= {
            f"layers.{n}.0.to_q.weight": (inner, DIM),
            f"layers.{n}.0.to_kv.weight": (2 * inner, DIM),
            f"layers.{n}.0.to_out.weight": (DIM, inner),
            f"layers.{n}.1.0.weight": (DIM,),
            f"layers.{n}.1.0.bias": (DIM,),
            f"layers.{n}.1.1.weight": (hidden, DIM),
            f"layers.{n}.1.3.weight": (DIM, hidden),
        }
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


def layer_norm(x: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
    mean = x.sum(-1, keepdim=True) / x.shape[-1]
    variance = ((x - mean) ** 2).sum(-1, keepdim=True) / x.shape[-1]
    return (x - mean) / torch.sqrt(variance + 1e-5) * gain + offset


def plain_perceiver(tokens: Tensor, w: Weights) -> Tensor:
    """Tokens (T, C) of one volume to latents, as the published code describes itself."""
    x = w["latents"]
    for n in range(DEPTH):
        a, f = f"layers.{n}.0", f"layers.{n}.1"
        media = layer_norm(tokens, w[f"{a}.norm_media.weight"], w[f"{a}.norm_media.bias"])
        latents = layer_norm(x, w[f"{a}.norm_latents.weight"], w[f"{a}.norm_latents.bias"])
        both = torch.cat([media, latents])
        query = (latents @ w[f"{a}.to_q.weight"].T).reshape(-1, HEADS, HEAD_DIM) * HEAD_DIM**-0.5
        key, value = (both @ w[f"{a}.to_kv.weight"].T).reshape(-1, 2, HEADS, HEAD_DIM).unbind(1)
        logits = torch.einsum("qhk,thk->hqt", query, key)
        logits = logits - logits.amax(-1, keepdim=True)
        share = logits.exp() / logits.exp().sum(-1, keepdim=True)
        mixed = torch.einsum("hqt,thk->qhk", share, value).reshape(LATENTS, -1)
        x = x + mixed @ w[f"{a}.to_out.weight"].T
        hidden = layer_norm(x, w[f"{f}.0.weight"], w[f"{f}.0.bias"]) @ w[f"{f}.1.weight"].T
        hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
        x = x + hidden @ w[f"{f}.3.weight"].T
    return layer_norm(x, w["norm.weight"], w["norm.bias"])


def small_perceiver(weights: str | None = None) -> PerceiverResampler:
    return PerceiverResampler(Columns(), LATENTS, DEPTH, HEADS, HEAD_DIM, MULT, weights)


def test_equals_the_published_equations() -> None:
    weights = published_weights()
    perceiver = small_perceiver().double()
    perceiver.resampler.load_state_dict(rename_perceiver(weights))
    volumes = torch.randn(3, 1, TOKENS, DIM, 1, dtype=torch.float64)
    expected = torch.stack([plain_perceiver(volume.reshape(TOKENS, DIM), weights) for volume in volumes])
    assert (perceiver(volumes) - expected).abs().max() < 1e-9


def test_gradients_are_right() -> None:
    perceiver = PerceiverResampler(Columns(2, 3), num_latents=2, depth=1, heads=1, head_dim=2, ff_mult=1).double()
    inputs = torch.randn(1, 1, 2, 3, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(perceiver, inputs)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_loads_published_weights(tmp_path: Path, suffix: str) -> None:
    weights = {name: tensor.float() for name, tensor in published_weights().items()}
    path = tmp_path / f"perceiver.{suffix}"
    if suffix == "pth":  # the published file holds a projector beside the resampler
        torch.save({"perceiver": weights, "fc": {"weight": torch.zeros(2, 2)}}, path)
    else:
        save_file(weights, path)
    perceiver = small_perceiver(str(path))
    assert torch.equal(perceiver.resampler.state_dict()["layers.1.query.weight"], weights["layers.1.0.to_q.weight"])


def test_refuses_weights_of_another_shape(tmp_path: Path) -> None:
    save_file(
        {name: tensor[..., :2].contiguous() for name, tensor in published_weights().items()}, tmp_path / "w.safetensors"
    )
    with pytest.raises(ConfigError, match=r"do not fit _Resampler: .* has shape .*, expected .* and \d+ more"):
        small_perceiver(str(tmp_path / "w.safetensors"))


def test_names_and_shapes_of_the_published_file() -> None:
    shared = Path(os.environ.get("REG2RG_SHARED", Path(__file__).resolve().parents[4] / "shared"))
    path = shared / "facts" / "state_dict_keys" / "keys_radfm_perceiver_fc.json"
    if not path.is_file():
        pytest.skip(f"no list of published names at {path}")
    listed = {n: torch.empty(s, device="meta") for n, (s, _) in json.loads(path.read_text())["perceiver"].items()}
    with torch.device("meta"):
        perceiver = PerceiverResampler(Columns(1024, 768))
    own = {name: tuple(tensor.shape) for name, tensor in perceiver.resampler.state_dict().items()}
    assert {name: tuple(tensor.shape) for name, tensor in rename_perceiver(listed).items()} == own
    assert sum(p.numel() for p in perceiver.parameters()) == 37_802_496
