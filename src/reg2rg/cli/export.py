"""``reg2rg export``: a checkpoint to a folder that others can load, with its model card."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from reg2rg.cli.main import Invocation
from reg2rg.cli.numbers import above_zero
from reg2rg.cli.paths import place, place_or_name
from reg2rg.core.documents import DocumentError, read_json
from reg2rg.core.errors import EXIT_OK, ConfigError
from reg2rg.core.model_folder import is_model_folder


def run(invocation: Invocation) -> int:
    """Run ``reg2rg export``; see `reg2rg.cli.main`."""
    options = _parser().parse_args(list(invocation.args))
    metrics = None if options.metrics is None else read_metrics(options.metrics)

    from reg2rg.pretrained.atomic_folder import check_target
    from reg2rg.pretrained.card import CardFacts
    from reg2rg.training.module import Reg2RG

    check_target(options.out, 0)
    load = Reg2RG.from_pretrained if is_model_folder(options.ckpt_path) else Reg2RG.from_checkpoint
    model = load(options.ckpt_path, language_model=options.language_model, allow_import=invocation.allow_import)
    facts = CardFacts(
        name=options.name,
        summary=options.summary,
        training_data=options.training_data,
        licence=options.licence,
        llm_licence=options.llm_licence,
        metrics=metrics,
    )
    folder = model.save_pretrained(
        options.out,
        spacing=None if options.spacing is None else tuple(options.spacing),
        copy_language_model=options.copy_language_model,
        refer_to=options.refer_to,
        facts=facts,
    )
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    sys.stdout.write(f"written: {folder}, {size / 2**20:.1f} MiB; look at {folder / 'README.md'} before you share it\n")
    return EXIT_OK


def read_metrics(path: Path) -> dict[str, Any]:
    """What ``reg2rg evaluate`` wrote.

    Raises:
        ConfigError: no such file, or another one.
    """
    try:
        values = read_json(path)
    except (OSError, DocumentError) as error:
        raise ConfigError(f"--metrics {path}: cannot be read ({error}). Fix: metrics.json of reg2rg evaluate") from None
    if not isinstance(values, dict) or not isinstance(values.get("numbers"), list) or "studies" not in values:
        raise ConfigError(f"--metrics {path}: not what reg2rg evaluate writes. Fix: metrics.json in its --out folder")
    return values


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reg2rg export",
        description="Write the model of a checkpoint into a folder: safetensors, config, input contract, model card. "
        "Reg2RG.from_pretrained, --ckpt_path and the hub take such folders.",
        allow_abbrev=False,
        epilog="Checkpoints of DeepSpeed and FSDP, which are folders, are made whole on the way.",
    )
    add = parser.add_argument
    add(
        "--ckpt_path",
        type=place,
        required=True,
        metavar="FILE",
        help="checkpoint of reg2rg fit, a file or a folder of shards; or a model's folder, to write it anew",
    )
    add("--out", type=place, required=True, metavar="FOLDER", help="new, empty, or a model's folder that is replaced")
    add("--metrics", type=place, metavar="FILE", help="metrics.json of reg2rg evaluate, for the card")
    add("--name", default="", metavar="TEXT", help="the model's name on the card")
    add("--summary", default="", metavar="TEXT", help="a paragraph about it")
    add("--training_data", default="", metavar="TEXT", help="what it was trained on, and under which licence")
    add("--licence", default="", metavar="WORD", help="of the weights in the folder, in the hub's words: cc-by-nc-4.0")
    add(
        "--llm_licence",
        default="",
        metavar="WORD",
        help="of the base language model, where it is not known by its name",
    )
    add(
        "--language_model",
        type=place_or_name,
        metavar="PATH",
        help="where the base language model is, if not where it was in training",
    )
    add("--refer_to", metavar="ID", help="hub id to name as the base language model instead of its path")
    add(
        "--copy_language_model",
        action=argparse.BooleanOptionalAction,
        help="put a frozen language model into the folder (default: if it is a local one under 512 MiB)",
    )
    add(
        "--spacing",
        type=above_zero,
        nargs=3,
        metavar="MM",
        help="voxel size that every scan was resampled to before training; the model will ask for it",
    )
    return parser
