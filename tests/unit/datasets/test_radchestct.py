"""RAD-ChestCT's 84 abnormalities at 52 locations, as CT-RATE's findings."""

import csv
from pathlib import Path

import pytest

from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.labels import FINDINGS
from reg2rg.datasets.radchestct import load_mapping, packaged_mappings, read_radchestct

# The 83 of CT-Net's order, and what stands for all others.
_NAMES = (
    "bandlike_or_linear bronchial_wall_thickening groundglass honeycombing reticulation tree_in_bud "
    "airspace_disease air_trapping aspiration atelectasis bronchiectasis bronchiolectasis bronchiolitis "
    "bronchitis emphysema hemothorax interstitial_lung_disease lung_resection mucous_plugging pleural_effusion "
    "pleural_thickening pneumonia pneumonitis pneumothorax pulmonary_edema septal_thickening tuberculosis cabg "
    "cardiomegaly coronary_artery_disease heart_failure heart_valve_replacement pacemaker_or_defib "
    "pericardial_effusion pericardial_thickening sternotomy arthritis atherosclerosis aneurysm breast_implant "
    "breast_surgery calcification cancer catheter_or_port cavitation clip congestion consolidation cyst debris "
    "deformity density dilation_or_ectasia distention fibrosis fracture granuloma hardware hernia infection "
    "infiltrate inflammation lesion lucency lymphadenopathy mass nodule nodulegr1cm opacity plaque "
    "postsurgical scarring scattered_calc scattered_nod secretion soft_tissue staple stent suture transplant "
    "chest_tube tracheal_tube gi_tube other_path"
)
ABNORMALITIES = _NAMES.split()


def write(path: Path, studies: dict[str, tuple[str, ...]], locations: int = 52) -> Path:
    columns = [f"{name}*place_{place}" for name in ABNORMALITIES for place in range(locations)]
    with open(path, "w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["NoteAcc_DEID", *columns])
        for study, present in studies.items():
            table.writerow([study, *("1.0" if column in present else "0.0" for column in columns)])
    return path


def test_a_table_of_its_size_and_both_mappings(tmp_path) -> None:
    assert len(ABNORMALITIES) * 52 == 4368
    present = {
        "tst1": ("nodulegr1cm*place_51", "distention*place_0"),
        "tst2": ("calcification*place_3", "fibrosis*place_1", "air_trapping*place_2"),
        "tst3": (),
    }
    table = write(tmp_path / "labels.csv", present)

    def found(name: str) -> dict[str, set[str]]:
        labels = read_radchestct(table, load_mapping(name))
        return {study: {finding for finding, there in row.items() if there} for study, row in labels.items()}

    assert found("radchestct_standard") == {
        "tst1": {"Lung nodule"},
        "tst2": {"Arterial wall calcification", "Coronary artery wall calcification"},
        "tst3": set(),
    }
    assert found("radchestct_extended") == {
        "tst1": {"Lung nodule"},
        "tst2": {"Pulmonary fibrotic sequela", "Mosaic attenuation pattern"},
        "tst3": set(),
    }
    standard = read_radchestct(table, load_mapping("radchestct_standard"))["tst3"]
    assert list(standard) == [name for name in FINDINGS if name != "Mosaic attenuation pattern"], "it cannot be told"


def test_packaged_mappings_name_the_findings_and_abnormalities_there_are() -> None:
    assert packaged_mappings() == ("radchestct_extended", "radchestct_standard")
    for name in packaged_mappings():
        mapping = load_mapping(name)
        assert tuple(mapping.findings) == FINDINGS
        assert {one for names in mapping.findings.values() for one in names} <= set(ABNORMALITIES)
        assert mapping.source.startswith("lmb-freiburg/radfinder, ")


def test_what_is_wrong_is_named(tmp_path) -> None:
    mapping = load_mapping("radchestct_standard")
    table = write(tmp_path / "labels.csv", {"a": ()}, locations=1)
    rows = table.read_text().splitlines()
    table.write_text("\n".join([rows[0].replace("hernia*", "hernja*"), rows[1]]))
    with pytest.raises(DataFault, match=r"no column of hernia\*<location>.*Did you mean 'hernja'\?"):
        read_radchestct(table, mapping)
    twice = rows[1].replace("0.0", "1.0")
    table.write_text(
        "\n".join(
            [rows[0], rows[1], twice, rows[1].replace("a,0.0", "b,0.0").replace("0.0", "x"), "../c" + rows[1][1:]]
        )
    )
    with pytest.raises(DataFault, match=r"(?s)line 3: a stands there twice .* line 4: .* is 'x'; line 5: UNSAFE_ID"):
        read_radchestct(table, mapping)
    with pytest.raises(
        ConfigError, match=r"Unknown label mapping 'radchest_standard'. Did you mean 'radchestct_standard'"
    ):
        load_mapping("radchest_standard")
    own = tmp_path / "own.yaml"
    own.write_text("findings: {Mass: mass}")
    with pytest.raises(ConfigError, match="'findings' is missing or no mapping of lists"):
        load_mapping(str(own))
    own.write_text("findings: {Mass: [mass]}\nsource: ours")
    write(table, {"a": ("mass*place_0",)}, locations=1)
    assert read_radchestct(table, load_mapping(str(own))) == {"a": {"Mass": True}}
