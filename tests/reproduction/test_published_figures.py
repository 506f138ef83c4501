"""Published figures are made anew to their last printed digit, and a digit that differs is noticed."""

from __future__ import annotations

import csv
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import classification_report, precision_recall_fscore_support

from reg2rg.core.labels import FINDINGS

ROOT = Path(__file__).resolve().parents[2]
REGIONS = ("abdomen", "bone", "breast", "esophagus", "heart", "lung", "mediastinum", "pleura", "thyroid")
BLEU = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4")
ROUGE = ("ROUGE-1", "ROUGE-2", "ROUGE-L")


def load(name):
    """A script of benchmarks/ as a module."""
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    return module


@pytest.fixture(scope="module")
def reproduce():
    return load("reproduce_published")


# the files of Reg2RG for RadGenome-ChestCT


@pytest.fixture(scope="module")
def published(reproduce, shared_reports):
    """All figures of the folder beside ours: about 10 s."""
    return reproduce.compare(shared_reports / "radgenome")


@pytest.mark.parametrize("region", REGIONS)
def test_text_metrics_of_a_region(published, region):
    # 9 means with deviations and 8 overall values: 26 figures a region
    figures = [one for one in published.figures if one.source.startswith("nlg") and one.row == region]
    assert sum(len(one.differences) for one in figures) == 26
    assert [one for one in figures if not one.equal] == []


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("metrics_manual.csv", 57),
        ("test_classification_report.txt", 62),
        ("all_regions_micro_avg_results.csv", 30),
        ("region_classification_report.txt", 36),
    ],
)
def test_findings_and_recognition(published, source, count):
    figures = [one for one in published.figures if one.source == source]
    assert sum(len(one.differences) for one in figures) == count
    assert [one for one in figures if not one.equal] == []


def test_what_cannot_be_made_is_listed_with_its_reason(published):
    assert {(one.source, one.what) for one in published.missing} == {
        ("nlg_evaluation_results_all_regions.csv", "trachea and bronchie, 26 figures"),
        ("nlg_evaluation_results.csv", "26 figures"),
        ("test_classification_report.txt", "samples avg"),
        ("test_classification_report.txt", "precision of micro avg"),
        ("all_regions_macro_avg_results.csv", "30 figures"),
        ("region_classification_report.txt", "accuracy"),
    }
    assert all(one.reason for one in published.missing)


def test_tables_of_the_page_are_these(published, reproduce):
    page = (ROOT / "docs" / "how-to" / "evaluation.md").read_text("utf-8")
    assert reproduce.replaced(page, reproduce.markdown(published)) == page


def test_averages_of_labels_are_those_of_scikit_learn(shared_reports, reproduce):
    path = shared_reports / "radbert_labels" / "labels_first_180.csv"
    by_study = reproduce.counts_of_labels(path)
    rows = list(csv.DictReader(path.open(newline="", encoding="utf-8")))
    truth, said = (
        np.array([[float(row[f"{side}_{label}"]) for label in FINDINGS] for row in rows]) for side in ("GT", "Pred")
    )
    efficacy = reproduce.efficacy
    ours = {
        "micro": efficacy.micro(by_study.sum(0)),
        "macro": efficacy.macro(by_study.sum(0)),
        "weighted": efficacy.weighted(by_study.sum(0)),
        "samples": efficacy.samples(by_study).mean(0),
        None: efficacy.precision_recall_f1(by_study.sum(0)).T,
    }
    for average, figures in ours.items():
        expected = precision_recall_fscore_support(truth, said, average=average, zero_division=0)[:3]
        assert np.allclose(figures, expected, rtol=0, atol=1e-12), average


# a folder of another data set, whose figures are made by the libraries

WORDS = [
    "the",
    "no",
    "nodule",
    "mass",
    "is",
    "are",
    "seen",
    "observed",
    "normal",
    "left",
    "lung",
    "heart",
    "of",
    "4.5",
    "mm",
]
NAMES = ("heart", "lung", "trachea and bronchie", "bone")


def sentence(random):
    return " ".join(random.choice(WORDS, random.integers(4, 12))).capitalize() + "."


