"""What `Reg2RG` can do with folders: load one, write one, share one."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from reg2rg.core.errors import ConfigError
from reg2rg.core.task import ReportTask, with_task
from reg2rg.models.reporter import RegionReporter
from reg2rg.models.state import check_names
from reg2rg.pretrained.card import CardFacts, model_card
from reg2rg.pretrained.contract import InputContract, adopt, model_config
from reg2rg.pretrained.folder import PretrainedFolder, write_folder
from reg2rg.pretrained.saving import (
    build_model,
    check_language_model,
    describe_language_model,
    fill,
    folder_names,
    open_model,
    require_language_model,
    upload,
)

if TYPE_CHECKING:
    from reg2rg.data.datamodule import RegionReportDataModule


class FolderModel(nn.Module):
    """Folders of a model, after the conventions of Hugging Face.

    Attributes:
        reporter: the model.
        task: what it sees and writes.
        run_config: sections ``task``, ``model`` and ``data`` that it was built from, or ``None`` if it knows none.
        contract: what it takes for granted about its input, or ``None`` if it knows no config.
        base_name: what the language model was called that came with a folder.
    """

    reporter: RegionReporter
    task: ReportTask
    run_config: dict[str, Any] | None = None
    contract: InputContract | None = None
    base_name: str | None = None

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | Path,
        *,
        language_model: str | Path | None = None,
        revision: str | None = None,
        map_location: torch.device | str = "cpu",
        llm: Mapping[str, Any] | None = None,
        allow_import: Sequence[str] = (),
        **changes: Any,
    ) -> Self:
        """Build a model from its folder, in eval mode. Nothing in the folder is run, and nothing is unpickled.

        Args:
            path_or_id: a folder written by `save_pretrained`, ``reg2rg export`` or ``reg2rg convert``, or a hub id.
            language_model: where the base language model is, if not where the folder says. Its weights are held against
                the folder's fingerprint.
            revision: branch, tag or commit of a hub id.
            map_location: device of the model.
            llm: arguments of the language model that replace the folder's, such as ``dtype`` or ``quantize_4bit``.
            allow_import: packages that the folder's config may name beside those of `reg2rg.config.imports.ALLOWED`.
            changes: constructor arguments that replace the folder's, such as ``max_new_tokens``.

        Raises:
            ConfigError: a folder that cannot be had, is incomplete, damaged, or names classes that a config may not;
                another base language model.
        """
        folder = open_model(path_or_id, revision)
        config = folder.resolved(None if language_model is None else str(language_model))
        if language_model is None:
            named = config["model"]["llm"]["init_args"].get("path")
            require_language_model(named, folder.path, folder.language_model)
        config["model"]["llm"]["init_args"] |= dict(llm or {})
        config["model"] |= changes
        model = build_model(cls, {"task": config["task"], **config["model"]}, folder, allow_import)
        model.load_folder(folder)
        model.describe(config, folder.contract)
        return model.eval().to(map_location)

    def load_folder(self, folder: PretrainedFolder) -> None:
        """Take the weights of a model's folder.

        Raises:
            ConfigError: names or shapes that do not fit, damage, or another base language model.
        """
        names = folder_names(self, self.reporter.llm)
        check_names(folder.tensors, names, set(self.state_dict()), str(folder.path), "use the folder's own config.yaml")
        check_language_model(self.reporter.llm, folder)
        if folder.language_model.copy is not None:
            self.base_name = folder.language_model.path
        fill(self, folder.tensors, str(folder.path))

    def describe(self, config: Mapping[str, Any], contract: InputContract | None = None) -> None:
        """Remember the config that the model was built from, and hold its data to the contract that follows.

        Args:
            config: sections ``task``, ``model`` and ``data``.
            contract: the input contract; by default that of the config.
        """
        config = with_task(config)
        self.run_config = {name: config.get(name) or {} for name in ("task", "model", "data")}
        self.contract = contract or InputContract.of_config(config)

    def conform(self, data: RegionReportDataModule) -> RegionReportDataModule:
        """The data as this model takes them: its views, target, instruction and tokens, of the regions that they have.

        Views are computed anew from native detail, so nothing is lost.

        Args:
            data: any; they are not changed.

        Raises:
            ConfigError: the data have regions that the model does not know.
        """
        task = adopt(self.known_task, data.task)
        return data.with_task(task, self.reporter.llm.tokenizer, self.reporter.token_counts)

    @property
    def known_task(self) -> ReportTask:
        """What the model sees and writes: as its contract says, where it has one, for a run may use fewer regions."""
        return self.task if self.contract is None else self.contract.task

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        config: Mapping[str, Any] | None = None,
        spacing: tuple[float, float, float] | None = None,
        copy_language_model: bool | None = None,
        refer_to: str | None = None,
        facts: CardFacts | None = None,
    ) -> Path:
        """Write the model into a folder for `from_pretrained`: whole, or not at all.

        Args:
            folder: new, empty, or a model's folder that is replaced.
            config: sections ``task``, ``model`` and ``data`` that the model was built from. Models from
                `from_checkpoint`, `from_pretrained` and the command line know theirs.
            spacing: voxel size in mm that all scans were resampled to before training, which the contract then asks of
                every scan; ``None`` asks for what it asked before, or for none.
            copy_language_model: put a frozen language model into the folder: always, never, or if it is a folder with
                less than 512 MiB of weights (``None``). One that was trained is always in it.
            refer_to: hub id or folder to name as the base language model instead of the path that it came from.
            facts: what the model card is to say beyond config and contract.

        Returns:
            the folder.

        Raises:
            ConfigError: a model without a config, or a place where something else stands.
        """
        contract = self.contract if config is None else InputContract.of_config(config)
        config = config or self.run_config
        if config is None or contract is None:
            raise ConfigError(
                "save_pretrained: this model was built in Python and knows no config. Fix: give config, with the "
                "sections task, model and data that rebuild it"
            )
        if spacing is not None:
            contract = replace(
                contract, task=replace(contract.task, views=replace(contract.task.views, spacing=spacing))
            )
        kept = folder_names(self, self.reporter.llm)
        reference = describe_language_model(self.reporter.llm, copy_language_model, refer_to, self.base_name)
        return write_folder(
            folder,
            config=config,
            tensors={name: tensor for name, tensor in self.state_dict().items() if name in kept},
            contract=contract,
            language_model=reference,
            card=model_card(model_config(config, contract), contract, reference, facts),
        )

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        branch: str | None = None,
        create_pr: bool = False,
        commit_message: str = "Upload model with reg2rg",
        copy_language_model: bool | None = None,
        refer_to: str | None = None,
        facts: CardFacts | None = None,
    ) -> str:
        """Write the model into a temporary folder and upload it; see `save_pretrained`.

        Args:
            repo_id: ``owner/name`` on the hub; made if it is not there.
            private: make it private; by default as the owner's settings say.
            token: access token; by default that of ``hf auth login`` or ``HF_TOKEN``.
            branch: where to commit to; by default the main one.
            create_pr: open a pull request instead of committing.
            commit_message: of the commit.
            copy_language_model: see `save_pretrained`.
            refer_to: see `save_pretrained`.
            facts: see `save_pretrained`.

        Returns:
            address of the commit.

        Raises:
            ConfigError: no network, no right to write, or what `save_pretrained` raises.
        """
        facts = facts or CardFacts(name=repo_id.rpartition("/")[2])
        with tempfile.TemporaryDirectory() as name:
            written = self.save_pretrained(
                Path(name) / "model", copy_language_model=copy_language_model, refer_to=refer_to, facts=facts
            )
            return upload(written, repo_id, private, token, branch, create_pr, commit_message)
