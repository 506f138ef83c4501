"""Weights of other published systems under the names of this package: M3D, CT-CLIP and CT2Rep, MedVInT, CT-CHAT.

Each system has the list of its tensors that are kept, and what is left out with the reason. Names are translated one to
one; a name that is in neither list stays as it is and fails at the load.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from reg2rg.models.encoders.weights_radfm import PublishedKey, pair

_BLOCK = "blocks.{n}"
M3D_KEYS: tuple[PublishedKey, ...] = (
    PublishedKey("cls_token", "class_token", "1 1 dim"),
    PublishedKey("patch_embedding.position_embeddings", "positions", "1 tokens dim"),
    *pair("patch_embedding.patch_embeddings.1", "patch_linear", "dim patch", "dim"),
    *pair(f"{_BLOCK}.norm1", f"{_BLOCK}.attention_norm", "dim", "dim"),
    PublishedKey(f"{_BLOCK}.attn.qkv.weight", f"{_BLOCK}.attention.qkv.weight", "3*dim dim"),
    *pair(f"{_BLOCK}.attn.out_proj", f"{_BLOCK}.attention.out", "dim dim", "dim"),
    *pair(f"{_BLOCK}.norm2", f"{_BLOCK}.mlp_norm", "dim", "dim"),
    *pair(f"{_BLOCK}.mlp.linear1", f"{_BLOCK}.mlp_in", "mlp dim", "mlp"),
    *pair(f"{_BLOCK}.mlp.linear2", f"{_BLOCK}.mlp_out", "dim mlp", "dim"),
    *pair("norm", "norm", "dim", "dim"),
)
"""The vision transformer of M3D-CLIP (``pretrained_ViT.bin``)."""


def ctvit_transformer_keys(name: str, ours: str, layer: str = "n") -> tuple[PublishedKey, ...]:
    """Kept tensors of a spatial or temporal transformer of CTViT; `layer` is the word for the number of the layer."""
    at, to = f"{name}.layers.{{{layer}}}", f"{ours}.{{{layer}}}"
    return (
        *pair(f"{at}.0.dsconv", f"{to}.place.conv", "dim 1 3 3 3", "dim"),
        PublishedKey(f"{at}.1.q_scale", f"{to}.attention.query_scale", "head"),
        PublishedKey(f"{at}.1.k_scale", f"{to}.attention.key_scale", "head"),
        PublishedKey(f"{at}.1.norm.gamma", f"{to}.attention.norm.weight", "dim"),
        PublishedKey(f"{at}.1.to_q.weight", f"{to}.attention.query.weight", "inner dim"),
        PublishedKey(f"{at}.1.to_kv.weight", f"{to}.attention.key_value.weight", "2*inner dim"),
        PublishedKey(f"{at}.1.to_out.weight", f"{to}.attention.out.weight", "dim inner"),
        *pair(f"{at}.3.0", f"{to}.mlp_norm", "dim", "dim"),
        PublishedKey(f"{at}.3.1.weight", f"{to}.mlp_in.weight", "2*mlp dim"),
        PublishedKey(f"{at}.3.4.weight", f"{to}.mlp_out.weight", "dim mlp"),
        PublishedKey(f"{name}.norm_out.gamma", f"{ours}_norm.weight", "dim"),
    )


CTVIT_KEYS: tuple[PublishedKey, ...] = (
    *pair("spatial_rel_pos_bias.net.0.0", "bias.hidden_1", "dim 2", "dim"),
    *pair("spatial_rel_pos_bias.net.1.0", "bias.hidden_2", "dim dim", "dim"),
    *pair("spatial_rel_pos_bias.net.2", "bias.out", "heads dim", "heads"),
    *pair("to_patch_emb.1", "patch_norm", "patch", "patch"),
    *pair("to_patch_emb.2", "patch_linear", "dim patch", "dim"),
    *pair("to_patch_emb.3", "token_norm", "dim", "dim"),
    *ctvit_transformer_keys("enc_spatial_transformer", "spatial", "spatial"),
    *ctvit_transformer_keys("enc_temporal_transformer", "temporal", "temporal"),
    PublishedKey("vq._codebook.embed", "codebook.vectors", "1 codes dim"),
)
"""The encoder of CTViT with its codebook, as in CT-CLIP and CT2Rep."""
CTVIT_PREFIXES = ("visual_transformer.", "visual_extractor.model.")
"""What stands before its names in the files of CT-CLIP and CT2Rep."""
CTVIT_NOT_NEEDED: Mapping[str, str] = {
    "to_patch_emb_first_frame.": "patch embedding of a first frame, which encoding a scan does not use",
    "to_pixels_first_frame.": "decoder of the autoencoder",
    "to_pixels.": "decoder of the autoencoder",
    "dec_spatial_transformer.": "decoder of the autoencoder",
    "dec_temporal_transformer.": "decoder of the autoencoder",
    "discr.": "discriminator of the autoencoder's training",
    "vgg.": "perceptual loss of the autoencoder's training",
    "vq._codebook.initted": "state of the codebook's training",
    "vq._codebook.cluster_size": "state of the codebook's training",
}
"""Beginning of a name -> why the encoder has no place for it."""
CTVIT_UNUSED_ENDS: Mapping[str, str] = {
    ".null_kv": "an empty tensor",
    ".context_norm.gamma": "never applied in self-attention",
    ".context_norm.beta": "never applied in self-attention",
}
"""End of a name -> why it says nothing."""
ZERO_OFFSETS = ".beta"
"""End of the names of offsets that are zeros by construction: checked, then left out."""

CTCHAT_POOLER_KEYS: tuple[PublishedKey, ...] = (
    PublishedKey("attn_pool.query", "queries", "queries dim"),
    *pair("attn_pool.ln_k", "token_norm", "dim", "dim"),
    *pair("attn_pool.ln_q", "query_norm", "dim", "dim"),
    PublishedKey("attn_pool.to_q.weight", "query.weight", "dim dim"),
    PublishedKey("attn_pool.to_kv.weight", "key_value.weight", "2*dim dim"),
    PublishedKey("attn_pool.to_out.weight", "out.weight", "dim dim"),
)
"""The pooler inside CT-CHAT's projector."""
CTCHAT_PREFIX = "model.mm_projector."
CTCHAT_BEHIND = ("ln.", "proj.")
"""Beginnings of the names of what comes behind the pooler: it is as wide as CT-CHAT's language model."""

