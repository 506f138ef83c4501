"""Encoders of other systems: every published key accounted for, and loaded where the published file does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from parity.ours import Given
from published_files import fill, full, listed
from reg2rg.config.saving import build
from reg2rg.core.errors import ConfigError
from reg2rg.extras.convert import FORMATS, account, convert
from reg2rg.extras.peers import AttentionPool, CTViT, M3DViT, ModifiedResNet, QueryDecoder
from reg2rg.models.encoders import Encoder, Pretrained
from reg2rg.models.encoders.weights import load_checked
from reg2rg.models.tensors import TensorEntry

CTCLIP, CT2REP, CTCHAT = "visual_transformer.", "visual_extractor.model.", "model.mm_projector."
LISTS = {
    "m3d-clip": ("m3d_vit", 138, 138),
    "ctclip-ctvit": ("ctclip_ctvit", 157, 111),
    "ct2rep-ctvit": ("ct2rep_ctvit_novgg", 357, 111),
    "medvint": ("medvint_td_vision", 493, 444),
    "ctchat-pooler": ("ctchat_projector_h4096", 14, 8),
}
"""Format -> list of its keys, how many there are, how many are kept."""
PREFIXES = {"ctclip-ctvit": CTCLIP, "ct2rep-ctvit": CT2REP, "ctchat-pooler": CTCHAT}


def full_encoder(name: str) -> torch.nn.Module:
    with torch.device("meta"):
        if name == "m3d-clip":
            return M3DViT()
        if name == "ctclip-ctvit":
            return CTViT(patch=(20, 20, 10))
        if name == "ct2rep-ctvit":
            return CTViT()
        if name == "medvint":
            return QueryDecoder(ModifiedResNet())
        return AttentionPool(Given(13824, 512)).pooler


@pytest.mark.parametrize("prefixed", [True, False])
@pytest.mark.parametrize("name", LISTS)
def test_the_full_size_fits(name: str, prefixed: bool) -> None:
    """All keys and shapes of the published lists, against modules of the published sizes; no memory is touched."""
    list_name, keys, kept = LISTS[name]
    prefix = PREFIXES.get(name, "") if prefixed else ""
    tensors = {prefix + key: tensor for key, tensor in full(list_name).items()}
    entries = {k: TensorEntry(tuple(t.shape), t.dtype, lambda: torch.zeros(0)) for k, t in tensors.items()}
    format_ = FORMATS[name]
    found = account(format_.keys, format_.layers, entries, name, "")
    assert len(found.kept) + len(found.used) + len(found.dropped) == len(tensors) == keys
    assert len(found.kept) == kept
    assert {key: found.sizes[key] for key in format_.sizes} == dict(format_.sizes)
    own = {key: tuple(t.shape) for key, t in full_encoder(name).state_dict().items()}
    if name == "medvint":  # three colours until it is loaded
        own["encoder.conv1.weight"] = (32, 3, 3, 3)
    assert {ours: tuple(tensors[theirs].shape) for ours, theirs in found.kept.items()} == own


@pytest.mark.parametrize("name", ["m3d-clip", "ctclip-ctvit", "ct2rep-ctvit", "medvint"])
def test_the_full_size_loads_directly(name: str) -> None:
    """The published file itself, without conversion, through the encoder's own translation."""
    encoder = full_encoder(name)
    assert isinstance(encoder, Encoder)
    zeros = {key: torch.zeros(()).expand(tensor.shape) for key, tensor in full(LISTS[name][0]).items()}
    prefixed = {PREFIXES.get(name, "") + key: tensor for key, tensor in zeros.items()}
    adapted = {key: tuple(tensor.shape) for key, tensor in encoder.adapt_weights(prefixed).items()}
    assert adapted == {key: tuple(tensor.shape) for key, tensor in encoder.state_dict().items()}
    lost = next(key for key in prefixed if key.endswith((".to_q.weight", "norm1.weight")))
    without = encoder.adapt_weights({key: tensor for key, tensor in prefixed.items() if key != lost})
    with pytest.raises(ConfigError, match="missing "):
        load_checked(encoder, without, "a file that lacks a key")
    more = encoder.adapt_weights({**prefixed, f"{PREFIXES.get(name, '')}surprise.weight": torch.zeros(2)})
    with pytest.raises(ConfigError, match=r"unknown .*surprise\.weight"):
        load_checked(encoder, more, "a file with a key too many")


