"""Every figure of a folder of published result files, recomputed: ours beside it, at the digits it was printed with.

    python benchmarks/reproduce_published.py FOLDER                            what differs, what cannot be made
    python benchmarks/reproduce_published.py FOLDER --write docs/how-to/evaluation.md the tables, between their marks

FOLDER holds files as in ``results/`` of the published repository: ``<region>_reports.csv`` and the tables
``*combined_reports*`` with texts, tables of labels, and the files of figures made of them. Text metrics and recognition
come from `reg2rg.evaluation` under the protocol ``paper``, as ``reg2rg evaluate --protocol paper`` computes them.

Where the texts or labels behind a figure are not in the folder, counts are solved from the figures beside it (true
positives are recall times support, predicted ones are true positives by precision) and ours is made of these counts.
Exit status 1 if a digit differs.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from _published import (
    EQUAL,
    FIGURES,
    REPORTS,
    Found,
    Missing,
    Recognition,
    counted,
    label_tables,
    markdown,
    recognition_report,
    replaced,
    table,
    text_report,
    whole_reports,
)

from reg2rg.core.labels import FINDINGS
from reg2rg.core.regions import RegionSet, load_region_set
from reg2rg.core.report import write_report
from reg2rg.evaluation.engine import Settings, evaluate
from reg2rg.evaluation.labelers import read_label_table
from reg2rg.evaluation.metrics import efficacy
from reg2rg.evaluation.metrics.recognition import recognise, recognition_statistics
from reg2rg.evaluation.pairs import Pair, pair_texts
from reg2rg.evaluation.protocols import PROTOCOLS
from reg2rg.evaluation.reading import read_reports
from reg2rg.evaluation.results import REPORT, Evaluation, Number

PAPER = PROTOCOLS["paper"]
BY_REGION, WHOLE = "nlg_evaluation_results_all_regions.csv", "nlg_evaluation_results.csv"
NO_REPORTS = "the texts are not in the folder (`{}`)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables into this page")
    options = parser.parse_args()
    found = compare(options.folder)
    for source, figures in itertools.groupby(found.figures, key=lambda figure: figure.source):
        rows = list(figures)
        print(f"{source}: {counted(rows)}")
        for one in rows:
            if not one.equal:
                print(f"  {one.row}, {one.name}: ours {one.ours}, published {one.published}, {one.difference}")
    for one in found.missing:
        print(f"cannot be made: {one.source}: {one.what}: {one.reason}")
    if options.write is not None:
        options.write.write_text(replaced(options.write.read_text("utf-8"), markdown(found)), encoding="utf-8")
    if not found.figures:
        sys.exit(f"{options.folder}: no published figures found")
    if not all(figure.equal for figure in found.figures):
        sys.exit(1)


def compare(folder: Path, regions: Sequence[str] | None = None) -> Found:
    """All figures of a folder; of its texts by region only those named, if any are."""
    found = Found()
    language_by_region(folder, found, regions)
    language_of_reports(folder, found)
    efficacy_of_reports(folder, found)
    efficacy_by_region(folder, found)
    recognition(folder, found)
    return found


# text metrics


def scores(path: Path) -> Evaluation:
    """What ``reg2rg evaluate FILE --protocol paper --labeler none --resamples 0 --no-floors`` computes."""
    settings = Settings(protocol=PAPER, labeler=None, resamples=0, floors=False)
    return evaluate(path.name, read_reports(path, None, load_region_set("radgenome")), settings)


def add_language(found: Found, source: str, row: str, cells: Mapping[str, str], evaluation: Evaluation) -> None:
    for column, cell in cells.items():
        name = column.removeprefix("Overall_")
        if name == column:
            number = evaluation.number(name)
            found.add(source, row, column, cell, number.value, number.std)
        else:
            suffix = {"B": " (corpus)", "R": " (overall)"}.get(name[0], "")  # METEOR's overall figure is its mean
            found.add(source, row, column, cell, evaluation.number(name + suffix).value)


def numbers_of(cells: Mapping[str, str]) -> str:
    return f"{sum(len(cell.split('±')) for cell in cells.values())} figures"


def language_by_region(folder: Path, found: Found, regions: Sequence[str] | None) -> None:
    for row in table(folder / BY_REGION):
        region = row.pop("region")
        path = folder / f"{region}{REPORTS}"
        if regions is not None and region not in regions:
            continue
        if path.is_file():
            add_language(found, BY_REGION, region, row, scores(path))
        else:
            found.missing.append(Missing(BY_REGION, f"{region}, {numbers_of(row)}", NO_REPORTS.format(path.name)))


def language_of_reports(folder: Path, found: Found) -> None:
    for row in table(folder / WHOLE):
        paths = list(whole_reports(folder))
        for path in paths:
            add_language(found, WHOLE, path.name, row, scores(path))
        if not paths:
            found.missing.append(Missing(WHOLE, numbers_of(row), NO_REPORTS.format("*combined_reports*.csv")))


# clinical efficacy


def solved(precision: float, recall: float, support: float) -> tuple[int, int, int] | None:
    """True positives, false positives and false negatives behind three figures; ``None`` if they do not say."""
    hits = round(recall * support)
    if not hits or not precision:
        return None
    said = hits / precision
    if max(abs(recall * support - hits), abs(said - round(said))) > 1e-6:
        return None
    return hits, round(said) - hits, round(support) - hits


def efficacy_of_reports(folder: Path, found: Found) -> None:
    manual, tables = folder / "metrics_manual.csv", list(label_tables(folder))
    rows = {row["Label"]: (row["Precision"], row["Recall"], row["F1 Score"], row["Support"]) for row in table(manual)}
    total = rows.pop("Weighted Average", ())
    printed = {path.name: report for path in sorted(folder.glob("*.txt")) if (report := text_report(path)) is not None}
    averages: dict[str, Sequence[float]] = {}
    if tables:
        by_study = counts_of_labels(tables[0])
        counts, given = by_study.sum(axis=0), False
        averages = {"micro": efficacy.micro(counts), "samples": efficacy.samples(by_study).mean(axis=0)}
    elif rows:
        micro = next((float(report.averages["micro"][0]) for report in printed.values()), None)
        counts, given = counts_of_figures([rows[label] for label in FINDINGS], micro)
        averages = {} if counts[:, 1].min() < 0 else {"micro": efficacy.micro(counts)}
        counts = np.maximum(counts, 0)
    else:
        found.missing += [Missing(name, "all", "neither labels nor figures in full are there") for name in printed]
        return
    averages |= {"macro": efficacy.macro(counts), "weighted": efficacy.weighted(counts)}
    by_label = dict(zip(FINDINGS, efficacy.precision_recall_f1(counts), strict=True))
    for label, cells in rows.items():
        add_efficacy(found, manual.name, label, cells[:3], by_label[label])
    add_efficacy(found, manual.name, "weighted avg", total[:3], averages["weighted"])
    for name, report in printed.items():
        for label, cells in report.labels.items():
            add_efficacy(found, name, label, cells, by_label[label])
        for average, cells in report.averages.items():
            if average not in averages:
                found.missing.append(Missing(name, f"{average} avg", "labels of each study are needed"))
            elif average == "micro" and given:
                found.missing.append(Missing(name, "precision of micro avg", "the counts are solved with it"))
                add_efficacy(found, name, "micro avg", ("", *cells[1:]), averages[average])
            else:
                add_efficacy(found, name, f"{average} avg", cells, averages[average])


def add_efficacy(found: Found, source: str, row: str, cells: Sequence[str], ours: Sequence[float]) -> None:
    for i, cell in enumerate(cells):
        if cell:
            found.add(source, row, FIGURES[i], cell, ours[i])


def counts_of_labels(path: Path) -> np.ndarray:
    """(n, 18, 3) counts of a table with labels of both sides."""
    ids = [next(iter(row.values())) for row in table(path)]
    truth, said = (read_label_table(path, ids, prefix=prefix) for prefix in ("GT_", "Pred_"))
    return efficacy.count(truth, said)


def counts_of_figures(rows: Sequence[Sequence[str]], micro: float | None) -> tuple[np.ndarray, bool]:
    """(18, 3) counts behind the figures of labels.

    Of a label without a true positive, precision does not tell how often it was said. Where the printed micro average
    of precision tells it of all such labels together, the first of them gets them all: each adds to no other figure.

    Returns:
        the counts, false positives below 0 where they stay unknown; whether micro precision was needed.
    """
    counts, unknown = np.zeros((len(rows), 3), np.int64), []
    for i, row in enumerate(rows):
        precision, recall, _, support = map(float, row)
        one = solved(precision, recall, support)
        if one is None:
            unknown.append(i)
        counts[i] = one or (0, 0, round(support))
    if unknown:
        hits, said = int(counts[:, 0].sum()), int(counts[:, :2].sum())
        fitting = [extra for extra in range(20 * hits) if round(hits / (said + extra), 4) == micro]
        counts[unknown[0], 1] = fitting[0] if len(fitting) == 1 else -1
    return counts, bool(unknown)


def efficacy_by_region(folder: Path, found: Found) -> None:
    micro, macro = folder / "all_regions_micro_avg_results.csv", folder / "all_regions_macro_avg_results.csv"
    for row in table(micro):
        cells = row["precision"], row["recall"], row["f1-score"]
        support = float(row["support"])
        counts = solved(float(cells[0]), float(cells[1]), support) or (0, 0, support)
        add_efficacy(found, micro.name, row["region"], cells, efficacy.precision_recall_f1(np.asarray(counts)))
    if rows := table(macro):
        found.missing.append(
            Missing(macro.name, f"{3 * len(rows)} figures", "labels of each region's texts are needed")
        )


# region recognition


def recognition(folder: Path, found: Found) -> None:
    regions = load_region_set("radgenome")
    full = {region.split()[0]: region for region in regions.names}
    for path in sorted(folder.glob("*.txt")):
        report = recognition_report(path)
        if report is None:
            continue
        texts = {
            one.name: [pair for pair in read_reports(one, None, regions).pairs if pair.given]
            for one in whole_reports(folder)
        }
        given = {pair.study: pair.given for pairs in texts.values() for pair in pairs}
        try:
            pairs = rebuilt(report, regions, given)
        except ValueError as error:
            found.missing.append(Missing(path.name, "all", str(error)))
            continue
        numbers = recognition_numbers(pairs, regions)
        for word, cells in report.regions.items():
            for i, cell in enumerate(cells):
                found.add(
                    path.name, full[word], FIGURES[i], cell, numbers[full[word], f"Recognition {FIGURES[i]}"].value
                )
        for figure, cell in zip(FIGURES, report.averages, strict=True):
            name = f"Recognition {figure}"
            number = numbers.get((REPORT, f"{name}, without lung and pleura")) or numbers[REPORT, name]
            found.add(path.name, "all regions", figure, cell, number.value, number.std)
        accuracy = "Recognition accuracy"
        if given:
            number = numbers[REPORT, accuracy]
            found.add(path.name, "all regions", "accuracy", report.accuracy, number.value, number.std)
        else:
            most = 1 - sum(map(len, report.missed.values())) / len(report.regions) / len(pairs)
            reason = (
                f"which regions each study has is needed; it would be {most:.4f} if each had all of them, else less"
            )
            found.missing.append(Missing(path.name, "accuracy", reason))
        for name, own in texts.items():
            number = recognition_numbers(own, regions)[REPORT, accuracy] if own else None
            if number is not None and abs(number.value - float(report.accuracy.partition("±")[0])) > EQUAL:
                reason = f"they give {number.value!r}±{number.std!r}, so the report is of other predictions"
                found.missing.append(Missing(path.name, f"accuracy from the predictions of {name}", reason))


def recognition_numbers(pairs: Sequence[Pair], regions: RegionSet) -> Mapping[tuple[str, str], Number]:
    seen = recognise(pairs, PAPER, regions.names)
    statistics = recognition_statistics(seen, PAPER, len(pairs))
    return {(one.scope, one.name): one.number() for one in statistics}


def rebuilt(report: Recognition, regions: RegionSet, given: Mapping[str, Sequence[str]]) -> list[Pair]:
    """Reports with the listed mistakes and no others.

    Which regions a study has is only known from whole reports. Without them, each region is given to the studies that
    miss it and to as many others as its recall asks for; precision, recall and F1 do not depend on which.
    """
    full = {region.split()[0]: region for region in regions.names}
    missed, wrong = ({}, {})
    for side, lists in ((missed, report.missed), (wrong, report.wrong)):
        for word, studies in lists.items():
            for study in studies:
                side.setdefault(study.removesuffix(".nii.gz"), []).append(full[word])
    if not given:
        given = _invented(report, missed, full)
    pairs = []
    for study, names in given.items():
        said = _mistaken(names, missed.get(study, ()), wrong.get(study, ()), study)
        texts = ["Described."] * len(names)
        pair = pair_texts(study, study, write_report(names, texts), write_report(said, texts), regions, tuple(names))
        pairs.append(pair)
    return pairs


def _invented(
    report: Recognition, missed: Mapping[str, Sequence[str]], full: Mapping[str, str]
) -> dict[str, Sequence[str]]:
    standing = {full[word]: report.standing(word) for word in report.regions}
    others = max(standing.values()) - len(missed)
    given = {study: list(dict.fromkeys(regions)) for study, regions in missed.items()}
    given |= {f"other {i}": [] for i in range(others)}
    for region, times in standing.items():
        lacking = [study for study in given if region not in given[study]]
        for study in lacking[: times - (len(given) - len(lacking))]:
            given[study].append(region)
    return given


def _mistaken(names: Sequence[str], missed: Sequence[str], wrong: Sequence[str], study: str) -> list[str]:
    """The names as said: wrong ones stand where a region was missed, and not where they would be right."""
    slots = [slot for slot, name in enumerate(names) if name in missed]
    for chosen in itertools.permutations(slots, len(wrong)):
        if all(names[slot] != name for slot, name in zip(chosen, wrong, strict=True)):
            said = [*names]
            for slot in slots:
                said[slot] = "something else"
            for slot, name in zip(chosen, wrong, strict=True):
                said[slot] = name
            return said
    raise ValueError(f"{study}: misses {Counter(missed)} and says {Counter(wrong)}; no report does that")


if __name__ == "__main__":
    main()
