"""Uploads, against a hub that is played."""

import sys

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from reg2rg.core.errors import ConfigError
from reg2rg.pretrained.folder import read_folder

http = sys.modules[HfHubHTTPError.__mro__[1].__module__.partition(".")[0]]  # httpx, or what followed it


class Commit:
    commit_url, pr_url = "https://hub/commit/1", "https://hub/pr/1"


@pytest.fixture
def hub(monkeypatch):
    calls = []

    def upload_folder(self, *, folder_path, **options):
        found = read_folder(folder_path)
        calls.append(("upload", len(found.tensors), options))
        return Commit()

    monkeypatch.setattr(
        HfApi, "create_repo", lambda self, repo_id, **options: calls.append(("create", repo_id, options))
    )
    monkeypatch.setattr(
        HfApi, "create_branch", lambda self, repo_id, **options: calls.append(("branch", repo_id, options))
    )
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    return calls


def test_a_whole_folder_is_uploaded(model, hub):
    made = model(lora={"rank": 2})
    assert made.push_to_hub("lab/chest", private=True, branch="v1") == Commit.commit_url
    create, branch, (_, tensors, options) = hub
    assert create == ("create", "lab/chest", {"private": True, "exist_ok": True})
    assert branch == ("branch", "lab/chest", {"branch": "v1", "exist_ok": True})
    assert tensors > 8
    assert (options["repo_id"], options["revision"], options["create_pr"]) == ("lab/chest", "v1", False)
    assert made.push_to_hub("lab/chest", create_pr=True) == Commit.pr_url


@pytest.mark.parametrize("name", ["chest", "a/b/c", "./lab/chest", "lab/..", "lab/che st"])
def test_what_is_no_id_is_refused_before_anything_is_sent(model, hub, name):
    with pytest.raises(ConfigError, match="is no hub id"):
        model().push_to_hub(name)
    assert hub == []


@pytest.mark.parametrize(
    "error",
    [
        http.ConnectError("no route"),
        LocalTokenNotFoundError("Token is required.\nMore lines"),
        HfHubHTTPError("403 Forbidden", response=http.Response(403, request=http.Request("POST", "https://hub"))),
        OSError("offline mode"),
    ],
)
def test_failures_are_one_line_with_the_way_out(model, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(HfApi, "create_repo", fail)
    with pytest.raises(ConfigError) as caught:
        model().push_to_hub("lab/chest")
    assert "hf upload lab/chest FOLDER" in str(caught.value)
    assert "\n" not in str(caught.value)
