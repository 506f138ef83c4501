"""ROUGE bit for bit against rouge_score."""

# ruff: noqa: NPY002 (rouge_score draws from numpy's old generator)

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.scoring import BootstrapAggregator

from reg2rg.evaluation.metrics.rouge import hf_overall, rouge

KEYS = ["rouge1", "rouge2", "rougeL"]
WORDS = ["The", "lung", "lungs", "nodules", "nodule", "is", "are", "normal.", "4.5", "mm-sized", "-", "é", "observed"]
report = st.lists(st.sampled_from(WORDS), max_size=20).map(" ".join)
pairs = st.lists(st.tuples(report, report), min_size=1, max_size=6)


@settings(deadline=None, max_examples=100)
@given(pairs, st.booleans())
def test_equal_to_rouge_score(texts, stemmer):
    references, predictions = map(list, zip(*texts, strict=True))
    scorer = RougeScorer(KEYS, use_stemmer=stemmer)
    theirs = [scorer.score(*pair) for pair in texts]
    expected = [[one[key].fmeasure for key in KEYS] for one in theirs]
    assert rouge(references, predictions, stemmer).tolist() == expected


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=40), st.text(max_size=40))
def test_equal_to_rouge_score_on_any_text(reference, prediction):
    theirs = RougeScorer(KEYS).score(reference, prediction)
    assert rouge([reference], [prediction])[0].tolist() == [theirs[key].fmeasure for key in KEYS]


def test_overall_is_the_seeded_bootstrap_median():
    texts = [("a b c d", "a b"), ("a b c", "c b a"), ("x y", "x y"), ("p", "q"), ("m n o p", "m o p n")]
    scorer, aggregator = RougeScorer(KEYS), BootstrapAggregator()
    for pair in texts:
        aggregator.add_scores(scorer.score(*pair))
    state = np.random.get_state()
    np.random.seed(42)
    theirs = aggregator.aggregate()
    np.random.set_state(state)
    scores = rouge(*zip(*texts, strict=True))
    expected = [theirs[key].mid.fmeasure for key in KEYS]
    np.testing.assert_allclose(hf_overall(scores), expected, rtol=0, atol=1e-14)


def test_overall_depends_on_the_seed():
    scores = np.random.default_rng(0).random((50, 3))
    assert np.array_equal(hf_overall(scores), hf_overall(scores))
    assert not np.array_equal(hf_overall(scores), hf_overall(scores, seed=1))


def test_overall_leaves_numpys_own_generator_alone():
    np.random.seed(7)
    expected = np.random.rand()
    np.random.seed(7)
    hf_overall(np.eye(3))
    assert np.random.rand() == expected


def test_texts_without_words_score_nothing():
    assert rouge(["", "...", "lung"], ["lung", "...", ""]).tolist() == [[0, 0, 0]] * 3
    assert rouge([], []).shape == (0, 3)


def test_refusals():
    with pytest.raises(ValueError, match="2 references and 1 predictions"):
        rouge(["a", "b"], ["a"])
    for wrong in (np.zeros(3), np.zeros((2, 2)), np.zeros((0, 3))):
        with pytest.raises(ValueError, match=r"expected \(n, 3\)"):
            hf_overall(wrong)
