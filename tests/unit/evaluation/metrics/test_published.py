"""The language figures that Reg2RG published for RadGenome, to their last printed digit.

Two small regions here; all of them, and what else is published, in ``tests/reproduction``.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from reg2rg.evaluation.metrics.bleu import bleu_counts, bleu_from_counts
from reg2rg.evaluation.metrics.cider import cider
from reg2rg.evaluation.metrics.meteor import meteor
from reg2rg.evaluation.metrics.rouge import hf_overall, rouge


@pytest.mark.parametrize("region", ["breast", "thyroid"])
def test_published_figures_of_a_region(shared_reports, region):
    folder = shared_reports / "radgenome"
    published = pd.read_csv(
        folder / "nlg_evaluation_results_all_regions.csv", keep_default_na=False, dtype=str, index_col="region"
    )
    reports = pd.read_csv(folder / f"{region}_reports.csv", keep_default_na=False, dtype=str)
    texts = reports["GT_combined_report"].tolist(), reports["Pred_combined_report"].tolist()
    counts, rouges, meteors = bleu_counts(*texts), rouge(*texts), meteor(*texts)

    columns = np.column_stack([bleu_from_counts(counts), meteors, rouges, cider(*texts)])
    overall = [*bleu_from_counts(counts.sum(0)), meteors.mean(), *hf_overall(rouges)]
    # 9 means, 9 deviations and 8 overall values
    ours = [f"{mean:.4f}±{std:.4f}" for mean, std in zip(columns.mean(0), columns.std(0), strict=True)]
    ours += [f"{value:.4f}" for value in overall]
    assert dict(zip(published.columns, ours, strict=True)) == published.loc[region].to_dict()


def test_settings_reach_their_metrics():
    texts = ["The lung stops", "hearts beat"], ["the lungs halt", "heart beats"]
    assert bleu_counts(*texts, lowercase=True)[0, 0] == bleu_counts(*texts)[0, 0] + 1
    assert meteor(*texts, synonyms=None)[0] < meteor(*texts)[0]
    assert rouge(*texts, stemmer=True)[1, 0] > rouge(*texts)[1, 0]


@pytest.mark.parametrize("metric", [bleu_counts, meteor, rouge, cider])
def test_unequal_lengths_are_refused(metric):
    assert len(metric([], [])) == 0
    with pytest.raises(ValueError, match=r"2 references and 1 predictions.*'' for a report"):
        metric(["a", "b"], ["a"])
