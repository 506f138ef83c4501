"""Paragraphs of a report, reports, and variants of a study written at once, beside one after another.

    python benchmarks/paragraphs.py           6 layers of width 512, prompts of up to 1,376 positions
    python benchmarks/paragraphs.py --quick   2 layers of width 128, prompts of up to 200 positions

Three comparisons over one random model, greedy on both sides; first it is shown that both sides write the same tokens:

- one report of ten independent paragraphs, its prompt read before: all at once, and one paragraph after another;
- eight reports at once: the published way (generate, one study after another, LoRA beside the weights), our way with
  paragraphs in turn, of the same tokens, and our way with independent paragraphs, whose tokens are as many and those of
  each of the eight reports alone;
- twenty variants of one study, as an audit asks for them (each slot with the visual tokens of two other regions): one
  batch, and twenty separate reports; with paragraphs in turn, and with independent ones.

A paragraph is its frame, which is given token by token, and what the model writes then. Sides take turns; best of all
repeats. Exit status 1 when tokens differ, or a ratio of CPU time is under its bar (of wall time, but on a CPU).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from _measure import machine, take_turns
from generate import SIZES, published, random_model, read_options

from reg2rg.models.llm.base import Decoding
from reg2rg.models.llm.causal_lm import CausalLM
from reg2rg.models.llm.decoding import _Rows, _write_answers
from reg2rg.models.llm.family import shares_prompts
from reg2rg.models.llm.reading import Beginning, Reader
from reg2rg.models.llm.shared_prompts import attending, shared_cache
from reg2rg.models.llm.skinny_linear import products_in_parts

LENGTHS = 18, 31, 22, 40, 24, 20, 34, 21, 28, 18
"""Tokens of ten paragraphs, 256 together; the first `FRAME` are the frame."""
FRAME, STUDIES, VARIANTS = 8, 8, 20
BARS = {"one report": 3.0, "eight reports": 4.0, "variants": 3.0}


class Paragraph:
    """A guide: a frame of given tokens, then what the model likes, to a given length."""

    def __init__(self, slot: int, most: int) -> None:
        self.ids: list[int] = []
        self.truncated, self.most = False, most
        self.frame = [7 + slot + place for place in range(FRAME if slot >= 0 else 0)]

    def allows(self, token: int) -> bool:
        step = len(self.ids)
        return step >= len(self.frame) or token == self.frame[step]

    def allowed(self) -> Sequence[int] | None:
        step = len(self.ids)
        return [self.frame[step]] if step < len(self.frame) else None

    def look(self, token: int, logits: torch.Tensor, branches: Callable[[], Any]) -> None:
        pass

    def take(self, token: int) -> bool:
        self.ids.append(token)
        return len(self.ids) < self.most


def report() -> list[Paragraph]:
    return [Paragraph(slot, length) for slot, length in enumerate(LENGTHS)]


def apart(model: CausalLM, inputs: torch.Tensor, mask: torch.Tensor) -> list[list[int]]:
    """Reports of ten independent paragraphs, all of a batch at once."""
    guides = [one for _ in inputs for one in report()]
    rows = [row for row in range(len(inputs)) for _ in LENGTHS]
    with model.merged():
        found = model.decode(inputs, mask, Decoding(max_new_tokens=sum(LENGTHS)), guides, (), rows)
    return [answer.ids for answer in found]


def in_turn(model: CausalLM, inputs: torch.Tensor, mask: torch.Tensor) -> list[list[int]]:
    """Reports whose paragraphs follow one another, of as many tokens."""
    guides = [Paragraph(-1, sum(LENGTHS)) for _ in inputs]
    with model.merged():
        found = model.decode(inputs, mask, Decoding(max_new_tokens=sum(LENGTHS)), guides)
    return [answer.ids for answer in found]


def decode_parts(model: CausalLM, inputs: torch.Tensor) -> dict[str, Callable[[], list[list[int]]]]:
    """The decode part of one report behind a prompt that was read: one paragraph after another, and all at once."""
    causal, length = model._causal, torch.tensor([inputs.shape[1]])
    with torch.no_grad():
        own, logits = Reader(causal, inputs, torch.ones(inputs.shape[:2], dtype=torch.long), [Beginning(0)])(0)

    def written(guides: list[Paragraph]) -> list[list[int]]:
        count = len(guides)
        cache = shared_cache([own], [0] * count, max(LENGTHS))
        with torch.no_grad(), attending(causal), products_in_parts(causal):
            rows = _Rows(guides, frozenset(), None)
            _write_answers(causal, cache, logits.expand(count, -1), None, rows, length.expand(count))
        return [guide.ids for guide in guides]

    return {
        "one after another": lambda: [ids for one in report() for ids in written([one])],
        "at once": lambda: written(report()),
    }


def variants(inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One prompt twenty times: in each the visual tokens of one of ten slots are others."""
    longest = inputs.shape[1]
    many = inputs[:1].repeat(VARIANTS, 1, 1)
    slot = longest // 11  # the image takes as much as a region
    generator = torch.Generator().manual_seed(3)
    for place in range(VARIANTS):
        first = slot * (1 + place // 2)
        other = torch.randint(longest, (slot - 8,), generator=generator)
        many[place, first : first + slot - 8] = inputs[0, other]
    return many, torch.ones(many.shape[:2], dtype=torch.long)


def main() -> int:
    """Time all, print the tables."""
    options = read_options(__doc__, repeats=2, parts=tuple(BARS))
    size = SIZES["quick" if options.quick else "full"]
    model = random_model(size, options.device)
    longest = size["prompt"]
    lengths = torch.tensor([longest - row * longest // 40 for row in range(STUDIES)])
    ids = torch.randint(3, size["vocabulary"], (STUDIES, longest), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(longest) < lengths[:, None]).long().to(model.device)
    with torch.no_grad():
        inputs = model.embed(ids.to(model.device))
    assert shares_prompts(model._causal, 1.0)
    print(f"{options.device}, torch {torch.__version__}; {machine(options.threads)}", flush=True)

    def alone(way: Callable[..., list[list[int]]], given: torch.Tensor, real: torch.Tensor) -> list[list[int]]:
        return [
            found
            for row in range(len(given))
            for found in way(model, given[row : row + 1, real[row].bool()], real[row : row + 1, real[row].bool()])
        ]

    many, every = (one.to(model.device) for one in variants(inputs))
    new = sum(LENGTHS)
    groups: dict[str, dict[str, Callable[[], Any]]] = {
        "one report": decode_parts(model, inputs[:1]),
        "eight reports": {
            "published": lambda: published(model, inputs, mask, new),
            "in turn": lambda: in_turn(model, inputs, mask),
            "independent, each alone": lambda: alone(apart, inputs, mask),
            "independent": lambda: apart(model, inputs, mask),
        },
        "variants": {
            "in turn, separate": lambda: alone(in_turn, many, every),
            "in turn, one batch": lambda: in_turn(model, many, every),
            "independent, separate": lambda: alone(apart, many, every),
            "independent, one batch": lambda: apart(model, many, every),
        },
    }
    pairs = {
        "one report": [("one after another", "at once", True)],
        "eight reports": [
            ("published", "in turn", True),
            ("published", "independent", False),
            ("independent, each alone", "independent", True),
        ],
        "variants": [
            ("in turn, separate", "in turn, one batch", True),
            ("independent, separate", "independent, one batch", True),
            ("in turn, separate", "independent, one batch", False),
        ],
    }
    figures: dict[str, Any] = {}
    met = True
    for name in options.only:
        results = take_turns(groups[name], options.repeats)
        print(f"\n{name:44}{'wall s':>9}{'CPU s':>9}")
        for way, result in results.items():
            print(f"  {way:42}{result.wall:9.2f}{result.cpu:9.2f}")
        best = 0.0
        for slow, fast, equal in pairs[name]:
            theirs, mine = results[slow], results[fast]
            same = theirs.output == mine.output
            ratio = theirs.cpu / mine.cpu if options.device == "cpu" else theirs.wall / mine.wall
            met &= same or not equal
            told = f"tokens equal: {same}" if equal else "as many tokens"
            print(f"  {fast} against {slow}: {ratio:.2f} x; {told}", flush=True)
            figures[f"{name}: {fast} against {slow}"] = [theirs.cpu, mine.cpu, ratio, same]
            best = max(best, ratio)
        print(f"  bar {BARS[name]} x: {'met' if best >= BARS[name] else 'missed'}", flush=True)
        met &= best >= BARS[name]
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
