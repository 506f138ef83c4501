"""CIDEr against a slow rendering of its formulas with dictionaries, one report at a time."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reg2rg.evaluation.metrics.cider import cider

WORDS = ["The", "lung", "is", "normal.", "normal", "no", "effusion", "nodule"]
report = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)
pairs = st.lists(st.tuples(report, report), min_size=1, max_size=8)


def grams(text, order):
    words = text.split()
    return Counter(tuple(words[i : i + order]) for i in range(len(words) - order + 1))


def slowly(references, predictions, variant):
    scores = []
    for reference, prediction in zip(references, predictions, strict=True):
        cosines = []
        for order in range(1, 5):
            holders = Counter(gram for text in references for gram in set(grams(text, order)))

            def weights(text, order=order, holders=holders):
                return {
                    gram: count * (math.log(len(references)) - math.log(max(1, holders[gram])))
                    for gram, count in grams(text, order).items()
                }

            r, p = weights(reference), weights(prediction)
            norm = math.sqrt(sum(w * w for w in r.values())) * math.sqrt(sum(w * w for w in p.values()))
            clip = min if variant == "cider-d" else (lambda said, _: said)
            dot = sum(clip(w, r[gram]) * r[gram] for gram, w in p.items() if gram in r)
            cosines.append(dot / norm if norm else 0.0)
        gap = sum(grams(prediction, 2).values()) - sum(grams(reference, 2).values())
        penalty = math.exp(-(gap**2) / 72) if variant == "cider-d" else 1.0
        scores.append(10 * penalty * sum(cosines) / 4)
    return scores


@settings(deadline=None, max_examples=120)
@given(pairs, st.sampled_from(["cider-d", "cider"]))
def test_equal_to_the_formulas(texts, variant):
    references, predictions = map(list, zip(*texts, strict=True))
    ours = cider(references, predictions, variant)
    np.testing.assert_allclose(ours, slowly(references, predictions, variant), rtol=0, atol=1e-12)


def test_a_report_alone_scores_nothing():
    assert cider(["The lung is normal."], ["The lung is normal."]).tolist() == [0]
    assert cider([], []).shape == (0,)


def test_equal_texts_score_ten():
    texts = ["The lung is normal today", "No effusion was seen here", "A nodule in one lobe"]
    assert cider(texts, texts) == pytest.approx([10, 10, 10])


def test_text_is_taken_raw():
    references = ["Normal heart size is seen", "lung nodule of four mm"]
    assert cider(references, ["normal Heart Size Is Seen", "x"])[0] == 0


def test_repeating_words_pays_only_without_clipping():
    references = ["lung nodule", "heart effusion"]
    once, often = ["lung nodule", "heart effusion"], ["lung nodule lung nodule lung nodule", "heart effusion"]
    assert cider(references, often)[0] < cider(references, once)[0]
    assert cider(references, often, "cider")[0] > cider(references, often)[0]


def test_refusals():
    with pytest.raises(ValueError, match=r"'cider-r' is unknown.*'cider-d'"):
        cider(["a"], ["a"], "cider-r")
    with pytest.raises(ValueError, match="0 references and 1 predictions"):
        cider([], ["a"])
