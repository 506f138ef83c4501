"""Rules on measured numbers find what a number shows, and write it in the words of training."""

from dataclasses import replace

import numpy as np
import pytest

from reg2rg.evaluation.attribute_rules import NAME, AttributeRules
from reg2rg.evaluation.baselines import baselines_of
from reg2rg.evaluation.labelers import RuleLabeler
from reg2rg.evaluation.pairs import Pair
from reg2rg.store.attributes import VECTOR, VECTOR_NAMES, Attributes, RegionAttributes, vector, vectors

HEART = RegionAttributes(600.0, 40.0, 20.0, (0, 20, 40, 60, 80), 0.0, 0.0, (120.0, 100.0, 90.0), (0, 0, 0), False)
LARGE, NORMAL = "Cardiomegaly is observed.", "The heart is normal."


def scan(volume: float, ratio: float | None = 0.45) -> Attributes:
    return Attributes({"heart": replace(HEART, volume_ml=volume)}, (300.0, 200.0, 300.0), ratio)


@pytest.fixture(scope="module")
def rules() -> AttributeRules:
    volumes = np.random.default_rng(0).uniform(400, 1200, 80)
    studies = [(vectors(scan(v)), {"heart": LARGE if v > 800 else NORMAL, "lung": "Nodule."}) for v in volumes]
    return AttributeRules.fit(studies, RuleLabeler(), VECTOR_NAMES)


def test_the_number_that_shows_it_is_found(rules) -> None:
    rule = rules.rules["heart"]["Cardiomegaly"]
    assert rule.name == VECTOR_NAMES[rule.number]
    assert rule.f1 == 1.0
    assert str(rule).startswith("log of volume >= ")
    assert rules.tell(vectors(scan(1000)), "heart") == {"Cardiomegaly"}
    assert rules.tell(vectors(scan(500)), "heart") == rules.tell(vectors(scan(500)), "lung") == frozenset()


def test_a_report_has_the_commonest_paragraph_of_what_is_told(rules) -> None:
    assert rules.write(vectors(scan(1000)), ["heart", "lung"]) == {"heart": LARGE}
    assert rules.write(vectors(scan(500)), ["heart"]) == {"heart": NORMAL}


def test_it_stands_among_the_floors(rules) -> None:
    pair = Pair("s", "p", "The region 0 is heart: Big.", "", "Big.", "", {"heart": "Big."}, {}, ("heart",), ("",))
    written = {NAME: {"s": rules.write(vectors(scan(1000)), ["heart"])}}
    [told] = baselines_of([pair], [pair], ["heart"], 0, written)[NAME]
    assert told.prediction == f"The region 0 is heart: {LARGE} "
    assert told.predicted_regions == {"heart": LARGE}
    assert told.named == ("heart",)


def test_a_vector_has_a_name_for_each_number() -> None:
    found = vector(scan(600, None), "heart")
    assert found.shape == (VECTOR,) == (len(VECTOR_NAMES),)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    by_name = dict(zip(VECTOR_NAMES, found.tolist(), strict=True))
    assert by_name["ratio known"] == by_name["cardiothoracic ratio"] == 0.0
    assert by_name["extent left-right"] == pytest.approx(1.2)
    assert by_name["mean HU"] == pytest.approx(40 / 300)
    known = dict(zip(VECTOR_NAMES, vector(scan(600, 0.5), "heart").tolist(), strict=True))
    assert (known["cardiothoracic ratio"], known["ratio known"]) == (1.0, 1.0)