def language_row(library, pairs):
    """The columns of a published row, one library call a report."""
    from rouge_score.scoring import BootstrapAggregator, Score

    references, predictions = map(list, zip(*pairs, strict=True))
    bleu, rouge = (function(references, predictions) for function in (library.library_bleu, library.library_rouge))
    meteor, cider = library.library_meteor(references, predictions), library.library_cider(references, predictions)
    values = [*bleu.T, meteor, *rouge.T, cider]
    row = {
        name: f"{one.mean():.4f}±{one.std():.4f}"
        for name, one in zip([*BLEU, "METEOR", *ROUGE, "CIDEr"], values, strict=True)
    }
    row |= {f"Overall_BLEU-{n}": f"{library.corpus_bleu(references, predictions, n):.4f}" for n in (1, 2, 3, 4)}
    row["Overall_METEOR"] = f"{meteor.mean():.4f}"
    np.random.seed(42)  # noqa: NPY002  (the state that the published program had)
    aggregator = BootstrapAggregator()
    for one in rouge:
        aggregator.add_scores({name: Score(0, 0, value) for name, value in zip(ROUGE, one, strict=True)})
    middle = aggregator.aggregate()
    return row | {f"Overall_{name}": f"{middle[name].mid.fmeasure:.4f}" for name in ROUGE}


