"""``reg2rg fit | validate | test | predict``: Lightning's command line, with one folded config and plain errors."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import logging
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import Namespace, set_parsing_settings
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, LearningRateMonitor, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from reg2rg import __version__
from reg2rg.cli.building import Builder
from reg2rg.cli.folder import (
    build_task,
    load_folder,
    predictions_folder,
    take_folder,
    with_folder,
    write_somewhere,
)
from reg2rg.cli.main import Invocation
from reg2rg.cli.predicted import Asked
from reg2rg.cli.section import Parser
from reg2rg.cli.shards import Part
from reg2rg.config.explain import check_references, explain_interpolation, refuse
from reg2rg.config.imports import check_class_paths, import_policy
from reg2rg.config.options import apply_options, split_config_options, split_flags
from reg2rg.config.overlay import fold, packaged_configs
from reg2rg.config.paths import make_absolute
from reg2rg.config.reading import Tree, lookup
from reg2rg.config.rules import check_values
from reg2rg.config.saving import CONFIG_KEY
from reg2rg.config.schema import Checker
from reg2rg.core.documents import parse_yaml
from reg2rg.core.errors import ConfigError, MissingExtraError
from reg2rg.core.registry import Registry, load_plugins
from reg2rg.core.task import ReportTask, Views

LINKS_WHEN_PARSED = {"data.tokenizer": "model.llm.init_args.path"}
LINKS_WHEN_BUILT = {"model.task": "task", "data.task": "task", "data.token_counts": "model.token_counts"}
_TOP = ("seed_everything", "vars")
_EXTRAS = {"deepspeed": "deepspeed", "wandb": "wandb", "bitsandbytes": "quant", "torchio": "augment"}


def run(invocation: Invocation, part: Part = Part(), asked: Asked | None = None) -> int:  # noqa: B008 (frozen)
    """Run a trainer command; see `reg2rg.cli.main`.

    Args:
        invocation: of the command.
        part: of the studies, for ``predict``.
        asked: gets a note if ``predict`` leaves nothing to do.
    """
    tree, flags = _folded(invocation)
    with import_policy(invocation.allow_import) as allowed:
        check_class_paths(tree, allowed)
        load_plugins()
        _quieten()
        try:
            ReportCLI(invocation.command, tree, allowed, flags, part, asked)
        except (MisconfigurationException, ModuleNotFoundError, ValueError) as error:
            for package, extra in _EXTRAS.items():
                missing = not isinstance(error, ValueError) or importlib.util.find_spec(package) is None
                if missing and package in str(error).lower():
                    fix = f"Fix: pip install 'reg2rg[{extra}]'"
                    raise MissingExtraError(f"{package} is not installed. {fix}") from error
            if isinstance(error, MisconfigurationException):
                raise ConfigError(f"trainer: {error}") from error
            raise
    return 0


def _folded(invocation: Invocation) -> tuple[Tree, list[str]]:
    """The config of a command with its options, and the flags beside them."""
    configs, rest = split_config_options(invocation.args)
    flags, options = split_flags(rest)
    tree = with_folder(fold(configs), options)
    apply_options(tree, options)
    if not tree.values and not flags:
        raise ConfigError(
            f"command line: no config. Expected: reg2rg {invocation.command} --config FILE. "
            f"Packaged: {', '.join(packaged_configs())}."
        )
    return tree, flags


def _quieten() -> None:
    """Leave out what Lightning says on every run that nobody can act on."""
    tips = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    if _not_a_tip not in tips.filters:
        tips.addFilter(_not_a_tip)
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")
    warnings.filterwarnings("ignore", message=".*number of training batches .* is smaller than the logging interval.*")


def _not_a_tip(record: logging.LogRecord) -> bool:
    return "Tip: For seamless" not in record.getMessage()


def core_classes() -> tuple[type[LightningModule], type[LightningDataModule]]:
    """The two classes that a config fills."""
    from reg2rg.data.datamodule import RegionReportDataModule
    from reg2rg.training.module import Reg2RG

    return Reg2RG, RegionReportDataModule


def component_registries() -> tuple[Registry[Any], ...]:
    """Registries of the components that a trainer config names."""
    import reg2rg.models.llm.causal_lm  # noqa: F401 (registers itself)
    from reg2rg.datasets import DATASETS, SPLITTERS
    from reg2rg.models.encoders import ENCODERS
    from reg2rg.models.heads import HEADS
    from reg2rg.models.llm.base import LANGUAGE_MODELS
    from reg2rg.models.projectors import PROJECTORS

    return ENCODERS, PROJECTORS, LANGUAGE_MODELS, DATASETS, SPLITTERS, HEADS


class TrainerParser(Parser, LightningArgumentParser):
    """The same of Lightning's parser."""


