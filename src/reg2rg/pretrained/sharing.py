"""A model's folder to the hub."""

from __future__ import annotations

from pathlib import Path

from reg2rg.core.errors import ConfigError
from reg2rg.core.hub import looks_like_hub_id


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
    if repo_id.count("/") != 1 or not looks_like_hub_id(repo_id):
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
        ) from error
    return str(commit.pr_url or commit.commit_url) if create_pr else str(commit.commit_url)
