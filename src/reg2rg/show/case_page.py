"""One self-contained HTML page: scans with their regions, paragraphs tied to them, scores beside their floors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from reg2rg.core.files import Outputs
from reg2rg.core.report import Report, Written
from reg2rg.show.render import to_figure, to_page, write_files
from reg2rg.show.slices import HU_RANGE, StudyImages
from reg2rg.show.table import Table

# Twenty colours that stay apart on grey; regions beyond them start over.
PALETTE = (
    "#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#b266ff", "#46f0f0", "#f032e6", "#bcf60c", "#fabebe",
    "#008080", "#e6beff", "#9a6324", "#fffac8", "#ff7f7f", "#aaffc3", "#808000", "#ffd8b1", "#6fa8ff", "#a9a9a9",
)  # fmt: skip
_FORCED = "The names of the regions were given to the decoder: they are no recognition, and none is scored."
_REFERRING = (
    "Referring probability: how probable the model finds this name, of all names of its region set, for what it sees "
    "at this place. It says whether the model takes the region for what it is called, not whether its text is true."
)
_RIVAL = 0.05
"""Another name is shown from this probability on."""


@dataclass(frozen=True, slots=True)
class PageStudy:
    """One study on the page.

    Attributes:
        study: its id.
        given: regions in the order of the prompt.
        predicted: the model's report.
        reference: region -> text written by the reference.
        images: the slices.
        findings: label -> (present in truth or None, read from the prediction).
        written: what is known of the paragraphs beside their text; nothing where decoding was free.
    """

    study: str
    given: tuple[str, ...]
    predicted: Report
    reference: Mapping[str, str]
    images: StudyImages
    findings: Mapping[str, tuple[bool | None, bool]] = field(default_factory=dict)
    written: Sequence[Written] = ()


def write_page(
    path: str | Path,
    *,
    title: str,
    studies: Sequence[PageStudy],
    tables: Sequence[Table],
    curves: str,
    facts: Mapping[str, str],
    notes: Sequence[str] = (),
    tabs: tuple[str, str, str] = ("Studies", "Scores and floors", "Training"),
    outputs: Outputs | None = None,
) -> None:
    """Write the page atomically. It asks for nothing from the network.

    Args:
        path: the HTML file.
        title: heading of the page.
        studies: in the order shown.
        tables: score tables in the order shown; the first one is the summary.
        curves: an ``<svg>`` element, trusted (drawn by this package), or ``""``.
        facts: name -> value lines about the run.
        notes: lines below the paragraphs.
        tabs: headings of the studies, of the tables, which have none if there is no table, and of curves and facts.
        outputs: as in `reg2rg.show.render.write_files`.
    """
    names = sorted({region for study in studies for region in (*study.given, *study.images.window)})
    colours = {name: PALETTE[index % len(PALETTE)] for index, name in enumerate(names)}
    values = {
        "title": title,
        "tables": tables,
        "curves": to_figure("curves", curves, "Values that the runs logged, by step.") if curves else "",
        "facts": facts,
        "notes": notes,
        "tabs": tabs,
        "studies": studies,
        "data": _script_json(
            {
                "studies": [_study(study) for study in studies],
                "colours": colours,
                "range": HU_RANGE,
                "compared": any(study.reference for study in studies),
            }
        ),
    }
    write_files(Path(path).parent, {Path(path).name: lambda: to_page("case.html.j2", values)}, outputs)


def _study(study: PageStudy) -> dict[str, Any]:
    paragraphs = {paragraph.slot: asdict(paragraph) for paragraph in study.predicted.paragraphs}
    for one in study.written:
        if one.slot in paragraphs:
            paragraphs[one.slot] |= {"how": how_written(one)}
    return {
        "id": study.study,
        "slots": [
            {"given": region, "predicted": paragraphs.get(slot), "reference": study.reference.get(region, "")}
            for slot, region in enumerate(study.given)
        ],
        "invalid": study.predicted.invalid,
        "duplicate": study.predicted.duplicate,
        "missing": study.predicted.missing,
        "findings": {label: list(pair) for label, pair in study.findings.items()},
        "planes": {plane: asdict(view) for plane, view in study.images.planes.items()},
        "window": dict(study.images.window),
    }


def how_written(written: Written) -> str:
    """How a paragraph came by its name, in words."""
    said = []
    if written.probability is not None:
        others = {name: share for name, share in written.referring.items() if name != written.region}
        rival, share = max(others.items(), key=lambda item: item[1], default=("", 0.0))
        other = f" ({rival} {share:.2f})" if share >= _RIVAL else ""
        how = "name given, with" if written.forced else f"called {written.region} with"
        said.append(f"{how} referring probability {written.probability:.2f}{other}")
    return "; ".join([*said, *(["cut short"] if written.truncated else [])])


def written_notes(written: Iterable[Written]) -> list[str]:
    """What a reader must know of what `how_written` says."""
    written = list(written)
    notes = [_REFERRING] if any(one.referring for one in written) else []
    return [*notes, *([_FORCED] if any(one.forced for one in written) else [])]


def _script_json(value: Any) -> str:
    """JSON that cannot end the script element which holds it: a report's text is not trusted."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
