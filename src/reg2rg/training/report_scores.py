"""Scores of generated reports inside validation and test: texts are gathered from all processes, then scored at once.

Some metrics (CIDEr, corpus BLEU, averages of F1) are not means over batches or processes. Keeping the texts and scoring
the whole set makes a run on several processes equal to one on a single process, to the last digit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from reg2rg.core.regions import RegionSet
from reg2rg.core.report import write_report
from reg2rg.datasets.names import patient_of
from reg2rg.evaluation.engine import Settings, evaluate
from reg2rg.evaluation.metrics.labelers import RuleLabeler
from reg2rg.evaluation.pairs import pair_texts
from reg2rg.evaluation.protocols import find_protocol
from reg2rg.evaluation.reading import Reports
from reg2rg.evaluation.results import REPORT

LOGGED: Mapping[str, str] = {
    "BLEU-4": "bleu4",
    "BLEU-4 (corpus)": "bleu4_corpus",
    "METEOR": "meteor",
    "ROUGE-L": "rouge_l",
    "CIDEr": "cider",
    "CIDEr-D": "cider",
    "CE precision (micro)": "findings_precision",
    "CE recall (micro)": "findings_recall",
    "CE F1 (micro)": "findings_f1",
    "CE F1 (macro)": "findings_f1_macro",
    "CRG": "crg",
    "Abnormal studies, predicted": "called_abnormal",
    "Distinct reports, predicted": "distinct",
}
"""Numbers of an evaluation that are logged -> the name that they are logged under."""


class ReportScores(Metric):  # type: ignore[misc]  # torchmetrics is not typed here
    """Text metrics and findings of generated reports.

    Args:
        regions: whose names reports have.
        identity: reports name their regions.
        protocol: how numbers are made (see `reg2rg.evaluation.protocols`).
    """

    full_state_update = False
    packed: list[Tensor]

    def __init__(self, regions: RegionSet, identity: bool = True, protocol: str = "strict") -> None:
        super().__init__()
        self.regions, self.identity, self.protocol = regions, identity, find_protocol(protocol)
        self._labeler = RuleLabeler()
        self.add_state("packed", [], dist_reduce_fx="cat")
        self.reset()

    def reset(self) -> None:
        """Forget all studies."""
        super().reset()
        # Never an empty list: a process that generated nothing must take part in gathering all the same.
        self.packed = [torch.zeros(0, dtype=torch.uint8, device=self.device)]

    def update(self, study: str, given: Sequence[str], references: Sequence[str], prediction: str) -> None:
        """Keep one study.

        Args:
            study: its id; one that comes twice, as samplers pad with, counts once.
            given: its regions in slot order.
            references: their texts, ``""`` for a region without one; without regions the whole report alone.
            prediction: the generated report.
        """
        line = json.dumps([study, list(given), list(references), prediction]) + "\n"
        values = torch.frombuffer(bytearray(line.encode("ascii")), dtype=torch.uint8)
        self.packed.append(values.to(self.device))

    def compute(self) -> dict[str, float]:
        """Logged name -> number, those that are finite; empty if no study has a reference."""
        packed = torch.cat(list(self.packed)) if isinstance(self.packed, list) else self.packed
        kept = {}
        for line in packed.cpu().numpy().tobytes().decode("ascii").splitlines():
            study, given, references, prediction = json.loads(line)
            kept[study] = (tuple(given), references, prediction)
        pairs = []
        for study, (given, references, prediction) in sorted(kept.items()):
            reference = write_report(given, references, self.identity) if given else references[0]
            pair = pair_texts(study, patient_of(study), reference, prediction, self.regions, given)
            if any(references):
                pairs.append(pair)
        if not pairs:
            return {}
        described = {region for pair in pairs for region in pair.given}
        names = tuple(name for name in self.regions.names if name in described)
        settings = Settings(protocol=self.protocol, labeler=self._labeler, resamples=0, floors=False)
        found = evaluate("generated", Reports(pairs, names, ()), settings)
        figures = {LOGGED[n.name]: n.value for n in found.numbers if n.scope == REPORT and n.name in LOGGED}
        return {name: value for name, value in figures.items() if math.isfinite(value)}
