"""One training step, no cached features: the published way beside ours, same weights, same study, in one run.

    python benchmarks/step.py           10 regions of 256 x 256 x 64, ViT of 12 x 768; LLaMA of 2 layers of width 512
    python benchmarks/step.py --quick   3 regions of 64 x 64 x 32, ViT of 2 x 192; for a look at the script

Published, rebuilt plainly here: one region after another, three equal channels, attention that writes out its weights,
dropout active in the frozen encoder, the prompt embedded by a one-hot product over vocabulary and visual tokens,
padding to 2,048 positions, logits at all of them. A second published run with that dropout off has a loss to compare
with: it must equal ours to five decimals, and the gradients of all that trains to 1e-4 of their largest. The geometry
encoder is a small part; the published side runs our module, region by region. Exit status 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vision import PublishedPerceiver, PublishedViT, views

from reg2rg.data.batch import Batch, Sample, collate
from reg2rg.data.prompt import PromptEncoder
from reg2rg.encoders import Frozen, PerceiverResampler, TokenMean, ViT3D
from reg2rg.language.causal_lm import CausalLM, LoRA
from reg2rg.language.tiny import train_tokenizer
from reg2rg.model import RegionReporter
from reg2rg.projectors import LinearProjector
from reg2rg.regions import load_region_set

TIME_BAR, LOSS_BAR, GRADIENT_BAR = 2.4, 1e-5, 1e-4
SENTENCE = "No focal lesion, nodule or effusion is seen; size, contour and density of the {} are within normal limits. "


@dataclass(frozen=True)
class Size:
    regions: int
    volume: tuple[int, int, int]
    patch: tuple[int, int, int]
    mask_patch: tuple[int, int, int]
    dim: int
    depth: int
    mlp: int
    llm_layers: int
    llm_width: int
    padded: int
    sentences: int


SIZES = {
    "full": Size(10, (256, 256, 64), (32, 32, 4), (32, 32, 16), 768, 12, 2048, 2, 512, 2048, 3),
    "quick": Size(3, (64, 64, 32), (32, 32, 4), (32, 32, 16), 192, 2, 256, 2, 128, 1024, 2),
}


class DroppingViT(PublishedViT):
    """The published ViT in the mode it is left in: every dropout active, though nothing in it trains."""

    rate = 0.1

    def __init__(self, size: Size) -> None:
        super().__init__(size.volume, size.patch, size.dim, size.depth, mlp=size.mlp)
        self.to_patch_embedding.register_forward_hook(lambda _, __, x: self._drop(x))
        for _, mlp in self.transformer["layers"]:
            net = mlp["fn"]["net"]
            net[1].register_forward_hook(lambda _, __, x: self._drop(x))
            net[3].register_forward_hook(lambda _, __, x: self._drop(x))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.rate) if self.rate else x

    def _attend(self, x: Tensor, fn: nn.ModuleDict) -> Tensor:
        q, k, v = (
            part.reshape(*part.shape[:2], self.heads, 64).transpose(1, 2) for part in fn["to_qkv"](x).chunk(3, -1)
        )
        weights = self._drop((torch.matmul(q, k.transpose(-1, -2)) * 64**-0.5).softmax(-1))
        return self._drop(fn["to_out"][0](torch.matmul(weights, v).transpose(1, 2).flatten(2)))


def language_model(size: Size, texts: list[str], folder: Path) -> CausalLM:
    """A random LLaMA with 32,000 rows and LoRA, its tokenizer trained on the texts."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = train_tokenizer(texts, 600)
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=size.llm_width,
        intermediate_size=size.llm_width * 11 // 4,
        num_hidden_layers=size.llm_layers,
        num_attention_heads=size.llm_width // 64,
        max_position_embeddings=size.padded,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return CausalLM(str(folder), lora=LoRA(dropout=0.0), gradient_checkpointing=True)


