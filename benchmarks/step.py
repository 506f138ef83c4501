"""One training step, no cached features: the published way beside ours, same weights, same study, in one run.

    python benchmarks/step.py             10 regions of 256 x 256 x 64, ViT of 12 x 768; LLaMA of 2 layers of width 512
    python benchmarks/step.py --llm wide  the same with Llama-2-7B's width and vocabulary, and one of its layers
    python benchmarks/step.py --quick     3 regions of 64 x 64 x 32, ViT of 2 x 192; for a look at the script

Published, rebuilt plainly here: one region after another, three equal channels, attention that writes out its weights,
dropout active in the frozen encoder, the prompt embedded by a one-hot product over vocabulary and visual tokens,
padding to 2,048 positions, logits at all of them. Ours is what `RegionReporter` does in training. Both recompute the
language model's activations, and both have the dropout of what trains (mask encoder, LoRA). The study has as many
positions as a typical one: about 1,230, of them 690 of report.

A first pair of runs has every dropout off: the losses must be equal to five decimals and the gradients of all that
trains to 1e-4 of their largest. Then sides take turns; best of all repeats. Exit status 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from _measure import GIB, Result, machine, measure, take_turns
from torch import Tensor, nn
from vision import PublishedPerceiver, PublishedViT, views

from reg2rg.core.regions import load_region_set
from reg2rg.core.task import INSTRUCTION
from reg2rg.data.batch import Batch, Sample, collate
from reg2rg.data.prompt import GLOBAL_PREFIX, PromptEncoder
from reg2rg.extras.tiny_llm.build import train_tokenizer
from reg2rg.models.encoders import Frozen, PerceiverResampler, TokenMean, ViT3D
from reg2rg.models.llm.causal_lm import CausalLM, LoRA
from reg2rg.models.projectors import LinearProjector
from reg2rg.models.reporter import RegionReporter

TIME_BAR, LOSS_BAR, GRADIENT_BAR = 2.4, 1e-5, 1e-4
DROPOUT = 0.1
SENTENCE = "No focal lesion, nodule or effusion is seen; size, contour and density of the {} are within normal limits. "


@dataclass(frozen=True)
class LLM:
    layers: int
    width: int
    mlp: int


@dataclass(frozen=True)
class Size:
    regions: int
    volume: tuple[int, int, int]
    patch: tuple[int, int, int]
    mask_patch: tuple[int, int, int]
    dim: int
    depth: int
    mlp: int
    llm: LLM
    padded: int
    sentences: int


LLMS = {"tiny": LLM(2, 512, 1408), "wide": LLM(1, 4096, 11008), "quick": LLM(2, 128, 352)}
SIZES = {
    "full": Size(10, (256, 256, 64), (32, 32, 4), (32, 32, 16), 768, 12, 2048, LLMS["tiny"], 2048, 26),
    "quick": Size(3, (64, 64, 32), (32, 32, 4), (32, 32, 16), 192, 2, 256, LLMS["quick"], 1024, 7),
}


class Dropout:
    """One switch for every dropout of the published side."""

    rate = DROPOUT

    def __call__(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.rate) if self.rate else x

    def attend(self, qkv: nn.Linear, out: nn.Linear, x: Tensor) -> Tensor:
        """Attention of heads of 64 that writes out its weights."""
        q, k, v = (part.reshape(*part.shape[:2], -1, 64).transpose(1, 2) for part in qkv(x).chunk(3, -1))
        weights = self((torch.matmul(q, k.transpose(-1, -2)) * 64**-0.5).softmax(-1))
        return self(out(torch.matmul(weights, v).transpose(1, 2).flatten(2)))


class DroppingViT(PublishedViT):
    """The published ViT in the mode it is left in: every dropout active, though nothing in it trains."""

    def __init__(self, size: Size, drop: Dropout) -> None:
        super().__init__(size.volume, size.patch, size.dim, size.depth, mlp=size.mlp)
        self.drop = drop
        for _, mlp in self.transformer["layers"]:
            net = mlp["fn"]["net"]
            net[1].register_forward_hook(lambda _, __, x: drop(x))
            net[3].register_forward_hook(lambda _, __, x: drop(x))

    def embed(self, volumes: Tensor) -> Tensor:
        return self.drop(super().embed(volumes))

    def _attend(self, x: Tensor, fn: nn.ModuleDict) -> Tensor:
        return self.drop.attend(fn["to_qkv"], fn["to_out"][0], x)


def published_geometry(ours: ViT3D, mask: Tensor, drop: Dropout) -> Tensor:
    """The published mask encoder, which trains, on the weights of ours: (1, 1, H, W, D) to (1, 1, C)."""
    (h, w, d), (p, q, r) = ours.grid, ours.patch
    patches = mask.reshape(1, h, p, w, q, d, r).permute(0, 1, 3, 5, 2, 4, 6).reshape(1, h * w * d, p * q * r)
    x = drop(ours.token_norm(ours.patch_linear(ours.patch_norm(patches))) + ours.positions())
    for block in ours.blocks:
        x = drop.attend(block.attention.qkv, block.attention.out, block.attention_norm(x)) + x
        x = drop(block.mlp_out(drop(F.gelu(block.mlp_in(block.mlp_norm(x)))))) + x
    return x.mean(1, keepdim=True)


def language_model(size: Size, texts: list[str], folder: Path) -> CausalLM:
    """A random LLaMA with 32,000 rows and LoRA, its tokenizer trained on the texts."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = train_tokenizer([*texts, GLOBAL_PREFIX, INSTRUCTION] * 3, 2000)
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=size.llm.width,
        intermediate_size=size.llm.mlp,
        num_hidden_layers=size.llm.layers,
        num_attention_heads=max(1, size.llm.width // 128),
        max_position_embeddings=size.padded,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return CausalLM(str(folder), lora=LoRA(dropout=DROPOUT), gradient_checkpointing=True)


def build(
    size: Size, folder: Path, drop: Dropout, chunk: int | None = None
) -> tuple[RegionReporter, DroppingViT, Batch]:
    """Our model, the published ViT with the same weights, and a batch of one study."""
    torch.manual_seed(0)
    names = load_region_set("radgenome").names[: size.regions]
    counts = [size.sentences // size.regions + (i < size.sentences % size.regions) for i in range(size.regions)]
    reports = [SENTENCE.format(name) * count for name, count in zip(names, counts, strict=True)]
    published = DroppingViT(size, drop).requires_grad_(False)
    vit = ViT3D(size.volume, size.patch, size.dim, size.depth, mlp_dim=size.mlp)
    vit.load_state_dict(dict(vit.adapt_weights(published.state_dict())))
    mask_vit = ViT3D(
        size.volume, size.mask_patch, 255, 3, mlp_dim=512, table_size=size.volume, shift=0.0, checkpointing=True
    )
    model = RegionReporter(
        texture=PerceiverResampler(Frozen(vit, chunk=chunk)),
        geometry=TokenMean(mask_vit),
        global_="texture",
        projector=LinearProjector,
        llm=language_model(size, reports, folder),
    ).train()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zero at the start: make its gradients and its effect real
            torch.nn.init.normal_(parameter, std=0.02)
    encoder = PromptEncoder(model.llm.tokenizer, model.token_counts, max_length=size.padded)
    encoded = encoder.encode_sample(names, reports)
    sample = Sample("study", names, tuple(reports), encoded)
    batch = collate([sample], model.token_counts, encoder.pad_id)
    volumes = views(size.regions)
    volumes = volumes if volumes.shape[2:] == size.volume else F.interpolate(volumes, size=size.volume)
    masks = (volumes[1:] > -1).float()
    return model, published, replace(batch, texture=volumes[1:], geometry=masks, global_=volumes[:1])


def set_dropout(model: RegionReporter, rate: float) -> None:
    """The dropout of what trains on our side: mask encoder and LoRA."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate
        for name in ("dropout", "embedding_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, rate)


def published_step(model: RegionReporter, vit: DroppingViT, batch: Batch, padded: int) -> Tensor:
    """The published forward pass on the trainable parts of `model`."""
    perceiver = PublishedPerceiver(model.texture)

    def encode(volume: Tensor) -> Tensor:
        return model.texture_projector(perceiver(vit(volume[None].repeat(1, 3, 1, 1, 1))))[0]

    parts = [model.tags, encode(batch.global_[0])]
    for texture, mask in zip(batch.texture, batch.geometry, strict=True):
        geometry = model.geometry_projector(published_geometry(model.geometry.encoder, mask[None], vit.drop))[0]
        parts.append(torch.cat([encode(texture), geometry]))
    words = model.llm._causal.get_input_embeddings().weight
    table = torch.cat([words, *parts])
    ids = batch.input_ids.clone()
    ids[batch.visual_rows, batch.visual_cols] = len(words) + batch.visual_source
    pad = padded - ids.shape[1]
    ids, mask, labels = (
        F.pad(value, (0, pad), value=fill)
        for value, fill in ((ids, 0), (batch.attention_mask.long(), 0), (batch.labels, -100))
    )
    embedded = F.one_hot(ids, len(table)).to(table.dtype) @ table
    logits = model.llm.model(inputs_embeds=embedded, attention_mask=mask, use_cache=False).logits
    return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())


def step(model: RegionReporter, forward: Callable[[], Tensor]) -> float:
    """Forward and backward; the loss."""
    model.zero_grad(set_to_none=True)
    loss = forward()
    loss.backward()
    return float(loss.detach())


def equality(model: RegionReporter, drop: Dropout, sides: dict[str, Callable[[], Tensor]]) -> bool:
    """Run both sides once with every dropout off, print times, and compare losses and gradients."""
    drop.rate = 0.0
    set_dropout(model, 0.0)
    results, gradients = [Result(), Result()], []
    for result, forward in zip(results, sides.values(), strict=True):
        measure(lambda forward=forward: step(model, forward), result)
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    for name, result in zip(sides, results, strict=True):
        row(f"{name}, dropout off", result, results[1])
    mine, theirs = gradients
    same = set(mine) == set(theirs)
    worst = max(float((mine[n] - g).abs().max() / g.abs().max().clamp(min=1e-12)) for n, g in theirs.items())
    losses = [result.output for result in results]
    gap = abs(losses[0] - losses[1])
    print(f"dropout off: loss {losses[0]:.7f} ours, {losses[1]:.7f} published, {gap:.1e} apart (bar {LOSS_BAR:.0e});\n"
          f"gradients of {len(mine)} tensors {worst:.1e} of their largest apart (bar {GRADIENT_BAR:.0e})")  # fmt: skip
    return same and gap <= LOSS_BAR and worst <= GRADIENT_BAR


def row(name: str, result: Result, base: Result) -> None:
    ratio = f"{base.cpu / result.cpu:.2f}"
    print(f"{name:32}{result.wall:8.2f}{result.cpu:8.2f}{ratio:>13}{result.peak / GIB:10.2f}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--llm", choices=["tiny", "wide"], default="tiny")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--chunk", type=int, help="volumes at a time in our frozen encoder; 0: all")
    parser.add_argument("--json", type=Path, help="write all figures there")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    size = SIZES["quick"] if options.quick else replace(SIZES["full"], llm=LLMS[options.llm])
    drop = Dropout()
    with tempfile.TemporaryDirectory() as folder:
        model, vit, batch = build(size, Path(folder), drop, options.chunk)
    length, labels = batch.input_ids.shape[1], len(batch.label_region)
    print(f"{size.regions} regions + image, {length} positions, {labels} labels; LLaMA of {size.llm.layers} x "
          f"{size.llm.width}; torch {torch.__version__}; {machine(options.threads)}", flush=True)  # fmt: skip
    with torch.no_grad():
        vit(batch.texture[:1].repeat(1, 3, 1, 1, 1))  # what only the first call pays is nobody's
    sides = {
        "ours": lambda: model(batch).mean(),
        "published": lambda: published_step(model, vit, batch, size.padded),
    }
    print(f"{'':32}{'wall s':>8}{'CPU s':>8}{'ratio (CPU)':>13}{'GiB taken':>10}")
    equal = equality(model, drop, sides)
    drop.rate = DROPOUT
    set_dropout(model, DROPOUT)
    ways = {name: lambda forward=forward: step(model, forward) for name, forward in sides.items()}
    mine, theirs = take_turns(ways, options.repeats).values()
    row("ours", mine, theirs)
    row("published", theirs, theirs)
    ratio = theirs.cpu / mine.cpu
    if options.json:
        options.json.write_text(json.dumps({"published": theirs.cpu, "ours": mine.cpu, "equal": equal}, indent=2))
    met = equal and (options.quick or ratio >= TIME_BAR)
    print(f"training step {ratio:.2f} x (bar {TIME_BAR}{', at full size' if options.quick else ''}): "
          f"{'met' if met else 'missed'}")  # fmt: skip
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
