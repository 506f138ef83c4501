from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.task import Views
from reg2rg.core.types import RegionVolume, Volume
from reg2rg.store.codecs import CODECS, view_codec
from reg2rg.store.container import read_header
from reg2rg.store.crop import crop_to_foreground
from reg2rg.store.store import Store
from reg2rg.store.views import compute_views

SETTINGS = Views(size=(16, 12, 8))


def region_volume(seed=0, shape=(30, 26, 18)) -> RegionVolume:
    rng = np.random.default_rng(seed)
    hu = np.asfortranarray(rng.integers(-1024, 1200, shape).astype(np.int16))
    hu[:3] = -1024
    masks = {}
    for name, box in {"lung": (4, 20), "heart": (10, 14), "trachea and bronchie": (2, 5)}.items():
        mask = np.zeros(shape, dtype=bool, order="F")
        mask[box[0] : box[1], 5:21, 2:15] = rng.random((box[1] - box[0], 16, 13)) > 0.4
        masks[name] = mask
    return RegionVolume(Volume(hu, np.diag([0.8, 0.8, 2.0, 1.0])), masks, notes=("a note",))


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "store")
    for number, study in enumerate(("s1", "s2")):
        store.write(study, f"key{number}", region_volume(number), views=SETTINGS)
    return store


def assert_views_equal(a, b):
    assert a.regions == b.regions
    for x, y in ((a.texture, b.texture), (a.geometry, b.geometry), (a.global_, b.global_)):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("codec", sorted(CODECS))
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (40, 33, 9)])
def test_codecs_are_lossless(codec, shape):
    rng = np.random.default_rng(1)
    noise = rng.integers(-32768, 32767, shape, endpoint=True).astype(np.int16)
    ramp = (np.arange(noise.size) * 7).astype(np.int16).reshape(shape)
    for array in (noise, ramp, np.full(shape, -32768, dtype=np.int16)):
        array = array > 0 if codec == "bits" else array
        out = np.empty_like(array)
        CODECS[codec].decode(CODECS[codec].encode(array), out)
        np.testing.assert_array_equal(out, array)


def test_a_scan_with_edges_packs_better_than_its_rows_alone():
    """Steps along rows and along slices, which a difference in one direction would both pay for."""
    rng = np.random.default_rng(0)
    tissue = rng.integers(-900, 900, (6, 7, 1)).astype(np.int16).repeat(8, 0).repeat(9, 1).repeat(40, 2)
    rows = np.concatenate([tissue[:, :1], np.diff(tissue, axis=1)], axis=1)
    assert len(CODECS["scan"].encode(tissue)) < 0.6 * len(CODECS["view"].encode(rows))


def test_the_codec_of_a_view_is_the_shorter_one():
    """Rows of an enlarged region go over into each other; those of noise at full detail do not."""
    rng = np.random.default_rng(0)
    few = rng.integers(-9000, 9000, (6, 24, 16)).astype(np.float32)
    steps = np.linspace(0, 1, 8, endpoint=False, dtype=np.float32).reshape(1, 8, 1, 1)
    enlarged = (few[:-1, None] * (1 - steps) + few[1:, None] * steps).reshape(40, 24, 16).astype(np.int16)
    assert view_codec(enlarged) == "view_rows"
    assert view_codec(rng.integers(-9000, 9000, (40, 24, 16)).astype(np.int16)) == "view"
    assert view_codec(enlarged[:1]) in CODECS


def test_native_detail_round_trip(store):
    expected = crop_to_foreground(region_volume(0))
    entry = store.read("s1")
    assert entry.key == "key0"
    np.testing.assert_array_equal(entry.detail.array, expected.array)
    np.testing.assert_array_equal(entry.detail.affine, expected.affine)
    assert entry.detail.origin == expected.origin
    assert entry.detail.shape == (30, 26, 18)
    assert entry.detail.notes == ("a note",)
    assert entry.detail.regions == expected.regions == ("lung", "heart", "trachea and bronchie")
    for name in expected.regions:
        np.testing.assert_array_equal(entry.detail.mask(name), expected.mask(name))
    assert store.read("s1", ["heart"]).detail.regions == ("heart",)


def test_views_are_the_same_baked_and_computed(store):
    computed = compute_views(SETTINGS, region_volume(1))
    assert_views_equal(store.views("s2", SETTINGS), computed)
    store.views_path("s2", SETTINGS).unlink()
    assert_views_equal(store.views("s2", SETTINGS), computed)
    other = Views(size=(9, 9, 9), window=(-160, 240))
    assert_views_equal(store.views("s2", other), compute_views(other, region_volume(1)))


def test_views_of_chosen_regions(store):
    whole = store.views("s1", SETTINGS)
    for baked in (True, False):
        if not baked:
            store.views_path("s1", SETTINGS).unlink()
        some = store.views("s1", SETTINGS, ["heart", "lung"], {"geometry", "global_"})
        assert some.regions == ("heart", "lung")
        assert some.texture is None
        np.testing.assert_array_equal(some.geometry, whole.geometry[[1, 0]])
        np.testing.assert_array_equal(some.global_, whole.global_)
        with pytest.raises(ConfigError, match="no region 'liver'"):
            store.views("s1", SETTINGS, ["liver"])


def test_views_of_an_older_entry_are_not_used(store):
    store.write("s1", "newer", region_volume(7))  # as if killed before the views were baked
    assert_views_equal(store.views("s1", SETTINGS), compute_views(SETTINGS, region_volume(7)))
    assert store.state("s1", "newer", SETTINGS, full=True) == "unbaked"


