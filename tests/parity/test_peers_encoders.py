"""Encoders of other systems against their published formulas: outputs and gradients in double precision."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from parity import peers_reference as reference
from parity.agreement import EXACT, exactly, gradient, leaves
from parity.forms import Shapes, random_volumes, random_weights
from parity.ours import Given, part
from reg2rg.extras.peers import AttentionPool, CTViT, M3DViT, ModifiedResNet, QueryDecoder, SwinDepthChannels
from reg2rg.extras.peers.codebook import CosineCodebook
from reg2rg.extras.peers.medvint import _CLIP_MEAN, _CLIP_STD
from reg2rg.models.encoders import TokenPool
from reg2rg.models.encoders.axes import as_images, to_square
from reg2rg.models.encoders.weights import load_checked

Weights = dict[str, Tensor]


def pair(name: str, out: int, *into: int) -> Shapes:
    return {f"{name}.weight": (out, *into), f"{name}.bias": (out,)}


def agree(
    module: nn.Module, adapted: Weights, volumes: Tensor, published: Weights, formula: Callable[[Tensor], Tensor]
) -> None:
    """Outputs, the gradient of the volumes, and those of weights that both have under the same tensor."""
    module.double().eval()
    load_checked(module, {name: tensor.detach() for name, tensor in adapted.items()}, "published form")
    ours, theirs = volumes.clone().requires_grad_(), volumes.clone().requires_grad_()
    found, expected = module(ours), torch.stack([formula(one) for one in theirs])
    assert exactly(found, expected) < EXACT
    weighting = torch.randn(expected.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    (expected * weighting).sum().backward()
    (found * weighting).sum().backward()
    assert exactly(gradient(ours), gradient(theirs)) < EXACT
    own, compared = dict(module.named_parameters()), 0
    for name, tensor in adapted.items():
        source = next((given for given in published.values() if given is tensor), None)
        if source is not None and name in own:
            compared += 1
            assert exactly(gradient(own[name]), gradient(source)) < EXACT, name
    assert compared > len(own) * 0.9


# ---- M3D

M3D = {"size": (6, 8, 4), "patch": (3, 2, 2), "dim": 6, "depth": 2, "heads": 3, "mlp_dim": 7}


def m3d_shapes(dim: int = 6, depth: int = 2, mlp: int = 7, tokens: int = 16, voxels: int = 12) -> Shapes:
    found = {
        "cls_token": (1, 1, dim),
        "patch_embedding.position_embeddings": (1, tokens, dim),
        **pair("patch_embedding.patch_embeddings.1", dim, voxels),
        **pair("norm", dim),
    }
    for n in range(depth):
        found |= {
            **pair(f"blocks.{n}.norm1", dim),
            f"blocks.{n}.attn.qkv.weight": (3 * dim, dim),
            **pair(f"blocks.{n}.attn.out_proj", dim, dim),
            **pair(f"blocks.{n}.norm2", dim),
            **pair(f"blocks.{n}.mlp.linear1", mlp, dim),
            **pair(f"blocks.{n}.mlp.linear2", dim, mlp),
        }
    return found


@pytest.mark.parametrize("orientation", ["array", "image"])
def test_m3d(orientation: str) -> None:
    """All three sizes and patches differ, so that axes that are taken for each other show."""
    published = leaves(random_weights(m3d_shapes(), 0))
    vit = M3DViT(**M3D, orientation=orientation)  # type: ignore[arg-type]
    # Slices first; in pictures rows run along the second axis from its end, columns along the first from its end.
    # The published network has voxels in [0, 1].
    turn = (lambda v: v.permute(2, 0, 1)) if orientation == "array" else (lambda v: v.permute(2, 1, 0).flip(1, 2))
    patch = (2, 3, 2) if orientation == "array" else (2, 2, 3)
    volumes = random_volumes(2, (1, 6, 8, 4), 1).double()
    agree(
        vit,
        dict(vit.adapt_weights(published)),
        volumes,
        published,
        lambda v: reference.m3d(turn((v[0] + 1) / 2), published, patch, 3),
    )
    assert vit.grid == ((2, 2, 4) if orientation == "array" else (2, 4, 2))


def test_spatial_pooling() -> None:
    grid, window = (2, 4, 6), (2, 2, 3)
    volumes = random_volumes(2, (1, 48, 5, 1), 2).double()
    pooled = TokenPool(Given(48, 5), window, grid)(volumes)
    expected = torch.stack([reference.block_means(v.reshape(48, 5), grid, window) for v in volumes])
    assert exactly(pooled, expected) < EXACT


# ---- CTViT

CT = {
    "size": (4, 6, 6),
    "patch": (2, 2, 3),
    "dim": 6,
    "spatial_depth": 1,
    "temporal_depth": 2,
    "heads": 2,
    "head_dim": 3,
}
"""Grid of 2 x 2 x 3 in t, h, w: no cube, or a wrong reshape would go unseen."""


def ct_shapes(dim: int = 6, voxels: int = 12, inner: int = 6, head: int = 3, mlp: int = 16) -> Shapes:
    found = {
        **pair("spatial_rel_pos_bias.net.0.0", dim, 2),
        **pair("spatial_rel_pos_bias.net.1.0", dim, dim),
        **pair("spatial_rel_pos_bias.net.2", 2, dim),
        **pair("to_patch_emb.1", voxels),
        **pair("to_patch_emb.2", dim, voxels),
        **pair("to_patch_emb.3", dim),
        "vq._codebook.embed": (1, 5, dim),
    }
    for name, depth in (("enc_spatial_transformer", 1), ("enc_temporal_transformer", 2)):
        found[f"{name}.norm_out.gamma"] = (dim,)
        for n in range(depth):
            at = f"{name}.layers.{n}"
            found |= {
                **pair(f"{at}.0.dsconv", dim, 1, 3, 3, 3),
                f"{at}.1.q_scale": (head,),
                f"{at}.1.k_scale": (head,),
                f"{at}.1.norm.gamma": (dim,),
                f"{at}.1.to_q.weight": (inner, dim),
                f"{at}.1.to_kv.weight": (2 * inner, dim),
                f"{at}.1.to_out.weight": (dim, inner),
                **pair(f"{at}.3.0", dim),
                f"{at}.3.1.weight": (2 * mlp, dim),
                f"{at}.3.4.weight": (dim, mlp),
            }
    return found


@pytest.mark.parametrize("quirk", [True, False])
def test_ctvit(quirk: bool) -> None:
    published = leaves(random_weights(ct_shapes(), 0))
    vit = CTViT(**CT, codes=0, published_quirks=quirk)  # type: ignore[arg-type]
    volumes = random_volumes(2, (1, 4, 6, 6), 1).double()
    agree(
        vit,
        dict(vit.adapt_weights(published)),
        volumes,
        published,
        lambda v: reference.ctvit(v[0].permute(2, 0, 1), published, (3, 2, 2), quirk),
    )
    assert vit.grid == (2, 2, 3)


def test_the_quirk_matters_and_is_the_published_way() -> None:
    weights = random_weights(ct_shapes(), 0)
    slices = random_volumes(1, (6, 4, 6), 1)[0].double()
    wrong, right = (reference.ctvit(slices, weights, (3, 2, 2), quirk) for quirk in (True, False))
    assert exactly(wrong, right) > 1e-3


def test_tokens_become_codes_and_gradients_pass() -> None:
    weights = random_weights(ct_shapes(), 0)
    arguments = {**CT, "codebook_update": "ema"}
    vit = CTViT(**arguments, codes=5).double()  # type: ignore[arg-type]
    load_checked(vit, vit.adapt_weights(weights), "published form")
    volumes = random_volumes(2, (1, 4, 6, 6), 1).double()
    tokens = [reference.ctvit(v[0].permute(2, 0, 1), weights, (3, 2, 2)) for v in volumes]
    codes = weights["vq._codebook.embed"][0]
    expected = torch.stack([codes[reference.nearest(one, codes)] for one in tokens])
    with torch.no_grad():
        assert exactly(vit.eval()(volumes), expected) < EXACT
        assert exactly(vit.codebook.vectors[0], codes) == 0  # type: ignore[union-attr]
        assert exactly(vit.train()(volumes), expected) < EXACT
    moved = reference.moved_codes(torch.cat(tokens), codes, decay=0.8)
    assert exactly(vit.codebook.vectors[0], moved) < EXACT  # type: ignore[union-attr]


def test_straight_through() -> None:
    """In training the output is the code, and its gradient goes to the token as it is."""
    book, tokens = CosineCodebook(3, 4).double().train(), torch.randn(1, 6, 3, dtype=torch.float64, requires_grad=True)
    weighting = torch.randn(1, 6, 3, dtype=torch.float64)
    out = book(tokens)
    (out * weighting).sum().backward()
    assert exactly(gradient(tokens), weighting) == 0
    assert exactly(out, book.eval()(tokens)) < EXACT


# ---- CT-CHAT's pooler


def test_attention_pool() -> None:
    dim = 6
    published = leaves(
        random_weights(
            {
                "attn_pool.query": (3, dim),
                **pair("attn_pool.ln_k", dim),
                **pair("attn_pool.ln_q", dim),
                "attn_pool.to_q.weight": (dim, dim),
                "attn_pool.to_kv.weight": (2 * dim, dim),
                "attn_pool.to_out.weight": (dim, dim),
            },
            0,
        )
    )
    from reg2rg.extras.peers.weights import rename_ctchat_pooler

    pool = AttentionPool(Given(5, dim), num_queries=3, heads=2)
    adapted = {f"pooler.{name}": tensor for name, tensor in rename_ctchat_pooler(published).items()}
    volumes = random_volumes(2, (1, 5, dim, 1), 1).double()
    agree(pool, adapted, volumes, published, lambda v: reference.attention_pool(v[0, :, :, 0], published, 2))


# ---- MedVInT


def decoder_shapes(dim: int = 6, mlp: int = 9, depth: int = 2, queries: int = 3) -> Shapes:
    found: Shapes = {"query_embed.weight": (queries, dim), **pair("decoder.norm", dim)}
    for n in range(depth):
        at = f"decoder.layers.{n}"
        for name in ("self_attn", "multihead_attn"):
            found |= {f"{at}.{name}.in_proj_weight": (3 * dim, dim), f"{at}.{name}.in_proj_bias": (3 * dim,)}
            found |= pair(f"{at}.{name}.out_proj", dim, dim)
        found |= {**pair(f"{at}.linear1", mlp, dim), **pair(f"{at}.linear2", dim, mlp)}
        found |= {k: v for i in "123" for k, v in pair(f"{at}.norm{i}", dim).items()}
    return found


def test_query_decoder() -> None:
    published = leaves(random_weights(decoder_shapes(), 0))
    decoder = QueryDecoder(Given(5, 6), num_queries=3, depth=2, heads=2, mlp_dim=9)
    volumes = random_volumes(2, (1, 5, 6, 1), 1).double()
    adapted = dict(decoder.adapt_weights(published))
    agree(decoder, adapted, volumes, published, lambda v: reference.query_decoder(v[0, :, :, 0], published, 2))


def resnet_shapes(width: int = 4, blocks: tuple[int, int, int] = (2, 1, 2), colours: int = 3) -> Shapes:
    def norm(name: str, channels: int) -> Shapes:
        return {f"{name}.{kind}": (channels,) for kind in ("weight", "bias", "running_mean", "running_var")}

    half = width // 2
    found: Shapes = {
        "0.weight": (half, colours, 3, 3),
        **norm("1", half),
        "3.weight": (half, half, 3, 3),
        **norm("4", half),
    }
    found |= {"6.weight": (width, half, 3, 3), **norm("7", width)}
    before = width
    for stage, count in enumerate(blocks):
        inner = width * 2**stage
        for block in range(count):
            at = f"{10 + stage}.{block}"
            found |= {f"{at}.conv1.weight": (inner, before, 1, 1), **norm(f"{at}.bn1", inner)}
            found |= {f"{at}.conv2.weight": (inner, inner, 3, 3), **norm(f"{at}.bn2", inner)}
            found |= {f"{at}.conv3.weight": (4 * inner, inner, 1, 1), **norm(f"{at}.bn3", 4 * inner)}
            if not block:
                found |= {
                    f"{at}.downsample.0.weight": (4 * inner, before, 1, 1),
                    **norm(f"{at}.downsample.1", 4 * inner),
                }
            before = 4 * inner
    return found


def resnet_weights(**changes: int) -> Weights:
    """Variances positive, and kernels of a size that keeps the numbers ordinary."""
    drawn = random_weights(resnet_shapes(**changes), 0)
    kernels = {name: tensor / tensor[0].numel() ** 0.5 for name, tensor in drawn.items() if tensor.ndim == 4}
    variances = {name: tensor.abs() + 0.5 for name, tensor in drawn.items() if name.endswith("running_var")}
    return {**drawn, **kernels, **variances}


def test_resnet() -> None:
    """The map, with as many channels as slices: all of the published form but the number of colours."""
    published = leaves({f"vision_model.{name}": tensor for name, tensor in resnet_weights(colours=5).items()})
    net = ModifiedResNet(size=(24, 40, 5), image_size=32, width=4, blocks=(2, 1, 2))

    def formula(volume: Tensor) -> Tensor:
        image = (to_square(as_images(volume), 32) - _CLIP_MEAN) / _CLIP_STD
        return reference.resnet(image[0], part(published, "vision_model.")).flatten(1).T

    volumes = random_volumes(2, (1, 24, 40, 5), 1).double()
    agree(net, dict(net.adapt_weights(published)), volumes, published, formula)


def test_widened_convolution_answers_equal_slices_as_a_grey_picture() -> None:
    weights = resnet_weights(colours=3)
    net = ModifiedResNet(size=(32, 32, 7), image_size=32, width=4, blocks=(2, 1, 2)).double().eval()
    load_checked(net, net.adapt_weights(weights), "published form")
    slice_ = random_volumes(1, (1, 32, 32, 1), 1).double()
    image = (as_images(slice_[0]) - _CLIP_MEAN) / _CLIP_STD
    expected = reference.resnet(image[0].expand(3, -1, -1), weights).flatten(1).T
    with torch.no_grad():
        assert exactly(net(slice_.expand(-1, -1, -1, -1, 7))[0], expected) < EXACT


# ---- Swin: an implementation of others, for there are no formulas to go by


@pytest.fixture
def hugging_face_swin():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"embed_dim": 8, "depths": [2, 3], "num_heads": [2, 4], "window_size": 4, "drop_path_rate": 0.0}
    config = transformers.SwinConfig(image_size=32, patch_size=2, num_channels=3, **sizes)
    model = transformers.SwinForImageClassification(config).double().eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def swin(slices: int) -> SwinDepthChannels:
    sizes = {"embed_dim": 8, "depths": (2, 3), "heads": (2, 4), "window": 4}
    return SwinDepthChannels((32, 32, slices), image_size=32, patch_size=2, **sizes).double().eval()  # type: ignore[arg-type]


def test_swin_from_a_file_of_hugging_face(hugging_face_swin, tmp_path) -> None:
    from reg2rg.extras.peers.swin2d import _MEAN, _STD
    from reg2rg.models.encoders.weights import read_weights

    hugging_face_swin.save_pretrained(tmp_path)
    saved = read_weights(tmp_path)
    volumes = random_volumes(2, (1, 32, 32, 3), 1).double()
    images = (as_images(volumes.squeeze(1)) - _MEAN) / _STD
    expected = hugging_face_swin.swin(images).last_hidden_state
    in_a_checkpoint = {
        f"visual_encoder.{name.removeprefix('swin.')}": tensor for name, tensor in saved.items() if "swin." in name
    }
    for file in (saved, {**in_a_checkpoint, "llama_proj.weight": torch.zeros(2, 2)}):
        ours = swin(3)
        load_checked(ours, ours.adapt_weights(file), "a file")
        assert exactly(ours(volumes), expected) < EXACT
        own = dict(ours.state_dict())
        assert ours.adapt_weights(own) == own
        timm = {name.removeprefix("swin."): tensor for name, tensor in own.items()}
        assert dict(ours.adapt_weights(timm)).keys() == own.keys()


def test_swin_on_equal_slices_answers_as_on_a_grey_picture(hugging_face_swin, tmp_path) -> None:
    from reg2rg.models.encoders.weights import read_weights

    hugging_face_swin.save_pretrained(tmp_path)
    saved, slice_ = read_weights(tmp_path), random_volumes(1, (1, 32, 32, 1), 1).double()
    found = []
    for slices in (3, 10):
        ours = swin(slices)
        adapted = dict(ours.adapt_weights(saved))
        first = adapted["swin.patch_embed.proj.weight"]
        if slices == 3:  # equal kernels, for that is all that a grey picture tells of them
            adapted["swin.patch_embed.proj.weight"] = first.mean(1, keepdim=True).expand(-1, 3, -1, -1)
        load_checked(ours, adapted, "a file")
        found.append(ours(slice_.expand(-1, -1, -1, -1, slices)))
    assert exactly(found[1], found[0]) < EXACT
