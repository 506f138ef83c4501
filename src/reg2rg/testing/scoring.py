"""Contract checks of metrics and labelers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from reg2rg.core.regions import load_region_set
from reg2rg.evaluation.bootstrap import Resamples, Statistic
from reg2rg.evaluation.cohort import Cohort, Settings
from reg2rg.evaluation.labelers import Labeler, RuleLabeler
from reg2rg.evaluation.metrics.base import Metric, Scores
from reg2rg.evaluation.pairs import Pair, Side, pair_sides
from reg2rg.evaluation.results import REPORT
from reg2rg.testing.contract import require

_REGIONS = ("heart", "lung")


def check_metric(build: Callable[[], Metric], tolerance: float = 1e-9) -> None:
    """Check a metric against the contract of `reg2rg.evaluation.metrics.base.Metric`, on six made-up studies.

    Declared names; a unit a study; finite numbers; numbers that do not depend on the order of the studies; units that
    do not depend on the other studies, unless the metric says so; a bootstrap that gives numbers, or none at all; no
    exception where no report was generated.

    Args:
        build: makes the metric; called once.
        tolerance: largest difference between equal numbers.

    Raises:
        ContractError: naming the first part that is broken.
    """
    metric, pairs = build(), _reports()
    require(isinstance(metric, Metric), metric, "type", "no subclass of Metric", "one")
    scores = _scored(metric, pairs)
    found = {statistic.key: statistic for statistic in scores.statistics}
    require(bool(found), metric, "numbers", "none", "some, of reports by region with findings and labels")
    for name in (*metric.logged, *metric.tabled, *metric.plotted, *(statistic.name for statistic in found.values())):
        require(metric.gives(name), metric, "keys", f"a number '{name}' that no key fits", "every number declared")
    for statistic in found.values():
        _check_statistic(metric, statistic, pairs)
    for column in scores.columns:
        fits = len(column.rows) == len(column.values) and set(column.rows.tolist()) <= set(range(len(pairs)))
        require(fits, metric, f"column {column.name}", "rows that fit no value or study", "a row for each value")
    turned = {one.key: one.number().value for one in _scored(metric, pairs[::-1]).statistics}
    same = all(abs(turned.get(key, math.nan) - one.number().value) <= tolerance for key, one in found.items())
    require(same, metric, "order of studies", "other numbers in another order", "the same")
    if not metric.depends_on_set:
        halves = [{one.key: one for one in _scored(metric, part).statistics} for part in (pairs[:3], pairs[3:])]
        for key, one in found.items():
            parts = [half[key].units for half in halves if key in half]
            good = len(parts) == len(halves) and np.allclose(np.concatenate(parts), one.units, atol=tolerance)
            require(good, metric, one.name, "units that depend on the other studies", "depends_on_set, or none")
    _scored(metric, _reports(answered=False))


def check_labeler(build: Callable[[], Labeler], texts: Sequence[str] = ()) -> None:
    """Check a labeler against the contract of `reg2rg.evaluation.labelers.Labeler`.

    A name, a definition, labels without repetition; one row of booleans a text, also of no texts; labels that depend
    on the text alone.

    Args:
        build: makes the labeler; called once.
        texts: what it reads; a few sentences if there are none.

    Raises:
        ContractError: naming the first part that is broken.
    """
    labeler, texts = build(), list(texts or ("A nodule of 6 mm.", "No pleural effusion.", "Cardiomegaly."))
    require(isinstance(labeler, Labeler), labeler, "type", "no subclass of Labeler", "one")
    for name in ("name", "definition"):
        require(bool(getattr(labeler, name, "")), labeler, name, "nothing", "a text that goes into outputs")
    labels = labeler.labels
    require(len(set(labels)) == len(labels) > 0, labeler, "labels", repr(labels), "names without repetition")
    found, shape = labeler.label(texts), (len(texts), len(labels))
    good = isinstance(found, np.ndarray) and found.shape == shape and found.dtype == np.bool_
    require(good, labeler, "label", f"{getattr(found, 'shape', found)!r}", f"an array of booleans of the shape {shape}")
    require(labeler.label([]).shape == (0, len(labels)), labeler, "label", "another shape", "no row for no text")
    alone = np.concatenate([labeler.label([text]) for text in texts[::-1]])[::-1]
    require(bool((alone == found).all()), labeler, "label", "labels that depend on other texts", "on the text alone")


def _check_statistic(metric: Metric, statistic: Statistic, pairs: Sequence[Pair]) -> None:
    name, value = statistic.name, statistic.number().value
    require(statistic.group == metric.group, metric, f"group of {name}", statistic.group, metric.group)
    known = statistic.scope == REPORT or statistic.scope in _REGIONS
    require(known, metric, f"scope of {name}", statistic.scope, f"'{REPORT}' or a region")
    shape = statistic.units.shape
    require(len(shape) == 2 and shape[0] == len(pairs), metric, f"units of {name}", str(shape), "(studies, k)")
    require(math.isfinite(value), metric, name, str(value), "a finite number")
    draws = Resamples([pair.patient for pair in pairs], 20).draws(statistic)
    expected = "value: (..., k) sums -> (...,) numbers"
    require(draws.shape == (20,), metric, f"bootstrap of {name}", f"the shape {draws.shape}", expected)


def _scored(metric: Metric, pairs: Sequence[Pair]) -> Scores:
    truth = {pair.study: {"Lung nodule": "nodule" in pair.reference, "Cardiomegaly": True} for pair in pairs}
    return metric.score(Cohort(pairs, _REGIONS, Settings(labeler=RuleLabeler(), truth=truth)))


def _reports(answered: bool = True) -> list[Pair]:
    """Six studies of three patients: heart and lung in turns, a third of the paragraphs right."""
    regions, pairs = load_region_set("radgenome"), []
    for i in range(6):
        given = _REGIONS if i % 2 else _REGIONS[::-1]
        texts = {"lung": f"A nodule of {i % 3 + 4} mm is seen.", "heart": f"The heart has size {i}."}
        told = {"lung": f"A nodule of {i // 2 + 4} mm is seen.", "heart": "Cardiomegaly is seen."}
        said = " ".join(f"The region {slot} is {name}: {told[name]}" for slot, name in enumerate(given))
        reference = Side.of_paragraphs(given, [texts[name] for name in given])
        pairs.append(pair_sides(f"p{i // 2}_{i}", f"p{i // 2}", reference, Side(said if answered else ""), regions))
    return pairs