def test_views_alone(tmp_path):
    store = Store(tmp_path / "small")
    store.write("s1", "k", region_volume(1), views=SETTINGS, native=False)
    assert store.studies() == ("s1",)
    assert store.regions("s1") == ("lung", "heart", "trachea and bronchie")
    assert_views_equal(store.views("s1", SETTINGS), compute_views(SETTINGS, region_volume(1)))
    for ask in (lambda: store.read("s1"), lambda: store.views("s1", Views(size=(9, 9, 9)))):
        with pytest.raises(DataFault, match=r"NOT_PREPARED.*views alone.*without --views-only"):
            ask()
    for settings, native, expected in (
        (SETTINGS, False, "good"),
        (SETTINGS, True, "stale"),
        (Views(size=(9, 9, 9)), False, "stale"),
    ):
        assert store.state("s1", "k", settings, full=True, native=native) == expected


def test_entries_of_an_older_format_are_not_read(store, monkeypatch):
    for module in ("store", "files"):
        monkeypatch.setattr(f"reg2rg.store.{module}.NATIVE_FORMAT", 99)
    assert store.state("s1", "key0", SETTINGS, full=False) == "stale"
    with pytest.raises(DataFault, match=r"NOT_PREPARED.*format 3.*expected format 99.*prepare"):
        store.read("s1")


def test_views_of_an_older_format_are_made_anew_from_the_native_detail_that_stands(store, monkeypatch):
    for module in ("store", "files"):
        monkeypatch.setattr(f"reg2rg.store.{module}.VIEWS_FORMAT", 99)
    assert store.state("s1", "key0", SETTINGS, full=False) == "unbaked"
    assert_views_equal(store.views("s1", SETTINGS), compute_views(SETTINGS, region_volume(0)))
    assert store.state("s1", "key0", None, full=True) == "good"
    store.bake("s1", "key0", store.read("s1").detail, SETTINGS)
    assert store.state("s1", "key0", SETTINGS, full=True) == "good"


def test_index_needs_no_entry_to_be_opened(store, monkeypatch):
    store.write_index()
    monkeypatch.setattr("reg2rg.store.index.read_header", lambda path: pytest.fail("opened an entry"))
    fresh = Store(store.root)
    assert fresh.studies() == ("s1", "s2")
    assert fresh.regions("s1") == ("lung", "heart", "trachea and bronchie")


def test_index_is_a_mere_cache(store, caplog):
    store.write_index()
    path = store.root / "index.json"
    expected = path.read_bytes()
    path.write_text("{ torn")
    assert Store(store.root).studies() == ("s1", "s2")
    Store(store.root).write_index()
    assert path.read_bytes() == expected
    path.write_bytes(expected.replace(b'"lung"', b'"lunf"'))
    assert Store(store.root).regions("s1") == store.regions("s1")
    assert re.search(r"index\.json: the SHA-256 .*Fix: run `reg2rg data prepare` again", caplog.text)
    Store(store.root).write_index()
    assert path.read_bytes() == expected
    store.write("s3", "k", region_volume(3))
    assert not path.exists()
    assert Store(store.root).studies() == ("s1", "s2", "s3")
    store.write_index()
    store.native_path("s2").unlink()
    assert Store(store.root).studies() == ("s1", "s3")


def test_same_input_same_bytes(store, tmp_path):
    again = Store(tmp_path / "again")
    again.write("s1", "key0", region_volume(0), views=SETTINGS)
    for path in (Store.native_path, lambda s, study: s.views_path(study, SETTINGS)):
        assert path(store, "s1").read_bytes() == path(again, "s1").read_bytes()


@pytest.mark.parametrize("kind", ["native", "views"])
def test_every_damage_is_found(store, kind):
    path = store.native_path("s1") if kind == "native" else store.views_path("s1", SETTINGS)
    good = path.read_bytes()
    rng = np.random.default_rng(0)

    def read():
        return store.read("s1") if kind == "native" else store.views("s1", SETTINGS)

    read()
    places = {*range(0, 64, 3), *rng.integers(0, len(good), 150).tolist(), len(good) - 1}
    for place in places:
        bad = bytearray(good)
        bad[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(bad)
        with pytest.raises(DataFault, match="STORE_CORRUPT s1") as caught:
            read()
        assert str(path) in str(caught.value)
        assert store.state("s1", "key0", SETTINGS, full=True) == "corrupt"
    for length in [0, 1, 47, 48, *rng.integers(49, len(good), 30).tolist(), len(good) - 1]:
        path.write_bytes(good[:length])
        with pytest.raises(DataFault, match="STORE_CORRUPT"):
            read()
    path.write_bytes(good + b"\0")
    with pytest.raises(DataFault, match="STORE_CORRUPT"):
        read()
    path.write_bytes(good)
    read()


def test_unknown_study_and_bad_ids(store):
    with pytest.raises(DataFault, match=r"NOT_PREPARED nobody.*reg2rg data prepare"):
        store.read("nobody")
    with pytest.raises(DataFault, match="NOT_PREPARED"):
        store.regions("nobody")
    with pytest.raises(DataFault, match="NOT_PREPARED"):
        store.views("nobody", SETTINGS)
    for bad in ("", "../x", "a/b", ".hidden", "a\0b"):
        with pytest.raises(ConfigError, match="file name"):
            store.write(bad, "k", region_volume())


def test_files_hold_json_and_numbers_alone(store):
    header = read_header(store.native_path("s1"))
    assert json.loads(json.dumps(header.meta))["regions"] == ["lung", "heart", "trachea and bronchie"]
    assert header.meta["spacing"] == pytest.approx([0.8, 0.8, 2.0])
    assert {block.dtype for block in header.blocks.values()} == {"int16", "bool"}


def test_store_imports_no_torch():
    code = "import sys, reg2rg.store.store; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
