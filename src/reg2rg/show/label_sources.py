"""The labels that a data set ships beside those that are read from its reports: two sources, label by label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from reg2rg.core.errors import ConfigError
from reg2rg.show.table import Table, make_table

Bools = npt.NDArray[np.bool_]
_HEADS = ("finding", "shipped", "read", "agree", "kappa", "F1 shipped", "F1 read")


def label_sources(per_study: pd.DataFrame, shipped: Mapping[str, Bools], labels: Sequence[str], reader: str) -> Table:
    """How far two sources of labels agree, and what the predictions score against either.

    Args:
        per_study: of an evaluation whose findings were read.
        shipped: study -> (L,) labels of the data set itself.
        labels: their L names.
        reader: a sentence on what read the texts.

    Raises:
        ConfigError: no findings were read.
    """
    if "findings_reference" not in per_study:
        raise ConfigError("--shipped-labels: no findings are read from the reports. Fix: name a --labeler")
    there = np.stack([shipped[study] for study in per_study["study"]])
    read, said = (_flags(per_study[f"findings_{side}"], labels) for side in ("reference", "predicted"))
    rows = []
    for place, label in enumerate(labels):
        one, two, told = there[:, place], read[:, place], said[:, place]
        agree = float((one == two).mean())
        rows.append((label, int(one.sum()), int(two.sum()), agree,
                     _kappa(one, two, agree), _f1(one, told), _f1(two, told)))  # fmt: skip
    total, agree = (int(there.sum()), int(read.sum())), float((there == read).mean())
    rows.append(("all (micro)", *total, agree, _kappa(there.ravel(), read.ravel(), agree),
                 _f1(there.ravel(), said.ravel()), _f1(read.ravel(), said.ravel())))  # fmt: skip
    notes = (
        f"Shipped: the data set's own labels, of {len(there):,} studies. Read: from references. {reader}".strip(),
        "Kappa: Cohen's, agreement beyond chance; 0 where one source has the label of no study or of all. F1 of the "
        "predictions' findings, as they were read, against either source.",
    )
    return make_table("label_sources", "Two sources of labels", _HEADS, rows, notes)


def _flags(words: pd.Series[str], labels: Sequence[str]) -> Bools:
    """Findings in words, one text a study -> (n, L)."""
    named = [set(filter(None, text.split("; "))) for text in words]
    return np.array([[label in names for label in labels] for names in named], dtype=bool)


def _kappa(one: Bools, two: Bools, agree: float) -> float:
    first, second = float(one.mean()), float(two.mean())
    chance = first * second + (1 - first) * (1 - second)
    return (agree - chance) / (1 - chance) if chance < 1 else 0.0


def _f1(truth: Bools, said: Bools) -> float:
    found, total = int((truth & said).sum()), int(truth.sum()) + int(said.sum())
    return 2 * found / total if total else 0.0
