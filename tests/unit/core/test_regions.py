from __future__ import annotations

import subprocess
import sys

import pytest

from reg2rg.core.errors import ConfigError
from reg2rg.core.regions import Region, RegionSet, load_region_set, packaged_region_sets

TEN = (
    "abdomen",
    "bone",
    "breast",
    "esophagus",
    "heart",
    "lung",
    "mediastinum",
    "pleura",
    "thyroid",
    "trachea and bronchie",
)


def test_radgenome_is_the_ten_in_their_order():
    regions = load_region_set()
    assert regions.names == TEN
    assert regions.name == "radgenome"
    assert len(regions) == 10
    assert [region.name for region in regions] == list(TEN)


def test_every_packaged_set_loads():
    assert {"radgenome", "lobes"} <= set(packaged_region_sets())
    for name in packaged_region_sets():
        regions = load_region_set(name)
        assert regions.name == name
        assert load_region_set(regions) is regions


def test_every_spelling_leads_to_its_region_and_back():
    for name in packaged_region_sets():
        regions = load_region_set(name)
        for region in regions:
            for spelling in (region.name, *region.aliases):
                for form in (spelling, spelling.upper(), spelling.replace(" ", "_"), f" {spelling}  "):
                    assert regions.canonical(form) == region.name
                    assert form in regions


@pytest.mark.parametrize(
    "spelling",
    ["trachea and bronchie", "trachea", "trachea_bronchia", "Trachea/Bronchi", "TRACHEA  AND BRONCHI", "bronchie"],
)
def test_the_airways_in_all_their_spellings(spelling):
    assert load_region_set().canonical(spelling) == "trachea and bronchie"


def test_unknown_region_offers_the_closest():
    with pytest.raises(ConfigError, match=r"Unknown region 'lugn' .*Did you mean 'lung'\? Known: abdomen, bone"):
        load_region_set().canonical("lugn")
    assert "liver lobe" not in load_region_set()
    assert 3 not in load_region_set()
    with pytest.raises(ConfigError, match="Unknown region ''"):
        load_region_set().canonical("")


def test_totalsegmentator_labels():
    """Labels of v2's task `total`, and the regions that it cannot give."""
    regions = load_region_set()
    labels = regions.from_totalsegmentator()
    assert labels["lung"] == (10, 11, 12, 13, 14)
    assert labels["heart"] == (51, 61)
    assert labels["esophagus"] == (15,)
    assert labels["trachea and bronchie"] == (16,)
    assert labels["thyroid"] == (17,)
    assert set(labels["bone"]) == {*range(25, 51), *range(69, 75), *range(91, 118)}
    assert set(labels["abdomen"]) == {*range(1, 10), *range(18, 25), 63, 64}
    assert regions.without_source() == ("breast", "mediastinum", "pleura")
    assert set(labels) | set(regions.without_source()) == set(TEN)
    for region in regions:
        if not region.totalsegmentator:
            assert region.note, f"{region.name} should say where a mask could come from"
    used = [label for values in labels.values() for label in values]
    assert len(used) == len(set(used))
    assert all(1 <= label <= 117 for label in used)


def test_lobes_together_are_the_lung():
    lobes = load_region_set("lobes").from_totalsegmentator()
    assert len(lobes) == 5
    assert sorted(label for labels in lobes.values() for label in labels) == list(
        load_region_set().from_totalsegmentator()["lung"]
    )


# A user's own set