def write(path, rows):
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def recognition_text(given, said):
    """The published form, counted study by study."""
    lines, figures, lists = [], [], []
    for region in NAMES:
        wrong = [s for s in given for slot in range(len(NAMES)) if said[s][slot] == region != given[s][slot]]
        missed = [s for s in given if said[s][given[s].index(region)] != region]
        right = len(given) - len(missed)
        precision, recall = right / (right + len(wrong)), right / len(given)
        figures.append((precision, recall, 2 * precision * recall / (precision + recall)))
        word = region.split()[0]
        lines += [f"{word}:", *map("{}: {}".format, ("Precision", "Recall", "F1 score"), figures[-1]), ""]
        lists.append(
            (
                f"Region: {word}\nFalse positive accnums: {wrong}\n",
                f"Region: {word}\nFalse negative accnums: {missed}\n",
            )
        )
    kept = np.array([figures[i] for i, region in enumerate(NAMES) if region not in ("lung", "pleura")])
    shares = [np.mean([a == b for a, b in zip(given[s], said[s], strict=True)]) for s in given]
    lines += [
        f"{name} of all regions: {mean}±{std}"
        for name, mean, std in zip(("Precision", "Recall", "F1 score"), kept.mean(0), kept.std(0), strict=True)
    ]
    head = f"Accuracy for each sample:\nMean accuracy: {np.mean(shares)}\nStandard deviation: {np.std(shares)}\n\n"
    return head + "\n".join([*lines, "", *(one for one, _ in lists), *(one for _, one in lists)])


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Twelve studies with texts, labels, and figures of both."""
    folder, random, library = tmp_path_factory.mktemp("results"), np.random.default_rng(0), load("evaluate")
    studies = [f"{n}.nii.gz" for n in range(12)]
    given = {study: list(random.permutation(NAMES)) for study in studies}
    said = {study: [*names] for study, names in given.items()}
    for study in studies[:3]:
        said[study][:2] = said[study][1::-1]
    said[studies[3]] = [*said[studies[3]][1:], said[studies[3]][0]]
    texts = {(study, side, name): sentence(random) for study in studies for side in "GP" for name in NAMES}
    whole, plain = [], []
    for study in studies:
        row = {"AccNum": study}
        for side, column, named in (("G", "GT_combined_report", given), ("P", "Pred_combined_report", said)):
            parts = [texts[study, side, name] for name in given[study]]
            row[column] = "".join(
                f"The region {slot} is {name}: {text} "
                for slot, (name, text) in enumerate(zip(named[study], parts, strict=True))
            )
            plain.append(" ".join(parts))
        whole.append(row)
    write(folder / "some_combined_reports.csv", whole)
    write(
        folder / "nlg_evaluation_results.csv", [language_row(library, list(zip(plain[::2], plain[1::2], strict=True)))]
    )
    rows = []
    for name in ("heart", "lung"):
        pairs = [(texts[study, "G", name], texts[study, "P", name]) for study in studies[2:]]
        write(
            folder / f"{name}_reports.csv",
            [
                {"AccNum": study, "GT_combined_report": one, "Pred_combined_report": other}
                for study, (one, other) in zip(studies[2:], pairs, strict=True)
            ],
        )
        rows.append({"region": name, **language_row(library, pairs)})
    write(folder / "nlg_evaluation_results_all_regions.csv", rows)
    truth, found = (random.random((2, 12, 18)) < 0.3).astype(int)
    found[:, 4] = 0
    labels = [
        {"AccNum": study, "Question": "as published"}
        | {f"GT_{label}": float(value) for label, value in zip(FINDINGS, truth[i], strict=True)}
        | {f"Pred_{label}": float(value) for label, value in zip(FINDINGS, found[i], strict=True)}
        for i, study in enumerate(studies)
    ]
    write(folder / "label_inferred.csv", labels)
    report = classification_report(truth, found, target_names=FINDINGS, zero_division=0)
    (folder / "test_classification_report.txt").write_text(report)
    manual = []
    for name, average in ((None, None), ("Weighted Average", "weighted")):
        found_figures = precision_recall_fscore_support(truth, found, average=average, zero_division=0)
        for i, label in enumerate([name] if name else FINDINGS):
            cells = [figures if name else figures[i] for figures in found_figures[:3]]
            support = truth.sum() if name else truth[:, i].sum()
            manual.append(
                dict(
                    zip(
                        ("Label", "Precision", "Recall", "F1 Score", "Support"),
                        (label, *map(float, cells), support),
                        strict=True,
                    )
                )
            )
    write(folder / "metrics_manual.csv", manual)
    (folder / "region_classification_report.txt").write_text(recognition_text(given, said))
    return folder


def test_figures_that_libraries_made_are_equal(results, reproduce):
    found = reproduce.compare(results)
    assert [one for one in found.figures if not one.equal] == []
    assert found.missing == []
    assert {one.source for one in found.figures} == {path.name for path in results.iterdir()} - {
        "some_combined_reports.csv", "heart_reports.csv", "lung_reports.csv", "label_inferred.csv"
    }  # fmt: skip
    assert ("all regions", "accuracy") in {(one.row, one.name) for one in found.figures}


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("nlg_evaluation_results.csv", "±", "0±"),
        ("nlg_evaluation_results_all_regions.csv", "heart,0.", "heart,1."),
        ("metrics_manual.csv", "0.2", "0.3"),
        ("test_classification_report.txt", "0.2", "0.3"),
        ("region_classification_report.txt", "Mean accuracy: 0.", "Mean accuracy: 0.1"),
        ("region_classification_report.txt", "Precision: 0.", "Precision: 0.1"),
    ],
)
def test_a_changed_digit_is_noticed(results, reproduce, tmp_path, name, old, new):
    for path in results.iterdir():
        text = path.read_text("utf-8")
        (tmp_path / path.name).write_text(text.replace(old, new, 1) if path.name == name else text, encoding="utf-8")
    found = reproduce.compare(tmp_path)
    assert {one.source for one in found.figures if not one.equal} == {name}


def test_predictions_of_another_run_are_told(results, reproduce, tmp_path):
    for path in results.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    reports = tmp_path / "some_combined_reports.csv"
    rows = list(csv.DictReader(reports.open(newline="", encoding="utf-8")))
    rows[-1]["Pred_combined_report"] = rows[-1]["Pred_combined_report"].replace(" is heart:", " is spleen:")
    write(reports, rows)
    found = reproduce.compare(tmp_path)
    assert [one for one in found.figures if not one.equal] == []
    (told,) = found.missing
    assert told.what == "accuracy from the predictions of some_combined_reports.csv"
    assert "the report is of other predictions" in told.reason


def test_without_labels_counts_follow_from_the_figures(results, reproduce, tmp_path):
    for path in results.iterdir():
        if path.name not in ("label_inferred.csv", "some_combined_reports.csv"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    found = reproduce.compare(tmp_path)
    assert [one for one in found.figures if not one.equal] == []
    assert {one.what for one in found.missing} == {"26 figures", "samples avg", "micro avg", "accuracy"}
    assert {"macro avg", "weighted avg"} <= {one.row for one in found.figures}


def test_the_script_prints_what_differs(results, reproduce, tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n<!-- reproduced -->\nold\n<!-- /reproduced -->\n\nEnd\n", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["reproduce_published.py", str(results), "--write", str(page)])
    reproduce.main()
    assert "nlg_evaluation_results.csv: 26 figures, 26 equal" in capsys.readouterr().out
    written = page.read_text("utf-8")
    assert "| heart | ours |" in written
    assert "old" not in written
    assert written.startswith("# Page\n\n<!-- reproduced -->\n")
    assert written.endswith("<!-- /reproduced -->\n\nEnd\n")
    monkeypatch.setattr(sys, "argv", ["reproduce_published.py", str(tmp_path)])
    with pytest.raises(SystemExit, match="no published figures"):
        reproduce.main()
