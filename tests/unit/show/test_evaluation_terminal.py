import io
import math
from dataclasses import replace

import pytest
from rich.console import Console

from reg2rg.evaluation.results import Number
from reg2rg.show.evaluation_tables import build_tables
from reg2rg.show.evaluation_terminal import print_evaluation
from reg2rg.show.phrases import below_floor, best_floors, format_interval, format_p, percent, verdict
from reg2rg.show.table import format_value


def printed(evaluation, width=100, **options):
    console = Console(width=width, file=io.StringIO(), **options)
    print_evaluation(evaluation, console)
    return console.file.getvalue()


def test_report_numbers_stand_beside_all_floors(evaluation):
    text = printed(evaluation)
    row = next(line for line in text.splitlines() if line.startswith("BLEU-4 "))
    assert row.split() == ["BLEU-4", "0.241", "[0.227,", "0.255]", "0.000", "0.174", "0.212", "0.024", "0.149", "0.110"]
    assert "1,304 studies of 1,120 patients" in text
    assert "95 % intervals from 1,000 bootstrap" in text


def test_score_below_its_best_floor_is_marked_without_colour(evaluation):
    lines = printed(evaluation).splitlines()
    assert next(line for line in lines if line.startswith("CE F1 (micro)")).split()[3] == "!"
    assert "!" not in next(line for line in lines if line.startswith("BLEU-4 "))
    assert "4 of 12 scores of whole reports do not exceed their best floor" in " ".join(lines)


def test_marked_score_is_yellow_where_there_is_colour(evaluation):
    text = printed(evaluation, force_terminal=True, color_system="standard")
    assert "\x1b[1;33m! 0.295" in text


def test_tie_with_a_floor_does_not_exceed_it(make):
    own = Number("language", "report", "METEOR", 0.3, 5, "")
    tied = make(numbers=[own], floors={"shuffled": [replace(own, value=0.1 + 0.2)]})
    assert below_floor(tied) == [own]


def test_number_that_is_no_score_has_no_best_floor(make):
    own = Number("statistics", "report", "words", 100.0, 5, "", score=False)
    evaluation = make(numbers=[own], floors={"empty report": [replace(own, value=200.0)]})
    assert best_floors(evaluation) == {}
    assert verdict(evaluation) == ""
    assert "200.0" in printed(evaluation)


def test_nan_is_a_dash_and_never_beaten(make):
    own = Number("language", "report", "CIDEr", math.nan, 5, "")
    floor = replace(own, name="METEOR", value=math.nan)
    evaluation = make(
        numbers=[own, replace(own, name="METEOR", value=0.2)], floors={"f": [replace(own, value=1.0), floor]}
    )
    assert below_floor(evaluation) == []
    lines = printed(evaluation).splitlines()
    assert next(line for line in lines if line.startswith("CIDEr")).split()[1] == "–"


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140])
def test_no_line_is_wider_than_the_console_and_no_number_is_cut(evaluation, width):
    lines = printed(evaluation, width).splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in "\n".join(line for line in lines if line.startswith("BLEU"))
    assert any("0.241 [0.227, 0.255]" in line for line in lines)
    values = [line.split()[1:] for line in lines if line.startswith("BLEU-4 ")]
    found = {value for row in values for value in row}
    assert {"0.000", "0.174", "0.212", "0.024", "0.149"} <= found


def test_what_does_not_fit_is_continued_the_spread_first(evaluation):
    needed = max(len(line.rstrip()) for line in printed(evaluation, 200).splitlines() if line.startswith("BLEU-1"))
    whole, spread, _ = [line.split() for line in printed(evaluation, needed - 1).splitlines() if line[:7] == "BLEU-1 "]
    assert whole == ["BLEU-1", "0.464", "[0.450,", "0.478]", "0.000", "0.334", "0.408", "0.046", "0.288"]
    assert spread == ["BLEU-1", "0.110"]


