"""Sentences -> regions: by rules, by answers of another program, by one's own component."""

import json
import random
from pathlib import Path

import pytest

from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.regions import RegionSet, load_region_set
from reg2rg.datasets.splitters import (
    OTHER,
    AnsweredSplitter,
    Placement,
    RuleSplitter,
    Splitter,
    by_region,
    split_report,
)
from reg2rg.datasets.splitters.answers import answer_line, read_answers
from reg2rg.datasets.splitters.vocabulary import load_vocabulary, packaged_vocabularies
from reg2rg.testing import ContractError, check_splitter

REGIONS = load_region_set("radgenome")


def placed(text: str, regions: RegionSet = REGIONS, **options) -> list[tuple[str, str]]:
    return [(", ".join(one.regions), one.reason) for one in split_report(text, RuleSplitter(**options), regions)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Heart size is normal.", [("heart", "anatomy: heart")]),
        ("The trachea and the thyroid are normal.", [("thyroid, trachea and bronchie", "anatomy: trachea, thyroid")]),
        ("A nodule is seen.", [("lung", "finding: nodule")]),
        ("Thyroid is large. It has nodules.", [("thyroid", "anatomy: thyroid"), ("thyroid", "finding: nodules")]),
        (
            "Liver is fatty. It is large.",
            [("abdomen", "anatomy: liver"), ("abdomen", "inherited from: anatomy: liver")],
        ),
        ("Helical CT. Clear.", [("", "other"), ("", "other")]),
        ("A nodule adjacent to the esophagus.", [("lung", "finding: nodule")]),
        ("Wall thickening up to the esophagus.", [("esophagus", "landmark: esophagus")]),
        ("No pleural or pericardial effusion.", [("pleura", "anatomy: pleural or pericardial")]),
        ("Pleural effusion in both lungs.", [("pleura", "anatomy: pleural")]),
        ("Pleural effusion and lung consolidation.", [("lung, pleura", "anatomy: pleural, lung")]),
        ("In the lung parenchyma window; the trachea is open.", [("trachea and bronchie", "anatomy: trachea")]),
        ("Subpleural lines in both lungs.", [("lung", "anatomy: subpleural, lungs")]),
        ("心影不大，双侧胸腔未见积液。", [("heart, pleura", "anatomy: 心影, 胸腔")]),
        (
            "左侧肾上腺增粗。较前相仿。",
            [("abdomen", "anatomy: 肾上腺"), ("abdomen", "inherited from: anatomy: 肾上腺")],
        ),
        ("双肺支气管扩张。", [("lung", "anatomy: 双肺, 支气管扩张")]),
    ],
)
def test_rules_and_their_reasons(text, expected) -> None:
    assert placed(text) == expected


def test_lobes_by_themselves_and_beside_the_lung() -> None:
    text = (
        "Nodule in the lower lobe of the left lung. It is stable. Both lungs are clear. The liver is fatty. It is big."
    )
    lobes = load_region_set("lobes")
    assert [names for names, _ in placed(text, lobes)] == [
        "left lower lobe",
        "left lower lobe",
        ", ".join(lobes.names),
        "",
        "",
    ]
    assert [names for names, _ in placed(text, load_region_set("radgenome_lobes"))] == [
        "lung, left lower lobe",
        "lung, left lower lobe",
        ", ".join(["lung", *lobes.names]),
        "abdomen",
        "abdomen",
    ]
    assert placed("右肺下叶结节。", lobes) == [("right lower lobe", "anatomy: 右肺下叶")]


def test_a_set_of_some_regions_takes_its_own_and_leaves_the_rest() -> None:
    some = RegionSet("mine", tuple(region for region in REGIONS if region.name in ("lung", "heart")))
    assert placed("Liver is fatty. Clear lungs.", some) == [
        ("", "anatomy: liver (no region of the set)"),
        ("lung", "anatomy: lungs"),
    ]
    with pytest.raises(ConfigError, match=r"no vocabulary for the region set 'knee' in en .packaged: lobes_en"):
        placed("Meniscus.", RegionSet("knee", (type(REGIONS.regions[0])("meniscus"),)))