class SaveConfig(SaveConfigCallback):
    """Writes ``config.yaml`` into the log folder and the same text into every checkpoint.

    Text and not an object: a checkpoint stays readable with ``torch.load(weights_only=True)``. ``save_hyperparameters``
    is not used, for with it ``--ckpt_path`` puts the checkpoint's arguments over the config and the command line.
    """

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the config to `checkpoint`."""
        checkpoint[CONFIG_KEY] = self.parser.dump(self.config, skip_none=False, skip_link_targets=False)


class ReportCLI(LightningCLI):
    """LightningCLI for the one module and the one datamodule of this library.

    Args:
        command: fit, validate, test or predict.
        tree: the folded config with the options of the command line.
        allowed: packages that the config may import.
        flags: ``--help``, ``--print_config`` and their like.
        part: of the studies, for ``predict``.
        asked: gets a note if ``predict`` leaves nothing to do.
    """

    def __init__(
        self,
        command: str,
        tree: Tree,
        allowed: Sequence[str],
        flags: Sequence[str],
        part: Part = Part(),  # noqa: B008 (frozen)
        asked: Asked | None = None,
    ) -> None:
        self.command, self.tree, self.part, self.asked = command, tree, part, asked
        set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
        model_class, data_class = core_classes()
        self.registries = component_registries()
        self.sections = {"task": ReportTask, "model": model_class, "data": data_class, "trainer": Trainer}
        if tree.values:
            self._check_names(allowed)
        text = ["--config", yaml.safe_dump(tree.values, sort_keys=False)] if tree.values else []
        super().__init__(
            model_class,
            data_class,
            args=[command, *text, *flags],
            parser_class=TrainerParser,
            parser_kwargs={
                "parser_mode": "omegaconf+",
                "prog": "reg2rg",
                "description": "Chest-CT reports, region by region.",
            },
            save_config_callback=SaveConfig,
            save_config_kwargs={"overwrite": True},
            seed_everything_default=0,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Only the command that runs: building the parsers of the other three costs a second."""
        every = LightningCLI.subcommands()
        return {self.command: every[self.command]}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """A parser that knows where the config was written."""
        kwargs.setdefault("dump_header", [f"reg2rg=={__version__}"])
        parser = super().init_parser(**kwargs)
        parser.tree = self.tree
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The task, the links that hand it on, and a place for values that only references use."""
        parser.add_argument("--vars", type=dict | None, default=None, help="Values for ${vars.NAME} references.")
        parser.add_class_arguments(ReportTask, "task")
        for target, source in LINKS_WHEN_PARSED.items():
            parser.link_arguments(source, target)
        for target, source in LINKS_WHEN_BUILT.items():
            parser.link_arguments(source, target, apply_on="instantiate")
        for action in parser._actions:  # jsonargparse takes a null for an argument that is missing
            section, _, name = action.dest.partition(".")
            given = self.tree.values.get(section)
            if isinstance(given, dict) and name in given:
                action.required = False

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and word OmegaConf's errors."""
        try:
            self.config = parser.parse_args(args)
        except OmegaConfBaseException as error:
            raise ConfigError(explain_interpolation(error, self.tree)) from error

    def before_instantiate_classes(self) -> None:
        """Refuse what cannot work while nothing is loaded yet; name the place of what fails in a constructor."""
        config = self.config[self.command]
        make_absolute(config, self.sections)
        _resolve_checkpoint(config, self.command)
        self.folder = take_folder(config)
        refuse([*check_values(config.as_dict(), self.tree), *_check_run(config, self.tree, self.command)])
        bases: tuple[type, ...] = (*(registry.base for registry in self.registries), *core_classes(), Views)
        builder = Builder(config.as_dict(), self.tree)
        for base in bases:
            self.parser.add_instantiator(builder, base, subclasses=True)
        folder = None if self.command == "fit" else self.folder
        self.parser.add_instantiator(functools.partial(build_task, folder, builder), ReportTask)

    def instantiate_classes(self) -> None:
        """Build model, data and trainer; give the model its config, and the weights of a folder if one was named."""
        super().instantiate_classes()
        text = self._parser(self.command).dump(self.config[self.command], skip_none=False, skip_link_targets=False)
        self.model.describe(parse_yaml(text, "the run's config"))
        if self.folder is not None:
            load_folder(self.model, self.folder, self.command)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer without callbacks of what a switch turns off: Lightning refuses the two together.

        Raises:
            ConfigError: settings that Lightning does not take together.
        """
        config = self.config_init[self.command]["trainer"]
        if config["fast_dev_run"]:  # ModelCheckpoint would write what it tried over the last.ckpt of a run
            config["enable_checkpointing"] = False
        off = {
            ProgressBar: config["enable_progress_bar"] is False,  # null leaves it on
            Checkpoint: config["enable_checkpointing"] is False,
            LearningRateMonitor: config["logger"] in (False, []),
        }
        if isinstance(config["callbacks"], list):
            unwanted = tuple(kind for kind, is_off in off.items() if is_off)
            config["callbacks"] = [one for one in config["callbacks"] if not isinstance(one, unwanted)]
        try:
            return super().instantiate_trainer(**kwargs)
        except ValueError as error:  # settings that do not go together, such as FSDP without a GPU
            raise ConfigError(f"trainer: {error}") from error

    def predict(self, **kwargs: Any) -> None:
        """Predict without keeping every batch's result in memory: a callback writes them."""
        writer = write_somewhere(self.trainer)
        writer.take_part(self.part.shard, self.part.campaign)
        self.trainer.predict(**{**kwargs, "return_predictions": False})
        if self.asked is not None and writer.is_complete and self.trainer.is_global_zero:
            self.asked.note(self.asked.listed(self.datamodule.dataset))

    def _check_names(self, allowed: Sequence[str]) -> None:
        method = inspect.signature(getattr(Trainer, self.command)).parameters
        arguments = set(method) - {"self"} - LightningCLI.subcommands()[self.command]
        sections = {**self.sections, **dict.fromkeys((*_TOP, *sorted(arguments)))}
        kinds = {registry.base: registry.kind for registry in self.registries}
        checker = Checker(self.tree, allowed, kinds)
        linked = {**LINKS_WHEN_PARSED, **LINKS_WHEN_BUILT}
        for target, source in LINKS_WHEN_PARSED.items():
            self.tree.drop_copy(tuple(target.split(".")), tuple(source.split(".")))
        refuse([*check_references(self.tree), *checker.check(sections, linked)])
        self._resolve_linked()

    def _resolve_linked(self) -> None:
        """Resolve what a link copies to another depth, where jsonargparse's relative references would miss."""
        for source in LINKS_WHEN_PARSED.values():
            *parents, key = source.split(".")
            holder = lookup(self.tree.values, tuple(parents))
            if isinstance(holder, dict) and "${" in str(holder.get(key)):
                with suppress(OmegaConfBaseException):  # told with its place when all is parsed
                    holder[key] = OmegaConf.select(OmegaConf.create(self.tree.values), source)


