"""Write the table of docs/reference/llms.md: every family of tests/families.py, held against the contract.

python docs/make_llms.py      two minutes on one core
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import peft
import torch
import transformers
from make_tree import ROOT

sys.path.insert(0, str(ROOT / "tests"))

from families import FAST, SLOW, TARGETS, TYPES, save_tiny
from reg2rg.core.errors import ConfigError
from reg2rg.models.llm.adapters import LoRA, weights_to_fold
from reg2rg.models.llm.base import Decoding
from reg2rg.models.llm.causal_lm import CausalLM
from reg2rg.testing import check_language_model

PAGE = ROOT / "docs" / "reference" / "llms.md"
BATCH, TOKENS, CONTEXT = 8, 16, 64
BEGIN, END = "<!-- table -->\n", "<!-- /table -->\n"
KINDS = {
    "falcon": "rotary positions",
    "falcon_alibi": "ALiBi",
    "gemma4_text": "without inputs for each layer",
    "gemma4_per_layer": "with inputs for each layer",
    "deepseek_v32": "prompt within `index_topk`",
    "deepseek_v32_beyond": "prompt beyond `index_topk`",
    "glm_moe_dsa": "prompt within `index_topk`",
    "glm_moe_dsa_beyond": "prompt beyond `index_topk`",
    "bert": "no decoder",
    "roberta": "no decoder",
}
"""Said of families that are listed twice, or whose config decides."""


@contextmanager
def told() -> Iterator[list[str]]:
    """Collect what the package logs."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("reg2rg")
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)


def notes(build: partial[CausalLM], targets: tuple[str, ...]) -> Iterator[str]:
    """What is done for a family that is read right."""
    with told() as lines:
        model = build()
    said = " ".join(lines)
    if "no fused attention" in said:
        yield "plain attention"
    if model.habits.alone:
        yield "reports decoded one by one"
    if model.habits.embedding_scale != 1:
        yield f"embeddings times {model.habits.embedding_scale:g}, as ids are"
    if not weights_to_fold(model.model):
        yield "adapters never folded in: shared weights"
    if " layers (" in said:
        yield "adapters in some layers alone"
    if targets != LoRA.targets:
        yield f"`targets: [{', '.join(targets)}]`"
    try:
        build(gradient_checkpointing=True)
    except ConfigError:
        yield "no gradient checkpointing"


def batched(build: partial[CausalLM]) -> str:
    """Tokens of eight answers in one batch that are those of each alone, of how many, in float32."""
    model = build().eval()
    torch.manual_seed(0)
    lengths = torch.arange(BATCH) * 2 + 3
    ids = torch.randint(5, 40, (BATCH, int(lengths.max())))
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    with torch.no_grad():
        inputs = model.embed(ids)
    limits = Decoding(max_new_tokens=TOKENS, stop_on_loop=0)
    model.eos_ids = frozenset()
    together = model.decode(inputs, mask, limits)
    alone = [model.decode(inputs[row : row + 1], mask[row : row + 1], limits)[0] for row in range(BATCH)]
    pairs = [pair for one, other in zip(together, alone, strict=True) for pair in zip(one.ids, other.ids, strict=True)]
    return f"{sum(one == other for one, other in pairs)} of {len(pairs)}"


def apart(build: partial[CausalLM]) -> str:
    """Whether paragraphs may be independent, or why not."""
    try:
        build().require_blocks(CONTEXT)
    except ConfigError as error:
        return str(error).partition("themselves alone: ")[2].partition(" (expected")[0].replace(f" of {CONTEXT}", "")
    return "yes"


def row(family: str) -> str:
    """One line of the table."""
    targets = TARGETS.get(family, LoRA.targets)
    with tempfile.TemporaryDirectory() as folder:
        build = partial(CausalLM, str(save_tiny(family, Path(folder))), lora=LoRA(targets=targets))
        try:
            check_language_model(build)
            verdict, more = "right", f"{batched(build)} | {apart(build)} | {'; '.join(notes(build, targets))}"
        except ConfigError as error:
            reason = str(error).partition("cannot be used: ")[2] or str(error).partition("lora: ")[2]
            why = reason.partition(" (expected")[0].partition(", and that")[0].rstrip(".")
            verdict, more = "refused", f" | | {why}"
    kind = f", {KINDS[family]}" if family in KINDS else ""
    return f"| `{TYPES.get(family, family)}`{kind} | {verdict} | {more} |\n"


def table() -> str:
    """Versions and rows."""
    rows = [row(family) for family in sorted((*FAST, *SLOW))]
    right = sum("| right |" in line for line in rows)
    release = torch.__version__.partition("+")[0]
    versions = f"transformers {transformers.__version__}, peft {peft.__version__}, torch {release}"
    head = (
        "| family (`model_type`) | verdict | tokens in a batch as alone | independent paragraphs | notes |\n"
        "|---|---|---|---|---|\n"
    )
    return f"{versions}, CPU: {right} right, {len(rows) - right} refused.\n\n{head}{''.join(rows)}"


def main() -> None:
    """Write it."""
    transformers.logging.set_verbosity_error()
    logging.getLogger("reg2rg").propagate = False
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(before + BEGIN + table() + END + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    main()
