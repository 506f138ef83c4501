"""RadGenome-ChestCT layout: what becomes a study, what is skipped and why. Files are empty: nothing reads a volume."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reg2rg.core.errors import EXIT_SKIPPED, ConfigError, DataFault
from reg2rg.core.regions import load_region_set
from reg2rg.core.types import RegionFiles, Study
from reg2rg.datasets import DATASETS, RadGenome, TooManySkippedError
from reg2rg.datasets.base import Skip, carve_validation, check_skip_limit
from reg2rg.datasets.names import inside, patient_of, study_id

REGIONS = load_region_set()
HEADER = "Volumename,Anatomy,Sentence\n"


def add_volume(root: Path, study: str, regions: tuple[str, ...] = ("lung", "heart"), split: str = "train") -> Path:
    patient = study.rsplit("_", 2)[0]
    volume = root / f"{split}_preprocessed" / patient / f"{patient}a" / f"{study}.nii.gz"
    volume.parent.mkdir(parents=True, exist_ok=True)
    volume.touch()
    masks = root / f"{split}_region_mask" / f"seg_{study}"
    masks.mkdir(parents=True, exist_ok=True)
    for region in regions:
        (masks / f"{region}.nii.gz").touch()
    return volume


def write_table(root: Path, rows: str | bytes, name: str = "train") -> Path:
    table = root / "radgenome_files" / f"{name}_region_report.csv"
    table.parent.mkdir(exist_ok=True)
    data = rows if isinstance(rows, bytes) else (HEADER + rows).encode()
    table.write_bytes(data)
    return table


def dataset(root: Path, **options: object) -> RadGenome:
    settings_ = {"regions": REGIONS, "test": None, "val_fraction": 0.0, "max_skip": 1.0} | options
    return RadGenome(str(root), **settings_)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    add_volume(tmp_path, "train_1_a_1")
    add_volume(tmp_path, "train_2_a_1")
    return tmp_path


def skips(found: RadGenome) -> list[tuple[str, str]]:
    return [(skip.study, skip.code) for skip in found.skipped]


def notes(found: RadGenome) -> dict[str, int]:
    return {note.code: note.count for note in found.notes}


def test_study_carries_paths_texts_and_patient(root: Path) -> None:
    write_table(
        root,
        "train_1_a_1.nii.gz,lung,Clear lungs.\n"
        'train_1_a_1.nii.gz,heart,"Normal,\n size."\n'
        "train_1_a_1.nii.gz,,The whole report.\n"
        "train_2_a_1,heart,Large heart.\n",
    )
    first, second = dataset(root).studies()
    assert (first.id, first.patient, first.split, first.whole) == (
        "train_1_a_1", "train_1", "train", "The whole report.")  # fmt: skip
    assert first.image == root / "train_preprocessed/train_1/train_1a/train_1_a_1.nii.gz"
    assert isinstance(first.masks, RegionFiles)
    # Order of the region set, not of the table or the alphabet of files.
    assert list(first.masks.files) == ["heart", "lung"]
    assert dict(first.reports) == {"heart": "Normal, size.", "lung": "Clear lungs."}
    assert dict(second.reports) == {"heart": "Large heart."}
    assert first.findings is None


def test_paths_of_the_hierarchy_are_not_region_reports(root: Path) -> None:
    write_table(root, "train_1_a_1,lung/lung/right lung,A nodule.\ntrain_1_a_1,lung,Clear.\ntrain_2_a_1,lung/x,No.\n")
    found = dataset(root)
    assert [dict(study.reports) for study in found.studies()] == [{"lung": "Clear."}]
    assert skips(found) == [("train_2_a_1", "NO_REPORT")]
    assert notes(found)["HIERARCHY_ROW"] == 2


def test_duplicates_are_dropped_if_equal_and_skip_the_study_if_not(root: Path) -> None:
    write_table(
        root,
        "train_1_a_1,lung,Clear.\ntrain_1_a_1,lung, Clear. \ntrain_2_a_1,lung,Clear.\ntrain_2_a_1,lung,Nodule.\n",
    )
    found = dataset(root)
    assert [study.id for study in found.studies()] == ["train_1_a_1"]
    assert notes(found)["EQUAL_ROWS"] == 1
    (skip,) = found.skipped
    assert skip.code == "DUPLICATE_ROWS"
    assert "lines 4 and 5 differ for 'lung'" in skip.message
    assert "duplicates: last" in skip.message
    last = dataset(root, duplicates="last").studies()[1]
    assert last.reports["lung"] == "Nodule."


@pytest.mark.parametrize("nothing", ["", "nan", "None", " NaN ", "null", "Not given."])
def test_empty_sentences_are_counted_not_used(root: Path, nothing: str) -> None:
    write_table(root, f"train_1_a_1,lung,{nothing}\ntrain_1_a_1,heart,Fine.\ntrain_2_a_1,lung,{nothing}\n")
    found = dataset(root)
    assert [dict(study.reports) for study in found.studies()] == [{"heart": "Fine."}]
    assert notes(found)["EMPTY_SENTENCE"] == 2
    assert "line 2" in found.notes[0].examples[0]


def test_unknown_regions_are_counted_with_examples(root: Path) -> None:
    add_volume(root, "train_1_a_1", ("others",))
    write_table(root, "train_1_a_1,others,x\ntrain_1_a_1,Lungs,y\ntrain_2_a_1,lung,z\n")
    found = dataset(root)
    assert found.studies()[0].reports == {"lung": "y"}  # an alias is the region
    assert notes(found) == {"UNKNOWN_MASK": 1, "UNKNOWN_REGION": 1}


def test_missing_files_are_all_listed(root: Path) -> None:
    (root / "train_region_mask/seg_train_2_a_1/lung.nii.gz").unlink()
    (root / "train_region_mask/seg_train_2_a_1/heart.nii.gz").unlink()
    add_volume(root, "train_3_a_1", ("heart",))
    write_table(root, "".join(f"train_{number}_a_1,lung,Clear.\n" for number in range(1, 7)))
    found = dataset(root)
    assert [study.id for study in found.studies()] == ["train_1_a_1", "train_3_a_1"]
    assert skips(found) == [
        ("train_2_a_1", "NO_MASK"), ("train_4_a_1", "VOLUME_MISSING"),
        ("train_5_a_1", "VOLUME_MISSING"), ("train_6_a_1", "VOLUME_MISSING")]  # fmt: skip
    assert notes(found) == {"TEXT_WITHOUT_MASK": 1}
    part = dataset(root, partial=True)
    assert skips(part) == [("train_2_a_1", "NO_MASK")]
    assert notes(part)["NOT_IN_PART"] == 3


def test_limit_of_skips_counts_by_code(root: Path) -> None:
    write_table(root, "".join(f"train_{number}_a_1,lung,Clear.\n" for number in range(1, 7)))
    with pytest.raises(
        TooManySkippedError, match=r"4 of 6 studies were skipped \(66.7%\); the limit max_skip is 50"
    ) as e:
        dataset(root, max_skip=0.5).studies()
    assert "4 x VOLUME_MISSING train_3_a_1" in str(e.value)
    assert e.value.exit_code == EXIT_SKIPPED
    assert len(dataset(root, max_skip=0.67).studies()) == 2
    assert len(dataset(root, max_skip=0.0).skipped) == 4  # asking what was skipped never fails


def test_skip_limit_boundary() -> None:
    skip = Skip("a", "X", "X a")
    check_skip_limit([], 0, 0.0)
    check_skip_limit([skip], 20, 0.05)
    with pytest.raises(TooManySkippedError):
        check_skip_limit([skip], 19, 0.05)
    with pytest.raises(ConfigError, match="max_skip is 5"):
        RadGenome("x", max_skip=5)


def test_test_split_keeps_studies_without_text_and_finds_its_spellings(root: Path) -> None:
    write_table(root, "train_1_a_1,lung,Clear.\ntrain_2_a_1,lung,Clear.\n")
    add_volume(root, "valid_1_a_1", split="valid")
    write_table(root, "", "validation")
    found = dataset(root, test="valid")
    study = found.studies()[-1]
    assert (study.id, study.split, dict(study.reports)) == ("valid_1_a_1", "test", {})
    assert notes(found) == {"NO_REPORT": 1}
    assert [study.split for study in dataset(root, train=None, test="validation").studies()] == ["test"]


def test_root_may_be_the_folder_above_dataset(tmp_path: Path) -> None:
    add_volume(tmp_path / "dataset", "train_1_a_1")
    write_table(tmp_path / "dataset", "train_1_a_1,lung,Clear.\n")
    assert len(dataset(tmp_path).studies()) == 1


def test_wrong_root_or_split_says_what_is_there(root: Path) -> None:
    with pytest.raises(ConfigError, match="is not a folder"):
        dataset(root / "nowhere").studies()
    with pytest.raises(ConfigError, match=r"valid_preprocessed.*Folders there: train_preprocessed"):
        dataset(root, test="valid").studies()
    with pytest.raises(ConfigError, match="both null"):
        dataset(root, train=None)


def test_same_patient_in_two_splits_is_an_error(root: Path) -> None:
    write_table(root, "train_1_a_1,lung,Clear.\ntrain_2_a_1,lung,Clear.\n")
    add_volume(root, "train_2_b_1", split="valid")
    write_table(root, "train_2_b_1,lung,Clear.\n", "valid")
    found = dataset(root, test="valid")
    with pytest.raises(
        DataFault, match=r"1 patients stand in two splits: train_2 \(test: train_2_b_1, train: train_2_a_1"
    ):
        found.studies()
    assert len(found.listing().studies) == 3


def test_second_volume_of_a_name_is_skipped(root: Path) -> None:
    other = root / "train_preprocessed/zz/zza/train_1_a_1.nii.gz"
    other.parent.mkdir(parents=True)
    other.touch()
    write_table(root, "train_1_a_1,lung,Clear.\ntrain_2_a_1,lung,Clear.\n")
    assert skips(dataset(root)) == [("train_1_a_1", "DUPLICATE_STUDY")]


def test_path_traversal_never_becomes_a_study(root: Path) -> None:
    write_table(
        root, "../../etc/passwd,lung,a\n/etc/passwd,lung,a\ntrain_1_a_1,lung,b\ntrain_2_a_1,lung,b\n..,lung,a\n"
    )
    found = dataset(root)
    assert [study.id for study in found.studies()] == ["train_1_a_1", "train_2_a_1"]
    assert [code for _, code in skips(found)] == ["UNSAFE_ID"] * 3
    assert found.skipped[0].study == "train_region_report.csv line 2"


# Tables


@pytest.mark.parametrize(
    ("data", "guess", "offset"),
    [
        ((HEADER + "train_1_a_1,lung,Lésion\n").encode("cp1252"), "cp1252", 46),
        ((HEADER + "train_1_a_1,lung,正常\n").encode("gb18030"), "gb18030", 45),
        ((HEADER + "train_1_a_1,lung,x\n").encode("utf-16"), "utf-16", 0),
        ((HEADER + "train_1_a_1,lung,x\n").encode("utf-16-le"), "utf-16-le", 1),
        (b"\xef\xbb\xbf" + HEADER.encode() + b"train_1_a_1,lung,\xff\n", "cp1252", 48),
    ],
)
def test_wrong_encoding_names_byte_guess_and_option(root: Path, data: bytes, guess: str, offset: int) -> None:
    table = write_table(root, data)
    with pytest.raises(DataFault) as error:
        dataset(root).studies()
    assert error.value.code == "TABLE_ENCODING"
    assert str(table) in str(error.value)
    assert f"byte offset {offset} is not utf-8-sig" in str(error.value)
    assert f"set encoding: {guess}" in str(error.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_right_encoding_reads(root: Path, encoding: str) -> None:
    write_table(root, (HEADER + "train_1_a_1,lung,正常\ntrain_2_a_1,lung,x\n").encode(encoding))
    option = "utf-8-sig" if encoding.startswith("utf-8") else encoding
    assert dataset(root, encoding=option).studies()[0].reports["lung"] == "正常"


def test_unknown_encoding_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'gb18030'"):
        RadGenome("x", encoding="gb1803")


def test_missing_columns_are_listed_with_what_was_found(root: Path) -> None:
    write_table(root, b"VolumeName,Anatomie,Sentence\na,b,c\n")
    with pytest.raises(DataFault) as error:
        dataset(root).studies()
    message = str(error.value)
    assert "column Volumename, Anatomy missing; the header has: VolumeName, Anatomie, Sentence" in message
    assert "the columns Volumename, Anatomy, Sentence" in message
    assert "Did you mean 'VolumeName'?" in message


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters_are_seen_in_the_header(root: Path, delimiter: str) -> None:
    rows = ["Volumename,Anatomy,Sentence", "train_1_a_1,lung,Clear", "train_2_a_1,lung,Clear"]
    write_table(root, "\n".join(rows).replace(",", delimiter).encode())
    assert len(dataset(root).studies()) == 2


def test_broken_rows_are_all_named_by_line(root: Path) -> None:
    write_table(root, 'train_1_a_1,lung,a,b\ntrain_1_a_1,heart,"two\nlines"\ntrain_2_a_1,lung\n')
    with pytest.raises(DataFault, match="2 broken rows: line 2 has 4; line 5 has 2"):
        dataset(root).studies()
    write_table(root, 'train_1_a_1,lung,"never closed\ntrain_2_a_1,lung,x\n')
    with pytest.raises(DataFault, match="line 2: a quote that is opened there is never closed"):
        dataset(root).studies()


def test_faults_of_both_tables_come_together(root: Path) -> None:
    add_volume(root, "valid_1_a_1", split="valid")
    write_table(root, b"a,b\n")
    with pytest.raises(DataFault) as error:
        dataset(root, test="valid").studies()
    assert "TABLE_COLUMNS" in str(error.value)
    assert "TABLE_MISSING" in str(error.value)


# Labels


def test_labels_of_ct_rate_form(root: Path) -> None:
    write_table(root, "train_1_a_1,lung,Clear.\ntrain_2_a_1,lung,Clear.\n")
    folder = root / "multi_abnormality_labels"
    folder.mkdir()
    (folder / "train_labels.csv").write_text("VolumeName,Cardiomegaly,Lung nodule\ntrain_1_a_1.nii.gz,1,0.0\n")
    found = dataset(root, labels="multi_abnormality_labels")
    first, second = found.studies()
    assert first.findings == {"Cardiomegaly": True, "Lung nodule": False}
    assert second.findings is None
    assert notes(found) == {"NO_LABELS": 1}
    (folder / "train_labels.csv").write_text("VolumeName,Cardiomegaly\na,1\nb,2\nb,\na,0\n")
    with pytest.raises(DataFault, match=r"3 broken rows: line 3: Cardiomegaly is '2'; line 4.*; line 5: a stands"):
        dataset(root, labels="multi_abnormality_labels").studies()
    with pytest.raises(DataFault, match="option labels"):
        dataset(root, labels="nowhere.csv").studies()


# Splits


def make_studies(count: int) -> list[Study]:
    return [
        Study(f"train_{n}_{scan}_1", f"train_{n}", "train", Path("x"), RegionFiles({}))
        for n in range(count)
        for scan in "ab"
    ]


def test_validation_depends_on_the_patient_alone() -> None:
    all_of_them = carve_validation(make_studies(1000), 0.05)
    held_out = {study.patient for study in all_of_them if study.split == "val"}
    assert 25 <= len(held_out) <= 75
    assert all((study.patient in held_out) == (study.split == "val") for study in all_of_them)
    fewer = carve_validation(make_studies(1000)[:1200:3], 0.05)
    assert {study.patient for study in fewer if study.split == "val"} == held_out & {s.patient for s in fewer}
    assert {study.split for study in carve_validation(make_studies(50), 0.0)} == {"train"}
    assert {study.patient for study in carve_validation(make_studies(2), 1e-9) if study.split == "val"} == {"train_1"}
    with pytest.raises(ConfigError, match="val_fraction"):
        carve_validation([], 1.0)


# Names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train_1_a_1.nii.gz", "train_1_a_1"), ("train_1_a_1", "train_1_a_1"), ("a.b.nii.gz", "a.b"), ("a.b", "a.b"),
        (" 007 ", "007"), ("1.2.840.NII.GZ", "1.2.840"), ("x.nii", "x"), ("患者1", "患者1"),
    ],
)  # fmt: skip
def test_study_id(name: str, expected: str) -> None:
    assert study_id(name) == expected


@pytest.mark.parametrize("name", ["", ".nii.gz", "../a", "/a", "a\\b", "C:a", "a\0", ".hidden", "-rf", "a.", "x" * 151])
def test_unsafe_ids_are_refused(name: str) -> None:
    with pytest.raises(DataFault) as error:
        study_id(name)
    assert error.value.code == "UNSAFE_ID"


@given(st.text(max_size=200))
def test_an_id_is_one_file_name_below_its_folder(name: str) -> None:
    try:
        found = study_id(name)
    except DataFault:
        return
    assert Path("/base", found).name == found
    assert inside(Path("/base"), found) == Path("/base", found)
    assert study_id(found + ".nii.gz") == found


def test_patients() -> None:
    assert patient_of("train_1000_a_1") == "train_1000"
    assert patient_of("site_7_12_b_2") == "site_7_12"
    assert patient_of("1.2.840") == "1.2.840"


def test_links_may_not_leave_the_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "out").symlink_to(tmp_path)
    (root / "loop").symlink_to(root / "loop")
    for path in ("out/secret", "loop/x", "../secret", "/etc/passwd", "..\\secret", "a\0b"):
        with pytest.raises(DataFault) as error:
            inside(root, path, "s")
        assert error.value.code == "UNSAFE_PATH"


def test_files_that_are_links_into_a_store_of_blobs(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    write_table(root, "".join(f"train_{n}_a_1.nii.gz,lung,Clear.\n" for n in (1, 2)))
    wanted = dataset(root).studies()
    store = tmp_path_factory.mktemp("blobs")
    for number, file in enumerate(sorted(path for path in root.rglob("*") if path.is_file())):
        blob = store / f"{number:064x}"
        file.rename(blob)
        file.symlink_to(blob)
    assert dataset(root).studies() == wanted


# Mutated tables


BASE = HEADER + "".join(f'train_{n}_a_1.nii.gz,{region},"Text {n}, so."\n' for n in (1, 2) for region in ("lung", ""))
ALPHABET = string.printable + "é正\0\ufeff"


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    data = bytearray(BASE.encode())
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(data)))
        cut = draw(st.integers(0, 3))
        new = draw(st.one_of(st.binary(max_size=4), st.text(ALPHABET, max_size=6).map(str.encode)))
        data[place : place + cut] = new
    return bytes(data)


@settings(max_examples=150, deadline=None)
@given(data=mutated())
def test_mutated_tables_load_or_fail_with_a_place(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    root = tmp_path_factory.getbasetemp() / "mutated"
    if not root.is_dir():
        add_volume(root, "train_1_a_1")
        add_volume(root, "train_2_a_1")
    write_table(root, data)
    try:
        found = dataset(root)
        studies = found.studies()
    except DataFault as fault:
        assert any(word in str(fault) for word in ("line ", "byte offset", "the header has"))  # noqa: PT017
        return
    for study in studies:
        assert study.id in ("train_1_a_1", "train_2_a_1")
        assert all(text.strip() for text in study.reports.values())
    for skip in found.skipped:
        assert skip.code
        assert "Fix:" in skip.message


def test_registered_by_name() -> None:
    assert DATASETS.get("RadGenome") is RadGenome
