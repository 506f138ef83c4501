"""The encoders of other published systems from their formulas alone: loops and einsums, no ready-made layer.

One volume at a time, weights under the published names; the dtype is that of what is given. Letters: t slabs of slices,
h and w patches of a slab, T tokens, C width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from parity.reference import Weights, attention, gelu, layer_norm, linear, softmax

Size = tuple[int, int, int]


# ---- parts


def slab_patches(slices: Tensor, patch: Size) -> Tensor:
    """(D, H, W) to (T, voxels): patches in the order t, h, w, and inside a patch slices, rows, columns."""
    depth, height, width = slices.shape
    p, q, r = patch
    return torch.stack(
        [
            torch.stack([slices[a * p + i, b * q + j, c * r + k] for i in range(p) for j in range(q) for k in range(r)])
            for a in range(depth // p)
            for b in range(height // q)
            for c in range(width // r)
        ]
    )


def gain_norm(x: Tensor, gain: Tensor) -> Tensor:
    """LayerNorm with a gain and no offset."""
    mean = x.mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(((x - mean) ** 2).mean(-1, keepdim=True) + 1e-5) * gain


def unit(x: Tensor) -> Tensor:
    """Over the last axis, to length one."""
    return x / torch.sqrt((x * x).sum(-1, keepdim=True))


# ---- M3D


def m3d(slices: Tensor, w: Weights, patch: Size, heads: int) -> Tensor:
    """M3D-CLIP's vision transformer: (D, H, W) to (T, C), the class token left out."""
    x = linear(slab_patches(slices, patch), w, "patch_embedding.patch_embeddings.1")
    x = torch.cat([w["cls_token"][0], x + w["patch_embedding.position_embeddings"][0]])
    layer = 0
    while f"blocks.{layer}.norm1.weight" in w:
        at = f"blocks.{layer}"
        qkv = linear(layer_norm(x, w, f"{at}.norm1"), w, f"{at}.attn.qkv")
        third = qkv.shape[-1] // 3
        mixed = attention(qkv[:, :third], qkv[:, third : 2 * third], qkv[:, 2 * third :], heads)
        x = x + linear(mixed, w, f"{at}.attn.out_proj")
        x = x + linear(gelu(linear(layer_norm(x, w, f"{at}.norm2"), w, f"{at}.mlp.linear1")), w, f"{at}.mlp.linear2")
        layer += 1
    return layer_norm(x, w, "norm")[1:]


