import numpy as np
import pytest

from reg2rg.evaluation import bootstrap
from reg2rg.evaluation.bootstrap import Resamples, interval, mean_statistic, p_value


def statistic(values):
    rows = np.arange(len(values))
    return mean_statistic(
        "language", "report", "x", "", rows=rows, values=np.asarray(values, float), studies=len(values)
    )


def test_interval_of_a_mean_is_that_of_the_normal_theory():
    values = np.random.default_rng(1).normal(size=400)
    low, high = interval(Resamples([str(i) for i in range(400)], 4000, seed=3).draws(statistic(values)), 0.95)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.012)
    assert high == pytest.approx(values.mean() + half, abs=0.012)


def test_studies_of_one_patient_are_drawn_together():
    values = np.repeat(np.random.default_rng(2).normal(size=100), 4)
    alone = Resamples([str(i) for i in range(400)], 2000).draws(statistic(values))
    together = Resamples([str(i // 4) for i in range(400)], 2000).draws(statistic(values))
    assert together.std() == pytest.approx(2 * alone.std(), rel=0.15)


def test_order_of_studies_does_not_matter_and_the_seed_does():
    values = np.arange(20.0)
    names = [f"p{i}" for i in range(20)]
    draws = Resamples(names, 50, seed=1).draws(statistic(values))
    again = Resamples(names[::-1], 50, seed=1).draws(statistic(values[::-1]))
    np.testing.assert_allclose(draws, again)
    assert not np.allclose(draws, Resamples(names, 50, seed=2).draws(statistic(values)))


def test_p_value():
    assert p_value(np.ones(999)) == pytest.approx(0.002)
    assert p_value(np.zeros(999)) == 1
    assert p_value(np.linspace(-1, 1, 999)) == 1
    assert p_value(np.full(3, np.nan)) == 1


def test_an_interval_of_nothing_is_none():
    assert interval(np.full(3, np.nan), 0.95) == (None, None)


def test_many_statistics_of_many_patients_are_drawn_as_one_by_one(monkeypatch):
    rng = np.random.default_rng(5)
    patients, columns = [str(i // 2) for i in range(300)], rng.random((4, 300))
    resamples = Resamples(patients, 30, seed=4)
    alone = [resamples.draws(statistic(values)) for values in columns]
    for name, few in (("_PATIENTS_AT_ONCE", 7), ("_COLUMNS_AT_ONCE", 3)):
        monkeypatch.setattr(bootstrap, name, few)
    np.testing.assert_allclose([*resamples.each(map(statistic, columns))], alone, rtol=1e-12)
    times = np.random.default_rng(4).multinomial(150, np.full(150, 1 / 150), size=30)
    names = np.unique(np.array(patients), return_inverse=True)[1]
    direct = times @ np.bincount(names, columns[0]) / (times @ np.bincount(names))
    np.testing.assert_allclose(alone[0], direct, rtol=1e-12)


def test_a_total_is_the_same_number():
    one = statistic(np.arange(7.0))
    assert one.total().number() == one.number()
    assert one.total().units.shape == (1, 2)