QUERY_DECODER_KEYS: tuple[PublishedKey, ...] = (
    PublishedKey("query_embed.weight", "queries", "queries dim"),
    *(
        PublishedKey(f"decoder.layers.{{n}}.{part}.{name}", f"layers.{{n}}.{part}.{name}", shape)
        for part in ("self_attn", "multihead_attn")
        for name, shape in (
            ("in_proj_weight", "3*dim dim"),
            ("in_proj_bias", "3*dim"),
            ("out_proj.weight", "dim dim"),
            ("out_proj.bias", "dim"),
        )
    ),
    *pair("decoder.layers.{n}.linear1", "layers.{n}.linear1", "mlp dim", "mlp"),
    *pair("decoder.layers.{n}.linear2", "layers.{n}.linear2", "dim mlp", "dim"),
    *(key for n in "123" for key in pair(f"decoder.layers.{{n}}.norm{n}", f"layers.{{n}}.norm{n}", "dim", "dim")),
    *pair("decoder.norm", "norm", "dim", "dim"),
)
"""MedVInT's decoder of learned queries."""
MEDVINT_VISION = "vision_model."
MEDVINT_BEHIND: Mapping[str, str] = {
    "fc_l1.": "projector to the width of MedVInT's own language model",
    "fc_l2.": "projector to the width of MedVInT's own language model",
    "llamacasual.": "MedVInT's language model",
}
COUNTERS = ".num_batches_tracked"
"""End of the names of counters that batch normalisation keeps for training."""


def resnet_keys(blocks: Sequence[int] = (3, 4, 6), width: str = "width") -> tuple[PublishedKey, ...]:
    """Tensors of PMC-CLIP's ResNet up to layer 3, by their places in MedVInT's sequence."""
    half = f"{width}/2"
    keys = [
        PublishedKey("0.weight", "conv1.weight", f"{half} colours 3 3"),
        *batch_norm_keys("1", "norm1", half),
        PublishedKey("3.weight", "conv2.weight", f"{half} {half} 3 3"),
        *batch_norm_keys("4", "norm2", half),
        PublishedKey("6.weight", "conv3.weight", f"{width} {half} 3 3"),
        *batch_norm_keys("7", "norm3", width),
    ]
    before = width
    for stage, count in enumerate(blocks):
        inner, outer = (width if times == 1 else f"{times}*{width}" for times in (2**stage, 4 * 2**stage))
        for block in range(count):
            names = f"{10 + stage}.{block}", f"stages.{stage}.{block}"
            keys += bottleneck_keys(*names, (before, inner, outer), "norm", axes=2, shortcut=block == 0)
            before = outer
    return tuple(keys)


def bottleneck_keys(
    name: str, ours: str, widths: tuple[str, str, str], norm: str, axes: int, shortcut: bool
) -> Iterator[PublishedKey]:
    """Tensors of one bottleneck block of a ResNet.

    Args:
        name: of the block, published.
        ours: its name here.
        widths: of what comes in, inside and of what goes out.
        norm: how a batch normalisation begins here; ``bn`` in the published name.
        axes: of the kernels, 2 or 3.
        shortcut: the block has a convolution beside.
    """
    before, inner, outer = widths
    point, kernel = " 1" * axes, " 3" * axes
    for place, shape in (
        (1, f"{inner} {before}{point}"),
        (2, f"{inner} {inner}{kernel}"),
        (3, f"{outer} {inner}{point}"),
    ):
        yield PublishedKey(f"{name}.conv{place}.weight", f"{ours}.conv{place}.weight", shape)
        yield from batch_norm_keys(f"{name}.bn{place}", f"{ours}.{norm}{place}", outer if place == 3 else inner)
    if shortcut:
        shape = f"{outer} {before}{point}"
        yield PublishedKey(f"{name}.downsample.0.weight", f"{ours}.shortcut_conv.weight", shape)
        yield from batch_norm_keys(f"{name}.downsample.1", f"{ours}.shortcut_{norm}", outer)


