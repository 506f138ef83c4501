"""The sections ``task`` and ``data`` of a training config, read by the commands that work on data alone.

The same files serve ``reg2rg data prepare`` and ``reg2rg fit``. Here only what describes the data is parsed and built:
no model, no trainer, no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from jsonargparse import ArgumentParser
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from reg2rg.cli.building import Builder
from reg2rg.cli.main import Invocation
from reg2rg.config.explain import check_references, explain, explain_interpolation, refuse
from reg2rg.config.imports import check_class_paths, import_policy
from reg2rg.config.options import apply_options, split_config_options
from reg2rg.config.overlay import fold, packaged_configs
from reg2rg.config.paths import make_absolute
from reg2rg.config.reading import Tree, lookup
from reg2rg.config.rules import check_values
from reg2rg.config.schema import Checker
from reg2rg.config.sources import constructor_arguments
from reg2rg.core.errors import ConfigError
from reg2rg.core.registry import did_you_mean, load_plugins
from reg2rg.core.task import ReportTask, Views
from reg2rg.core.types import PathText
from reg2rg.datasets import DATASETS, Dataset
from reg2rg.datasets.splitters import SPLITTERS, Splitter
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.segmenters import SEGMENTERS, Segmenter
from reg2rg.store.encoded import Bits

_OTHER_SECTIONS = ("model", "trainer", "seed_everything", "vars", "ckpt_path")


@dataclass(frozen=True)
class DataSection:
    """What a config says about the data themselves.

    Attributes:
        dataset: lists the studies.
        store: folder of the prepared studies; ``None`` where the config names none.
        read: how scans and masks are read.
        segmenter: makes the masks; for ``reg2rg data segment`` alone.
        feature_bits: of the tokens that ``reg2rg data encode`` keeps.
    """

    dataset: Dataset
    store: PathText | None = None
    read: ReadOptions = ReadOptions()  # noqa: RUF009 (frozen)
    segmenter: Segmenter | None = None
    feature_bits: Bits = 16


@dataclass(frozen=True)
class Sections:
    """What a config says to the commands that work on data alone.

    Attributes:
        task: what is seen and written.
        data: the data themselves.
    """

    task: ReportTask
    data: DataSection


class Parser(ArgumentParser):  # type: ignore[misc]
    """jsonargparse's parser, whose errors are one line with file, line and key."""

    tree = Tree()

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise `ConfigError`, or what jsonargparse wants while it tries one type after another."""
        if not self.exit_on_error:
            super().error(message, ex)
        raise ConfigError(explain(message, self.tree)) from ex


def read_section(invocation: Invocation, args: Sequence[str], configs: Sequence[str] = ()) -> Sections:
    """Fold the configs that `args` name and build what their sections ``task`` and ``data`` describe.

    Args:
        invocation: for the packages that configs may name.
        args: ``--config`` and ``--key value`` options.
        configs: files that stand before those.

    Raises:
        ConfigError: as for the trainer commands: file, line, key, expectation, remedy.
    """
    more, options = split_config_options(args)
    tree = fold((*configs, *more))
    apply_options(tree, options)
    if "data" not in tree.values:
        raise ConfigError(
            f"command line: no config gives a 'data' section. Expected: reg2rg {invocation.command} ... --config FILE. "
            f"Packaged: {', '.join(packaged_configs())}."
        )
    return section_of(tree, invocation.allow_import)


def section_of(tree: Tree, allow_import: Sequence[str] = ()) -> Sections:
    """Build what the ``data`` section of a folded config describes.

    Args:
        tree: the folded config.
        allow_import: packages beyond the allow-list that it may name.

    Raises:
        ConfigError: as for `read_section`.
    """
    with import_policy(allow_import) as allowed:
        check_class_paths(tree, allowed)
        if _names_a_plugin(tree):  # importing plug-ins may take seconds: encoders among them need torch
            load_plugins()
        return _build(tree, allowed)


def _names_a_plugin(tree: Tree) -> bool:
    places = (("dataset",), DATASETS), (("segmenter",), SEGMENTERS), (("dataset", "init_args", "splitter"), SPLITTERS)
    for keys, registry in places:
        given = lookup(tree.values, ("data", *keys))
        name = given.get("class_path") if isinstance(given, dict) else given
        if isinstance(name, str) and name not in registry:
            return True
    return False


def _build(tree: Tree, allowed: Sequence[str]) -> Sections:
    mistakes = [*check_references(tree), *_stray_keys(tree)]
    own = Tree(_of_interest(tree), tree.origins)
    checker = Checker(own, allowed, {Dataset: DATASETS.kind, Segmenter: SEGMENTERS.kind, Splitter: SPLITTERS.kind})
    refuse([*mistakes, *checker.check({"task": ReportTask, "data": DataSection})])
    try:
        values = {name: {key: _resolved(tree, name, key) for key in part} for name, part in own.values.items()}
    except OmegaConfBaseException as error:
        raise ConfigError(explain_interpolation(error, tree)) from error
    parser = Parser(prog="reg2rg data")
    parser.tree = tree
    parser.add_class_arguments(ReportTask, "task")
    parser.add_class_arguments(DataSection, "data")
    parsed = parser.parse_object(values)
    make_absolute(parsed, {"task": ReportTask, "data": DataSection})
    refuse(check_values(parsed.as_dict(), tree))
    builder = Builder(parsed.as_dict(), tree)
    for base in (Dataset, Segmenter, Splitter, ReportTask, Views):
        parser.add_instantiator(builder, base, subclasses=True)
    built = parser.instantiate_classes(parsed)
    return Sections(built.task, built.data)


def _of_interest(tree: Tree) -> dict[str, Any]:
    found = {"task": tree.values.get("task") or {}, "data": tree.values["data"]}
    for name, section in found.items():
        if not isinstance(section, dict):
            raise ConfigError(tree.say((name,), f"expected a mapping of arguments, found {section!r}."))
    known = DataSection.__dataclass_fields__
    return found | {"data": {key: value for key, value in found["data"].items() if key in known}}


def _stray_keys(tree: Tree) -> list[str]:
    """Keys that the training commands would refuse; the sections of model and trainer are theirs to check."""
    mistakes = []
    known = {argument.name for argument in constructor_arguments("reg2rg.data.datamodule", "RegionReportDataModule")}
    known |= set(DataSection.__dataclass_fields__)
    sections = ("task", "data", *_OTHER_SECTIONS)
    for key in tree.values:
        if key not in sections:
            mistakes.append(tree.say((key,), f"there is no section '{key}'.{did_you_mean(key, sections)}"))
    for key in tree.values["data"] if isinstance(tree.values["data"], dict) else ():
        if str(key) not in known:
            moved = str(key) in ReportTask.__dataclass_fields__
            hint = " It stands in the section 'task'." if moved else did_you_mean(str(key), sorted(known))
            text = f"the data section has no argument '{key}'.{hint} It takes: {', '.join(sorted(known))}."
            mistakes.append(tree.say(("data", key), text))
    return mistakes


def _resolved(tree: Tree, section: str, key: str) -> Any:
    """The value of a key of a section with its references resolved against the whole config."""
    config = OmegaConf.create(tree.values)
    value = config[section][key]
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
