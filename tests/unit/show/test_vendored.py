import gzip
import hashlib

import pytest

from reg2rg.core.errors import ConfigError
from reg2rg.show import vendored


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(vendored, "_FOLDER", tmp_path)
    vendored.read_viewer.cache_clear()
    yield tmp_path
    vendored.read_viewer.cache_clear()


def test_the_viewer_is_as_it_was_published():
    packed = vendored.read_viewer()
    assert hashlib.sha256(gzip.decompress(packed)).hexdigest() == vendored.SHA256
    assert len(packed) < 1_000_000
    assert f'"{vendored.VERSION}"'.encode() in gzip.decompress(packed)


@pytest.mark.parametrize(
    "content", [gzip.compress(b"something else"), b"no gzip", gzip.compress(b"cut")[:-4]], ids=["other", "none", "cut"]
)
def test_another_viewer_is_refused(folder, content):
    (folder / "niivue.umd.js.gz").write_bytes(content)
    with pytest.raises(ConfigError, match=r"niivue\.umd\.js\.gz: sha256 .* \(expected 47b896b7.* Fix: install reg2rg"):
        vendored.read_viewer()


def test_licences_are_shipped():
    text = vendored.read_licences()
    assert "Copyright (c) 2021, Niivue" in text
    for name in ("fflate", "gl-matrix", "nifti-reader-js", "numcodecs", "zarrita", "Zstandard", "zlib", "Roboto"):
        assert name in text
