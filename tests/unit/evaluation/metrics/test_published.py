"""The language figures that Reg2RG published for RadGenome, to their last printed digit.

Two small regions here; all of them, and what else is published, in ``tests/reproduction``.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from reg2rg.evaluation.metrics.bleu import bleu_from_counts
from reg2rg.evaluation.metrics.rouge import hf_overall
from reg2rg.evaluation.metrics.text import score_language


@pytest.mark.parametrize("region", ["breast", "thyroid"])
def test_published_figures_of_a_region(shared_reports, region):
    folder = shared_reports / "radgenome"
    published = pd.read_csv(
        folder / "nlg_evaluation_results_all_regions.csv", keep_default_na=False, dtype=str, index_col="region"
    )
    reports = pd.read_csv(folder / f"{region}_reports.csv", keep_default_na=False, dtype=str)
    scores = score_language(reports["GT_combined_report"].tolist(), reports["Pred_combined_report"].tolist())

    columns = np.column_stack([bleu_from_counts(scores.bleu_counts), scores.meteor, scores.rouge, scores.cider])
    overall = [
        *bleu_from_counts(scores.bleu_counts.sum(0)),
        scores.meteor.mean(),
        *hf_overall(scores.rouge),
    ]
    # 9 means, 9 deviations and 8 overall values
    ours = [f"{mean:.4f}±{std:.4f}" for mean, std in zip(columns.mean(0), columns.std(0), strict=True)]
    ours += [f"{value:.4f}" for value in overall]
    assert dict(zip(published.columns, ours, strict=True)) == published.loc[region].to_dict()


def test_progress_names_each_metric():
    said: list[str] = []
    score_language(["a"], ["a"], progress=said.append)
    assert said == ["METEOR", "BLEU", "ROUGE", "CIDEr"]


def test_settings_reach_their_metrics():
    references, predictions = ["The lung stops", "hearts beat"], ["the lungs halt", "heart beats"]
    plain = score_language(references, predictions)
    other = score_language(references, predictions, synonyms=None, lowercase=True, stemmer=True, cider_variant="cider")
    assert other.bleu_counts[0, 0] == plain.bleu_counts[0, 0] + 1
    assert other.meteor[0] < plain.meteor[0]
    assert other.rouge[1, 0] > plain.rouge[1, 0]
    assert score_language([], []).cider.shape == (0,)


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match=r"2 references and 1 predictions.*'' for a report"):
        score_language(["a", "b"], ["a"])
