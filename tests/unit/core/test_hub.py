"""Folders by path or hub id."""

import sys

import pytest
from huggingface_hub import errors

import reg2rg.core.hub as hub
from reg2rg.core.errors import ConfigError

http = sys.modules[errors.HfHubHTTPError.__mro__[1].__module__.partition(".")[0]]  # httpx, or what followed it


def response(code):
    return http.Response(code, request=http.Request("GET", "https://hub"))


@pytest.mark.parametrize("name", ["lab/model", "gpt2", "meta-llama/Llama-2-7b-chat-hf"])
def test_ids(name):
    assert hub.looks_like_hub_id(name)


@pytest.mark.parametrize("name", ["/abs/path", "./x", "../x", "~/x", "a/b/c", "a b", "a/..", ""])
def test_paths(name):
    assert not hub.looks_like_hub_id(name)


def test_a_path_that_is_there_is_taken_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "model").mkdir()
    assert str(hub.local_folder("lab/model", "model")) == "lab/model"
    with pytest.raises(ConfigError, match=r"model /gone/away: no such file or folder \(seen from"):
        hub.local_folder("/gone/away", "model")
    with pytest.raises(ConfigError, match="no such file or folder"):
        hub.local_folder(tmp_path / "gone", "model")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (errors.GatedRepoError("gated", response=response(403)), "ask for consent.*HF_TOKEN.*hf download lab/x"),
        (errors.RevisionNotFoundError("rev", response=response(404)), "no revision 'v2'"),
        (errors.RepositoryNotFoundError("repo", response=response(404)), "no such public repository"),
        (errors.LocalEntryNotFoundError("cache"), r"hf download lab/x --revision v2 --local-dir x; copy that folder"),
        (errors.HfHubHTTPError("500", response=response(500)), "cannot be reached"),
        (http.ConnectTimeout("slow"), "cannot be reached"),
        (OSError("disk is full"), r"downloading it failed \(disk is full\)"),
    ],
)
def test_every_failure_is_one_line(tmp_path, monkeypatch, error, said):
    def fail(*_, **__):
        raise error

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(ConfigError, match=said) as caught:
        hub.local_folder("lab/x", "model", "v2")
    assert str(caught.value).startswith("model 'lab/x': ")
    assert "\n" not in str(caught.value)