def batch_norm_keys(name: str, ours: str, width: str) -> Iterator[PublishedKey]:
    """Tensors of one batch normalisation."""
    parts = {"weight": "weight", "bias": "bias", "running_mean": "mean", "running_var": "var"}
    return (PublishedKey(f"{name}.{theirs}", f"{ours}.{to}", width) for theirs, to in parts.items())


def rename_m3d(weights: Mapping[str, Tensor], depth: int) -> dict[str, Tensor]:
    """Published names of M3D's vision transformer to those of `M3DViT`."""
    return _renamed(weights, expand(M3D_KEYS, n=depth))


def rename_ctvit(weights: Mapping[str, Tensor], spatial: int, temporal: int) -> dict[str, Tensor]:
    """Names in the files of CT-CLIP and CT2Rep to those of `CTViT`.

    Args:
        weights: a whole file, or its vision part, under its published names.
        spatial: layers of the spatial transformer.
        temporal: layers of the temporal one.

    Raises:
        ValueError: an offset that is not zero although the published code never changes it.
    """
    found = below(weights, CTVIT_PREFIXES)
    kept = {
        name: tensor
        for name, tensor in found.items()
        if not name.startswith(tuple(CTVIT_NOT_NEEDED)) and not name.endswith((*CTVIT_UNUSED_ENDS, ZERO_OFFSETS))
    }
    wrong = [name for name, tensor in found.items() if name.endswith(ZERO_OFFSETS) and bool(tensor.any())]
    if wrong:
        raise ValueError(f"{wrong[0]} is not zero, expected the zeros that the published code never changes")
    return _renamed(kept, expand(CTVIT_KEYS, spatial=spatial, temporal=temporal))


def rename_ctchat_pooler(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of CT-CHAT's projector to those of `AttentionPool`; what comes behind the pooler is left out."""
    found = below(weights, (CTCHAT_PREFIX,))
    if "attn_pool.query" not in found:
        return dict(weights)
    kept = {name: tensor for name, tensor in found.items() if not name.startswith(CTCHAT_BEHIND)}
    return _renamed(kept, expand(CTCHAT_POOLER_KEYS))


def rename_resnet(weights: Mapping[str, Tensor], blocks: Sequence[int]) -> dict[str, Tensor]:
    """Names of MedVInT's vision model to those of `ModifiedResNet`."""
    found = {name: tensor for name, tensor in below(weights, (MEDVINT_VISION,)).items() if not name.endswith(COUNTERS)}
    return _renamed(found, expand(resnet_keys(blocks)))


def rename_query_decoder(weights: Mapping[str, Tensor], depth: int) -> dict[str, Tensor]:
    """Names of MedVInT's decoder to those of `QueryDecoder`; the vision model's keep theirs."""
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith(tuple(MEDVINT_BEHIND))}
    return _renamed(kept, expand(QUERY_DECODER_KEYS, n=depth))


def widen_channels(kernel: Tensor, channels: int) -> Tensor:
    """A first convolution for three colours, (O, 3, h, w), as one for `channels` slices.

    Every slice gets the sum of the three kernels over `channels`, so that equal slices are answered as a grey picture
    was.
    """
    wide = kernel.double().sum(1, keepdim=True) / channels
    return wide.to(torch.promote_types(kernel.dtype, torch.float32)).expand(-1, channels, -1, -1).contiguous()


def expand(keys: Iterable[PublishedKey], **layers: int) -> dict[str, str]:
    """Published name -> our name, with the numbers of layers put in.

    Args:
        keys: names with a placeholder, or without one.
        layers: placeholder -> number of layers.
    """
    return dict(_expanded(keys, layers))


def _expanded(keys: Iterable[PublishedKey], layers: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    for key in keys:
        word = next((word for word in layers if f"{{{word}}}" in key.name), None)
        if word is None:
            yield key.name, key.ours
            continue
        for number in range(layers[word]):
            yield key.name.replace(f"{{{word}}}", str(number)), key.ours.replace(f"{{{word}}}", str(number))


def _renamed(weights: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    return {names.get(name, name): tensor for name, tensor in weights.items()}


def below(weights: Mapping[str, Tensor], prefixes: Sequence[str]) -> dict[str, Tensor]:
    """The part of a file whose names begin so, without the beginning; all of it if none does."""
    for prefix in prefixes:
        part = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
        if part:
            return part
    return dict(weights)
