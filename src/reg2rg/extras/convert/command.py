"""``reg2rg convert``: published weights to a folder of this package, every key accounted for."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from reg2rg.cli.main import Invocation
from reg2rg.cli.paths import place, place_or_name
from reg2rg.core.errors import EXIT_OK, EXIT_RUNTIME, ConfigError

if TYPE_CHECKING:
    from reg2rg.extras.convert import Sums
    from reg2rg.models.tensors import TensorSource

DTYPES = ("float32", "bfloat16", "float16")
LLAMA2 = "meta-llama/Llama-2-7b-chat-hf"
_WORTH_A_BAR = 512  # MiB


def run(invocation: Invocation) -> int:
    """Run ``reg2rg convert``; see `reg2rg.cli.main`."""
    options = _parser().parse_args(list(invocation.args))
    if options.to is None and not options.check:
        raise ConfigError("command line: neither --to FOLDER nor --check is given, so there is nothing to do")
    if (options.sums or options.against) and not options.check:
        raise ConfigError("command line: --sums and --against go with --check")

    import torch

    from reg2rg.core.registry import load_plugins
    from reg2rg.extras.convert import (
        Options,
        bytes_to_read,
        check_new,
        convert,
        differences,
        open_published,
        read_sums,
        verify_folder,
    )

    load_plugins()
    there = read_sums(options.against) if options.against is not None else None
    chosen = Options(
        dtype=None if options.dtype is None else getattr(torch, options.dtype),
        llm=options.llm,
        backbone=options.backbone,
        sha256=options.sha256,
    )
    if options.to is not None:
        check_new(options.to, 0)  # before a long check
    _, opened = open_published(options.source, options.format, chosen)
    sys.stdout.write(f"{opened.source.path.name}: {opened.account.summary()}\n")
    differing: list[str] = []
    if options.check:
        sums = _print_sums(opened.source)
        if options.sums is not None:
            sums.write(options.sums)
        differing = differences(sums, there) if there is not None else []
    if options.to is not None:
        with _mib("MiB converted", bytes_to_read(opened)) as step:
            done = convert(options.source, options.format, options.to, chosen, step)
        for note in done.notes:
            sys.stdout.write(f"note: {note}\n")
        sys.stdout.write(f"written: {done.folder}, {len(done.tensors)} tensors\n")
        if options.check:
            _print_sums(verify_folder(options.source, options.format, options.to, chosen))
            sys.stdout.write("every written tensor is the one that follows from the file\n")
    if there is not None:
        lines = differing or [f"the same tensors as in {options.against.name}, to the last byte"]
        sys.stdout.write("\n".join(lines) + "\n")
    return EXIT_RUNTIME if differing else EXIT_OK


def _print_sums(source: TensorSource) -> Sums:
    from reg2rg.extras.convert import sum_tensors

    with _mib("MiB checked", sum(entry.nbytes for entry in source.entries.values())) as step:
        sums = sum_tensors(source, step)
    sys.stdout.write("\n".join(sums.lines()) + "\n")
    return sums


@contextmanager
def _mib(title: str, size: int) -> Iterator[Callable[[int], None]]:
    """Progress over so many bytes, on standard error; small files pass without."""
    from reg2rg.core.progress import progress

    if (total := size // 2**20) < _WORTH_A_BAR:
        yield lambda count: None
        return
    with progress(title, total) as advance:

        def step(count: int) -> None:
            for _ in range(count):
                advance()

        yield step


def _digest(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no SHA-256 (expected 64 hexadecimal digits)")
    return text.lower()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reg2rg convert",
        description="Convert published weights to a folder of this package, every key accounted for; or check a file "
        "and print sums that two sites can compare.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("source", type=place, metavar="SOURCE", help="the file, a folder with it, or the index of its shards")
    add(
        "--from",
        dest="format",
        required=True,
        metavar="FORMAT",
        help="reg2rg | radfm-vit3d | radfm-perceiver | radbert | m3d-clip | ctclip-ctvit | ct2rep-ctvit | medvint | "
        "ctchat-pooler | i3resnet",
    )
    add("--to", type=place, metavar="FOLDER", help="new folder to write")
    add(
        "--dtype",
        choices=DTYPES,
        help="of the written tensors (default: that of the file, float32 for what is computed)",
    )
    add(
        "--llm",
        type=place_or_name,
        metavar="PATH",
        default=LLAMA2,
        help=f"reg2rg: base language model to refer to (default: {LLAMA2})",
    )
    add("--backbone", type=place, metavar="FOLDER", help="radbert: config and tokenizer of RadBERT-RoBERTa-4m")
    add(
        "--sha256",
        type=_digest,
        metavar="HEX",
        help="SHA-256 that the file must have (default: what is known of the format's file, if anything is)",
    )
    add("--check", action="store_true", help="print sums of every tensor; with --to also of what was written")
    add("--sums", type=place, metavar="FILE", help="with --check: write the sums as JSON")
    add(
        "--against",
        type=place,
        metavar="FILE",
        help="with --check: compare with another site's sums; exit code 1 if they differ",
    )
    return parser
