"""A training step on tokens that were made before, beside a live one; bytes and reading of tokens; what encoding takes.

    python benchmarks/encoded.py                    10 regions of 256 x 256 x 64, ViT of 12 x 768, as step.py
    python benchmarks/encoded.py --before CHECKOUT  and step.py of another checkout, which steps live
    python benchmarks/encoded.py --quick            small, for a look at the script
    python benchmarks/encoded.py --count            operations and bytes of 25,000 studies: counted, nothing is run

Tokens are written to files as ``reg2rg data encode`` writes them, and read at every step, digests checked. First, with
every dropout off, loss and gradients must be those of the live encoder: to 1e-4 of the loss with float16. Then sides
take turns; best of all repeats, in CPU seconds. Exit status 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from _measure import GIB, Result, machine, take_turns
from step import DROPOUT, LLMS, SIZES, Dropout, build, set_dropout, step
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from reg2rg.core.task import Views
from reg2rg.data.batch import Batch
from reg2rg.models.encoders import ViT3D
from reg2rg.models.encoders.settled import facts_of
from reg2rg.models.reporter import RegionReporter
from reg2rg.store.encoded import Bits, EncodedView, Encoding
from reg2rg.store.store import Store

LOSS_BAR, READ_BAR, MEMORY_BAR = 1e-4, 0.040, 0.5
AGAINST = {"ours": 3.3, "published": 6.5}
BYTES_BAR = {16: 1.0, 8: 0.5}
KEY = "benchmark"


class Kept:
    """The tokens of one study in files.

    Args:
        root: folder of a store.
        model: whose texture encoder is a resampler of a frozen one.
        batch: of the study, live.
        bits: of the tokens.
    """

    def __init__(self, root: Path, model: RegionReporter, batch: Batch, bits: Bits) -> None:
        part, self.names = model.texture.encoder, batch.regions[0]
        views = Views(size=tuple(batch.texture.shape[2:]))
        store, facts = Store(root / str(bits)), facts_of(part)
        self.texture, self.image = (EncodedView(store, Encoding(v, views, facts, bits)) for v in ("texture", "global"))
        with torch.no_grad():
            self.texture.write("study", KEY, self.names, part(batch.texture).numpy())
            self.image.write("study", KEY, self.names, part(batch.global_).numpy())
        dense = (len(self.names) + 1) * part.num_tokens * part.out_channels * 2
        self.bytes = sum(one.path("study").stat().st_size for one in (self.texture, self.image))
        self.share = self.bytes / dense

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Tokens of the regions and of the image, every byte checked."""
        return self.texture.read("study", self.names, KEY), self.image.read("study", self.names, KEY)

    def batch(self, live: Batch) -> Batch:
        """The live batch with tokens in the place of volumes."""
        texture, image = self.read()
        return replace(live, texture=torch.from_numpy(texture), global_=torch.from_numpy(image)[None])


def gradients(model: RegionReporter, forward: Callable[[], Tensor]) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of one step."""
    loss = step(model, forward)
    return loss, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def compare(model: RegionReporter, batch: Batch, kept: dict[Bits, Kept]) -> bool:
    """Hold losses and gradients from tokens against live ones, dropout off."""
    set_dropout(model, 0.0)
    live, own = gradients(model, lambda: model(batch).mean())
    equal = True
    for bits, one in kept.items():
        loss, found = gradients(model, lambda one=one: model(one.batch(batch)).mean())
        far = abs(loss - live) / abs(live)
        worst = max(float((found[n] - g).abs().max() / g.abs().max().clamp(min=1e-12)) for n, g in own.items())
        print(f"{bits} bits: loss {loss:.7f}, live {live:.7f}, {far:.1e} apart; gradients {worst:.1e} of their largest")
        equal = equal and found.keys() == own.keys() and (bits != 16 or far <= LOSS_BAR)
    set_dropout(model, DROPOUT)
    return equal


def reading(kept: dict[Bits, Kept], quick: bool) -> bool:
    """Print bytes, and time of reading warm files."""
    met = True
    for bits, one in kept.items():
        result = take_turns({"read": one.read}, 12)["read"]
        good = quick or (result.cpu <= READ_BAR and one.share <= BYTES_BAR[bits])
        print(f"{bits} bits: {one.bytes / 1e6:.2f} MB, {one.share:.3f} of dense float16 (bar {BYTES_BAR[bits]}); "
              f"read, checked in {result.cpu * 1e3:.1f} ms CPU (bar {READ_BAR * 1e3:.0f})")  # fmt: skip
        met = met and good
    return met


def other_side(checkout: Path, quick: bool, repeats: int, llm: str) -> dict[str, tuple[float, float]]:
    """CPU seconds and GiB of a live step, ours and published, of another checkout's step.py."""
    environment = {**os.environ, "PYTHONPATH": str(checkout.resolve() / "src")}
    command = [sys.executable, "step.py", "--repeats", str(repeats), "--threads", "1", "--llm", llm]
    done = subprocess.run(
        [*command, *(["--quick"] if quick else [])], cwd=checkout / "benchmarks", env=environment,
        capture_output=True, text=True,
    )  # fmt: skip
    rows = [line.split() for line in done.stdout.splitlines() if line.split()[:1] in (["ours"], ["published"])]
    if len(rows) < 2:
        sys.exit(f"{checkout}: step.py ended with {done.returncode}\n{done.stderr[-2000:]}")
    return {words[0]: (float(words[2]), float(words[4])) for words in rows if words[1][0].isdigit()}


