"""Masks read out of .tar.gz archives, whole and in parts; damage is named, an index is whole or absent."""

from __future__ import annotations

import gzip
import hashlib
import io
import multiprocessing
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from reg2rg.core.errors import DataFault
from reg2rg.scans import archives
from reg2rg.scans.archives import INDEX, Archive, find_member, folder_files, parts_of, read_member, through
from reg2rg.scans.find_masks import images_in
from reg2rg.scans.inflate import first_bytes, read_file
from reg2rg.store.inputs import digest

FILES = {
    f"seg_{study}/{name}.nii.gz": np.random.default_rng([study, len(name)]).bytes(30_000 + 7 * study + len(name))
    for study in range(4)
    for name in ("lung", "heart", "pleura")  # names of other lengths have other bytes
}


def packed(before: str = "valid_region_mask/", files: dict[str, bytes] = FILES) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        folder = tarfile.TarInfo(before or "./")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, data in files.items():
            entry = tarfile.TarInfo(before + name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        link = tarfile.TarInfo(f"{before}seg_0/passwd.nii.gz")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return gzip.compress(out.getvalue(), 1, mtime=0)


def write(path: Path, data: bytes | None = None, cuts: tuple[int, ...] = (), names: tuple[str, ...] = ()) -> Path:
    data = packed() if data is None else data
    if not cuts:
        path.write_bytes(data)
        return path
    ends = (0, *cuts, len(data))
    for name, start, end in zip(names, ends, ends[1:], strict=False):
        path.with_name(path.name + name).write_bytes(data[start:end])
    return path


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(archives, "_SPACING", 1 << 16)  # several points in a small archive
    archives._opened.cache_clear()
    archives._folder.cache_clear()


PARTS = {
    "hub": (".part-aa", ".part-ab", ".part-ac"),
    "split": ("aa", "ab", "ac"),
    "dotted": (".aa", ".ab", ".ac"),
    "numbers": (".001", ".002", ".003"),
    "from zero": (".part0", ".part1", ".part2"),
}


@pytest.mark.parametrize("names", [(), *PARTS.values()], ids=["whole", *PARTS])
@pytest.mark.parametrize("before", ["valid_region_mask/", "./", ""])
def test_every_file_of_a_study_is_what_was_packed(tmp_path, names, before):
    path = write(tmp_path / "masks.tar.gz", packed(before), (90_000, 250_000) if names else (), names)
    for name, data in reversed(FILES.items()):
        assert read_member(path / name) == data
        assert read_file(path / name) == data
        assert first_bytes(path / name) == data[:1024]
        assert find_member(path / name)[1].digest == hashlib.sha256(data).hexdigest()
    assert list(images_in(path / "seg_2")) == ["heart", "lung", "pleura"]
    assert folder_files(path / "seg_2")[0] == path / "seg_2" / "heart.nii.gz"
    assert images_in(path / "seg_9") == {}
    assert find_member(path / "seg_0" / "passwd.nii.gz") is None  # a link leads nowhere
    assert find_member(path / "seg_0" / "aorta.nii.gz") is None
    with pytest.raises(DataFault, match="MISSING_FILE"):
        read_file(path / "seg_0" / "aorta.nii.gz")
    assert [one.name for one in tmp_path.iterdir() if INDEX in one.name] == [f"masks.tar.gz{INDEX}"]


def test_one_study_is_read_without_the_others(tmp_path, monkeypatch):
    """With the index there, only the neighbourhood of a study is inflated."""
    monkeypatch.setattr(archives, "_SPACING", 1 << 20)
    files = {f"seg_{study}/lung.nii.gz": np.random.default_rng(study).bytes(400_000) for study in range(30)}
    path = write(tmp_path / "masks.tar.gz", packed(files=files))
    Archive(path).index()
    monkeypatch.setattr(Archive, "_make", lambda self: pytest.fail("the archive was read as a whole"))
    read: list[int] = []
    plain = archives._Joined.readinto
    monkeypatch.setattr(archives._Joined, "readinto", lambda self, b: read.append(n := plain(self, b)) or n)
    assert read_member(path / "seg_20" / "lung.nii.gz") == files["seg_20/lung.nii.gz"]
    assert sum(read) < 0.4 * path.stat().st_size
    count = len(read)
    assert read_member(path / "seg_20" / "lung.nii.gz") == files["seg_20/lung.nii.gz"]
    assert len(read) == count  # a study's files are read together and kept for a while


def test_a_forked_process_has_a_place_of_its_own(tmp_path):
    path = write(tmp_path / "masks.tar.gz")
    read_member(path / "seg_0" / "lung.nii.gz")
    with multiprocessing.get_context("fork").Pool(2) as pool:
        found = pool.map(read_member, [path / name for name in FILES] * 3)
    assert found == list(FILES.values()) * 3


def test_the_index_is_made_anew_for_other_bytes_or_if_it_is_damaged(tmp_path, caplog):
    path = write(tmp_path / "masks.tar.gz")
    Archive(path).index()
    index = tmp_path / f"masks.tar.gz{INDEX}"
    good = index.read_bytes()
    for damage in (good[:100], b"", b"no database at all" * 99):
        index.write_bytes(damage)
        assert Archive(path).members("seg_1").keys() == {"lung.nii.gz", "heart.nii.gz", "pleura.nii.gz"}
        assert index.read_bytes()[:15] == b"SQLite format 3"
    assert "made anew" in caplog.text
    os.utime(path, ns=(1, 1))
    assert Archive(path).folders() == [f"seg_{study}" for study in range(4)]


def test_where_nothing_can_be_written_beside_the_archive_the_index_is_kept_in_the_cache(tmp_path, monkeypatch):
    path = write(tmp_path / "masks.tar.gz")
    monkeypatch.setattr(archives, "INDEX", "/no/folder")
    monkeypatch.setattr(Archive, "_places", lambda self: (Path("/proc/no"), tmp_path / "cache" / "x.index"))
    assert len(Archive(path).members("seg_0")) == 3
    assert (tmp_path / "cache" / "x.index").is_file()


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.77, 0.99])
def test_an_archive_that_is_cut_short_is_named_and_leaves_no_index(tmp_path, share):
    """indexed_gzip and tarfile both take an early end of the bytes for the end of the archive."""
    data = packed()
    path = write(tmp_path / "masks.tar.gz", data[: int(share * len(data))])
    with pytest.raises(DataFault, match=r"(TRUNCATED|CORRUPT) .*masks\.tar\.gz.*download the archive"):
        Archive(path).index()
    assert [one.name for one in tmp_path.iterdir()] == ["masks.tar.gz"]


