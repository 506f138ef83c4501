"""A model's folder in place of a checkpoint: ``--ckpt_path FOLDER`` or a hub id."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reg2rg.config.options import option_values
from reg2rg.config.overlay import fold, merge
from reg2rg.config.reading import Tree
from reg2rg.core.errors import ConfigError
from reg2rg.core.hub import looks_like_hub_id
from reg2rg.core.model_folder import CONFIG, is_model_folder

if TYPE_CHECKING:
    from jsonargparse import Namespace
    from lightning.pytorch import Trainer

    from reg2rg.cli.building import Builder
    from reg2rg.core.task import ReportTask
    from reg2rg.pretrained.folder import PretrainedFolder
    from reg2rg.training.module import Reg2RG
    from reg2rg.training.prediction_writer import PredictionWriter

log = logging.getLogger(__name__)


def with_folder(tree: Tree, options: Sequence[str]) -> Tree:
    """The tree with the config of the folder that ``ckpt_path`` names underneath, unless the tree has a model itself.

    Args:
        tree: the folded config files.
        options: of the command line, not applied yet.

    Raises:
        ConfigError: there is no model in the tree and no folder either.
    """
    named = dict(option_values(options)).get("ckpt_path") or tree.values.get("ckpt_path")
    if "model" in tree.values or not isinstance(named, str) or named in ("best", "last", "hpc"):
        return tree
    if not is_folder(named):
        is_file = Path(named).expanduser().is_file()
        what = "a checkpoint is read with the configs it was trained with" if is_file else "no model's folder"
        raise ConfigError(
            f"ckpt_path: '{named}': {what} (seen from {Path.cwd()}), and no config has a model. Fix: give the folder "
            "that reg2rg export wrote, a hub id, or the checkpoint with its configs"
        )
    from reg2rg.pretrained.saving import open_model

    base = fold([str(open_model(named).path / CONFIG)])
    merge(base, tree)
    return base


def take_folder(config: Namespace) -> PretrainedFolder | None:
    """The folder that ``ckpt_path`` names, which is taken out of the config; ``None`` if it names a checkpoint."""
    named = config.get("ckpt_path")
    if not isinstance(named, str) or not is_folder(named):
        return None
    from reg2rg.pretrained.saving import open_model

    config["ckpt_path"] = None
    return open_model(named)


def build_task(
    folder: PretrainedFolder | None, builder: Builder, cls: type[ReportTask], **arguments: Any
) -> ReportTask:
    """The task of a config; for the model of a folder, that model's task, with the regions that the data have of it.

    Args:
        folder: whose contract holds; ``None`` where the config's own word does.
        builder: says where in the config a mistake stands.
        cls: the class.
        arguments: of its constructor.

    Raises:
        ConfigError: values that are out of range, or data with regions that the model does not know.
    """
    told: ReportTask = builder(cls, **arguments)
    if folder is None:
        return told
    from reg2rg.pretrained.contract import adopt

    return adopt(folder.contract.task, told)


def load_folder(model: Reg2RG, folder: PretrainedFolder, command: str) -> None:
    """Give a model that was built from a config the weights of a folder, and its input contract unless it will train.

    Raises:
        ConfigError: weights that do not fit the config, or another language model.
    """
    model.load_folder(folder)
    if command != "fit":
        model.contract = folder.contract
        return
    told = folder.contract.differences(model.contract) if model.contract is not None else []
    said = f"; the config differs from its input contract: {'; '.join(told)}" if told else ""
    log.warning("Training starts from the weights in %s, at step 0%s", folder.path, said)


def write_somewhere(trainer: Trainer) -> PredictionWriter:
    """The callback that writes predictions: under the run's folder if the config has none, or they would be lost."""
    from reg2rg.training.prediction_writer import PredictionWriter

    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        if isinstance(callback, PredictionWriter):
            return callback
    out = predictions_folder({"default_root_dir": trainer.default_root_dir})
    log.warning("No PredictionWriter in trainer.callbacks: predictions go to %s", out)
    writer = PredictionWriter(str(out))
    callbacks.append(writer)
    return writer


def callback_settings(trainer: Mapping[str, Any] | None, name: str) -> Mapping[str, Any]:
    """Arguments of the first callback of a class, nothing where there is none.

    Args:
        trainer: the section of a config as it is written: a callback may be one, several, or a bare name.
        name: of the class.
    """
    given = (trainer or {}).get("callbacks") or []
    for callback in given if isinstance(given, list) else [given]:
        if isinstance(callback, Mapping) and str(callback.get("class_path")).rpartition(".")[2] == name:
            return callback.get("init_args") or {}
    return {}


def predictions_folder(trainer: Mapping[str, Any] | None) -> Path:
    """Where the predictions of a config go.

    Args:
        trainer: its section, plain.
    """
    named = callback_settings(trainer, "PredictionWriter").get("out")
    return Path(named or Path((trainer or {}).get("default_root_dir") or Path.cwd(), "predictions"))


def is_folder(name: str) -> bool:
    """Whether a name means a model's folder, on disk or on the hub, and not a checkpoint."""
    if Path(name).expanduser().exists():
        return is_model_folder(name)
    return name.count("/") == 1 and not name.endswith(".ckpt") and looks_like_hub_id(name)
