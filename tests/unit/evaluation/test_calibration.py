"""Ranking and calibration against scikit-learn's numbers and by hand."""

import math

import numpy as np
import pytest
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from reg2rg.evaluation.calibration import average_precision, expected_calibration_error, reliability, roc_area

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("seed", range(5))
def test_areas_are_those_of_torchmetrics_with_ties_too(seed):
    rng = np.random.default_rng(seed)
    shares = rng.integers(0, 12, 200) / 12
    truth = rng.random(200) < shares
    given = torch.from_numpy(shares), torch.from_numpy(truth.astype(int))
    assert math.isclose(roc_area(shares, truth), float(binary_auroc(*given)), rel_tol=1e-5)
    assert math.isclose(average_precision(shares, truth), float(binary_average_precision(*given)), rel_tol=1e-5)


def test_without_positives_there_is_no_area():
    shares = np.array([0.1, 0.4])
    assert math.isnan(roc_area(shares, np.array([False, False])))
    assert math.isnan(average_precision(shares, np.array([False, False])))
    assert math.isnan(roc_area(shares, np.array([True, True])))


def test_calibration_error_written_out():
    shares, truth = np.array([0.05, 0.08, 0.95, 1.0]), np.array([False, True, True, True])
    first, last = reliability(shares, truth)
    assert (first.said, first.found, first.count) == (pytest.approx(0.065), 0.5, 2)
    assert (last.said, last.found, last.count) == (pytest.approx(0.975), 1.0, 2)
    assert expected_calibration_error(shares, truth) == pytest.approx((2 * 0.435 + 2 * 0.025) / 4)
    assert expected_calibration_error(shares[:0], truth[:0]) == 0.0
