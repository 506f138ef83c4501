"""Spread over seeds, the noise floor and the paired bootstrap, held against other ways to the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from reg2rg.ablation.compare import Comparer, holm
from reg2rg.ablation.scoring import Scorer, Scores
from reg2rg.core.regions import load_region_set
from reg2rg.evaluation.bootstrap import Statistic
from reg2rg.evaluation.engine import Settings, evaluate
from reg2rg.evaluation.labelers import RuleLabeler
from reg2rg.evaluation.labelers.keywords import KeywordReader
from reg2rg.evaluation.metrics.base import tabled_names
from reg2rg.evaluation.protocols import PROTOCOLS
from reg2rg.evaluation.reading import read_reports
from reg2rg.evaluation.records import read_records, read_report

METRICS = tabled_names()
REGIONS = load_region_set("radgenome")


def scores(values: list[float], metric: str = "m", patients: list[str] | None = None) -> Scores:
    """A metric that is the mean of one value a study."""
    units = np.stack([np.asarray(values, float), np.ones(len(values))], axis=1)
    statistic = Statistic("language", "report", metric, "", units, lambda s: s[..., 0] / s[..., 1], len(values))
    studies = tuple(f"s{i}" for i in range(len(values)))
    return Scores(studies, tuple(patients or studies), {metric: statistic})


def scorer(truth) -> Scorer:
    return Scorer("strict", RuleLabeler(), REGIONS, METRICS, truth)


def test_f1_of_one_finding(write_predictions, make_truth) -> None:
    folder = write_predictions("full", skill=0.6)
    label = "Cardiomegaly"
    metrics = (f"Truth F1 ({label})", "Truth F1 (Gout)", "Truth F1 (micro)")
    found = Scorer("strict", None, REGIONS, metrics, make_truth).score(folder)
    assert set(found.statistics) == {f"Truth F1 ({label})", "Truth F1 (micro)"}
    read, right, wrong = KeywordReader().read, 0, 0
    for record in read_records(folder):
        text = " ".join(paragraph.text for paragraph in read_report(record).paragraphs)
        told, there = read(text).get(label, False), make_truth[record["study"]][label]
        right, wrong = right + (told and there), wrong + (told != there)
    assert right > 0
    assert found.value(metrics[0]) == pytest.approx(2 * right / (2 * right + wrong))


def test_one_seed_is_compared_as_evaluate_compares_two_files(write_predictions, make_truth) -> None:
    full, other = write_predictions("full", skill=0.9), write_predictions("other", skill=0.5, seed=1)
    made = scorer(make_truth)
    comparer = Comparer({0: made.score(full)}, count=500)
    settings = Settings(protocol=PROTOCOLS["strict"], labeler=RuleLabeler(), resamples=500, floors=False)
    reports = {path: read_reports(path, None, REGIONS) for path in (full, other)}
    evaluation = evaluate("other", reports[other], settings, against=("full", reports[full]))
    theirs = {d.number.name: d for d in evaluation.differences if d.number.scope == "report"}
    for metric in ("CE F1 (micro)", "BLEU-4", "METEOR"):
        ours = comparer.compare({0: made.score(other)}, metric)
        assert ours is not None
        assert ours.difference == pytest.approx(theirs[metric].number.value - theirs[metric].other)
        assert (ours.low, ours.high, ours.p) == pytest.approx(
            (theirs[metric].low, theirs[metric].high, theirs[metric].p)
        )


def test_a_run_without_identities_has_no_recognition(write_predictions, make_truth) -> None:
    folder = write_predictions("no_rra", skill=0.8, identity=False)
    found = scorer(make_truth).score(folder, identity=False)
    assert found.value("Recognition (mean over regions)") is None
    assert found.value("CE F1 (micro)") == pytest.approx(
        scorer(make_truth).score(write_predictions("same", skill=0.8)).value("CE F1 (micro)")
    )


def test_a_run_equals_itself() -> None:
    own = {seed: scores(list(np.random.default_rng(seed).random(20))) for seed in range(3)}
    found = Comparer(own).compare(own, "m")
    assert found is not None
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_seeds_are_paired() -> None:
    """Each seed's own level cancels: a constant gain in every seed is certain although the seeds differ by far more."""
    levels = {0: 0.1, 1: 0.5, 2: 0.9}
    noise = np.random.default_rng(0).normal(0, 0.2, 40)
    full = {seed: scores(list(level + noise)) for seed, level in levels.items()}
    better = {seed: scores(list(level + noise + 0.01)) for seed, level in levels.items()}
    found = Comparer(full).compare(better, "m")
    assert found is not None
    assert found.seeds == (0, 1, 2)
    assert (found.low, found.high) == pytest.approx((0.01, 0.01))
    assert found.p == pytest.approx(2 / 1001)


