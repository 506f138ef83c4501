"""``reg2rg data encode``: the tokens of a config's frozen encoders for every study of its store, once."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from reg2rg.cli.data import command_parser, config_arguments
from reg2rg.cli.folder import is_folder, with_folder
from reg2rg.cli.main import Invocation
from reg2rg.cli.numbers import whole
from reg2rg.cli.paths import place_or_name
from reg2rg.cli.shards import add_shard_options, campaign_of, hand_out, remove_campaign, shard_of
from reg2rg.core.errors import EXIT_OK, ConfigError
from reg2rg.core.types import PathText
from reg2rg.models.encoders.base import ENCODERS, Encoder
from reg2rg.store.encoded import FOLDER

if TYPE_CHECKING:
    from torch import Tensor

    from reg2rg.cli.section import Sections
    from reg2rg.config.reading import Tree
    from reg2rg.store.views import ViewName


@dataclass(frozen=True)
class EncoderSection:
    """The encoders of a model, without all else.

    Attributes:
        texture: as the model's argument.
        geometry: as the model's argument.
        global_: as the model's argument.
    """

    texture: Encoder | None = None
    geometry: Encoder | None = None
    global_: Encoder | Literal["texture"] | None = None


def parser() -> argparse.ArgumentParser:
    """Options of ``reg2rg data encode``."""
    made = command_parser(
        "encode", "Keep what the frozen encoders give for every study, for data.features. Run it again to go on."
    )
    config_arguments(made)
    add = made.add_argument
    add(
        "--ckpt_path",
        metavar="PATH",
        type=place_or_name,
        help="checkpoint or folder of the model whose encoders to use",
    )
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where the encoders run")
    add("--workers", type=whole(0), default=None, help="threads that read views ahead; 0 for none")
    add("--check-contents", action="store_true", help="check every byte of what is there")
    add("--max_skip", type=float, default=0.05, help="share of studies that may be skipped")
    add_shard_options(made)
    return made


def run(invocation: Invocation) -> int:
    """Run ``reg2rg data encode``; see `reg2rg.cli.main`."""
    from reg2rg.inference.encode import encode
    from reg2rg.store.store import Store

    words = list(invocation.args)
    options, rest = parser().parse_known_args(words)
    shard = shard_of(options)
    sections, parts = _described(invocation, options, rest)
    assert sections.data.store is not None
    root = Path(sections.data.store)
    if options.shards > 1:
        code = hand_out(invocation, options, [*words, "--max_skip=1"], ("data", "encode"), root / FOLDER)
        if code != EXIT_OK:
            return code
    store = Store(root)
    listed, prepared = [study.id for study in sections.data.dataset.studies()], set(store.studies())
    if missing := [study for study in listed if study not in prepared]:
        sys.stdout.write(f"{len(missing)} of {len(listed)} studies are not in the store: {', '.join(missing[:3])}\n")
    summary = encode(
        store,
        [study for study in listed if study in prepared],
        parts,
        sections.task.views,
        sections.data.feature_bits,
        workers=options.workers,
        device=options.device,
        shard=shard,
        max_skip=options.max_skip,
        check_contents=options.check_contents,
        campaign=campaign_of(options),
    )
    if options.shards > 1:
        remove_campaign(root / FOLDER)
    sys.stdout.write(f"{summary.describe()}\n")
    return EXIT_OK


def _described(
    invocation: Invocation, options: argparse.Namespace, rest: Sequence[str]
) -> tuple[Sections, dict[ViewName, Encoder]]:
    """The data of a config, and view -> settled encoder of its model, with the weights that were asked for.

    Raises:
        ConfigError: what is not legal, with the reason.
    """
    from reg2rg.cli.section import section_of
    from reg2rg.config.options import apply_options, split_config_options
    from reg2rg.config.overlay import fold
    from reg2rg.data.encoded import not_legal, nothing_frozen
    from reg2rg.models.encoders.settled import settled_views
    from reg2rg.models.encoders.views_fit import require_fit

    more, keys = split_config_options(rest)
    given = [] if options.ckpt_path is None else ["--ckpt_path", options.ckpt_path]
    tree = with_folder(fold((*options.config, *more)), [*keys, *given])
    apply_options(tree, keys)
    if "data" not in tree.values or "model" not in tree.values:
        raise ConfigError("command line: sections data and model are missing. Expected: --config FILE ..., as for fit")
    sections = section_of(tree, invocation.allow_import)
    if sections.data.store is None:
        raise ConfigError("config: data.store: no folder of prepared studies. Give it: --data.store FOLDER")
    if reason := not_legal(sections.task.views, augmented=tree.values["data"].get("augment") is not None):
        raise ConfigError(f"data encode: {reason}")
    built = build_encoders(tree, invocation.allow_import)
    fill(built, options.ckpt_path)
    require_fit(built.texture, built.global_, built.geometry, sections.task.views)
    told = settled_views(built.texture, built.geometry, built.global_)
    reasons = {view: part for view, part in told.items() if isinstance(part, str)}
    if len(reasons) == len(told):
        raise ConfigError(f"data encode: {nothing_frozen(reasons)}")
    for view, why in reasons.items():
        sys.stdout.write(f"the {view} view is encoded in training: {why}\n")
    return sections, {view: part for view, part in told.items() if not isinstance(part, str)}


def build_encoders(tree: Tree, allow_import: Sequence[str] = ()) -> EncoderSection:
    """The encoders of a folded config's model, as a run with its seed begins with, and nothing else of the model.

    Args:
        tree: the folded config.
        allow_import: packages beyond the allow-list that it may name.

    Raises:
        ConfigError: file, line, key, expectation, remedy.
    """
    import lightning as L

    import reg2rg.models.encoders  # noqa: F401 (registers its own)
    from reg2rg.cli.building import Builder
    from reg2rg.cli.section import Parser
    from reg2rg.config.explain import refuse, resolved_values
    from reg2rg.config.imports import check_class_paths, import_policy
    from reg2rg.config.paths import make_absolute
    from reg2rg.config.reading import Tree
    from reg2rg.config.rules import check_values
    from reg2rg.config.schema import Checker
    from reg2rg.core.registry import load_plugins

    model = tree.values["model"]
    own = {name: model[name] for name in EncoderSection.__dataclass_fields__ if model.get(name) is not None}
    with import_policy(allow_import) as allowed:
        check_class_paths(tree, allowed)
        load_plugins()
        checker = Checker(Tree({"model": own}, tree.origins), allowed, {Encoder: ENCODERS.kind})
        refuse(checker.check({"model": EncoderSection}))
        values = resolved_values(tree)
        parser = Parser(prog="reg2rg data encode")
        parser.tree = tree
        parser.add_class_arguments(EncoderSection, "model")
        parsed = parser.parse_object({"model": {name: values["model"][name] for name in own}})
        make_absolute(parsed, {"model": EncoderSection})
        refuse(check_values({**values, **parsed.as_dict()}, tree))
        parser.add_instantiator(Builder(parsed.as_dict(), tree), Encoder, subclasses=True)
        seed = values.get("seed_everything", 0)
        L.seed_everything(0 if seed is None or isinstance(seed, bool) else int(seed), verbose=False)
        section: EncoderSection = parser.instantiate_classes(parsed).model
        return section


def fill(section: EncoderSection, path: PathText | None) -> None:
    """Take the encoders' weights from a checkpoint or a model's folder, where one was named.

    Raises:
        ConfigError: weights that do not fit; no such file.
    """
    from reg2rg.models.state import check_sizes

    if path is None:
        return
    tensors, where = _tensors(path), str(path)
    for name in EncoderSection.__dataclass_fields__:
        encoder = getattr(section, name)
        if not isinstance(encoder, Encoder):
            continue
        start = f"reporter.{name}."
        given = {key.removeprefix(start): tensor for key, tensor in tensors.items() if key.startswith(start)}
        own = encoder.state_dict()
        if unknown := sorted(set(given) - set(own)):
            raise ConfigError(
                f"{where}: {start}{unknown[0]} is unknown to the config's model.{name}. Fix: its own config"
            )
        check_sizes(given, own, where)
        encoder.load_state_dict(given, strict=False)


def _tensors(path: str) -> Mapping[str, Tensor]:
    if is_folder(path):
        from reg2rg.pretrained.saving import open_model

        return open_model(path).tensors
    from reg2rg.training.checkpoints import read_checkpoint

    state: Mapping[str, Tensor] = read_checkpoint(path)["state_dict"]
    return state