def test_a_flipped_bit_is_named(tmp_path):
    data = bytearray(packed())
    data[len(data) // 2] ^= 4
    path = write(tmp_path / "masks.tar.gz", bytes(data))
    with pytest.raises(DataFault, match=r"(CORRUPT|TRUNCATED) .*masks\.tar\.gz.*damaged"):
        Archive(path).index()
    assert not (tmp_path / f"masks.tar.gz{INDEX}").exists()


def test_damage_after_the_index_was_made_is_named(tmp_path):
    path = write(tmp_path / "masks.tar.gz")
    Archive(path).index()
    status, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    faults = []
    for name in FILES:
        try:
            assert read_member(path / name) == FILES[name]
        except DataFault as fault:
            faults.append(str(fault))
    assert faults
    assert all("CORRUPT" in fault and "masks.tar.gz" in fault for fault in faults)


@pytest.mark.parametrize(
    ("kept", "said"),
    [((0, 2), "and none of number 2"), ((1, 2), "and none of number 1")],
)
def test_a_missing_part_is_named(tmp_path, kept, said):
    write(tmp_path / "masks.tar.gz", cuts=(90_000, 250_000), names=PARTS["hub"])
    gone = next(name for number, name in enumerate(PARTS["hub"]) if number not in kept)
    (tmp_path / f"masks.tar.gz{gone}").unlink()
    with pytest.raises(DataFault, match=rf"ARCHIVE_PART .*2 parts .*{said}"):
        parts_of(tmp_path / "masks.tar.gz")


def test_a_missing_last_part_is_an_archive_cut_short(tmp_path):
    write(tmp_path / "masks.tar.gz", cuts=(90_000, 250_000), names=PARTS["hub"])
    (tmp_path / "masks.tar.gz.part-ac").unlink()
    with pytest.raises(DataFault, match=r"(TRUNCATED|CORRUPT) .*part-aa, masks\.tar\.gz\.part-ab"):
        Archive(tmp_path / "masks.tar.gz").index()


def test_other_paths_lead_through_no_archive(tmp_path):
    assert through(tmp_path / "a.nii.gz") is None
    assert through(tmp_path / "masks.tar.gz") is None
    (tmp_path / "folder.tar.gz").mkdir()
    assert through(tmp_path / "folder.tar.gz" / "lung.nii.gz") is None
    assert folder_files(tmp_path / "folder.tar.gz") == []
    with pytest.raises(DataFault, match="MISSING_FILE"):
        Archive(tmp_path / "none.tar.gz")


def test_a_file_in_an_archive_has_the_digest_of_the_unpacked_one(tmp_path):
    path = write(tmp_path / "masks.tar.gz")
    seen: dict = {}
    name, data = next(iter(FILES.items()))
    assert digest(path / name, {}, seen) == hashlib.sha256(data).hexdigest()
    assert seen[str(path / name)][0] == Archive(path).stamp
    assert digest(tmp_path / "gone.tar.gz" / name, {}, {}) is None
