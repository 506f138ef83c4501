"""Shifts of measured numbers are found, and none is not taken for one."""

import numpy as np
import pytest
from scipy import stats

from reg2rg.evaluation import shift
from reg2rg.evaluation.shift import QUANTILES, reference
from reg2rg.store.attributes import DENSITY_NAMES as NUMBERS
from reg2rg.store.attributes import Attributes, RegionAttributes, density_table

REGIONS = ("heart", "lung")


def compare(values, quantiles, count, regions):
    return shift.compare(values, quantiles, count, regions, NUMBERS)


def values(seed: int, studies: int, offset: float = 0.0, spread: float = 1.0) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(studies, 2, len(NUMBERS))) * spread
    drawn[..., -1] = 0.0  # a share that is nothing everywhere
    return drawn + offset * (np.arange(len(NUMBERS)) == 0)


def test_no_shift_is_called_one_at_most_at_the_stated_rate():
    calls = [compare(values(seed, 60), *reference(values(10_000 + seed, 120)), REGIONS).p < 0.01 for seed in range(300)]
    assert sum(calls) <= stats.binom.ppf(0.999, 300, 0.01)


@pytest.mark.parametrize(("offset", "spread", "number"), [(1.5, 1.0, "mean HU"), (0.0, 3.0, None)])
def test_an_offset_and_a_wider_spread_are_found(offset, spread, number):
    found = compare(values(1, 60, offset, spread), *reference(values(2, 120)), REGIONS)
    assert found.p < 0.01
    assert found.studies == 60
    assert number in (None, found.number)


def test_p_is_that_of_scipy_where_all_reference_values_are_kept():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(40, 1, len(NUMBERS))), rng.normal(0.5, 1, size=(QUANTILES, 1, len(NUMBERS)))
    ours = compare(one, *reference(other), ("heart",))
    index = NUMBERS.index(ours.number)
    theirs = stats.ks_2samp(one[:, 0, index], other[:, 0, index], method="asymp")
    gap = abs(stats.ks_2samp(one[:, 0, index], other[:, 0, index]).statistic)
    # Quantiles are joined by lines, so that a step of the reference counts as half a step.
    size = np.sqrt(40 * QUANTILES / (40 + QUANTILES))
    low, high = (stats.kstwobign.sf((gap + step) * size) * len(NUMBERS) for step in (2 / QUANTILES, -2 / QUANTILES))
    assert low <= ours.p <= min(1.0, high)
    assert theirs.pvalue < 0.2


def test_too_few_studies_say_nothing():
    few = values(0, 60)
    few[10:, 1] = np.nan
    quantiles, count = reference(values(1, 120))
    assert compare(few, quantiles, count, REGIONS).region in ("heart", "")
    assert compare(values(0, 5, 9.0), quantiles, count, REGIONS).p == 1.0


def test_numbers_come_from_attributes():
    heart = RegionAttributes(700.0, 40.0, 20.0, (1, 2, 3, 4, 5), 0.1, 0.2, (1, 1, 1), (0, 0, 0), False)
    found = density_table([Attributes({"heart": heart}, (1, 1, 1), None)], REGIONS)
    assert found[0, 0].tolist() == [40.0, 20.0, 1.0, 3.0, 5.0, 0.1, 0.2]
    assert np.isnan(found[0, 1]).all()
