"""The published model from its formulas alone: loops and einsums, no ready-made layer, nothing of this package.

Slow and obvious on purpose. Weights come under the published names, volumes with three equal channels, one at a time,
and everything has the dtype of what is given: float64 in the tests. Dropout is off, as at test time, unless `drop` says
what it does.

Letters: T tokens, C width of an encoder, E width of the language model, V words of its vocabulary, R regions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]
Size = tuple[int, int, int]
Drop = Callable[[Tensor], Tensor]


# ---- layers


def layer_norm(x: Tensor, w: Weights, name: str) -> Tensor:
    """Over the last axis, with the biased variance and 1e-5 inside the root."""
    mean = x.sum(-1, keepdim=True) / x.shape[-1]
    variance = ((x - mean) ** 2).sum(-1, keepdim=True) / x.shape[-1]
    return (x - mean) / torch.sqrt(variance + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(x: Tensor, w: Weights, name: str) -> Tensor:
    """(..., in) to (..., out); the bias is optional."""
    product = torch.einsum("...i,oi->...o", x, w[f"{name}.weight"])
    return product + w[f"{name}.bias"] if f"{name}.bias" in w else product


def gelu(x: Tensor) -> Tensor:
    """The exact one."""
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def softmax(x: Tensor) -> Tensor:
    """Over the last axis, its maximum subtracted first."""
    powers = torch.exp(x - x.max(-1, keepdim=True).values)
    return powers / powers.sum(-1, keepdim=True)


def keep(x: Tensor) -> Tensor:
    """Dropout that is off."""
    return x


def attention(query: Tensor, key: Tensor, value: Tensor, heads: int, drop: Drop = keep) -> Tensor:
    """(T, heads * K), (S, heads * K), (S, heads * K) to (T, heads * K), head by head."""
    width = query.shape[-1] // heads
    mixed = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        logits = torch.einsum("tk,sk->ts", query[:, part] * width**-0.5, key[:, part])
        mixed.append(torch.einsum("ts,sk->tk", drop(softmax(logits)), value[:, part]))
    return torch.cat(mixed, dim=-1)


# ---- encoders


def patches(volume: Tensor, patch: Size) -> Tensor:
    """(c, H, W, D) to (T, numbers of a patch).

    Patches in the order of H, W, D, D fastest; inside a patch rows, columns, frames, channels, channels fastest.
    """
    channels, height, width, depth = volume.shape
    p, q, r = patch
    counts = (height // p, width // q, depth // r, p, q, r, channels)
    a, b, c, i, j, f, k = (
        torch.arange(count).reshape([count if axis == place else 1 for axis in range(7)])
        for place, count in enumerate(counts)
    )
    places = ((k * height + a * p + i) * width + b * q + j) * depth + c * r + f  # in the flattened volume
    return volume.reshape(-1)[places.reshape(math.prod(counts[:3]), -1)]


def table_row(cell: int, cells: int, rows: int) -> int:
    """The row of a position table of `rows` rows that one of `cells` cells along an axis takes."""
    return (cell + 1) * (rows // cells) - 1


def positions(grid: Size, w: Weights) -> Tensor:
    """(T, C): for each cell its row of the three tables, side by side."""
    row, col, dep = (w[f"pos_embedding.{axis}_embed.weight"] for axis in ("row", "col", "dep"))
    return torch.stack(
        [
            torch.cat(
                [
                    row[table_row(a, grid[0], len(row))],
                    col[table_row(b, grid[1], len(col))],
                    dep[table_row(c, grid[2], len(dep))],
                ]
            )
            for a in range(grid[0])
            for b in range(grid[1])
            for c in range(grid[2])
        ]
    )


def vit(volume: Tensor, w: Weights, patch: Size, heads: int, drop: Drop = keep) -> Tensor:
    """The 3D vision transformer: (c, H, W, D) to (T, C)."""
    grid = (volume.shape[1] // patch[0], volume.shape[2] // patch[1], volume.shape[3] // patch[2])
    x = layer_norm(patches(volume, patch), w, "to_patch_embedding.1")
    x = layer_norm(linear(x, w, "to_patch_embedding.2"), w, "to_patch_embedding.3")
    x = drop(x + positions(grid, w))
    layer = 0
    while f"transformer.layers.{layer}.0.norm.weight" in w:
        attend, think = f"transformer.layers.{layer}.0", f"transformer.layers.{layer}.1"
        qkv = linear(layer_norm(x, w, f"{attend}.norm"), w, f"{attend}.fn.to_qkv")
        third = qkv.shape[-1] // 3
        mixed = attention(qkv[:, :third], qkv[:, third : 2 * third], qkv[:, 2 * third :], heads, drop)
        x = drop(linear(mixed, w, f"{attend}.fn.to_out.0")) + x
        hidden = drop(gelu(linear(layer_norm(x, w, f"{think}.norm"), w, f"{think}.fn.net.0")))
        x = drop(linear(hidden, w, f"{think}.fn.net.3")) + x
        layer += 1
    return x


def perceiver(tokens: Tensor, w: Weights, heads: int) -> Tensor:
    """The resampler: (T, C) to (latents, C)."""
    x = w["latents"]
    layer = 0
    while f"layers.{layer}.0.to_q.weight" in w:
        attend, think = f"layers.{layer}.0", f"layers.{layer}.1"
        media, latents = layer_norm(tokens, w, f"{attend}.norm_media"), layer_norm(x, w, f"{attend}.norm_latents")
        kv = linear(torch.cat([media, latents]), w, f"{attend}.to_kv")
        half = kv.shape[-1] // 2
        mixed = attention(linear(latents, w, f"{attend}.to_q"), kv[:, :half], kv[:, half:], heads)
        x = linear(mixed, w, f"{attend}.to_out") + x
        x = linear(gelu(linear(layer_norm(x, w, f"{think}.0"), w, f"{think}.1")), w, f"{think}.3") + x
        layer += 1
    return layer_norm(x, w, "norm")


# ---- visual tokens of a study


@dataclass(frozen=True)
class Sizes:
    """What weights do not tell.

    Attributes:
        patch: of the texture encoder.
        mask_patch: of the mask encoder.
        heads: of all three networks.
    """

    patch: Size
    mask_patch: Size
    heads: int


def part(w: Weights, prefix: str) -> Weights:
    """The weights whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in w.items() if name.startswith(prefix)}


