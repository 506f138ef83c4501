"""The ``data`` section of a training config, read by the commands that work on data alone.

The same files serve ``reg2rg data prepare`` and ``reg2rg fit``. Here only what describes the data is parsed and built:
no model, no trainer, no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from jsonargparse import ArgumentParser, set_parsing_settings
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from reg2rg.cli.building import Builder
from reg2rg.cli.listing import constructor_arguments
from reg2rg.cli.main import Invocation
from reg2rg.config.explain import check_references, explain, explain_interpolation
from reg2rg.config.imports import check_class_paths, import_policy
from reg2rg.config.options import apply_options, split_config_options
from reg2rg.config.overlay import fold, packaged_configs
from reg2rg.config.reading import COMMAND_LINE, Tree, lookup
from reg2rg.config.rules import check_values
from reg2rg.config.schema import Checker
from reg2rg.core.errors import ConfigError
from reg2rg.core.registry import did_you_mean, load_plugins
from reg2rg.datasets import DATASETS, Dataset
from reg2rg.scans.base import ReadOptions
from reg2rg.store.views import Views

_OTHER_SECTIONS = ("model", "trainer", "seed_everything", "vars", "ckpt_path")


@dataclass(frozen=True)
class DataSection:
    """What a config says about the data themselves.

    Attributes:
        dataset: lists the studies.
        store: folder of the prepared studies; ``None`` where the config names none.
        regions: region set by name or file.
        views: settings of the views.
        read: how scans and masks are read.
        instruction: text between the regions and the report; ``None`` for the published one.
        target: ``regions``, or what a report without regions is made of; see the datamodule.
    """

    dataset: Dataset
    store: str | None = None
    regions: str = "radgenome"
    views: Views = Views()  # noqa: RUF009 (frozen)
    read: ReadOptions = ReadOptions()  # noqa: RUF009 (frozen)
    instruction: str | None = None
    target: Literal["regions", "joined", "whole"] = "regions"


class Parser(ArgumentParser):  # type: ignore[misc]
    """jsonargparse's parser with one-line errors."""

    tree = Tree()

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise `ConfigError`, or what jsonargparse wants while it tries one type after another."""
        if not self.exit_on_error:
            super().error(message, ex)
        raise ConfigError(explain(message, self.tree)) from ex


def read_section(invocation: Invocation, args: Sequence[str]) -> DataSection:
    """Fold the configs that `args` name and build what their ``data`` section describes.

    Args:
        invocation: for the packages that configs may name.
        args: ``--config`` and ``--key value`` options.

    Raises:
        ConfigError: as for the trainer commands: file, line, key, expectation, remedy.
    """
    configs, options = split_config_options(args)
    tree = fold(configs)
    apply_options(tree, options)
    if "data" not in tree.values:
        raise ConfigError(
            f"command line: no config gives a 'data' section. Expected: reg2rg {invocation.command} {args_hint()} "
            f"Packaged: {', '.join(packaged_configs())}."
        )
    return section_of(tree, invocation.allow_import)


def section_of(tree: Tree, allow_import: Sequence[str] = ()) -> DataSection:
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
    dataset = lookup(tree.values, ("data", "dataset"))
    name = dataset.get("class_path") if isinstance(dataset, dict) else dataset
    return isinstance(name, str) and name not in DATASETS


def args_hint() -> str:
    """How a config is given."""
    return "... --config FILE."


def _build(tree: Tree, allowed: Sequence[str]) -> DataSection:
    set_parsing_settings(instantiate_subclass_spec_in_any=False)
    mistakes = [*check_references(tree), *_stray_keys(tree)]
    own = Tree({"data": _of_interest(tree)}, tree.origins)
    mistakes += Checker(own, allowed, {Dataset: DATASETS.kind}).check({"data": DataSection})
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    try:
        values = {key: _resolved(tree, key) for key in own.values["data"]}
    except OmegaConfBaseException as error:
        raise ConfigError(explain_interpolation(error, tree)) from error
    mistakes = check_values({"data": values}, tree)
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    parser = Parser(prog="reg2rg data")
    parser.tree = tree
    parser.add_class_arguments(DataSection, "data")
    parsed = parser.parse_object({"data": values})
    parser.add_instantiator(Builder({"data": values}, tree), Dataset, subclasses=True)
    section: DataSection = parser.instantiate_classes(parsed).data
    return section


def _of_interest(tree: Tree) -> dict[str, Any]:
    data = tree.values["data"]
    if not isinstance(data, dict):
        where = tree.origin(("data",)) or COMMAND_LINE
        raise ConfigError(f"{where}: data: expected a mapping of arguments, found {data!r}.")
    return {key: value for key, value in data.items() if key in DataSection.__dataclass_fields__}


def _stray_keys(tree: Tree) -> list[str]:
    """Keys that the training commands would refuse; the sections of model and trainer are theirs to check."""
    mistakes = []
    known = {argument.name for argument in constructor_arguments("reg2rg.data.datamodule", "RegionReportDataModule")}
    known |= set(DataSection.__dataclass_fields__)
    sections = ("data", *_OTHER_SECTIONS)
    for key in tree.values:
        if key not in sections:
            mistakes.append(f"{tree.origin((key,))}: {key}: there is no section '{key}'.{did_you_mean(key, sections)}")
    for key in tree.values["data"] if isinstance(tree.values["data"], dict) else ():
        if str(key) not in known:
            where = tree.origin(("data", key))
            mistakes.append(
                f"{where}: data.{key}: the data section has no argument '{key}'."
                f"{did_you_mean(str(key), sorted(known))} It takes: {', '.join(sorted(known))}."
            )
    return mistakes


def _resolved(tree: Tree, key: str) -> Any:
    """The value of ``data.<key>`` with its references resolved against the whole config."""
    config = OmegaConf.create(tree.values)
    value = config.data[key]
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
