"""Why a run that was finished has to be done anew."""

from __future__ import annotations

import yaml

from reg2rg.ablation.execute import Task
from reg2rg.ablation.plan import CONFIG, deciding, differences
from reg2rg.ablation.state import read_run

_SHOWN = 4


def what_changed(task: Task) -> str:
    """In words: the settings that differ, or that data or code do."""
    record = read_run(task.place)
    if record.get("config") == task.digest:
        return "its data changed" if record.get("data") != task.data else "it was made by other code"
    try:
        old = yaml.safe_load((task.place / CONFIG).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return "its config changed"
    found = list(differences(deciding(old), deciding(task.config)))
    more = f"; {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"its config changed ({'; '.join(found[:_SHOWN])}{more})"
