"""Generating reports: the published way beside ours, over the same model, with the tokens shown to be equal.

    python benchmarks/generate.py           6 layers of width 512, prompts of up to 1,376 positions, 256 new tokens
    python benchmarks/generate.py --quick   2 layers of width 128, prompts of up to 200 positions, 48 new tokens

Published: one study after another through Hugging Face's generate, LoRA beside the weights. Ours: eight studies at a
time, prompts read without padding, lean decoding loop, LoRA folded into the weights. Greedy on both sides. Sides take
turns; best of all repeats. Exit status 1 when the tokens differ, or the ratio is under 3: of CPU time on a CPU, else of
wall time.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch
from _measure import GIB, machine, take_turns
from language import build

from reg2rg.models.llm.base import Decoding
from reg2rg.models.llm.causal_lm import CausalLM, LoRA

SIZES = {
    "full": {"layers": 6, "width": 512, "vocabulary": 32000, "prompt": 1376, "new": 256},
    "quick": {"layers": 2, "width": 128, "vocabulary": 2000, "prompt": 200, "new": 48},
}
BATCH = 8
BAR = 3.0


def prompts(model: CausalLM, size: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """Embedded prompts of eight lengths, padded on the right."""
    longest = size["prompt"]
    lengths = torch.tensor([longest - row * longest // 40 for row in range(BATCH)])
    ids = torch.randint(3, size["vocabulary"], (BATCH, longest), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(longest) < lengths[:, None]).long()
    with torch.no_grad():
        return model.embed(ids.to(model.device)), mask.to(model.device)


def published(model: CausalLM, embeddings: torch.Tensor, mask: torch.Tensor, new: int) -> list[list[int]]:
    """One by one through generate."""
    found = []
    for row, real in zip(embeddings, mask, strict=True):
        alone = row[: int(real.sum())].unsqueeze(0)
        options = {"do_sample": False, "max_new_tokens": new, "min_new_tokens": new, "pad_token_id": 0}
        ids = model.model.generate(inputs_embeds=alone, attention_mask=torch.ones_like(alone[..., 0]).long(), **options)
        found.append(ids[0].tolist())
    return found


def ours(model: CausalLM, embeddings: torch.Tensor, mask: torch.Tensor, new: int) -> list[list[int]]:
    """All at a time."""
    with model.merged():
        return [g.ids for g in model.decode(embeddings, mask, Decoding(max_new_tokens=new, stop_on_loop=0))]


def read_options(about: str | None, repeats: int, parts: tuple[str, ...] = ()) -> argparse.Namespace:
    """The command line of a benchmark of generating, perhaps of several parts; its threads are set."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="write all figures there")
    if parts:
        parser.add_argument("--only", choices=parts, nargs="+", default=parts, help="some of the comparisons")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    return options


def random_model(size: dict, device: str) -> CausalLM:
    """A language model with random weights and adapters that are not zero, of which no answer ends by itself."""
    with tempfile.TemporaryDirectory() as folder:
        build({**size, "lengths": ()}, Path(folder))
        model = CausalLM(folder, lora=LoRA(dropout=0.0)).eval().to(device)
    model.device = torch.device(device)
    model.eos_ids = frozenset()  # random weights would end at random: all write as many tokens
    for key, parameter in model.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(parameter, std=0.02)
    return model


def main() -> int:
    """Time both, print the table."""
    options = read_options(__doc__, repeats=1)
    size = SIZES["quick" if options.quick else "full"]
    model = random_model(size, options.device)
    embeddings, mask = prompts(model, size)
    ways = {"published": published, "ours": ours}
    for way in ways.values():
        way(model, embeddings[:, -32:], mask[:, :32], 2)  # first calls set things up
    print(f"{options.device}, torch {torch.__version__}; {machine(options.threads)}", flush=True)
    runs = {name: lambda way=way: way(model, embeddings, mask, size["new"]) for name, way in ways.items()}
    results = take_turns(runs, options.repeats)
    theirs, mine = results.values()
    count = BATCH * size["new"]
    print(f"{'':12}{'wall s':>9}{'CPU s':>9}{'tokens/CPU s':>14}{'wall':>8}{'CPU':>8}{'GiB taken':>11}")
    for name, result in results.items():
        ratios = f"{theirs.wall / result.wall:7.2f}x{theirs.cpu / result.cpu:7.2f}x"
        print(
            f"{name:12}{result.wall:9.2f}{result.cpu:9.2f}{count / result.cpu:14.1f}{ratios}{result.peak / GIB:11.2f}"
        )
    same = theirs.output == mine.output
    ratio = theirs.cpu / mine.cpu if options.device == "cpu" else theirs.wall / mine.wall
    if options.json:
        options.json.write_text(json.dumps({"published": theirs.cpu, "ours": mine.cpu, "equal": same}, indent=2))
    met = same and ratio >= BAR
    print(f"tokens equal: {same} ({count} of them); {ratio:.2f} x (bar {BAR}): {'met' if met else 'missed'}")
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
