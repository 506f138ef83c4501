"""``reg2rg lm``: a tiny language model, built from the training reports of a config's data set."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from reg2rg.cli.help import HelpFormatter
from reg2rg.cli.main import Invocation
from reg2rg.cli.numbers import whole
from reg2rg.cli.paths import place
from reg2rg.core.errors import ConfigError


def run(invocation: Invocation) -> int:
    """Run ``reg2rg lm``; see `reg2rg.cli.main`."""
    parser = argparse.ArgumentParser(
        prog="reg2rg lm",
        description="Train a tokenizer on the training reports of a data set, and make a small model of LLaMA's "
        "architecture. With task.target joined or whole, it learns to write whole reports. For demos and tests; real "
        "runs name a pretrained model.",
        allow_abbrev=False,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("out", type=place, metavar="OUT", help="folder to write the model into")
    parser.add_argument("-c", "--config", action="append", metavar="FILE", default=[], help="as for reg2rg fit")
    parser.add_argument("--hidden_size", type=whole(1), default=128, help="width")
    parser.add_argument("--layers", type=whole(1), default=3, help="depth")
    parser.add_argument("--heads", type=whole(1), default=8, help="attention heads")
    parser.add_argument("--vocab_size", type=whole(1), default=1000, help="most tokens")
    parser.add_argument(
        "--steps",
        type=whole(0),
        help="of training on report text; 0 for none. 500 by default, 1250 longer ones with --cues",
    )
    parser.add_argument("--cues", action="store_true", help="name findings as a prompt with model.cues does")
    parser.add_argument("--seed", type=whole(0), default=0, help="of weights and documents")
    options, rest = parser.parse_known_args(list(invocation.args))

    from reg2rg.cli.section import read_section

    section = read_section(invocation, rest, options.config)
    studies = [study for study in section.data.dataset.studies() if study.split == "train" and study.reports]
    if not studies:
        raise ConfigError("data.dataset: no study of the training split has a report to learn words from.")

    from reg2rg.data.prompt import GLOBAL_PREFIX, REGION_PREFIX
    from reg2rg.evaluation.labelers import RuleLabeler
    from reg2rg.extras.tiny_llm.build import build_tiny_llama
    from reg2rg.extras.tiny_llm.pretraining import WITH_CUES, Schedule

    schedule = WITH_CUES if options.cues else Schedule()
    build_tiny_llama(
        [study.reports for study in studies],
        options.out,
        hidden_size=options.hidden_size,
        layers=options.layers,
        heads=options.heads,
        vocab_size=options.vocab_size,
        instruction=section.task.instruction_text,
        prompt_texts=(GLOBAL_PREFIX, REGION_PREFIX),
        image_prefix="" if section.task.target == "regions" else GLOBAL_PREFIX,
        schedule=schedule if options.steps is None else replace(schedule, steps=options.steps),
        seed=options.seed,
        labeler=RuleLabeler() if options.cues else None,
    )
    sys.stdout.write(f"language model in {options.out}\n")
    return 0
