"""Input contracts: made from a config, written, read, and refused where they make no sense."""

import pytest
import yaml

from reg2rg.core.errors import ConfigError
from reg2rg.core.model_folder import CONTRACT, REGION_FILE
from reg2rg.core.regions import Region, RegionSet, load_region_set
from reg2rg.data.prompt import INSTRUCTION, WHOLE_INSTRUCTION
from reg2rg.pretrained.contract import InputContract

OWN = RegionSet(
    "mine", (Region("left lung", ("lung_l", "sinister"), (10, 11), "a note: with 'quotes'"), Region("spleen"))
)


def same(one, other):
    return not one.differences(other)


def test_of_a_config():
    config = {
        "model": {"texture": None, "geometry": {"class_path": "ViT3D"}, "global_": "texture"},
        "data": {"views": {"size": [32, 16, 8], "window": [-900, 100]}, "read": {"hu": "trust"}, "regions": "lobes"},
    }
    contract = InputContract.of_config(config, spacing=(1, 1, 3))
    assert contract.views == ("geometry", "global")
    assert (contract.size, contract.window, contract.hu) == ((32, 16, 8), (-900, 100), "trust")
    assert contract.regions.names == load_region_set("lobes").names
    assert (contract.spacing, contract.orientation, contract.instruction) == ((1, 1, 3), "RAS", INSTRUCTION)
    plain = InputContract.of_config({"model": {"global_": {}}, "data": {"target": "whole"}})
    assert (plain.size, plain.window, plain.spacing) == ((256, 256, 64), (-1000, 200), None)
    assert plain.instruction == WHOLE_INSTRUCTION


@pytest.mark.parametrize("regions", [load_region_set("radgenome"), OWN], ids=["packaged", "own"])
def test_round_trip(tmp_path, regions):
    contract = InputContract(
        regions, ("texture", "global"), (16, 24, 8), (-200, 300), coupled=True, orientation="LPS",
        spacing=(1.5, 1.5, 3.0), hu="trust", target="joined", identity=False, instruction="Say: #what\n you see",
    )  # fmt: skip
    contract.write(tmp_path, "9.9")
    again = InputContract.read(tmp_path)
    assert same(contract, again)
    assert again.regions.regions == regions.regions
    assert (tmp_path / REGION_FILE).exists() == (regions is OWN)
    assert load_region_set(tmp_path / REGION_FILE).canonical("Lung L") == "left lung" if regions is OWN else True


def test_differences_are_said():
    one, other = InputContract(OWN), InputContract(load_region_set("lobes"), window=(-1000, 400))
    assert (
        one.differences(other)[-1] == "window (-1000, 400) instead of (-1000, 200)" or len(one.differences(other)) == 2
    )
    assert any(said.startswith("regions ['left upper lobe'") for said in one.differences(other))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("orientation", "RAX", "one letter each"),
        ("orientation", "RLS", "one letter each"),
        ("orientation", 3, "orientation is 3"),
        ("coupled", "no", "coupled is 'no'"),
        ("instruction", 7, "instruction is 7"),
        ("spacing", [1, 1], "three lengths"),
        ("spacing", [1, 0, 1], "three lengths"),
        ("spacing", "thick", "spacing|float"),
        ("window", [200, -1000], "window"),
        ("window", 7, "window|iterable"),
        ("size", [16, 16], "unpack|size"),
        ("size", [16, 0, 16], "size"),
        ("views", ["texture", "smell"], "smell"),
        ("hu", "maybe", "hu is 'maybe'"),
        ("target", "song", "target is 'song'"),
        ("format", 2, "format is 2.*upgrade"),
        ("format", True, "format is True"),
        ("regions", ["heart"], "the model's regions are"),
        ("region_set", "../../etc/passwd", "region_set is"),
        ("region_set", "cardiac", "region_set is 'cardiac'"),
        ("extra", 1, "unknown key 'extra'"),
        ("identity", None, ""),
    ],
)
def test_a_spoilt_file_is_refused_by_name(tmp_path, key, value, said):
    InputContract(load_region_set()).write(tmp_path, "0")
    path = tmp_path / CONTRACT
    values = yaml.safe_load(path.read_text())
    values[key] = value
    if key == "identity":
        del values[key]
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match=rf"{CONTRACT}.*({said})"):
        InputContract.read(tmp_path)


@pytest.mark.parametrize("text", ["", "- a list", "{unclosed", "\x00", "!!python/object/apply:os.system [true]"])
def test_what_is_no_mapping_is_refused(tmp_path, text):
    (tmp_path / CONTRACT).write_text(text)
    with pytest.raises(ConfigError, match=CONTRACT):
        InputContract.read(tmp_path)
