"""Input contracts: made from a config, written, read, and refused where they make no sense."""

import pytest
import yaml

from reg2rg.core.errors import ConfigError
from reg2rg.core.model_folder import CONFIG, CONTRACT, REGION_FILE
from reg2rg.core.regions import Region, RegionSet, load_region_set
from reg2rg.core.task import INSTRUCTION, WHOLE_INSTRUCTION, ReportTask, Views, with_task
from reg2rg.pretrained.contract import InputContract, model_config

OWN = RegionSet(
    "mine", (Region("left lung", ("lung_l", "sinister"), (10, 11), "a note: with 'quotes'"), Region("spleen"))
)


def same(one, other):
    return not one.differences(other)


FIRST_FORM = {
    "model": {"texture": None, "geometry": {"class_path": "ViT3D"}, "global_": "texture", "identity": False},
    "data": {
        "views": {"size": [32, 16, 8], "window": [-900, 100], "coupled": False},
        "read": {"hu": "trust"},
        "regions": "lobes",
        "instruction": None,
        "order": "listed",
    },
}


def test_of_a_config():
    contract = InputContract.of_config(with_task(FIRST_FORM) | {"trainer": {}})
    assert (contract.inputs, contract.hu) == (("geometry", "global"), "trust")
    assert (contract.task.views.size, contract.task.views.window) == ((32, 16, 8), (-900, 100))
    assert contract.task.region_set.names == load_region_set("lobes").names
    assert (contract.task.identity, contract.task.order) == (False, "listed")
    assert (contract.task.views.orientation, contract.task.instruction_text) == ("RAS", INSTRUCTION)
    plain = InputContract.of_config({"model": {"global_": {}}, "task": {"target": "whole"}})
    assert plain.task.views == Views((256, 256, 64), (-1000, 200))
    assert plain.task.instruction_text == WHOLE_INSTRUCTION


def test_a_config_of_the_first_form_means_the_same():
    moved = with_task(FIRST_FORM)
    assert same(InputContract.of_config(FIRST_FORM), InputContract.of_config(moved))
    assert moved["data"] == {"read": {"hu": "trust"}}
    assert moved["task"].keys() == {"views", "regions", "order", "identity"}
    assert "views" in FIRST_FORM["data"]


def write(contract, folder, config=None):
    contract.write(folder, "9.9")
    config = config or model_config(
        {"model": {view.replace("global", "global_"): {} for view in contract.inputs}}, contract
    )
    (folder / CONFIG).write_text(yaml.safe_dump(config))


@pytest.mark.parametrize("regions", [load_region_set("radgenome"), OWN], ids=["packaged", "own"])
def test_round_trip(tmp_path, regions):
    views = Views((16, 24, 8), (-200, 300), coupled=True, orientation="LPS", spacing=(1.5, 1.5, 3.0), clip="last")
    contract = InputContract(
        ReportTask(regions, views, "joined", False, "listed", "Say: #what\n you see", 300),
        ("texture", "global"),
        "trust",
    )
    write(contract, tmp_path)
    again = InputContract.read(tmp_path)
    assert same(contract, again)
    assert again.task.region_set.regions == regions.regions
    assert again.task.views == views
    assert (tmp_path / REGION_FILE).exists() == (regions is OWN)
    assert load_region_set(tmp_path / REGION_FILE).canonical("Lung L") == "left lung" if regions is OWN else True


def test_differences_are_said():
    one = InputContract(ReportTask(OWN))
    other = InputContract(ReportTask("lobes", Views(window=(-1000, 400))), ("texture",))
    said = one.differences(other)
    assert len(said) == 3
    assert "views.window [-1000, 400] instead of [-1000, 200]" in said
    assert any(clause.startswith("regions ['left upper lobe'") for clause in said)
    assert any(clause.startswith("inputs ('texture',) instead of") for clause in said)


FIRST_FOLDER = """
format: 1
reg2rg: 0.1.0.dev0
orientation: RAS
spacing: [1.0, 1.0, 3.0]
hu: check
window: [-900, 100]
views: [geometry, global]
size: [32, 16, 8]
coupled: false
target: regions
identity: true
instruction: Report.
region_set: regions.yaml
regions: [left lung, spleen]
"""
FIRST_CONFIG = """
model: {texture: null, geometry: {class_path: CNN3D}, global_: {class_path: CNN3D}, llm: {class_path: CausalLM}}
data:
  regions: regions.yaml
  views: {size: [32, 16, 8], window: [-900, 100], coupled: false}
  read: {hu: check, min_slices: 9}
  target: regions
  identity: true
  instruction: Report.
  order: listed
  max_length: 512
  published_ids: false
"""


@pytest.fixture
def first(tmp_path):
    """What the first format had in a folder, beside weights and language model."""
    InputContract(ReportTask(OWN)).write(tmp_path, "9.9")  # for the region set
    (tmp_path / CONTRACT).write_text(FIRST_FOLDER)
    (tmp_path / CONFIG).write_text(FIRST_CONFIG)
    return tmp_path


def test_a_folder_of_the_first_format_is_read(first):
    found = InputContract.read(first)
    assert (found.task.order, found.task.max_length) == ("listed", 512)  # which stood in the config alone
    assert (found.task.views.spacing, found.task.views.size) == ((1.0, 1.0, 3.0), (32, 16, 8))
    assert (found.task.instruction, found.inputs) == ("Report.", ("geometry", "global"))
    assert found.task.region_set.canonical("Lung L") == "left lung"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("window: [-900, 100]", "window: [-100, 100]", r"views\.window \[-100, 100\] instead of \[-900, 100\]"),
        ("instruction: Report.", "instruction: Sing.", r"instruction Sing\. instead of Report\."),
        ("regions: regions.yaml", "regions: radgenome", r"regions \['abdomen'.* instead of \['left lung', 'spleen'\]"),
        (
            "geometry: {class_path: CNN3D}",
            "geometry: null",
            r"inputs \('global',\) instead of \('geometry', 'global'\)",
        ),
        ("hu: check", "hu: trust", "hu trust instead of check"),
    ],
)
def test_a_contract_that_the_config_contradicts_is_refused(first, old, new, said):
    (first / CONFIG).write_text(FIRST_CONFIG.replace(old, new))
    with pytest.raises(ConfigError, match=rf"config\.yaml: contradicts {CONTRACT} beside it: {said}.*Fix"):
        InputContract.read(first)


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
        ("spacing", "thick", "three lengths"),
        ("window", [200, -1000], "window"),
        ("window", 7, "views.window is 7"),
        ("size", [16, 16], "views.size"),
        ("size", [16, 0, 16], "size"),
        ("views", ["texture", "smell"], "smell"),
        ("hu", "maybe", "hu is 'maybe'"),
        ("target", "song", "target is 'song'"),
        ("format", 3, "format is 3.*upgrade"),
        ("format", True, "format is True"),
        ("regions", ["heart"], "the model's regions are"),
        ("region_set", "../../etc/passwd", "region_set is"),
        ("region_set", "cardiac", "region_set is 'cardiac'"),
        ("extra", 1, "unknown key 'extra'"),
        ("identity", None, ""),
    ],
)
def test_a_spoilt_file_is_refused_by_name(tmp_path, key, value, said):
    write(InputContract(), tmp_path)
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
