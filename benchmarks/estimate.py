"""`reg2rg estimate` beside what this process then takes: six configs on the CPU, random weights of the real modules.

    python benchmarks/estimate.py
    python benchmarks/estimate.py --only "frozen maps"
    python benchmarks/estimate.py --keep

Each is estimated without memory, then built and run: a forward and backward pass with AdamW's moments there, or a batch
of reports. Measured is the resident size of the process at its peak over that before the model was built; it holds what
the estimate cannot see, the scratch of kernels. Blocks that were freed and that glibc keeps are not counted, as in a
run with ``MALLOC_MMAP_THRESHOLD_=65536`` in its environment; ``--keep`` counts them. Exit status 1 if one is off by
more than 15 %, if they span less than a factor of 4, or if encoders, language model and cache do not each take most of
one.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from _measure import give_back_at_once, machine, peak, reset_peak, resident
from transformers import LlamaConfig

import reg2rg.extras.peers  # noqa: F401 (registers the components that configs name)
from reg2rg.training.estimate import Phase, estimate
from reg2rg.training.optimization import OptimizerConfig, build_optimizer
from reg2rg.training.outline import Amounts, batch_of, outline, report, step

BAR, SPAN, MIB = 0.15, 4.0, 2**20
Part = dict[str, Any]


def component(name: str, **arguments: Any) -> Part:
    return {"class_path": name, "init_args": arguments}


def vit(size: tuple[int, int, int], **arguments: Any) -> Part:
    return component("ViT3D", size=list(size), dropout=0.0, embedding_dropout=0.0, **arguments)


SMALL, WIDE = (32, 32, 32), (64, 64, 32)
TINY = component("TokenMean", encoder=vit(SMALL, patch=[8, 8, 8], dim=48, depth=1, heads=2, mlp_dim=96))
LLAMAS = {  # layers, width, hidden width, vocabulary
    "tiny": (2, 128, 256, 2000),
    "wide": (20, 1024, 2816, 32000),
    "trained": (4, 512, 1408, 16000),
    "words": (4, 256, 1024, 32000),
    "cached": (4, 512, 128, 2000),
}
LORA = {"rank": 8, "alpha": 32, "dropout": 0.0, "targets": ["q_proj", "v_proj"]}
# name: (size of the views, texture, language model, its arguments, what runs, amounts)
CASES: dict[str, tuple[Any, ...]] = {
    "encoder that trains": (
        WIDE,
        component("TokenMean", encoder=vit(WIDE, patch=[8, 8, 4], dim=384, depth=3, mlp_dim=2048)),
        "tiny",
        {"lora": LORA},
        "step",
        Amounts(1, 10, 256, 128),
    ),
    "frozen maps": (
        (128, 128, 96),
        component(
            "MaskPool",
            encoder=component("Frozen", encoder=component("I3ResNet", size=[128, 128, 96], width=32)),
        ),
        "tiny",
        {"lora": LORA},
        "step",
        Amounts(1, 10, 256, 128),
    ),
    "frozen language model": (
        SMALL, TINY, "wide", {"lora": LORA, "gradient_checkpointing": True}, "step", Amounts(1, 10, 128, 64),
    ),
    "language model that trains": (SMALL, TINY, "trained", {}, "step", Amounts(1, 10, 192, 96)),
    "long answers": (SMALL, TINY, "words", {"lora": LORA}, "step", Amounts(1, 10, 2048, 1500)),
    "cache of reports": (SMALL, TINY, "cached", {"lora": LORA}, "report", Amounts(8, 10, 1500, 64)),
}  # fmt: skip


def config_of(case: tuple[Any, ...], folder: Path) -> dict[str, Any]:
    size, texture, name, arguments, _, _ = case
    layers, width, mlp, words = LLAMAS[name]
    LlamaConfig(
        vocab_size=words,
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        max_position_embeddings=4096,
    ).save_pretrained(folder / name)
    model = {
        "texture": texture,
        "geometry": None,
        "global_": "texture",
        "projector": component("LinearProjector"),
        "llm": component("CausalLM", path=str(folder / name), **arguments),
    }
    return {"task": {"views": {"size": list(size)}}, "model": model, "trainer": {"accelerator": "cpu"}}


def estimated(case: tuple[Any, ...], config: dict[str, Any]) -> Phase:
    what, amounts = case[4:]
    found = estimate(config, *((amounts, None) if what == "step" else (None, amounts)))
    return found.step if what == "step" else found.report


def measured(case: tuple[Any, ...], config: dict[str, Any]) -> int:
    """Bytes at the peak over those before."""
    size, what, amounts = case[0], case[4], case[5]
    before = resident()
    reset_peak()
    reporter = outline(config["model"])
    views = {"size": size, "channels": 1}
    if what == "report":
        reporter.eval()
        report(reporter, batch_of(reporter, Amounts(*_prompt(amounts)), views), amounts.answer)
    else:
        reporter.train()
        optimizer, _ = build_optimizer(reporter.named_parameters(), OptimizerConfig(), lambda: 10.0)
        for parameter in reporter.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)
        optimizer.step()  # moments are there from now on
        optimizer.zero_grad()
        step(reporter, batch_of(reporter, amounts, views), amounts.answer)
        optimizer.step()
    return peak() - before


def warm_up(folder: Path) -> None:
    """A tiny step with a convolution and a tiny report: libraries load code when it is first called."""
    maps = component("MaskPool", encoder=component("I3ResNet", size=list(SMALL), width=2, blocks=[1, 1, 1, 1]))
    for what, amounts in (("step", Amounts(1, 2, 64, 8)), ("report", Amounts(1, 2, 64, 2))):
        case = (SMALL, maps, "tiny", {"lora": LORA}, what, amounts)
        measured(case, config_of(case, folder))


def _prompt(amounts: Amounts) -> tuple[int, int, int, int]:
    return amounts.studies, amounts.regions, amounts.positions, 1


def main() -> int:
    """Print one line a config; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(CASES), help="one config; status 1 if it is off by more than the bar")
    parser.add_argument(
        "--keep", action="store_true", help="let the C library keep freed blocks, as it does by default"
    )
    options = parser.parse_args()
    only = options.only
    if not options.keep:
        give_back_at_once()
    print(machine(torch.get_num_threads()))
    print(f"{'config':28}{'most of it':>16}{'estimated MiB':>15}{'measured MiB':>14}{'ratio':>8}{'GFLOP':>8}")
    peaks, ratios, parts = [], [], set()
    with tempfile.TemporaryDirectory() as folder:
        warm_up(Path(folder))
        for name, case in CASES.items():
            if only not in (None, name):
                continue
            config = config_of(case, Path(folder))
            phase = estimated(case, config)
            gc.collect()
            real = measured(case, config)
            peaks.append(real)
            ratios.append(phase.peak / real)
            parts.add(phase.dominant)
            print(
                f"{name:28}{phase.dominant:>16}{phase.peak / MIB:15.0f}{real / MIB:14.0f}{ratios[-1]:8.2f}"
                f"{phase.flops / 1e9:8.0f}",
                flush=True,
            )
    worst, span = max(abs(ratio - 1) for ratio in ratios), max(peaks) / min(peaks)
    missing = {"encoders", "language model", "cache"} - parts
    met = worst <= BAR and (only is not None or (span >= SPAN and not missing))
    print(
        f"off by {worst:.0%} at most (bar {BAR:.0%}), span {span:.1f}x (bar {SPAN:.0f}x): {'met' if met else 'MISSED'}"
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
