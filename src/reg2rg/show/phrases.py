"""What is said of an evaluation in words, and how numbers are printed: in the terminal, in plots and on the page."""

from __future__ import annotations

import math
from collections.abc import Mapping

from reg2rg.audit.results import AuditResult
from reg2rg.core.progress import MISSING
from reg2rg.evaluation.results import REPORT, Evaluation, Number
from reg2rg.show.table import format_value


def headline(evaluation: Evaluation) -> str:
    """Protocol, size and intervals in one line."""
    return "; ".join([f"protocol {evaluation.protocol}", *size_and_intervals(evaluation)])


def size_and_intervals(found: Evaluation | AuditResult) -> tuple[str, str]:
    """Of how many studies it is, and where its intervals come from."""
    intervals = (
        f"{percent(found.confidence)} intervals from {found.resamples:,} bootstrap resamples of patients (seed "
        f"{found.seed})"
    )
    size = f"{found.studies:,} studies of {found.patients:,} patients"
    return size, intervals if found.resamples else "no intervals"


def verdict(evaluation: Evaluation) -> str:
    """One sentence on the report's scores against their floors; ``""`` where no score has a floor."""
    best = best_floors(evaluation)
    compared = [number for number in evaluation.numbers if number.scope == REPORT and number.key in best]
    if not compared:
        return ""
    below = below_floor(evaluation)
    if not below:
        return f"All {len(compared)} scores of whole reports exceed their best floor."
    names = ", ".join(number.name for number in below)
    return f"{len(below)} of {len(compared)} scores of whole reports do not exceed their best floor: {names}."


def below_floor(evaluation: Evaluation) -> list[Number]:
    """Scores of whole reports that a report without any look at the scan reaches too."""
    best = best_floors(evaluation)
    return [number for number in evaluation.numbers if number.scope == REPORT and is_below(number, best)]


def floor_values(evaluation: Evaluation) -> dict[tuple[str, str, str], dict[str, float]]:
    """Number's key -> floor's name -> value, without those that are not numbers."""
    values: dict[tuple[str, str, str], dict[str, float]] = {}
    for floor, numbers in evaluation.floors.items():
        for number in numbers:
            if math.isfinite(number.value):
                values.setdefault(number.key, {})[floor] = number.value
    return values


def best_floors(evaluation: Evaluation) -> dict[tuple[str, str, str], tuple[str, float]]:
    """Score's key -> the name and value of its highest floor. Numbers that are no scores have no best floor."""
    values = floor_values(evaluation)
    return {
        number.key: max(values[number.key].items(), key=lambda item: item[1])
        for number in evaluation.numbers
        if number.score and math.isfinite(number.value) and number.key in values
    }


def is_below(number: Number, best: Mapping[tuple[str, str, str], tuple[str, float]]) -> bool:
    """Whether a score does not exceed its best floor, of `best_floors`."""
    # The same sum in another order may differ in its last bits: that is a tie, and a tie does not exceed.
    return number.key in best and number.value <= best[number.key][1] + 1e-12


def percent(share: float) -> str:
    """A share as per cent, without digits that say nothing: 0.95 is ``95 %``, 0.999 is ``99.9 %``."""
    return f"{100 * share:.4g} %"


def format_interval(low: float | None, high: float | None) -> str:
    """``[low, high]``, or ``""`` where there is no interval."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{format_value(low)}, {format_value(high)}]"


def format_p(p: float) -> str:
    """A p-value: three decimals, and no zero."""
    return MISSING if not math.isfinite(p) else "<0.001" if p < 0.001 else f"{p:.3f}"