def test_only_seeds_of_both_are_paired() -> None:
    full = {0: scores([0.0] * 9), 1: scores([0.0] * 9)}
    found = Comparer(full).compare({1: scores([1.0] * 9), 2: scores([5.0] * 9)}, "m")
    assert found is not None
    assert (found.seeds, found.difference) == ((1,), 1.0)
    assert Comparer(full).compare({2: scores([5.0] * 9)}, "m") is None
    assert Comparer(full).compare({1: scores([5.0] * 8)}, "m") is None, "other studies"


def test_spread_over_seeds_widens_the_interval() -> None:
    """Three seeds that disagree: patients alone would call the mean certain. The interval is that of the t test."""
    base = np.random.default_rng(1).random(200)
    shifts = (-0.2, 0.05, 0.3)
    full = {seed: scores(list(base)) for seed in range(3)}
    run = {seed: scores(list(base + shift)) for seed, shift in enumerate(shifts)}
    found = Comparer(full, count=20000).compare(run, "m")
    low, high = stats.t.interval(0.95, 2, loc=0.05, scale=stats.sem(shifts))
    assert found is not None
    assert found.difference == pytest.approx(0.05)
    assert (found.low, found.high) == pytest.approx((low, high), rel=0.1)
    assert found.p == pytest.approx(stats.ttest_1samp(shifts, 0).pvalue, abs=0.02)


def test_where_seeds_agree_the_interval_is_that_of_patients() -> None:
    """Against drawing patients by hand; two studies of a patient go together."""
    random = np.random.default_rng(2)
    patients = [f"p{i // 2}" for i in range(12)]
    base, other = random.random(12), random.random(12)
    full = {s: scores(list(base), patients=patients) for s in range(2)}
    run = {s: scores(list(other), patients=patients) for s in range(2)}
    found = Comparer(full, count=4000).compare(run, "m")
    by_hand = []
    for _ in range(4000):
        rows = np.concatenate([[2 * p, 2 * p + 1] for p in random.integers(0, 6, 6)])
        by_hand.append(other[rows].mean() - base[rows].mean())
    assert found is not None
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(by_hand, [0.025, 0.975])), abs=0.02)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_equal_models_are_called_different_once_in_twenty(seeds: int) -> None:
    """Models that differ by their training's chance alone."""
    random, called, tries = np.random.default_rng(3), 0, 400
    for _ in range(tries):
        base = random.normal(0, 1, 40)
        full = {s: scores(list(base + random.normal(0, 0.5))) for s in range(seeds)}
        run = {s: scores(list(base + random.normal(0, 0.5))) for s in range(seeds)}
        found = Comparer(full, count=500, seed=random.integers(1 << 30)).compare(run, "m")
        assert found is not None
        called += found.p < 0.05
    assert 0.02 < called / tries < 0.085, called / tries


def test_noise_floor_of_all_pairs() -> None:
    full = {0: scores([0.0] * 5), 1: scores([0.1] * 5), 2: scores([0.4] * 5)}
    found = Comparer(full).noise("m")
    assert found is not None
    assert (found.pairs, found.largest, found.different) == (3, pytest.approx(0.4), 3)
    assert found.mean == pytest.approx((0.1 + 0.4 + 0.3) / 3)
    assert Comparer({0: full[0]}).noise("m") is None


def test_holm() -> None:
    """The textbook's example."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_floors_follow_the_same_rules(write_predictions, make_truth, tmp_path: Path) -> None:
    folder = write_predictions("full", skill=0.9)
    found = scorer(make_truth).floors(folder, None)
    settings = Settings(labeler=RuleLabeler(), truth=make_truth, resamples=0)
    evaluation = evaluate("full", read_reports(folder, None, REGIONS), settings)
    assert set(found) == {
        "most common paragraph of each region",
        "shuffled between studies",
        "every finding in every study",
    }
    for name, values in found.items():
        theirs = {n.name: n.value for n in evaluation.floors[name] if n.scope == "report"}
        assert values == pytest.approx({metric: theirs[metric] for metric in values})