class ConfigCheck(ReportCLI):
    """Parses a config and stops there: nothing is seeded, built or run."""

    def _parse_ckpt_path(self) -> None: ...

    def _set_seed(self) -> None: ...

    def before_instantiate_classes(self) -> None:
        """What this machine and folder must offer is looked at when a run begins."""

    def instantiate_classes(self) -> None:
        """Nothing."""

    def _run_subcommand(self, subcommand: str) -> None: ...


class PredictionCheck(ConfigCheck):
    """The same of ``predict``, with the files that it needs.

    Attributes:
        out: folder of the predictions.
    """

    def before_instantiate_classes(self) -> None:
        """Look for what every machine needs."""
        config = self.config[self.command]
        make_absolute(config, self.sections)
        _resolve_checkpoint(config, self.command)
        refuse([*_check_files(config, self.tree, self.command)])
        self.out = predictions_folder(config.as_dict()["trainer"])


def check_prediction(invocation: Invocation) -> Path:
    """Check the config of ``predict`` before it is handed to other machines.

    Returns:
        the folder of the predictions.

    Raises:
        ConfigError: a line for each mistake, with its place.
    """
    tree, _ = _folded(invocation)
    with import_policy(invocation.allow_import) as allowed:
        check_class_paths(tree, allowed)
        load_plugins()
        return PredictionCheck(invocation.command, tree, allowed, ()).out


