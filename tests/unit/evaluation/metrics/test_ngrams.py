"""n-grams are counted once for each distinct text, whatever sets of pairs it stands in."""

import numpy as np
import pytest

from reg2rg.evaluation.metrics import ngrams
from reg2rg.evaluation.metrics.bleu import bleu_counts
from reg2rg.evaluation.metrics.cider import cider
from reg2rg.evaluation.metrics.meteor import meteor
from reg2rg.evaluation.metrics.ngrams import Distinct, Tokens, shared
from reg2rg.evaluation.metrics.rouge import rouge

TEXTS = ("a nodule in the lung", "the the the", "", "no nodules. the heart is normal", "a nodule in the lung", "masses")


def test_rows_are_texts_and_columns_ngrams():
    distinct = Distinct.of([(["a b a", "c"], ["a a", "a b a"])])
    assert distinct.texts == ["a b a", "c", "a a"]
    tokens = Tokens.of(distinct.texts, str.split)
    one, two = tokens.ngrams(2)
    assert tokens.tokens == ["a", "b", "c"]
    np.testing.assert_array_equal(one.toarray(), [[2, 1, 0], [0, 0, 1], [2, 0, 0]])
    np.testing.assert_array_equal(two.toarray(), [[1, 1, 0], [0, 0, 0], [0, 0, 1]])
    np.testing.assert_array_equal(shared(one, distinct.pairs[0]), [2, 0])


@pytest.mark.parametrize("at_once", [2, 20_000])
def test_a_set_scores_the_same_alone_and_among_others(monkeypatch, at_once):
    from reg2rg.evaluation.metrics import bleu
    from reg2rg.evaluation.metrics import cider as ciders
    from reg2rg.evaluation.metrics import meteor as meteors
    from reg2rg.evaluation.metrics import rouge as rouges

    monkeypatch.setattr(ngrams, "_PAIRS_AT_ONCE", at_once)
    sets = [(TEXTS, TEXTS[::-1]), (TEXTS, ("a nodule",) * 6), (TEXTS[:3], TEXTS[3:]), ([], [])]
    for alone, together in (
        (bleu_counts, bleu._counts(sets, lowercase=False, cut="13a")),
        (cider, ciders._scores(sets)),
        (meteor, meteors._scores(sets, "bundled")),
        (rouge, rouges._scores(sets)),
    ):
        for sides, found in zip(sets, together, strict=True):
            np.testing.assert_allclose(found, alone(*sides), rtol=1e-12)