def image_tokens(volume: Tensor, w: Weights, sizes: Sizes) -> Tensor:
    """(H, W, D) to (latents, E): three equal channels, encoder, resampler, projector. For regions and whole image."""
    three = torch.stack([volume, volume, volume])
    tokens = vit(three, part(w, "embedding_layer.vision_encoder."), sizes.patch, sizes.heads)
    latents = perceiver(tokens, part(w, "embedding_layer.perceiver."), sizes.heads)
    return linear(latents, w, "embedding_layer.fc")


def mask_token(mask: Tensor, w: Weights, sizes: Sizes) -> Tensor:
    """(H, W, D) to (1, E): one channel, encoder, mean over its tokens, projector."""
    tokens = vit(mask.unsqueeze(0), part(w, "embedding_layer.mask_encoder."), sizes.mask_patch, sizes.heads)
    mean = tokens.sum(0, keepdim=True) / len(tokens)
    return linear(mean, w, "embedding_layer.mask_fc")


def region_tokens(texture: Tensor, mask: Tensor, w: Weights, sizes: Sizes) -> Tensor:
    """(latents + 1, E): texture first, the mask's token last."""
    return torch.cat([image_tokens(texture, w, sizes), mask_token(mask, w, sizes)])


# ---- words, ids, table

CONTEXT = "The global information is provided as the context: "
INSTRUCTION = (
    "Given the provided global and regional information from this CT scan, please generate a comprehensive medical "
    "report for each region. First, identify the anatomical area corresponding to each region, then provide detailed "
    "information about these anatomical structures and any abnormalities that are essential. You can refer to the "
    "global information as the context and take it as a supplement when generating each region report."
)


