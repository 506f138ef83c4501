import errno
import resource
from pathlib import Path

import pytest
import torch
from torch import nn

import reg2rg.training.checkpoints as checkpoints
from reg2rg.core.errors import CheckpointError, ConfigError
from reg2rg.models.encoders.wrappers import Frozen
from reg2rg.models.state import kept_names
from reg2rg.training.checkpoints import AtomicCheckpointIO, read_checkpoint, require_space

SOME = {"state_dict": {"w": torch.arange(1000.0)}, "epoch": 3}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "run" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(SOME, path)
    return path


def test_round_trip_with_digest(path):
    assert torch.equal(read_checkpoint(path)["state_dict"]["w"], SOME["state_dict"]["w"])
    assert sorted(p.name for p in path.parent.iterdir()) == ["last.ckpt", "last.ckpt.sha256"]
    digest, name = (path.parent / "last.ckpt.sha256").read_text().split()
    assert (len(digest), name) == (64, "last.ckpt")


def test_every_truncation_and_bit_flip_is_found(path):
    good = path.read_bytes()
    for i in range(50):
        path.write_bytes(good[: len(good) * i // 50])
        with pytest.raises(CheckpointError, match=r"last\.ckpt.*damaged"):
            read_checkpoint(path)
        broken = bytearray(good)
        broken[len(good) * i // 50] ^= 1 << i % 8
        path.write_bytes(broken)
        with pytest.raises(CheckpointError, match=r"last\.ckpt.*damaged"):
            read_checkpoint(path)


def test_without_the_digest_beside_it_the_parts_are_verified_and_that_is_said(path, caplog):
    (path.parent / "last.ckpt.sha256").unlink()
    good, wanted = path.read_bytes(), SOME["state_dict"]["w"]
    assert torch.equal(read_checkpoint(path)["state_dict"]["w"], wanted)
    assert "last.ckpt has no .sha256 beside it: verified by the CRC-32 of its parts alone" in caplog.text
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    found = 0
    for i in range(200):
        broken = bytearray(good)
        broken[len(good) * i // 200] ^= 1 << i % 8
        path.write_bytes(broken)
        try:
            assert torch.equal(read_checkpoint(path)["state_dict"]["w"], wanted)  # padding, or a date of the format's
        except CheckpointError:
            found += 1
    assert found > 150
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"last\.ckpt: not a readable checkpoint \(EOFError"):
        read_checkpoint(path)
    start = good.index(wanted.numpy().tobytes()[:64])
    path.write_bytes(good[:start] + bytes(4096) + good[start + 4096 :])
    with pytest.raises(CheckpointError, match=r"last\.ckpt: damaged .* does not match its CRC-32 .*Fix: copy it again"):
        read_checkpoint(path)


@pytest.mark.parametrize("where", ["write", "replace", "digest"])
def test_a_stop_anywhere_leaves_a_pair_that_agrees(path, monkeypatch, where):
    """A disk that fills, or a kill, while the second checkpoint is written."""

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "write":
        monkeypatch.setattr(torch, "save", full)
    elif where == "replace":
        monkeypatch.setattr(Path, "replace", _fails_for(path, Path.replace, full))
    else:
        calls = []
        write = checkpoints._write_digests
        monkeypatch.setattr(
            checkpoints, "_write_digests", lambda *a: (calls.append(a), write(*a) if len(calls) == 1 else full())
        )
    with pytest.raises(CheckpointError, match=r"last\.ckpt: writing the checkpoint failed.*kept"):
        AtomicCheckpointIO().save_checkpoint({**SOME, "epoch": 4}, path)
    monkeypatch.undo()
    assert read_checkpoint(path)["epoch"] == (4 if where == "digest" else 3)
    assert not [p for p in path.parent.iterdir() if ".tmp." in p.name]


def test_a_limit_met_in_the_middle_of_a_file_is_explained(path):
    """Met by torch's own writer: a quota, of which the free space tells nothing, or another's files."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"last\.ckpt: writing the checkpoint failed: .*File too large.*kept"):
            AtomicCheckpointIO().save_checkpoint({**SOME, "more": torch.zeros(1 << 16)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert read_checkpoint(path)["epoch"] == 3
    assert not [p for p in path.parent.iterdir() if ".tmp." in p.name]


def _fails_for(path, replace, full):
    def instead(self, target):
        return full() if Path(target) == path else replace(self, target)

    return instead


def test_space_is_asked_for_before(path, monkeypatch):
    monkeypatch.setattr(checkpoints, "HEADROOM", 1e15)
    with pytest.raises(CheckpointError, match=r"last\.ckpt: the checkpoint needs .* MiB, .* are free"):
        AtomicCheckpointIO().save_checkpoint({**SOME, "epoch": 4}, path)
    assert read_checkpoint(path)["epoch"] == 3
    require_space(path, 1, "this needs")


def test_code_in_a_checkpoint_never_runs(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "canary",))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.ckpt")
    for load in (read_checkpoint, lambda p: AtomicCheckpointIO().load_checkpoint(p, weights_only=False)):
        with pytest.raises(CheckpointError, match="plain values"):
            load(tmp_path / "evil.ckpt")
    assert not (tmp_path / "canary").exists()


def test_what_a_kill_left_behind_is_removed(path):
    leftover = path.with_name(".last.ckpt.tmp.12345")
    leftover.write_bytes(b"half a checkpoint")
    AtomicCheckpointIO().save_checkpoint(SOME, path)
    assert not leftover.exists()


def test_missing_file_names_its_neighbours(path):
    with pytest.raises(ConfigError, match=r"nothing\.ckpt: no such checkpoint. The folder has last\.ckpt"):
        read_checkpoint(path.parent / "nothing.ckpt")


def test_a_link_is_held_against_its_targets_digest(path):
    link = path.with_name("best.ckpt")
    link.symlink_to(path.name)
    assert read_checkpoint(link)["epoch"] == 3


def test_a_link_into_a_store_of_blobs_is_held_against_the_digest_beside_it(path):
    blob = path.parent / "blobs" / ("0f" * 32)
    blob.parent.mkdir()
    path.rename(blob)
    path.symlink_to(blob)
    assert read_checkpoint(path)["epoch"] == 3
    damaged = bytearray(blob.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    blob.write_bytes(bytes(damaged))
    with pytest.raises(CheckpointError, match="damaged after it was written"):
        read_checkpoint(path)


def test_remove_takes_the_digest_along(path):
    AtomicCheckpointIO().remove_checkpoint(path)
    assert list(path.parent.iterdir()) == []


def test_kept_is_what_trains_and_what_no_file_gives_back(toy, tmp_path):
    from safetensors.torch import save_file

    encoder = toy.encoder()
    save_file(encoder.state_dict(), tmp_path / "w.safetensors")
    model = nn.ModuleDict(
        {
            "given": Frozen(toy.encoder(), weights=str(tmp_path / "w.safetensors")),
            "random": Frozen(toy.encoder()),
            "norm": nn.BatchNorm1d(2),
            "llm": nn.ModuleDict({"base": nn.Linear(2, 2).requires_grad_(False), "lora": nn.Linear(2, 2)}),
        }
    )
    assert kept_names(model) == {
        "random.encoder.conv.weight",
        "random.encoder.conv.bias",
        "llm.lora.weight",
        "llm.lora.bias",
        *(f"norm.{name}" for name in model["norm"].state_dict()),
    }
