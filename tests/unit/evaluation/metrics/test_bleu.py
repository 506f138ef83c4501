"""BLEU and its counts against sacrebleu, and against the definition where sacrebleu has no such smoothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from reg2rg.evaluation.metrics.bleu import _tokens, bleu_counts, bleu_from_counts

WORDS = ["The", "lung", "lungs", "is", "are", "normal.", "no", "effusion,", "4.5", "mm-sized", "(left)", "nodule"]
report = st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join)
pairs = st.lists(st.tuples(report, report), min_size=1, max_size=6)
marks = st.text(st.sampled_from("ab01 .,-&;/'\"<>\n\t()%" + "é…"), max_size=30)
odd = st.lists(st.one_of(marks, st.sampled_from(["<skipped>", "&amp;", "&quot;", "-\n", " "])), max_size=6).map("".join)


@settings(deadline=None, max_examples=300)
@given(odd)
def test_tokens_are_13a(text):
    assert _tokens(text) == Tokenizer13a()(text).split()


@settings(deadline=None, max_examples=60)
@given(pairs)
def test_counts_are_those_of_sacrebleu(texts):
    references, predictions = map(list, zip(*texts, strict=True))
    counts = bleu_counts(references, predictions)
    assert counts.shape == (len(texts), 10)
    assert counts.dtype == np.int64
    for row, reference, prediction in zip(counts, references, predictions, strict=True):
        theirs = BLEU(smooth_method="none", force=True).corpus_score([prediction], [[reference]])
        assert row.tolist() == [*theirs.counts, *theirs.totals, theirs.sys_len, theirs.ref_len]


@settings(deadline=None, max_examples=60)
@given(pairs)
def test_plain_bleu_of_a_corpus_is_that_of_sacrebleu(texts):
    references, predictions = map(list, zip(*texts, strict=True))
    ours = bleu_from_counts(bleu_counts(references, predictions).sum(0), "none")
    for order in range(1, 5):
        theirs = BLEU(max_ngram_order=order, smooth_method="none", force=True).corpus_score(predictions, [references])
        assert ours[order - 1] * 100 == pytest.approx(theirs.score, abs=1e-9)


def by_definition(row, order, spared):
    match, total, predicted, reference = row[:4], row[4:8], row[8], row[9]
    if not predicted:
        return 0.0
    parts = [
        (match[i], total[i]) if i == 0 and spared else (match[i] + 1, total[i] + 1) for i in range(order)
    ]  # a prediction has at least one unigram
    if any(not hits for hits, _ in parts):
        return 0.0
    brevity = 1.0 if predicted > reference else math.exp(1 - reference / predicted)
    return brevity * math.exp(sum(math.log(hits / of) for hits, of in parts) / order)


@settings(deadline=None, max_examples=100)
@given(pairs, st.sampled_from(["hf", "lin-och"]))
def test_smoothed_bleu_of_reports_and_corpus(texts, smoothing):
    references, predictions = map(list, zip(*texts, strict=True))
    counts = bleu_counts(references, predictions)
    counts = np.concatenate([counts, counts.sum(0, keepdims=True)])
    expected = [[by_definition(row, order, smoothing == "lin-och") for order in (1, 2, 3, 4)] for row in counts]
    np.testing.assert_allclose(bleu_from_counts(counts, smoothing), expected, rtol=0, atol=1e-13)


def test_hugging_faces_smoothing_lifts_unigrams_too():
    counts = bleu_counts(["b"], ["a"])
    assert bleu_from_counts(counts)[0].tolist() == pytest.approx([0.5, 0.5**0.5, 0.5 ** (1 / 3), 0.5**0.25])
    assert bleu_from_counts(counts, "lin-och")[0].tolist() == [0, 0, 0, 0]


def test_empty_prediction_scores_nothing():
    counts = bleu_counts(["The lung is normal.", ""], ["", ""])
    for smoothing in ("hf", "lin-och", "none"):
        assert not bleu_from_counts(counts, smoothing).any()


def test_leading_axes_are_kept():
    counts = bleu_counts(["a b c d e", "x y"], ["a b c d", "x z"])
    samples = np.stack([counts[[0, 0]], counts[[1, 0]]])  # (samples, reports, 10), as of a bootstrap
    scores = bleu_from_counts(samples)
    assert scores.shape == (2, 2, 4)
    assert np.array_equal(scores[1, 0], bleu_from_counts(counts)[1])
    assert bleu_from_counts(np.zeros((0, 10))).shape == (0, 4)


def test_lowercase_folds_case():
    assert bleu_counts(["The Lung"], ["the lung"])[0, 0] == 0
    assert bleu_counts(["The Lung"], ["the lung"], lowercase=True)[0, 0] == 2


def test_no_reports():
    assert bleu_counts([], []).shape == (0, 10)


@pytest.mark.parametrize(
    ("references", "predictions", "message"),
    [
        (["a"], [], "1 references and 0 predictions"),
        ("a", ["a"], "references is one text"),
        (["a"], "a", "predictions is one text"),
        (["a", float("nan")], ["a", "b"], r"references\[1\] is nan .* keep_default_na=False"),
        (["a"], [None], r"predictions\[0\] is None"),
    ],
)
def test_what_cannot_be_scored_is_refused(references, predictions, message):
    with pytest.raises(ValueError, match=message):
        bleu_counts(references, predictions)


def test_wrong_counts_and_smoothing_are_refused():
    with pytest.raises(ValueError, match=r"shape \(3, 9\).*10"):
        bleu_from_counts(np.zeros((3, 9)))
    with pytest.raises(ValueError, match=r"'exp' is unknown.*'lin-och'"):
        bleu_from_counts(np.zeros(10), "exp")