def special_tokens(image: int, regions: int) -> list[str]:
    """The tokens that the published data set adds to the vocabulary, in its order.

    Args:
        image: tokens of the whole image (published: 32).
        regions: tokens of all regions together (published: 330).
    """
    tags = ["<image>", "</image>", "<region>", "</region>"]
    return tags + [f"<image{i}>" for i in range(image)] + [f"<region{i}>" for i in range(regions)]


def prompt(regions: int, image: int, region: int) -> str:
    """The prompt of a study with `regions` regions of `region` tokens each."""
    text = CONTEXT + "<image>" + "".join(f"<image{i}>" for i in range(image)) + "</image>. "
    for slot in range(regions):
        tokens = "".join(f"<region{slot * region + i}>" for i in range(region))
        text += f"The region {slot} is <region>{tokens}</region>. "
    return text + INSTRUCTION


def target(areas: Sequence[str], reports: Sequence[str]) -> str:
    """The answer: region by region in slot order, a space behind each."""
    pairs = zip(areas, reports, strict=True)
    return "".join(f"The region {i} is {area}: {report} " for i, (area, report) in enumerate(pairs))


@dataclass(frozen=True)
class TrainingSample:
    """One sample as the published data set hands it on, padded on the right.

    Attributes:
        ids: word ids, and ids from V on for tags and visual tokens.
        attention: 1 at real positions; 0 at the EOS, which stands on the first pad.
        labels: ids to predict, -100 elsewhere; not shifted.
    """

    ids: list[int]
    attention: list[int]
    labels: list[int]


def training_sample(
    tokenise: Callable[[str], list[int]], question: str, answer: str, length: int, eos: int, vocabulary: int
) -> TrainingSample:
    """Ids and labels of a sample; the pad id is 0.

    Args:
        tokenise: text to ids, BOS in front; knows the special tokens.
        question: the prompt.
        answer: the target.
        length: to pad to.
        eos: id at the end.
        vocabulary: V, words before the special tokens.
    """
    found = tokenise(question + " " + answer)
    masked = len(tokenise(question))
    ids = [found[i] if i < len(found) else 0 for i in range(length)]
    attention = [int(i < len(found)) for i in range(length)]
    ids[len(found)] = eos
    labels = [-100 if i < masked or word == 0 or word >= vocabulary else word for i, word in enumerate(ids)]
    return TrainingSample(ids, attention, labels)


def table(words: Tensor, w: Weights, image: Tensor, slots: Sequence[Tensor], most_slots: int) -> Tensor:
    """What ids stand for: (V + 4 + image tokens + most_slots * region tokens, E).

    Args:
        words: (V, E), the language model's own.
        w: holds the tags.
        image: (image tokens, E) of this sample.
        slots: (region tokens, E) of each region of this sample, in its slot order.
        most_slots: slots of the batch; those that this sample lacks are rows of zeros.
    """
    rows = [words, w["embedding_layer.image_token_weight"], w["embedding_layer.region_token_weight"], image, *slots]
    rows += [torch.zeros_like(slots[0])] * (most_slots - len(slots))
    return torch.cat(rows)


def look_up(ids: Sequence[int], rows: Tensor) -> Tensor:
    """(L, E): the row of each id."""
    return torch.stack([rows[i] for i in ids])


def nll(logits: Tensor, labels: Sequence[int]) -> list[Tensor]:
    """(L, V) to the negative log-likelihood of each label, each predicted from the position before it."""
    losses = []
    for position, label in enumerate(labels):
        if label != -100:
            losses.append(-torch.log(softmax(logits[position - 1])[label]))
    return losses


def mean_loss(losses: Sequence[Tensor]) -> Tensor:
    """Over all labels of a micro-batch."""
    return torch.stack(list(losses)).sum() / len(losses)