def test_texts_by_region_lose_nothing_and_add_nothing() -> None:
    pool = [
        "Heart is large.",
        "It grew by 1.5 cm.",
        "Lungs\n are clear.",
        "See above.",
        "Pleural effusion.",
        "心影增大。",
    ]
    for seed in range(30):
        random.Random(seed).shuffle(pool)
        text = " ".join(pool)
        told = split_report(text, RuleSplitter(), REGIONS)
        assert (
            "".join(one.text for one in told).split()
            == "".join(part for one in told for part in [text[text.index(one.text) :][: len(one.text)]]).split()
        )
        assert "".join("".join(one.text for one in told).split()) == "".join(text.split())
        texts = by_region(told, REGIONS)
        assert list(texts) == [name for name in (*REGIONS.names, OTHER) if name in texts]
        for name, joined in texts.items():
            own = [one.text for one in told if name in (one.regions or (OTHER,))]
            assert joined == " ".join(" ".join(one.split()) for one in own)


def test_own_vocabulary_over_a_packaged_one(tmp_path) -> None:
    path = tmp_path / "ours.yaml"
    path.write_text("base: [radgenome_en]\nanatomy:\n  bone: [hardware]\n  heart: [lung]\n")
    assert placed("Hardware in place. Lung is clear. Liver.", vocabulary=str(path)) == [
        ("bone", "anatomy: hardware"),
        ("heart", "anatomy: lung"),
        ("abdomen", "anatomy: liver"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("anatomi: {}", "unknown key 'anatomi'. Did you mean 'anatomy'?"),
        ("language: de", "'language' is 'de' .expected en or zh."),
        ("anatomy: [lung]", "'anatomy' is list .expected a mapping."),
        ("anatomy: {lung: lobe}", "anatomy of lung is 'lobe' .expected a list of words."),
        ("findings: {lung: [a]}", "expected a list"),
        ("findings: [{words: [a]}]", r"findings\[0\] is .* .expected the keys 'words' and 'regions'."),
        ("neutral: [window]", "names no region"),
        ("base: [nothing_en]", "Unknown vocabulary 'nothing_en'."),
        ("base: [radgenome_zh]\nanatomy: {lung: [a]}", "'radgenome_zh' is of another language .zh, not en."),
        ("each_of: [lobes_en]\nanatomy: {lung: [a]}", "'each_of' stands alone"),
        ("base: [v.yaml]", "extends itself by way of 'base'"),
        ("[]", "list .expected a mapping."),
    ],
)
def test_a_mistake_in_a_vocabulary_is_named(tmp_path, text, message) -> None:
    path = tmp_path / "v.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_vocabulary(str(path))


def test_packaged_vocabularies_name_regions_of_their_sets() -> None:
    assert packaged_vocabularies() == (
        *("lobes_en", "lobes_zh", "radgenome_en", "radgenome_lobes_en", "radgenome_lobes_zh", "radgenome_zh"),
    )
    for name in packaged_vocabularies():
        known = load_region_set(name[:-3]).names
        assert load_vocabulary(name).regions - {OTHER} == set(known), name
        assert load_vocabulary(name).language == name[-2:]
    with pytest.raises(ConfigError, match="language is zh, but the vocabulary radgenome_en is en"):
        RuleSplitter("radgenome_en", "zh")
    with pytest.raises(ConfigError, match=r"language is 'de' .expected auto, en or zh."):
        RuleSplitter(language="de")


def test_contract_of_the_packaged_ones(tmp_path) -> None:
    check_splitter(RuleSplitter)
    check_splitter(RuleSplitter, "radgenome_lobes")
    answers = tmp_path / "a.jsonl"
    answers.write_text(answer_line("a", ["Clear lungs."], [Placement(("lung",))]))
    check_splitter(lambda: AnsweredSplitter(str(answers)), reports=("Clear lungs.",))