def row(name: str, result: Result) -> None:
    print(f"{name:32}{result.wall:8.2f}{result.cpu:8.3f}{result.peak / GIB:10.3f}", flush=True)


def count(studies: int = 25_000, regions: int = 10) -> int:
    """Print operations and bytes of encoding many studies, computed on no data."""
    with torch.device("meta"):
        vit, volume = ViT3D().eval(), torch.empty(1, 1, 256, 256, 64)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        vit(volume)
    each = counter.get_total_flops() * (regions + 1)
    dense = (regions + 1) * vit.num_tokens * vit.out_channels * 2
    print(f"one study: {regions + 1} volumes, {each / 1e12:.2f} TFLOP of matrix products (counted, not run)")
    print(f"{studies:,} studies: {each * studies / 1e15:.1f} PFLOP; {dense * studies / 1e9:,.0f} GB dense float16, "
          f"{dense * studies / 2e9:,.0f} GB in 8 bits, before compression")  # fmt: skip
    print("computed hours of one GPU at half of its float32 peak (TFLOP/s, from data sheets):")
    for name, peak in (("RTX 4090", 82.6), ("A100", 19.5), ("H100 SXM", 66.9)):
        print(f"  {name:10}{peak:8.1f}{each * studies / (0.5 * peak * 1e12) / 3600:8.2f} h")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--count", action="store_true")
    parser.add_argument("--before", type=Path, help="a checkout whose step.py steps live")
    parser.add_argument("--llm", choices=["tiny", "wide"], default="tiny")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="where the time of a step on tokens goes")
    parser.add_argument("--json", type=Path, help="write all figures there")
    options = parser.parse_args()
    if options.count:
        return count()
    torch.set_num_threads(1)
    size = SIZES["quick"] if options.quick else replace(SIZES["full"], llm=LLMS[options.llm])
    with tempfile.TemporaryDirectory() as folder:
        model, published, batch = build(size, Path(folder) / "lm", Dropout())
        del published
        print(f"{size.regions} regions + image, {batch.input_ids.shape[1]} positions; {machine(1)}", flush=True)
        bits: tuple[Bits, ...] = (16, 8)
        kept = {one: Kept(Path(folder), model, batch, one) for one in bits}
        met = compare(model, batch, kept) and reading(kept, options.quick)
        print(f"{'':32}{'wall s':>8}{'CPU s':>8}{'GiB taken':>10}")
        cached = {
            f"{one} bits": lambda one=one: step(model, lambda: model(kept[one].batch(batch)).mean()) for one in bits
        }
        results = take_turns(cached, options.repeats)
        results |= take_turns({"live": lambda: step(model, lambda: model(batch).mean())}, 1)
        for name, result in results.items():
            row(f"step, {name}", result)
        if options.profile:
            with torch.profiler.profile() as found:
                cached["16 bits"]()
            print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=25))
        figures = {name: [result.cpu, result.peak / GIB] for name, result in results.items()}
    if options.before is not None:
        for name, (seconds, taken) in other_side(options.before, options.quick, 1, options.llm).items():
            ratio, share = seconds / results["16 bits"].cpu, results["16 bits"].peak / GIB / taken
            print(f"{options.before.name}, {name}: {seconds:.2f} CPU s, {taken:.2f} GiB; on tokens {ratio:.2f} x less "
                  f"(bar {AGAINST[name]}), {share:.2f} of the memory")  # fmt: skip
            met = met and (options.quick or ratio >= AGAINST[name])
            met = met and (options.quick or name != "ours" or share <= MEMORY_BAR)
            figures[f"before, {name}"] = [seconds, taken]
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))
    print("met" if met else "missed")
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
