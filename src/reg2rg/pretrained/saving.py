"""From a model in memory to its folder, on to the hub, and back; and which language model goes with it."""

from __future__ import annotations

import logging
from argparse import ArgumentError
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from reg2rg.config.explain import explain
from reg2rg.config.imports import ALLOWED, check_class_paths, plugin_packages
from reg2rg.config.reading import Tree, read_tree
from reg2rg.config.saving import build
from reg2rg.core.errors import ConfigError
from reg2rg.core.hub import local_folder, looks_like_hub_id
from reg2rg.core.model_folder import CONFIG, look_beside
from reg2rg.core.registry import load_plugins
from reg2rg.models.auxiliary import is_auxiliary
from reg2rg.models.llm.base import LanguageModel
from reg2rg.pretrained.fingerprint import fingerprint
from reg2rg.pretrained.folder import LanguageModelRef, PretrainedFolder, read_folder

T = TypeVar("T")
log = logging.getLogger(__name__)

HUB_FILES = ("*.yaml", "*.json", "*.safetensors", "*.md", "SHA256SUMS", "llm/*", "LICENSE*", "NOTICE*")
"""What is taken of a hub's repository: no pickles, no code."""
_LLM_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "LICENSE*", "USE_POLICY*", "NOTICE*")
_SMALL = 512 << 20
_LLM = "reporter.llm."


def open_model(path_or_id: str | Path, revision: str | None = None) -> PretrainedFolder:
    """Open a model by its folder or hub id.

    Args:
        path_or_id: the folder, or a hub id, taken from the cache or downloaded into it.
        revision: branch, tag or commit of a hub id.

    Raises:
        ConfigError: it cannot be had, or is no model of this package.
    """
    return read_folder(local_folder(path_or_id, "model", revision, HUB_FILES))


def build_model(
    cls: type[T], arguments: Mapping[str, Any], folder: PretrainedFolder, allow_import: Sequence[str] = ()
) -> T:
    """Build the model that a folder's config describes, without its weights.

    Args:
        cls: class of the model.
        arguments: of its constructor, as a config has them.
        folder: where they come from, for messages.
        allow_import: packages that the config may name beside the usual ones.

    Raises:
        ConfigError: a class that a config may not name, of which nothing is imported; or arguments that do not fit.
    """
    import reg2rg.models.encoders
    import reg2rg.models.heads
    import reg2rg.models.llm.causal_lm  # noqa: F401 (components by their short names)

    path = folder.path / CONFIG
    tree = read_tree(path)
    check_class_paths(tree, (*ALLOWED, *plugin_packages(), *allow_import))
    load_plugins()
    try:
        return build(cls, arguments, allow_import)
    except (ArgumentError, TypeError, ValueError, OSError) as error:
        reason = _reason(error, tree)
        fix = "" if "Fix: " in reason or "--allow-import" in reason else " Fix: upgrade reg2rg"
        raise ConfigError(f"{path}: the model cannot be built: {reason}{fix}") from None


def _reason(error: Exception, tree: Tree) -> str:
    """What a parser or a constructor says, without the types that were tried beside it."""
    text = str(error)
    if "Parser key" in text:
        return explain(text.replace('Parser key "it.', 'Parser key "model.'), tree)
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    tried = [line.removeprefix("- ") for line in lines if line.startswith("- ") and "'NoneType'" not in line]
    return (tried or lines)[0].rstrip(".") + "."


def folder_names(model: nn.Module, llm: LanguageModel) -> set[str]:
    """Names of a model's state that its folder holds: all but auxiliary losses and weights of the base language model.

    Args:
        model: has the language model as ``reporter.llm``.
        llm: that.
    """
    reference = {_LLM + name for name in llm.reference_names()}
    parameters = {_LLM + name for name, _ in llm.named_parameters(remove_duplicate=False)}
    # Buffers of a language model are made by its constructor, or stand in its files.
    own = {name for name in model.state_dict() if not name.startswith(_LLM) or name in parameters - reference}
    return {name for name in own if not is_auxiliary(name)}


def describe_language_model(
    llm: LanguageModel, copy: bool | None = None, refer_to: str | None = None, name: str | None = None
) -> LanguageModelRef:
    """What a folder says of its language model.

    Args:
        llm: the language model.
        copy: put it into the folder: always, never, or if it is a folder of less than 512 MiB of weights (``None``).
        refer_to: hub id or folder to name instead of the path that it came from.
        name: what a copy is called; by default its hub id, or the name of its folder.

    Raises:
        ConfigError: its files are needed and cannot be found.
    """
    path, revision = str(getattr(llm, "path", "")), getattr(llm, "revision", None)
    trained = not llm.reference_names()
    if not path:
        return LanguageModelRef("", vocabulary=len(llm.tokenizer))
    where = Path(path).expanduser()
    if copy is None:
        copy = refer_to is None and where.is_dir() and _weights_bytes(where) < _SMALL
    files = local_folder(path, "language model", revision, _LLM_FILES) if copy or trained else None
    if where.exists():  # of a copy the name alone: where it lay is of no use to others
        path = str(where.resolve()) if files is None else name or where.resolve().name
    return LanguageModelRef(
        path=refer_to or path,
        revision=revision if refer_to is None else None,
        fingerprint=None if trained else fingerprint(llm.reference_tensors()),
        copy=files,
        trained=trained,
        vocabulary=len(llm.tokenizer),
    )