def check_config(command: str, tree: Tree, allow_import: Sequence[str] = ()) -> None:
    """Parse a config as a command would. What only a run can tell, such as whether files are there, waits.

    Args:
        command: fit, validate, test or predict.
        tree: the folded config; its references may be brought into another form.
        allow_import: packages beyond the allow-list that it may name.

    Raises:
        ConfigError: a line for each mistake, with its place.
    """
    with import_policy(allow_import) as allowed:
        check_class_paths(tree, allowed)
        load_plugins()
        ConfigCheck(command, tree, allowed, ())


def _resolve_checkpoint(config: Namespace, command: str) -> None:
    """``--ckpt_path best`` and ``last`` outside ``fit``: the files that the config's ModelCheckpoint writes."""
    name = config.get("ckpt_path")
    if command == "fit" or name not in ("best", "last"):
        return
    for callback in config.as_dict()["trainer"].get("callbacks") or []:
        folder = callback.get("init_args", {}).get("dirpath")
        if callback["class_path"].endswith("ModelCheckpoint") and folder:
            config["ckpt_path"] = str(Path(folder) / f"{name}.ckpt")


def _check_run(config: Mapping[str, Any], tree: Tree, command: str) -> Iterable[str]:
    """What this machine and folder must offer for the run."""
    accelerator = config["trainer"].get("accelerator")
    if accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        yield tree.say(
            ("trainer", "accelerator"),
            f"'{accelerator}' asks for a CUDA GPU, and torch sees none here. "
            "Use --trainer.accelerator=auto (or cpu), or install a torch build with CUDA.",
        )
    yield from _check_files(config, tree, command)


def _check_files(config: Mapping[str, Any], tree: Tree, command: str) -> Iterable[str]:
    """The checkpoint and the store of a run."""
    checkpoint = config.get("ckpt_path")
    if checkpoint and not (command == "fit" and checkpoint in ("last", "hpc")) and not Path(checkpoint).exists():
        yield tree.say(("ckpt_path",), f"no checkpoint at '{checkpoint}'. Expected a file, or one of: last, best.")
    store = config["data"].get("store")
    if isinstance(store, str) and not Path(store).is_dir():
        yield tree.say(
            ("data", "store"),
            f"no store at '{store}'. Make it first, with the same configs: reg2rg data prepare --config ...",
        )