class Odd(Splitter):
    def __init__(self, places) -> None:
        self.places = places

    def place(self, sentences, regions):
        return self.places if sentences else []


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ([], "Odd gave 0 places for 1 sentences"),
        ([Placement(("knee",))], "Odd names regions that are not in the set: knee"),
        ([Placement(("lung", "lung"))], "Odd names a region twice for one sentence"),
    ],
)
def test_a_splitter_that_breaks_its_contract_is_found(places, message) -> None:
    with pytest.raises(DataFault, match=f"SPLIT : {message}"):
        split_report("Clear lungs.", Odd(places), REGIONS)
    with pytest.raises(ContractError, match="Odd"):
        check_splitter(lambda: Odd(places), reports=("Clear lungs.",))


def test_answers_of_another_program(tmp_path) -> None:
    path = tmp_path / "answers.jsonl"
    question = json.loads(answer_line("7", ["Clear lungs.", "Fine."], None, choose_from=["lung"]))
    assert question == {"id": "7", "choose_from": ["lung"], "sentences": ["Clear lungs.", "Fine."], "regions": None}
    path.write_text(json.dumps(question | {"regions": [["Lungs", "heart"], []]}) + "\n")
    splitter = AnsweredSplitter(str(path))
    assert splitter.place(["Clear lungs.", "Fine."], REGIONS) == [
        Placement(("heart", "lung"), "answered"),
        Placement((), "answered"),
    ]
    with pytest.raises(DataFault, match=r"SPLIT_MISSING .*: no answer for the 1 sentences that begin 'Clear lung'"):
        splitter.place(["Clear lung"], REGIONS)  # an altered sentence is another one
    path.write_text(answer_line("7", ["A."], [Placement(("knee",))]))
    with pytest.raises(DataFault, match=r"SPLIT .*: Unknown region 'knee'"):
        AnsweredSplitter(str(path)).place(["A."], REGIONS)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[]", "no object"),
        ('{"sentences": ["A."]}', "'regions' is no list of lists of names"),
        ('{"sentences": "A.", "regions": [[]]}', "'sentences' is no list of texts"),
        ('{"sentences": ["A."], "regions": [[], []]}', "2 lists of regions for 1 sentences"),
        ('{"sentences": ["A."], "regions": [[]], "reasons": [1]}', "'reasons' is no text for each sentence"),
        ('{"sentences": ["A."', "not JSON"),
    ],
)
def test_lines_that_are_no_answer(tmp_path, line, message) -> None:
    path = tmp_path / "answers.jsonl"
    good = answer_line("1", ["B."], [Placement(("lung",))])
    path.write_text(good + line + "\n" + answer_line("2", ["B."], [Placement(())]))
    with pytest.raises(DataFault, match=f"(?s)TABLE_ROWS.*line 2: .*{message}.*line 3: another answer"):
        AnsweredSplitter(str(path))
    path.write_text(good + line)
    assert read_answers(path, torn=True) == {("B.",): (Placement(("lung",), ""),)}


def test_the_published_tables(shared_reports: Path) -> None:
    """The figure of docs/how-to/split.md, on some of the studies that the vocabulary was not tuned on."""
    import sys

    sys.path.insert(0, str(Path(__file__).resolve().parents[4] / "benchmarks"))
    try:
        import splitter as benchmark
    finally:
        sys.path.pop(0)
    texts = benchmark.read_tables(shared_reports / "radgenome", REGIONS)
    held_out = sorted(study for study in texts if benchmark.is_held_out(study))[::8]
    right = total = shared = 0
    for study in held_out:
        for _, homes, place, why in benchmark.placed(study, texts[study], REGIONS):
            shared += len(homes) > 1
            total += len(homes) == 1
            right += len(homes) == 1 and place == (why.partition("|")[0],)
    assert (len(held_out), total > 1000, shared > 150) == (94, True, True)
    assert right / total >= 0.93