def check_language_model(llm: LanguageModel, folder: PretrainedFolder) -> None:
    """Hold a language model against the one that a folder's model was trained on.

    Raises:
        ConfigError: another one; says what was expected and found, and how they differ.
    """
    expected = folder.language_model
    where, tokens = str(getattr(llm, "path", type(llm).__name__)), len(llm.tokenizer)
    told: list[str] = []
    if expected.vocabulary is not None and expected.vocabulary != tokens:
        told.append(f"its tokenizer has {tokens} tokens, expected {expected.vocabulary}")
    if expected.fingerprint is not None:
        found = fingerprint(llm.reference_tensors())
        if differences := expected.fingerprint.differences(found):
            told += [differences.kind(), *differences.shown()]
        elif differences.rounded:
            log.info("%s: agrees up to rounding in %d tensors", where, len(differences.rounded))
    elif not expected.trained:
        log.warning("%s: has no fingerprint of its language model; %s is taken on trust", folder.path, where)
    if not told:
        return
    of = f" (revision {expected.revision})" if expected.revision else ""
    raise ConfigError(
        f"{folder.path}: the language model {where} is not the one that this model was trained on, "
        f"{expected.path}{of}: {'; '.join(told)}. Another dtype or 4-bit weights would be no fault. "
        f"Fix: give language_model the path of {expected.path}"
    )


def settle_language_model(config: dict[str, Any], checkpoint: Path, given: str | Path | None) -> None:
    """Say in a checkpoint's config where its language model is now, in place.

    Args:
        config: sections ``task`` and ``model``.
        checkpoint: the file it comes from; what lies beside it comes first.
        given: where the user says it is.

    Raises:
        ConfigError: nobody gives it, and it is not here.
    """
    look_beside(config, checkpoint.absolute())
    arguments: dict[str, Any] = config["model"]["llm"].setdefault("init_args", {})
    if given is not None:
        arguments |= {"path": str(given), "revision": None}
    else:
        require_language_model(arguments.get("path"), checkpoint)


def require_language_model(path: str | None, near: Path, ref: LanguageModelRef | None = None) -> None:
    """Say at once that a language model by path is not on this machine; no hub is asked for what was a folder.

    Args:
        path: of the language model, looked for beside `near` already.
        near: the checkpoint or folder that names it.
        ref: what the folder says of it.

    Raises:
        ConfigError: with what it was.
    """
    if not path or Path(path).expanduser().exists() or looks_like_hub_id(path):
        return
    tokens = "" if ref is None or ref.vocabulary is None else f", {ref.vocabulary} tokens"
    count = "" if ref is None or ref.fingerprint is None else f", {len(ref.fingerprint.tensors)} tensors"
    raise ConfigError(
        f"{near}: the model was trained on the language model {path}{tokens}{count}, which is not here, nor is "
        f"{near.absolute().parent / Path(path).name}. Fix: put it there, or give the path where you have it: "
        "language_model in Python, --language_model with reg2rg export, --model.llm.init_args.path elsewhere"
    )


def fill(model: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Copy tensors into a model's state, one at a time.

    Raises:
        ConfigError: shapes that do not fit; nothing was copied.
    """
    own = model.state_dict()
    wrong = []
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            wrong.append(f"{name} is {tuple(tensor.shape)}, the config makes {tuple(own[name].shape)}")
    if wrong:
        more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ConfigError(f"{where}: weights and config do not fit: {'; '.join(wrong[:5])}{more}. Fix: the config")
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def upload(
    folder: Path,
    repo_id: str,
    private: bool | None = None,
    token: str | bool | None = None,
    branch: str | None = None,
    create_pr: bool = False,
    commit_message: str = "Upload model with reg2rg",
) -> str:
    """Upload a model's folder.

    Args:
        folder: written by `reg2rg.pretrained.folder.write_folder`.
        repo_id: ``owner/name``; made if it is not there.
        private: make it private; by default as the owner's settings say.
        token: access token; by default that of ``hf auth login`` or ``HF_TOKEN``.
        branch: where to commit to; by default the main one.
        create_pr: open a pull request instead of committing.
        commit_message: of the commit.

    Returns:
        address of the commit.

    Raises:
        ConfigError: not a hub id, no network, or no right to write.
    """
    if "/" not in repo_id or not looks_like_hub_id(repo_id):
        raise ConfigError(f"'{repo_id}' is no hub id (expected owner/name). Fix: for example my-lab/reg2rg-chest")
    from huggingface_hub import HfApi

    api = HfApi(token=token, library_name="reg2rg")
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        if branch is not None:
            api.create_branch(repo_id, branch=branch, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id, folder_path=folder, revision=branch, create_pr=create_pr, commit_message=commit_message
        )
    except Exception as error:  # the hub's own are many, and those of the connection come from its HTTP package
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = (lines[0] if lines else type(error).__name__).rstrip(".")
        raise ConfigError(
            f"hub {repo_id}: {reason}. Fix: log in with hf auth login; without a network, save_pretrained(FOLDER) here "
            f"and on another machine: hf upload {repo_id} FOLDER"
        ) from None
    return str(commit.pr_url or commit.commit_url) if create_pr else str(commit.commit_url)


def _weights_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
