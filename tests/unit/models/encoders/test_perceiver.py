"""PerceiverResampler: its files, names and sizes. Its numbers are held in tests/parity."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from parity.forms import PerceiverForm, random_weights
from parity.ours import Given
from reg2rg.core.errors import ConfigError
from reg2rg.models.encoders import PerceiverResampler
from reg2rg.models.encoders.weights_radfm import rename_perceiver

FORM, TOKENS = PerceiverForm(dim=6, latents=3, depth=2, heads=2, head_dim=5, mult=2), 4


def small_perceiver(weights: str | None = None) -> PerceiverResampler:
    encoder = Given(TOKENS, FORM.dim)
    return PerceiverResampler(encoder, FORM.latents, FORM.depth, FORM.heads, FORM.head_dim, FORM.mult, weights)


def test_gradients_are_right() -> None:
    perceiver = PerceiverResampler(Given(2, 3), num_latents=2, depth=1, heads=1, head_dim=2, ff_mult=1).double()
    inputs = torch.randn(1, 1, 2, 3, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(perceiver, inputs)


def test_both_ways_to_attend_give_the_same() -> None:
    perceiver = PerceiverResampler(Given(5, 6), num_latents=4, depth=1, heads=2, head_dim=3).double()
    (layer,) = perceiver.resampler.layers
    torch.nn.init.normal_(layer.media_norm.weight)
    shapes = (2, 5, 6), (2, 2, 4, 3), (2, 4, 12)  # tokens, queries, the latents' own keys and values
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    wanted = [*inputs, layer.media_norm.weight, layer.key_value.weight]
    found = []
    for way in (layer._attend_in_tokens, layer._attend_in_heads):
        output = way(*inputs)
        found.append([output, *torch.autograd.grad(output.square().sum(), wanted)])
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize(("latents", "way"), [(3, "_attend_in_tokens"), (4, "_attend_in_heads")])
def test_attends_the_cheaper_way(latents: int, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    perceiver = PerceiverResampler(Given(5, 6), latents, depth=1, heads=2, head_dim=3)
    (layer,) = perceiver.resampler.layers
    monkeypatch.setattr(type(layer), way, lambda _, tokens, query, own, mask: torch.zeros_like(query))
    silenced = perceiver(torch.ones(1, 1, 5, 6, 1))
    assert torch.equal(silenced, perceiver(torch.rand(1, 1, 5, 6, 1)))  # the latents never saw the tokens


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_loads_published_weights(tmp_path: Path, suffix: str) -> None:
    weights = random_weights(FORM.shapes(), 0, torch.float32)
    path = tmp_path / f"perceiver.{suffix}"
    if suffix == "pth":  # the published file holds a projector beside the resampler
        torch.save({"perceiver": weights, "fc": {"weight": torch.zeros(2, 2)}}, path)
    else:
        save_file(weights, path)
    perceiver = small_perceiver(str(path))
    assert torch.equal(perceiver.resampler.state_dict()["layers.1.query.weight"], weights["layers.1.0.to_q.weight"])


def test_refuses_weights_of_another_shape(tmp_path: Path) -> None:
    narrow = {name: tensor[..., :2].contiguous() for name, tensor in random_weights(FORM.shapes(), 0).items()}
    save_file(narrow, tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match=r"do not fit PerceiverLayers: .* has shape .*, expected .* and \d+ more"):
        small_perceiver(str(tmp_path / "w.safetensors"))


def test_names_and_shapes_of_the_published_file() -> None:
    shared = Path(os.environ.get("REG2RG_SHARED", Path(__file__).resolve().parents[5] / "shared"))
    path = shared / "facts" / "state_dict_keys" / "keys_radfm_perceiver_fc.json"
    if not path.is_file():
        pytest.skip(f"no list of published names at {path}")
    listed = {n: torch.empty(s, device="meta") for n, (s, _) in json.loads(path.read_text())["perceiver"].items()}
    with torch.device("meta"):
        perceiver = PerceiverResampler(Given(1024, 768))
    own = {name: tuple(tensor.shape) for name, tensor in perceiver.resampler.state_dict().items()}
    assert {name: tuple(tensor.shape) for name, tensor in rename_perceiver(listed).items()} == own
    assert sum(p.numel() for p in perceiver.parameters()) == 37_802_496