def test_own_set(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(
        "name: own\nregions:\n  - liver\n  - name: left kidney\n    aliases: [kidney left]\n"
        "    totalsegmentator: [3]\n    note: >\n      two\n      lines\n",
        encoding="utf-8",
    )
    for source in (path, str(path)):
        regions = load_region_set(source)
        assert regions.names == ("liver", "left kidney")
        assert regions.canonical("Kidney_Left") == "left kidney"
        assert regions.regions[1] == Region("left kidney", ("kidney left",), (3,), "two lines")
        assert regions.without_source() == ("liver",)
    path.write_text("regions: [liver]\n", encoding="utf-8")
    assert load_region_set(path).name == "own"


def test_a_set_extends_another():
    both, ten, five = (load_region_set(name) for name in ("radgenome_lobes", "radgenome", "lobes"))
    assert both.regions == (*ten.regions, *five.regions)


def test_a_file_extends_a_file_beside_it_or_a_packaged_set(tmp_path):
    (tmp_path / "one.yaml").write_text("base: lobes\nregions: [liver]\n")
    (tmp_path / "two.yaml").write_text("base: one.yaml\nregions: [spleen]\n")
    assert load_region_set(tmp_path / "two.yaml").names == (*load_region_set("lobes").names, "liver", "spleen")
    assert load_region_set(tmp_path / "two.yaml").name == "two"
    for content, word in (
        ("base: two.yaml\nregions: [liver]\n", "extends itself"),
        ("base: lungs\nregions: [liver]\n", "Unknown region set"),
        ("base: [lobes]\nregions: [liver]\n", "'base' is list"),
        ("base: lobes\nregions: [LUL]\n", "'lul' stands for both"),
        ("base: lobes\nregions: [left upper lobe]\n", "listed twice"),
    ):
        (tmp_path / "one.yaml").write_text(content)
        with pytest.raises(ConfigError, match=word):
            load_region_set(tmp_path / "two.yaml")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["holds empty", "'regions'"]),
        ("- a\n- b\n", ["expected a mapping"]),
        ("regions: [a\n", ["line", "Fix"]),
        ("name: x\n", ["'regions' is empty"]),
        ("name: x\nregions: []\n", ["no region"]),
        ("name: x\nregions: lung\n", ["'regions' is str 'lung'", "expected a list"]),
        ("name: 3\nregions: [lung]\n", ["'name' is int 3"]),
        ("name: x\nregion: [lung]\n", ["unknown key 'region'", "Did you mean 'regions'"]),
        ("regions: [3]\n", ["regions[0] is int 3"]),
        ("regions: [{aliases: [b]}]\n", ["regions[0] has no 'name'"]),
        ("regions: [{name: 3}]\n", ["regions[0].name is int 3"]),
        ("regions: [a, {name: lung, alias: [b]}]\n", ["regions[1]: unknown key 'alias'", "Did you mean 'aliases'"]),
        ("regions: [{name: lung, aliases: b}]\n", ["regions[0].aliases is 'b'"]),
        ("regions: [{name: lung, aliases: [1]}]\n", ["aliases is [1]"]),
        ("regions: [{name: lung, note: [1]}]\n", ["note is list"]),
        ("regions: [{name: lung, totalsegmentator: 10}]\n", ["totalsegmentator is 10", "whole numbers"]),
        ("regions: [{name: lung, totalsegmentator: [0]}]\n", ["totalsegmentator is [0]"]),
        ("regions: [{name: lung, totalsegmentator: [true]}]\n", ["totalsegmentator is [True]"]),
        ("regions: [{name: lung, totalsegmentator: [lung]}]\n", ["totalsegmentator is ['lung']"]),
        ("regions: [lung, Lung]\n", ["'lung' stands for both 'lung' and 'Lung'"]),
        ("regions: [lung, lung]\n", ["'lung' is listed twice"]),
        ("regions: [{name: a, aliases: [x_y]}, {name: b, aliases: [X Y]}]\n", ["'x y' stands for both 'a' and 'b'"]),
        ("regions: ['lung: left']\n", ["cannot stand in file names and reports"]),
        ("regions: ['a  b']\n", ["cannot stand in file names and reports"]),
        ("regions: ['No. Two']\n", ["no '. ' before a capital"]),
        ("regions: ['../lung']\n", ["cannot stand in file names"]),
        ("regions: ['']\n", ["cannot stand in file names"]),
        (f"regions: [{'a' * 81}]\n", ["cannot stand in file names"]),
    ],
)
def test_mistakes_name_file_key_and_remedy(tmp_path, content, words):
    path = tmp_path / "own.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_region_set(path)
    message = str(caught.value)
    for word in (str(path), *words):
        assert word in message


def test_sets_and_files_that_are_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"Unknown region set 'radgenom'.*Did you mean 'radgenome'\?.*lobes"):
        load_region_set("radgenom")
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        load_region_set(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes("regions: [niño]".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.yaml: cannot be read"):
        load_region_set(tmp_path / "latin.yaml")


def test_yaml_cannot_run_code(tmp_path):
    canary = tmp_path / "canary"
    (tmp_path / "evil.yaml").write_text(f"name: !!python/object/apply:os.mkdir ['{canary}']\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"evil\.yaml"):
        load_region_set(tmp_path / "evil.yaml")
    assert not canary.exists()


def test_set_from_python():
    regions = RegionSet("own", (Region("a", ("b",)), Region("c")))
    assert repr(regions) == "RegionSet('own', ['a', 'c'])"
    assert regions.canonical("B") == "a"


def test_reading_scans_and_regions_needs_no_torch():
    code = "import sys, reg2rg.core.regions, reg2rg.core.report, reg2rg.scans.read; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