def test_one_row_for_each_region_and_a_mark_for_each_floor(evaluation):
    table = next(table for table in build_tables(evaluation) if table.key == "by-region")
    titles = [column.title for column in table.columns]
    row = {row.cells[0].text: dict(zip(titles, row.cells, strict=True)) for row in table.rows}["heart"]
    assert row["BLEU-4"].text == "0.201"
    assert row["BLEU-4"].style == ""
    floor = {row.cells[0].text: row.cells for row in table.rows}["  best floor"]
    assert all(cell.style == "soft" for cell in floor[2:] if cell.text)
    findings = next(table for table in build_tables(evaluation) if table.key == "findings-by-region")
    titles = [column.title for column in findings.columns]
    row = {row.cells[0].text: dict(zip(titles, row.cells, strict=True)) for row in findings.rows}["heart"]
    assert row["CE F1 (micro)"].style == "marked"
    assert row["CE F1 (micro)"].text == "! 0.255"
    assert row["n"].text == "1,290"


def test_region_without_a_number_gets_a_dash(make):
    numbers = [Number("language", "heart", "METEOR", 0.5, 4, ""), Number("language", "lung", "BLEU-4", 0.2, 4, "")]
    (table,) = build_tables(
        make(numbers=numbers, floors={}, labels=[], confusion=None, regions=[], words={}, differences=[])
    )
    assert table.frame().to_numpy().tolist() == [
        ["heart", "4", "0.500", "–"],
        ["lung", "4", "–", "0.200"],
    ]


def test_confusion_names_what_stands_instead(evaluation):
    table = next(table for table in build_tables(evaluation) if table.key == "confusion")
    cells = {row[0]: row for row in table.frame().to_numpy().tolist()}
    assert cells["heart"] == ["heart", "1,261", "1,200", "0.952", "mediastinum 61"]
    assert cells["bone"][-1] == "–"


def test_markup_in_a_name_is_printed_as_it_stands(make):
    assert "[red]model[/red]" in printed(make(name="[red]model[/red]"))


def test_bare_evaluation_prints(bare):
    text = printed(bare)
    assert "no intervals" in text
    assert "floor" not in text
    assert printed(replace(bare, numbers=[])).startswith("Evaluation of bare")


def test_each_definition_is_printed_once(evaluation):
    notes = next(table for table in build_tables(evaluation) if table.key == "numbers").notes
    assert sum("pycocoevalcap 1.2" in note for note in notes) == 1
    assert any(note.startswith("BLEU-1, BLEU-2, BLEU-3, BLEU-4, METEOR, ROUGE-L: ") for note in notes)


def test_formats():
    assert [format_value(v) for v in (0.12345, 12.345, 123.45, 12345.6, math.nan, None, -0.5)] == [
        "0.123", "12.35", "123.5", "12,346", "–", "–", "-0.500",
    ]  # fmt: skip
    assert format_interval(0.1, None) == ""
    assert format_interval(0.1, math.nan) == ""
    assert format_interval(0.1, 0.2) == "[0.100, 0.200]"
    assert [percent(v) for v in (0.95, 0.999)] == ["95 %", "99.9 %"]
    assert [format_p(v) for v in (0.0, 0.04, math.nan)] == ["<0.001", "0.040", "–"]


def test_differences_by_region_are_for_the_page_where_whole_reports_are_compared(make, evaluation):
    own = evaluation.differences[0]
    regions = [
        replace(own, number=replace(own.number, group=group, scope=scope))
        for group in ("language", "findings")
        for scope in ("heart", "lung")
    ]
    tables = {table.key: table for table in build_tables(make(differences=[own, *regions]))}
    assert [row.group for row in tables["differences-by-region"].rows] == ["heart", "heart", "lung", "lung"]
    assert tables["differences-by-region"].lengthy
    text = printed(make(differences=[own, *regions]))
    assert "On the page only (--out): Commonest paragraphs; Differences by region, to baseline.csv." in text
    assert text.count("+0.020 [0.010, 0.030]") == 1
    assert printed(make(differences=regions)).count("+0.020 [0.010, 0.030]") == 4


def test_statistics_without_scores_claim_nothing_about_floors(make):
    own = Number("statistics", "report", "words", 100.0, 5, "", score=False)
    (notes,) = [
        table.notes
        for table in build_tables(make(numbers=[own], floors={"empty report": [replace(own, value=0.0)]}))
        if table.key == "statistics"
    ]
    assert not any("exceed" in note for note in notes)


def test_paragraphs_of_unknown_findings_have_no_column_for_them(make, evaluation):
    unknown = [replace(r, abnormal_references=math.nan, abnormal_predictions=math.nan) for r in evaluation.regions]
    tables = {table.key: table for table in build_tables(make(regions=unknown))}
    assert "abnormal" not in [column.title for column in tables["paragraphs"].columns]
