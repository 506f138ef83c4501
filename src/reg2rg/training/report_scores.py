"""Scores of generated reports inside validation and test: studies are gathered from all processes, then scored at once.

Some metrics (CIDEr, corpus BLEU, averages of F1) are not means over batches or processes. Keeping the studies and
scoring the whole set makes a run on several processes equal to one on a single process, to the last digit; and every
number is that of ``reg2rg evaluate``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch.distributed as dist

from reg2rg.core.regions import RegionSet
from reg2rg.datasets.names import patient_of
from reg2rg.evaluation.cohort import Cohort, Settings
from reg2rg.evaluation.labelers import RuleLabeler
from reg2rg.evaluation.metrics.base import usual_metrics
from reg2rg.evaluation.pairs import Pair, Side, pair_sides
from reg2rg.evaluation.protocols import find_protocol
from reg2rg.evaluation.results import REPORT
from reg2rg.evaluation.scoring import score_cohort


class ReportScores:
    """Numbers of generated reports that metrics log (`reg2rg.evaluation.metrics.base.Metric.logged`).

    Args:
        regions: whose names reports have.
        identity: reports choose the names of their regions; otherwise there is no recognition to score.
        protocol: how numbers are made (see `reg2rg.evaluation.protocols`).
    """

    def __init__(self, regions: RegionSet, identity: bool = True, protocol: str = "strict") -> None:
        self.regions, self.identity = regions, identity
        self.settings = Settings(find_protocol(protocol), RuleLabeler(), metrics=usual_metrics(), by_region=False)
        self._pairs: dict[str, Pair] = {}

    def reset(self) -> None:
        """Forget all studies."""
        self._pairs.clear()

    def update(
        self,
        study: str,
        given: Sequence[str],
        references: Sequence[str],
        prediction: str,
        others: Mapping[str, str] | None = None,
    ) -> None:
        """Keep one study.

        Args:
            study: its id; one that comes twice, as samplers pad with, counts once.
            given: its regions in slot order.
            references: their texts, ``""`` for a region without one; without regions the whole report alone.
            prediction: the generated report.
            others: the reference's tail, ``None`` for a report without one.
        """
        reference = Side.of_paragraphs(given, references, others)
        pair = pair_sides(study, patient_of(study), reference, Side(prediction), self.regions)
        if not self.identity:
            pair = replace(pair, nameless=True)
        elif pair.nameless:  # asked for names and gave none: not recognised
            pair = replace(pair, nameless=False, named=("",) * len(given))
        self._pairs[study] = pair

    def compute(self) -> dict[str, float]:
        """Logged name -> number, those that are finite; empty if no study has a reference. All processes call it."""
        kept = [self._pairs]
        if dist.is_available() and dist.is_initialized():
            kept = [{} for _ in range(dist.get_world_size())]
            dist.all_gather_object(kept, self._pairs)
        pairs = [pair for _, pair in sorted({name: p for part in kept for name, p in part.items()}.items())]
        pairs = [pair for pair in pairs if pair.reference_text]
        if not pairs:
            return {}
        described = {region for pair in pairs for region in pair.given}
        names = [name for name in self.regions.names if name in described]
        logged = {name: key for metric in self.settings.metrics or () for name, key in metric.logged.items()}
        found: dict[str, float] = {}
        for statistic in score_cohort(Cohort(pairs, names, self.settings)).statistics:
            key = logged.get(statistic.name, "")
            if key and ("{scope}" in key) == (statistic.scope != REPORT):
                found[key.format(scope=statistic.scope)] = statistic.number().value
        return {name: value for name, value in found.items() if math.isfinite(value)}