def block_means(tokens: Tensor, grid: Size, window: Size) -> Tensor:
    """Means over blocks of neighbouring tokens, blocks in the order of the tokens."""
    cells = {
        (a, b, c): (a * grid[1] + b) * grid[2] + c
        for a in range(grid[0])
        for b in range(grid[1])
        for c in range(grid[2])
    }
    blocks: dict[tuple[int, ...], list[int]] = {}
    for cell, place in cells.items():
        blocks.setdefault(tuple(n // m for n, m in zip(cell, window, strict=True)), []).append(place)
    return torch.stack([tokens[places].sum(0) / len(places) for _, places in sorted(blocks.items())])


# ---- CTViT


def distance_bias(h: int, w_cells: int, w: Weights) -> Tensor:
    """(heads, h w, h w), one pair of patches after another."""
    rows = []
    for a in range(h * w_cells):
        row = []
        for b in range(h * w_cells):
            apart = (a // w_cells - b // w_cells, a % w_cells - b % w_cells)
            x = torch.tensor([math.copysign(math.log(abs(d) + 1), d) for d in apart], dtype=torch.float64)
            for n in range(2):
                x = linear(x, w, f"spatial_rel_pos_bias.net.{n}.0")
                x = torch.where(x > 0, x, 0.1 * x)
            row.append(linear(x, w, "spatial_rel_pos_bias.net.2"))
        rows.append(torch.stack(row))
    return torch.stack(rows).permute(2, 0, 1)


def place(x: Tensor, grid: Size, w: Weights, name: str) -> Tensor:
    """Depthwise 3 x 3 x 3 over (t, h, w, C): in t a token's own slab and the two before, in h and w both sides."""
    kernel, out = w[f"{name}.weight"], []
    for a in range(grid[0]):
        for b in range(grid[1]):
            for c in range(grid[2]):
                total = w[f"{name}.bias"]
                for i in range(3):
                    for j in range(3):
                        for k in range(3):
                            at = (a + i - 2, b + j - 1, c + k - 1)
                            if all(0 <= n < limit for n, limit in zip(at, grid, strict=True)):
                                total = total + kernel[:, 0, i, j, k] * x[at]
                out.append(total)
    return torch.stack(out).reshape(*grid, -1)


def cosine_attention(x: Tensor, w: Weights, name: str, bias: Tensor | None) -> Tensor:
    """(T, C) to (T, C): queries from normed tokens, keys and values from raw ones."""
    width = len(w[f"{name}.q_scale"])
    query = linear(gain_norm(x, w[f"{name}.norm.gamma"]), w, f"{name}.to_q")
    kv = linear(x, w, f"{name}.to_kv")
    half, mixed = kv.shape[-1] // 2, []
    for head in range(half // width):
        here = slice(head * width, (head + 1) * width)
        q, k = unit(query[:, here]) * w[f"{name}.q_scale"], unit(kv[:, :half][:, here]) * w[f"{name}.k_scale"]
        logits = 8 * q @ k.T
        mixed.append(softmax(logits if bias is None else logits + bias[head]) @ kv[:, half:][:, here])
    return linear(torch.cat(mixed, -1), w, f"{name}.to_out")


def ct_transformer(
    x: Tensor, grid: Size, w: Weights, name: str, columns: bool, quirk: bool, bias: Tensor | None
) -> Tensor:
    """(t, h, w, C) to the same: attention within each slab, or along each column of slabs.

    With the quirk, columns are laid out one after another and then read as slabs where the convolution is applied.
    """
    t, h, w_cells = grid
    layer = 0
    while f"{name}.layers.{layer}.1.to_q.weight" in w:
        at = f"{name}.layers.{layer}"
        if columns and quirk:
            laid = torch.stack([x[:, b, c] for b in range(h) for c in range(w_cells)])  # (h w, t, C)
            mixed = place(laid.reshape(t, h, w_cells, -1), grid, w, f"{at}.0.dsconv").reshape(laid.shape)
            back = torch.empty_like(x)
            for number, column in enumerate(mixed):
                back[:, number // w_cells, number % w_cells] = column
            x = back + x
        else:
            x = place(x, grid, w, f"{at}.0.dsconv") + x
        attended = torch.empty_like(x)
        if columns:
            for b in range(h):
                for c in range(w_cells):
                    attended[:, b, c] = cosine_attention(x[:, b, c], w, f"{at}.1", bias)
        else:
            for a in range(t):
                attended[a] = cosine_attention(x[a].reshape(h * w_cells, -1), w, f"{at}.1", bias).reshape(
                    h, w_cells, -1
                )
        x = attended + x
        hidden = linear(layer_norm(x, w, f"{at}.3.0"), w, f"{at}.3.1")
        half = hidden.shape[-1] // 2
        x = linear(gelu(hidden[..., half:]) * hidden[..., :half], w, f"{at}.3.4") + x
        layer += 1
    return gain_norm(x, w[f"{name}.norm_out.gamma"])


def ctvit(slices: Tensor, w: Weights, patch: Size, quirk: bool = True) -> Tensor:
    """(D, H, W) to tokens (T, C) before the codebook."""
    grid = (slices.shape[0] // patch[0], slices.shape[1] // patch[1], slices.shape[2] // patch[2])
    x = layer_norm(slab_patches(slices, patch), w, "to_patch_emb.1")
    x = layer_norm(linear(x, w, "to_patch_emb.2"), w, "to_patch_emb.3").reshape(*grid, -1)
    bias = distance_bias(grid[1], grid[2], w)
    x = ct_transformer(x, grid, w, "enc_spatial_transformer", columns=False, quirk=quirk, bias=bias)
    x = ct_transformer(x, grid, w, "enc_temporal_transformer", columns=True, quirk=quirk, bias=None)
    return x.reshape(-1, x.shape[-1])


def nearest(tokens: Tensor, codes: Tensor) -> list[int]:
    """For each token the code with the largest cosine."""
    return [int(torch.argmax(torch.stack([unit(token) @ unit(code) for code in codes]))) for token in tokens]


def moved_codes(tokens: Tensor, codes: Tensor, decay: float) -> Tensor:
    """The codes after one step towards the mean direction of their tokens; one without tokens towards its own."""
    chosen, moved = nearest(tokens, codes), []
    for number, code in enumerate(codes):
        own = [unit(token) for token, choice in zip(tokens, chosen, strict=True) if choice == number]
        target = unit(sum(own[1:], own[0])) if own else unit(code)
        moved.append(decay * code + (1 - decay) * target)
    return torch.stack(moved)


# ---- CT-CHAT's pooler, MedVInT's decoder and ResNet


def attention_pool(tokens: Tensor, w: Weights, heads: int) -> Tensor:
    """(T, C) to (queries, C): one look, no residual."""
    query = linear(layer_norm(w["attn_pool.query"], w, "attn_pool.ln_q"), w, "attn_pool.to_q")
    kv = linear(layer_norm(tokens, w, "attn_pool.ln_k"), w, "attn_pool.to_kv")
    half = kv.shape[-1] // 2
    return linear(attention(query, kv[:, :half], kv[:, half:], heads), w, "attn_pool.to_out")


def joint_attention(query: Tensor, memory: Tensor, w: Weights, name: str, heads: int) -> Tensor:
    """Attention whose three input maps are one matrix, queries first, then keys, then values."""
    width = query.shape[-1]
    maps = [
        {
            "m.weight": w[f"{name}.in_proj_weight"][k * width : (k + 1) * width],
            "m.bias": w[f"{name}.in_proj_bias"][k * width : (k + 1) * width],
        }
        for k in range(3)
    ]
    q, k, v = (linear(x, one, "m") for x, one in zip((query, memory, memory), maps, strict=True))
    return linear(attention(q, k, v, heads), w, f"{name}.out_proj")


def query_decoder(tokens: Tensor, w: Weights, heads: int) -> Tensor:
    """(T, C) to (queries, C): pre-norm, the queries themselves enter the first layer."""
    x = w["query_embed.weight"]
    layer = 0
    while f"decoder.layers.{layer}.norm1.weight" in w:
        at = f"decoder.layers.{layer}"
        normed = layer_norm(x, w, f"{at}.norm1")
        x = x + joint_attention(normed, normed, w, f"{at}.self_attn", heads)
        x = x + joint_attention(layer_norm(x, w, f"{at}.norm2"), tokens, w, f"{at}.multihead_attn", heads)
        hidden = linear(layer_norm(x, w, f"{at}.norm3"), w, f"{at}.linear1")
        x = x + linear(torch.where(hidden > 0, hidden, 0.0 * hidden), w, f"{at}.linear2")
        layer += 1
    return layer_norm(x, w, "decoder.norm")


def conv2d(x: Tensor, kernel: Tensor, stride: int = 1) -> Tensor:
    """(c, H, W) to (o, H / stride, W / stride), zeros around so that a 3 x 3 kernel keeps the size."""
    reach = kernel.shape[-1] // 2
    rows, columns = x.shape[1], x.shape[2]
    padded = torch.zeros(x.shape[0], rows + 2 * reach, columns + 2 * reach, dtype=x.dtype)
    padded[:, reach : reach + rows, reach : reach + columns] = x
    out = torch.zeros(len(kernel), -(-rows // stride), -(-columns // stride), dtype=x.dtype)
    for i in range(kernel.shape[2]):
        for j in range(kernel.shape[3]):
            seen = padded[:, i : i + rows : stride, j : j + columns : stride]
            out = out + torch.einsum("oc,chw->ohw", kernel[:, :, i, j], seen)
    return out


def batch_norm(x: Tensor, w: Weights, name: str) -> Tensor:
    """By the statistics in the weights."""
    shaped = [w[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")]
    return (x - shaped[0]) / torch.sqrt(shaped[1] + 1e-5) * shaped[2] + shaped[3]


def pooled(x: Tensor, side: int) -> Tensor:
    """Means over squares."""
    return sum(x[:, i::side, j::side] for i in range(side) for j in range(side)) / side**2


def relu(x: Tensor) -> Tensor:
    """The positive part."""
    return torch.where(x > 0, x, torch.zeros_like(x))


def resnet(image: Tensor, w: Weights) -> Tensor:
    """(c, H, W) to (16 width, H / 16, W / 16)."""
    x = image
    for conv, norm, stride in ((0, 1, 2), (3, 4, 1), (6, 7, 1)):
        x = relu(batch_norm(conv2d(x, w[f"{conv}.weight"], stride), w, str(norm)))
    x = pooled(x, 2)
    for stage in (10, 11, 12):
        block = 0
        while f"{stage}.{block}.conv1.weight" in w:
            at, side = f"{stage}.{block}", 2 if stage > 10 and block == 0 else 1
            y = relu(batch_norm(conv2d(x, w[f"{at}.conv1.weight"]), w, f"{at}.bn1"))
            y = pooled(relu(batch_norm(conv2d(y, w[f"{at}.conv2.weight"]), w, f"{at}.bn2")), side)
            y = batch_norm(conv2d(y, w[f"{at}.conv3.weight"]), w, f"{at}.bn3")
            if f"{at}.downsample.0.weight" in w:
                x = batch_norm(conv2d(pooled(x, side), w[f"{at}.downsample.0.weight"]), w, f"{at}.downsample.1")
            x = relu(y + x)
            block += 1
    return x
