"""One self-contained HTML page: scans with their regions, paragraphs tied to them, scores beside their floors."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from reg2rg.core.files import Outputs
from reg2rg.core.report import Report, Written
from reg2rg.evaluation.contradictions import Marked, compare
from reg2rg.models.findings import StudyFindings
from reg2rg.show.render import to_figure, to_page, write_files
from reg2rg.show.slices import HU_RANGE, StudyImages
from reg2rg.show.table import Table
from reg2rg.show.vendored import VERSION, read_licences, read_viewer
from reg2rg.show.volume import ViewerVolume

# Twelve colours of which every two stay apart: CIEDE2000 of 22 and more, and of 12.9 and more for eyes that do not tell
# red from green (deuteranopia, protanopia). Found by search, those first that are farthest apart; a test measures them.
# All are bright enough for a dark scan. Regions beyond them start over.
PALETTE = (
    "#a2ffd1", "#a200ff", "#8b7400", "#008b74", "#e8e82e", "#e88ba2",
    "#46a2ff", "#46b900", "#e8b98b", "#2ed1e8", "#8b74a2", "#d1175d",
)  # fmt: skip
_FORCED = "The names of the regions were given to the decoder: they are no recognition, and none is scored."
_REFERRING = (
    "Referring probability: how probable the model finds this name, of all names of its region set, for what it sees "
    "at this place. It says whether the model takes the region for what it is called, not whether its text is true."
)
_PROBABILITIES = (
    "Findings with a bar: how probable the model's head takes each to be, from the pictures of the region and not from "
    "the text. Those that counted when the report was made are framed."
)
_RIVAL = 0.05
"""Another name is shown from this probability on."""
_PAGE_BYTES = 250_000  # of everything on a page but pictures, volumes and the viewer


@dataclass(frozen=True, slots=True)
class RegionRow:
    """What the list of regions says of one.

    Attributes:
        name: of the region.
        status: where its mask comes from, or ``"absent"``.
        why: reason of it, or what is odd; ``""`` for nothing.
        there: it has a mask.
        volume_ml, mean_hu, sd_hu: measured on the scan; ``None`` where that was not done.
    """

    name: str
    status: str
    why: str = ""
    there: bool = True
    volume_ml: float | None = None
    mean_hu: float | None = None
    sd_hu: float | None = None


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
        others: reports of the other models, in their order; ``None`` of one that has none on this study.
        volume: for the viewer; ``None`` for the slices alone.
        regions: the list of regions.
        files: extension -> text that can be saved: ``"json"``, ``"txt"``.
        told: by the model's head, ``None`` without one.
    """

    study: str
    given: tuple[str, ...]
    predicted: Report
    reference: Mapping[str, str]
    images: StudyImages
    findings: Mapping[str, tuple[bool | None, bool]] = field(default_factory=dict)
    written: Sequence[Written] = ()
    others: tuple[Report | None, ...] = ()
    volume: ViewerVolume | None = None
    regions: tuple[RegionRow, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    told: StudyFindings | None = None


@dataclass(frozen=True, slots=True)
class Around:
    """What stands around the studies.

    Attributes:
        tables: score tables in the order shown; the first one is the summary.
        words: an ``<svg>`` element, trusted (drawn by this package), of the lengths of reports; or ``""``.
        curves: the same of training curves.
        curves_caption: what the curves show, and why they begin where they do.
        facts: name -> value lines about the run.
        notes: lines below the paragraphs.
        tabs: headings of the studies, of the tables, which have none if there is nothing, and of curves and facts.
        models: names of the model and of the others.
        chosen: how the studies were chosen.
    """

    tables: Sequence[Table] = ()
    words: str = ""
    curves: str = ""
    curves_caption: str = "Values that the runs logged, by step."
    facts: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    tabs: tuple[str, str, str] = ("Studies", "Scores and floors", "Training")
    models: tuple[str, ...] = ("predicted",)
    chosen: str = ""


def write_page(
    path: str | Path, *, title: str, studies: Sequence[PageStudy], around: Around, outputs: Outputs | None = None
) -> None:
    """Write the page atomically. It asks for nothing from the network.

    Args:
        path: the HTML file.
        title: heading of the page.
        studies: in the order shown.
        around: everything else.
        outputs: as in `reg2rg.show.render.write_files`.
    """
    names = dict.fromkeys(name for study in studies for name in (*(row.name for row in study.regions), *study.given))
    names |= dict.fromkeys(region for study in studies for region in study.images.window)
    colours = {name: PALETTE[index % len(PALETTE)] for index, name in enumerate(sorted(names))}
    data = {
        "studies": [_study(study) for study in studies],
        "colours": colours,
        "range": HU_RANGE,
        "compared": any(study.reference for study in studies),
        "models": around.models,
    }
    volumes = {index: study.volume for index, study in enumerate(studies) if study.volume is not None}
    binary = {"niivue": _base64(read_viewer())} if volumes else {}
    for index, volume in volumes.items():
        binary |= {f"ct-{index}": _base64(volume.ct), f"labels-{index}": _base64(volume.labels)}
    values = {
        "title": title,
        "tables": around.tables,
        "words": to_figure("words", around.words, "Words per report.") if around.words else "",
        "curves": to_figure("curves", around.curves, around.curves_caption) if around.curves else "",
        "facts": around.facts,
        "notes": around.notes,
        "tabs": around.tabs,
        "chosen": around.chosen,
        "studies": studies,
        "data": _script_json(data),
        "binary": binary,
        "viewer": bool(volumes),
        "viewer_version": VERSION,
        "viewer_licences": read_licences() if volumes else "",
    }
    write_files(Path(path).parent, {Path(path).name: lambda: to_page("case.html.j2", values)}, outputs)


def room_for_volumes(most: float, images: Sequence[StudyImages]) -> int:
    """How many bytes of volumes a page may hold.

    Args:
        most: bytes of the whole page.
        images: all pictures that it holds.
    """
    pictures = sum(len(picture) for one in images for view in one.planes.values() for picture in view.images.values())
    outlines = sum(len(json.dumps(asdict(view)["outlines"])) for one in images for view in one.planes.values())
    left = most - _PAGE_BYTES - len(_base64(read_viewer())) - pictures - outlines
    return max(0, int(left * 3 / 4))


def is_wrong(study: PageStudy) -> bool:
    """Whether anything of the model's report does not agree with what is known of the study."""
    return bool(wrong_count(study))


def wrong_count(study: PageStudy) -> int:
    """Findings and sentences of the model's report that do not agree, and regions that are not named."""
    findings = sum(truth is not None and truth != read for truth, read in study.findings.values())
    return findings + sum(_faults(study, slot, region) for slot, region in enumerate(study.given))


def _faults(study: PageStudy, slot: int, region: str) -> int:
    paragraph = next((one for one in study.predicted.paragraphs if one.slot == slot), None)
    if paragraph is None:
        return 1
    said, known = compare(paragraph.text, study.reference.get(region, ""))
    return (paragraph.region != region) + sum(bool(one.kind) for one in (*said, *known))


def _study(study: PageStudy) -> dict[str, Any]:
    return {
        "id": study.study,
        "slots": [_slot(study, slot, region) for slot, region in enumerate(study.given)],
        "invalid": study.predicted.invalid,
        "duplicate": study.predicted.duplicate,
        "missing": study.predicted.missing,
        "others": [f"{key}: {text}" for key, text in study.predicted.others.items() if text],
        "findings": {label: list(pair) for label, pair in study.findings.items()},
        "wrong": is_wrong(study),
        "planes": {plane: asdict(view) for plane, view in study.images.planes.items()},
        "window": dict(study.images.window),
        "volume": None if study.volume is None else _volume(study.volume),
        "regions": [_row(row) for row in study.regions],
        "files": dict(study.files),
        "point": None if study.told is None else _point(study.told),
    }


def _point(told: StudyFindings) -> str:
    return f"{told.operating_point}{', named in the prompt' if told.cued else ''}"


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


def head_notes(told: Iterable[StudyFindings | None]) -> list[str]:
    """What a reader must know of the head's probabilities and of marks for review."""
    there = [one for one in told if one is not None]
    notes = [_PROBABILITIES] if there else []
    return [*notes, *dict.fromkeys(one.promise for one in there if one.promise)]


def written_notes(written: Iterable[Written]) -> list[str]:
    """What a reader must know of what `how_written` says."""
    written = list(written)
    notes = [_REFERRING] if any(one.referring for one in written) else []
    return [*notes, *([_FORCED] if any(one.forced for one in written) else [])]


def _slot(study: PageStudy, slot: int, region: str) -> dict[str, Any]:
    reference = study.reference.get(region, "")
    said: list[dict[str, Any] | None] = []
    known: tuple[Marked, ...] = compare("", reference)[1] if reference else ()
    for index, report in enumerate((study.predicted, *study.others)):
        paragraph = None if report is None else next((one for one in report.paragraphs if one.slot == slot), None)
        if paragraph is None:
            said.append(None)
            continue
        marks, of_reference = compare(paragraph.text, reference)
        known = of_reference if index == 0 else known
        said.append({"region": paragraph.region, "marks": [list(_values(mark)) for mark in marks]})
    return {
        "given": region,
        "head": _head(study.told, region),
        "review": "" if study.told is None else study.told.mark(region),
        "how": next((how_written(one) for one in study.written if one.slot == slot), ""),
        "said": said,
        "reference": [list(_values(mark)) for mark in known],
        "wrong": bool(_faults(study, slot, region)),
    }


def _head(told: StudyFindings | None, region: str) -> list[tuple[str, float, bool, bool]]:
    """Label, probability, whether it was detected, whether the paragraph may leave it out; the most probable first."""
    found = None if told is None else told.regions.get(region)
    if found is None:
        return []
    return [
        (label, round(share, 4), label in found.detected, label in found.wanting)
        for label, share in sorted(found.probabilities.items(), key=lambda one: -one[1])
    ]


def _values(mark: Marked) -> tuple[str, str, str]:
    return mark.text, mark.kind, mark.why


def _row(row: RegionRow) -> dict[str, Any]:
    hu = "" if row.mean_hu is None else f"{row.mean_hu:,.0f}" + ("" if row.sd_hu is None else f" ± {row.sd_hu:,.0f}")
    volume = "" if row.volume_ml is None else f"{row.volume_ml:,.{1 if row.volume_ml < 10 else 0}f}"
    hu = hu.replace("-", "−")
    return {"name": row.name, "status": row.status, "why": row.why, "there": row.there, "volume": volume, "hu": hu}


def _volume(volume: ViewerVolume) -> dict[str, Any]:
    return {
        "sets": volume.sets,
        "shape": volume.shape,
        "first": volume.first,
        "step": volume.step,
        "scan": volume.scan_shape,
        "affine": volume.affine.tolist(),
        "focus": dict(volume.focus),
        "thinned": volume.thinned,
    }


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _script_json(value: Any) -> str:
    """JSON that cannot end the script element which holds it: a report's text is not trusted."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