# ---- reduced width, every key


def ct_weights(name: str) -> dict[str, Tensor]:
    sizes = {"s512": 8, "s256": 8, "s32": 4, "s8": 2, "s8192": 7, "s2730": 42, "s1365": 21}
    shapes = listed(LISTS[name][0], **sizes)
    # Two sizes share a number: keys and values are twice the inner width, which is as wide as the heads together.
    shapes = {key: (16, 8) if key.endswith("to_kv.weight") else shape for key, shape in shapes.items()}
    weights = fill(shapes)
    return {PREFIXES[name] + k: torch.zeros_like(t) if k.endswith(".beta") else t for k, t in weights.items()}


def medvint_weights() -> dict[str, Tensor]:
    """Everything 16 times narrower, but for the number of queries."""
    reduced = {}
    for key, tensor in full("medvint_td_vision").items():
        vision = key.startswith("vision_model.")
        reduced[key] = tuple(n if n <= 7 else (n // 16 if vision or n not in (32,) else n) for n in tensor.shape)
    counters = {key: torch.zeros((), dtype=torch.int64) for key, shape in reduced.items() if not shape}
    return {**fill({key: shape for key, shape in reduced.items() if shape}), **counters}


def built(folder: Any, **changes: Any) -> Encoder:
    """The component that the folder's config names."""

    class Holder:
        def __init__(self, encoder: Encoder) -> None:
            self.encoder = encoder

    component = yaml.safe_load((folder / "config.yaml").read_text())
    component["init_args"] |= changes
    encoder: Encoder = build(Holder, {"encoder": component}).encoder
    return encoder


def same(one: torch.nn.Module, other: torch.nn.Module) -> None:
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_m3d_loads_where_the_published_file_does(tmp_path) -> None:
    weights = fill(listed("m3d_vit", s2048=2048, s1024=1024, s2304=36, s768=12, s3072=24))
    torch.save(weights, tmp_path / "pretrained_ViT.bin")
    done = convert(tmp_path / "pretrained_ViT.bin", "m3d-clip", tmp_path / "out")
    encoder = built(done.folder)
    assert isinstance(encoder, M3DViT)
    assert (encoder.num_tokens, encoder.orientation) == (2048, "image")
    same(
        Pretrained(encoder, weights=str(done.folder)),
        Pretrained(built(done.folder), weights=str(tmp_path / "pretrained_ViT.bin")),
    )
    weights |= {"patch_embedding.patch_embeddings.1.weight": torch.zeros(12, 512)}
    torch.save(weights, tmp_path / "odd.bin")
    with pytest.raises(ConfigError, match=r"a patch has 512 numbers .expected 1024"):
        convert(tmp_path / "odd.bin", "m3d-clip", tmp_path / "odd")


@pytest.mark.parametrize(("name", "patch"), [("ctclip-ctvit", (20, 20, 10)), ("ct2rep-ctvit", (24, 24, 12))])
def test_ctvit_loads_where_the_published_file_does(tmp_path, name: str, patch: tuple[int, int, int]) -> None:
    """Whole checkpoints, with what else they hold."""
    weights = ct_weights(name)
    if name == "ctclip-ctvit":
        weights |= {"text_transformer.embeddings.word.weight": torch.zeros(3, 2), "temperature": torch.ones(())}
        weights |= {"to_visual_latent.weight": torch.zeros(2, 9), "to_text_latent.weight": torch.zeros(2, 3)}
    else:
        weights |= {f"{CT2REP}vgg.features.0.weight": torch.zeros(2, 3), "encoder_decoder.logit.bias": torch.zeros(4)}
    source = tmp_path / "checkpoint.pt"
    torch.save(weights, source)
    done = convert(source, name, tmp_path / "out")
    size = tuple(2 * edge for edge in patch)
    encoder = built(done.folder, size=list(size))
    assert isinstance(encoder, CTViT)
    assert (encoder.grid, encoder.patch, encoder.codebook.vectors.shape) == ((2, 2, 2), patch[::-1], (1, 7, 8))
    same(
        Pretrained(encoder, weights=str(done.folder)),
        Pretrained(built(done.folder, size=list(size)), weights=str(source)),
    )


def test_ctvit_with_an_offset_that_is_not_zero(tmp_path) -> None:
    weights = ct_weights("ctclip-ctvit")
    weights[f"{CTCLIP}enc_spatial_transformer.norm_out.beta"][0] = 1e-3
    torch.save(weights, tmp_path / "w.pt")
    with pytest.raises(ConfigError, match=r"enc_spatial_transformer.norm_out.beta is not zero"):
        convert(tmp_path / "w.pt", "ctclip-ctvit", tmp_path / "out")
    with pytest.raises(ValueError, match="is not zero, expected the zeros"):
        CTViT((40, 40, 20), (20, 20, 10), 8, codes=7).adapt_weights(weights)


def test_ctvit_without_a_codebook_takes_the_rest() -> None:
    encoder = CTViT((40, 40, 20), (20, 20, 10), 8, heads=2, head_dim=4, codes=0)
    load_checked(encoder, encoder.adapt_weights(ct_weights("ctclip-ctvit")), "published form")


@pytest.mark.parametrize("slices", [3, 10])
def test_medvint_loads_where_the_published_file_does(tmp_path, slices: int) -> None:
    """The folder keeps the three colours; the first convolution is widened to the slices when it is loaded."""
    weights = {**medvint_weights(), "llamacasual.model.norm.weight": torch.zeros(2)}
    torch.save(weights, tmp_path / "medvint.pth")
    done = convert(tmp_path / "medvint.pth", "medvint", tmp_path / "out")
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(written["encoder.conv1.weight"], weights["vision_model.0.weight"])
    made = []
    for file in (done.folder, tmp_path / "medvint.pth"):
        encoder = built(done.folder)
        assert isinstance(encoder, QueryDecoder)
        encoder.encoder = ModifiedResNet((32, 32, slices), 32, width=4)
        made.append(Pretrained(encoder, weights=str(file)))
    same(*made)
    assert made[0].num_tokens == 32
    assert made[0].state_dict()["encoder.encoder.conv1.weight"].shape == (2, slices, 3, 3)
    own = made[0].encoder.state_dict()
    assert made[0].encoder.adapt_weights(own).keys() == own.keys()


def test_ctchat_pooler_loads_where_the_published_file_does(tmp_path) -> None:
    shapes = listed("ctchat_projector_h4096", s512=16, s1024=32, s4096=5, s256=6)
    weights = {CTCHAT + name: tensor for name, tensor in fill(shapes).items()}
    save_file(weights, tmp_path / "projector.safetensors")
    done = convert(tmp_path / "projector.safetensors", "ctchat-pooler", tmp_path / "out")
    arguments = yaml.safe_load((done.folder / "config.yaml").read_text())["init_args"]
    assert arguments == {"num_queries": 6, "heads": 8}
    files = (done.folder, tmp_path / "projector.safetensors")
    same(*(AttentionPool(Given(4, 16), **arguments, weights=str(file)) for file in files))


def test_a_file_of_another_system_is_recognised(tmp_path) -> None:
    torch.save(ct_weights("ctclip-ctvit"), tmp_path / "w.pt")
    with pytest.raises(ConfigError, match="Fix: --from ctclip-ctvit"):
        convert(tmp_path / "w.pt", "m3d-clip", tmp_path / "out")
