"""The language model's part of a training step: the published way beside ours, same weights, same samples.

    python benchmarks/language.py           4 layers of width 1024, vocabulary 32,000, batch 4
    python benchmarks/language.py --quick   2 layers of width 256, batch 2

Published: every sample padded to 2,048 positions, logits at all of them, gradient checkpointing. Ours: padded to the
longest of the batch, the output head at answer positions alone, with and without checkpointing. Each side runs in a
process of its own: CPU time and peak memory (over the process with the model loaded, without what the allocator keeps
of freed memory) are its own. Exit status 1 when a bar is missed: 2.2 times less CPU time, a fifth of the memory, same
loss, same gradients.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import torch

SIZES = {
    "full": {"layers": 4, "width": 1024, "vocabulary": 32000, "lengths": (1220, 1150, 1190, 1100)},
    "quick": {"layers": 2, "width": 256, "vocabulary": 32000, "lengths": (1220, 1100)},
}
PADDED = 2048
PROMPT = 526  # positions before the answer: 10 regions of 33 tokens, 32 of the image, text
SIDES = ("published", "ours", "ours, no checkpointing")
TIME_BAR, MEMORY_BAR = 2.2, 1 / 5


def build(size: dict, folder: Path) -> None:
    """A random LLaMA with a word-level tokenizer, as a folder."""
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size["vocabulary"],
        hidden_size=size["width"],
        intermediate_size=size["width"] * 11 // 4,
        num_hidden_layers=size["layers"],
        num_attention_heads=size["width"] // 64,
        max_position_embeddings=PADDED,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2}, unk_token="<unk>"))
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)


def batch(size: dict, length: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, mask and labels padded on the right to `length`."""
    generator = torch.Generator().manual_seed(1)
    shape = len(size["lengths"]), PADDED
    ids = torch.randint(3, size["vocabulary"], shape, generator=generator)[:, :length]
    mask = (torch.arange(length) < torch.tensor(size["lengths"])[:, None]).long()
    return ids, mask, ids.masked_fill((torch.arange(length) < PROMPT) | ~mask.bool(), -100)


def side(name: str, size: dict, folder: Path, out: Path) -> None:
    """Run one side and write its figures and gradients."""
    from reg2rg.models.llm.causal_lm import CausalLM, LoRA

    torch.manual_seed(0)
    model = CausalLM(str(folder), lora=LoRA(dropout=0.0), gradient_checkpointing="no checkpointing" not in name).train()
    for key, parameter in model.named_parameters():
        if "lora_B" in key:  # zero at the start: make its gradients and its effect real
            torch.nn.init.normal_(parameter, std=0.02, generator=torch.Generator().manual_seed(2))
    longest = max(size["lengths"])
    ids, mask, labels = batch(size, PADDED if name == "published" else longest)
    embeddings = model.embed(ids).detach().requires_grad_()
    for parameter in model.parameters():  # weights are mapped from their file: have them in memory before counting
        parameter.detach().sum()
    base = psutil.Process().memory_info().rss
    wall, cpu = time.perf_counter(), time.process_time()
    if name == "published":
        loss = model.model(inputs_embeds=embeddings, attention_mask=mask, labels=labels, use_cache=False).loss
    else:
        loss = model.answer_nll(embeddings, mask, labels).mean()
    loss.backward()
    figures = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, "loss": loss.item()}
    figures["memory"] = max(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - base)
    gradients = {k.replace(".", "/"): p.grad.numpy() for k, p in model.named_parameters() if p.grad is not None}
    np.savez(out, figures=json.dumps(figures), embeddings=embeddings.grad[:, :longest].numpy(), **gradients)


def main() -> int:
    """Run all sides, print the table, return 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    size = SIZES["quick" if options.quick else "full"]
    if options.side:
        side(options.side, size, options.folder, options.out)
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(size, folder / "lm")
        for index, each in enumerate(SIDES):
            command = [
                sys.executable,
                __file__,
                "--side",
                each,
                "--folder",
                folder / "lm",
                "--out",
                folder / f"{index}.npz",
            ]
            # Freed memory goes back at once: else the peak counts what the allocator keeps for later.
            kept = {"MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "262144"}
            quick = ["--quick"] if options.quick else []
            subprocess.run([*command, *quick], check=True, env={**os.environ, **kept})
        results = [dict(np.load(folder / f"{index}.npz")) for index in range(len(SIDES))]
    return report(results)


def report(results: list[dict]) -> int:
    """Print the table; 1 when a bar is missed."""
    figures = [json.loads(str(result.pop("figures"))) for result in results]
    print(f"{'':24}{'CPU s':>8}{'wall s':>8}{'GiB':>7}{'time':>8}{'memory':>8}{'loss':>11}  gradients differ by")
    status = 0
    for name, mine, result in zip(SIDES, figures, results, strict=True):
        faster = figures[0]["cpu_s"] / mine["cpu_s"]
        memory = mine["memory"] / figures[0]["memory"]
        differ = max(float(np.abs(results[0][k] - v).max() / np.abs(results[0][k]).max()) for k, v in result.items())
        row = f"{name:24}{mine['cpu_s']:8.2f}{mine['wall_s']:8.2f}{mine['memory'] / 2**30:7.2f}"
        print(f"{row}{faster:7.2f}x{memory:8.2f}{mine['loss']:11.6f}  {differ:.1e} of their maximum")
        same = abs(mine["loss"] - figures[0]["loss"]) < 1e-5 and differ < 1e-4
        if name == "ours" and not (same and faster >= TIME_BAR and memory <= MEMORY_BAR):
            status = 1
    print(f"bars for 'ours': >= {TIME_BAR} times, <= {MEMORY_BAR:.2f} of the memory: {'missed' if status else 'met'}")
    return status


if __name__ == "__main__":
    sys.exit(main())