def build(size: Size, folder: Path, chunk: int) -> tuple[RegionReporter, DroppingViT, Batch]:
    """Our model, the published ViT with the same weights, and a batch of one study."""
    torch.manual_seed(0)
    names = load_region_set("radgenome").names[: size.regions]
    reports = [SENTENCE.format(name) * size.sentences for name in names]
    published = DroppingViT(size).requires_grad_(False)
    vit = ViT3D(size.volume, size.patch, size.dim, size.depth, mlp_dim=size.mlp)
    vit.load_state_dict(dict(vit.adapt_weights(published.state_dict())))
    mask_vit = ViT3D(
        size.volume, size.mask_patch, 255, 3, mlp_dim=512, dropout=0.0, embedding_dropout=0.0,
        table_size=size.volume, shift=0.0,
    )  # fmt: skip
    model = RegionReporter(
        texture=PerceiverResampler(Frozen(vit, chunk=chunk)),
        geometry=TokenMean(mask_vit),
        global_="texture",
        projector=LinearProjector,
        llm=language_model(size, reports, folder),
    ).train()
    encoder = PromptEncoder(model.llm.tokenizer, model.token_counts, max_length=size.padded)
    encoded = encoder.encode_sample(names, reports)
    sample = Sample("study", names, tuple(reports), encoded)
    batch = collate([sample], model.token_counts, encoder.pad_id)
    volumes = F.interpolate(views(size.regions), size=size.volume) if size.volume != (256, 256, 64) else views(10)
    masks = (volumes[1:] > -1).float()
    object.__setattr__(batch, "texture", volumes[1:])
    object.__setattr__(batch, "geometry", masks)
    object.__setattr__(batch, "global_", volumes[:1])
    return model, published, batch


def ours(model: RegionReporter, batch: Batch) -> Tensor:
    return model(batch).mean()


def published_step(model: RegionReporter, vit: DroppingViT, batch: Batch, padded: int) -> Tensor:
    """The published forward pass on the trainable parts of `model`."""
    perceiver = PublishedPerceiver(model.texture)

    def encode(volume: Tensor) -> Tensor:
        return model.texture_projector(perceiver(vit(volume[None].repeat(1, 3, 1, 1, 1))))[0]

    parts = [model.tags, encode(batch.global_[0])]
    for texture, mask in zip(batch.texture, batch.geometry, strict=True):
        geometry = model.geometry_projector(model.geometry(mask[None]))[0]
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


@dataclass
class Result:
    wall: float
    cpu: float
    loss: float
    gradients: dict[str, Tensor]
    peak_gib: float


def measure(model: nn.Module, step, repeats: int) -> Result:
    """Forward and backward; best of `repeats`."""
    walls, cpus = [], []
    for _ in range(repeats):
        model.zero_grad(set_to_none=True)
        wall, cpu = time.perf_counter(), time.process_time()
        loss = step()
        loss.backward()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return Result(min(walls), min(cpus), float(loss.detach()), gradients, peak)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--chunk", type=int, default=1, help="volumes at a time in our frozen encoder; 0: all")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    size = SIZES["quick" if options.quick else "full"]
    with tempfile.TemporaryDirectory() as folder:
        model, vit, batch = build(size, Path(folder), options.chunk)
    length, labels = batch.input_ids.shape[1], len(batch.label_region)
    print(f"{size.regions} regions + image, {length} positions, {labels} labels; {options.threads} threads, "
          f"torch {torch.__version__}")  # fmt: skip
    with torch.no_grad():
        vit(batch.texture[:1].repeat(1, 3, 1, 1, 1))  # what only the first call pays is nobody's
    # Ours first: peak memory only ever grows.
    results = {"ours": measure(model, lambda: ours(model, batch), options.repeats)}
    print(f"ours: {results['ours'].cpu:.2f} CPU s", flush=True)
    for name, rate in (("published, dropout off", 0.0), ("published", 0.1)):
        vit.rate = rate
        results[name] = measure(model, lambda: published_step(model, vit, batch, size.padded), options.repeats)
    base = results["published"]
    print("side                     wall s   CPU s   ratio (CPU)   loss        peak GiB so far")
    for name, r in results.items():
        ratio = base.cpu / r.cpu
        print(f"{name:<24} {r.wall:6.2f}  {r.cpu:6.2f}   {ratio:6.2f}        {r.loss:.7f}   {r.peak_gib:.2f}")
    mine, theirs = results["ours"], results["published, dropout off"]
    gap = abs(mine.loss - theirs.loss)
    worst = max(
        float((mine.gradients[name] - gradient).abs().max() / gradient.abs().max().clamp(min=1e-12))
        for name, gradient in theirs.gradients.items()
    )
    ratio = base.cpu / mine.cpu
    same = set(mine.gradients) == set(theirs.gradients)
    print(f"loss differs by {gap:.1e} (bar {LOSS_BAR:.0e}); gradients by {worst:.1e} of their largest (bar "
          f"{GRADIENT_BAR:.0e}), {len(mine.gradients)} tensors; step {ratio:.2f} x (bar {TIME_BAR})")  # fmt: skip
    assert np.isfinite(mine.loss)
    return int(not (same and gap <= LOSS_BAR and worst <= GRADIENT_BAR and (options.quick or ratio >= TIME_BAR)))


if __name__ == "__main__":
    sys.exit(main())
