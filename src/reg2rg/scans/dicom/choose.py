"""Which series of a folder is the chest CT: rules, a table with the reason for each that is not taken, no guess.

1. CT slices, no localizer, picture or projection; slices within 45 degrees of axial; enough of them; a sound grid.
2. The kernel that was asked for, if one was.
3. As reconstructed (ORIGINAL) before reformatted.
4. At least 80 % of the longest extent among those.
5. The thinnest step, then the most slices.
What is left after that and is more than one series is a question to the user, as is a folder of several studies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from reg2rg.core.errors import DataFault
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.dicom.frames import Frame, Series
from reg2rg.scans.dicom.library import counted
from reg2rg.scans.dicom.stack import Stack, by_place, is_localizer, stack

AXIAL = np.cos(np.radians(45))
_COVERAGE = 0.8
_PROJECTIONS = ("MIP", "MINIP", "MIN IP", "PROJECTION IMAGE", "MAX_IP", "AVERAGE_IP", "VOLREN", "SCREEN SAVE")
_SHORT = 12
_LISTED = 8
TAKEN = "taken"


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A series, or one reconstruction of a series that holds several.

    Attributes:
        series: its files.
        frames: its slices that have a place.
        trait: what tells it from the others of its series, ``kernel B70f``; ``""`` if it is alone.
        stack: its slices on a grid, ``None`` where they have none.
        fault: why it has none.
        verdict: `TAKEN`, or the reason why not; ``""`` before the choice.
    """

    series: Series
    frames: tuple[Frame, ...]
    trait: str = ""
    stack: Stack | None = None
    fault: DataFault | None = None
    verdict: str = ""

    @property
    def kernel(self) -> str:
        """ConvolutionKernel of its first slice."""
        return self.frames[0].traits.get("ConvolutionKernel", "") if self.frames else ""

    @property
    def extent(self) -> float:
        """Length in mm from the first slice to the last."""
        return float(self.stack.places[-1]) if self.stack else 0.0

    def row(self) -> tuple[str, ...]:
        """Number, shortened UID, modality, slices, step, kernel, verdict."""
        series, slices = self.series, len(self.stack.frames) if self.stack else len(self.frames) + self.series.unplaced
        step = f"{self.stack.spacing:.3g} mm" if self.stack else ""
        kernel = self.trait or self.kernel
        return (series.number, short(series.uid), series.modality, str(slices), step, kernel, self.verdict)


def short(uid: str) -> str:
    """The end of a UID, enough for ``series``."""
    return f"...{uid[-_SHORT:]}" if len(uid) > _SHORT else uid


def table(candidates: Sequence[Candidate]) -> str:
    """Every series with its verdict, a line each."""
    rows = [("no.", "UID", "kind", "slices", "step", "kernel", "verdict"), *(one.row() for one in candidates)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def candidates_of(series: Sequence[Series], path: Path) -> list[Candidate]:
    """Every series, split where it holds several reconstructions, each with its grid or the fault of it."""
    found = []
    for one in series:
        for trait, frames in _reconstructions(one.frames):
            try:
                found.append(Candidate(one, tuple(frames), trait, stack(frames, path)))
            except DataFault as fault:
                found.append(Candidate(one, tuple(frames), trait, fault=fault))
    return found


def choose(
    candidates: Sequence[Candidate], options: ReadOptions, path: Path
) -> tuple[Candidate | DataFault, list[Candidate]]:
    """The series to read, and all with their verdicts; instead of it, why there is none.

    The fault is SERIES_UNKNOWN, SERIES_CHOICE (more than one fits), NO_SERIES (none does), or a series' own where there
    is one series of CT slices alone.
    """
    named = [one for one in candidates if options.series and one.series.uid.endswith(options.series)]
    if options.series and not named:
        known = ", ".join(short(one.series.uid) for one in candidates[:_LISTED])
        fix = "give a SeriesInstanceUID of the folder, or its last digits"
        fault = _fault("SERIES_UNKNOWN", f"no series {short(options.series)}", f"one of {known}", fix, path)
        return fault, [replace(one, verdict="another series was asked for") for one in candidates]
    judged = [replace(one, verdict=_unfit(one, options, bool(named), one in named)) for one in candidates]
    left = [place for place, one in enumerate(judged) if not one.verdict]
    if not left:
        return _none_fits(judged, named, options, path), judged
    for rule in _RULES:
        left = _keep(judged, left, rule, options)
    if len(left) > 1:
        fault = _several(judged, left, path)
        return fault, [replace(one, verdict=one.verdict or "fits as well as another") for one in judged]
    judged[left[0]] = taken = replace(judged[left[0]], verdict=TAKEN)
    return taken, judged


def note(taken: Candidate, judged: Sequence[Candidate]) -> list[str]:
    """What was chosen of several, for the notes of a scan."""
    others = [one for one in judged if one.verdict != TAKEN]
    if not others or taken.stack is None:
        return []
    listed = "; ".join(f"{_name(one)}: {one.verdict}" for one in others[:_LISTED])
    more = f"; and {len(others) - _LISTED} more" if len(others) > _LISTED else ""
    slices = f"{len(taken.stack.frames)} slices every {taken.stack.spacing:.3g} mm"
    return [f"series {_name(taken)} ({slices}) taken of {len(judged)}; not taken: {listed}{more}"]


def _name(one: Candidate) -> str:
    return " ".join(part for part in (one.series.number, short(one.series.uid), one.trait) if part)


def _reconstructions(frames: Sequence[Frame]) -> list[tuple[str, list[Frame]]]:
    """The slices of a series, apart where one value of the header tells reconstructions at the same places apart.

    Each then covers most of the places: two acquisitions that meet in a slice are one series.
    """
    slices = [frame for frame in frames if not is_localizer(frame)]
    places = len(by_place(slices)) if slices else 0
    if places in (1, len(slices)):
        return [("", list(frames))]
    for name in dict.fromkeys(name for frame in slices for name in frame.traits):
        groups: dict[str, list[Frame]] = {}
        for frame in slices:
            groups.setdefault(frame.traits.get(name, ""), []).append(frame)
        if len(groups) > 1 and all(len(by_place(group)) == len(group) > places / 2 for group in groups.values()):
            return [(f"{name} {value}", group) for value, group in sorted(groups.items())]
    return [("", list(frames))]


def _unfit(one: Candidate, options: ReadOptions, by_name: bool, named: bool) -> str:
    """Why a series cannot be the chest CT, ``""`` if it can."""
    if by_name:
        return (_broken(one, options) if named else "another series was asked for") or _kernel(one, options)
    return next(_reasons(one, options), "")


def _reasons(one: Candidate, options: ReadOptions) -> Iterator[str]:
    if one.series.modality != "CT":
        yield f"{one.series.modality}, no CT"
    if one.series.pictures:
        yield "pictures, no CT slices"
    if not one.frames:
        yield "no slices with a place in the patient"
    if all(is_localizer(frame) for frame in one.frames):
        yield "localizer"
    kinds = {kind for frame in one.frames for kind in frame.kinds}
    if projection := next((kind for kind in _PROJECTIONS if kind in kinds), ""):
        yield f"projection ({projection})"
    if broken := _broken(one, options):
        yield broken
    if abs(one.frames[0].normal[2]) < AXIAL:
        yield "not axial"
    if one.stack is not None and len(one.stack.frames) < options.min_slices:
        yield counted(len(one.stack.frames), "slice")
    yield _kernel(one, options)


def _kernel(one: Candidate, options: ReadOptions) -> str:
    wanted, kernel = options.kernel.casefold(), one.kernel.casefold()
    fits = not wanted or wanted == kernel or wanted in kernel.split(", ")
    return "" if fits else f"kernel {one.kernel or 'not said'}, not {options.kernel}"


def _broken(one: Candidate, options: ReadOptions) -> str:
    if one.fault is not None:
        return one.fault.code
    if one.stack is not None and one.stack.uneven and options.uneven == "refuse":
        return "UNEVEN_SPACING"
    if one.stack is not None and one.stack.tilt and options.tilt == "refuse":
        return "GANTRY_TILT"
    return ""


Rule = tuple[Callable[[Candidate], float], float, Callable[[Candidate, Candidate], str]]
# (what counts, the more the better; the share of the best that is enough; the reason of the others)
_RULES: tuple[Rule, ...] = (
    (lambda one: float("ORIGINAL" in one.frames[0].kinds), 1.0, lambda one, best: "reformatted, an original is there"),
    (
        lambda one: one.extent,
        _COVERAGE,
        lambda one, best: f"covers {one.extent:.0f} mm of {best.extent:.0f} mm",
    ),
    (
        lambda one: -round(one.stack.spacing, 2) if one.stack else -np.inf,
        1.0,
        lambda one, best: f"thicker: every {one.stack.spacing:.3g} mm" if one.stack else "",
    ),
    (lambda one: float(len(one.frames)), 1.0, lambda one, best: f"fewer slices: {len(one.frames)}"),
)


def _keep(judged: list[Candidate], left: list[int], rule: Rule, options: ReadOptions) -> list[int]:
    """The best by one rule; the others get their reason."""
    if options.series:
        return left
    value, share, reason = rule
    best = max((judged[place] for place in left), key=value)
    least = value(best) * share if value(best) > 0 else value(best)
    for place in left:
        if value(judged[place]) < least:
            judged[place] = replace(judged[place], verdict=reason(judged[place], best))
    return [place for place in left if not judged[place].verdict]


def _several(judged: Sequence[Candidate], left: Sequence[int], path: Path) -> DataFault:
    ties = [judged[place] for place in left]
    if len({one.series.patient for one in ties}) > 1:
        found, fix = "series of several patients", "give the folder of one patient"
    elif len({one.series.study for one in ties}) > 1:
        found, fix = "series of several studies that fit alike", "give the folder of one study, or its series"
    else:
        found, fix = "several series that fit alike", "say which: series (the end of its UID)"
        if len({one.series.uid for one in ties}) == 1:
            found, fix = "several reconstructions in one series", "export them as series of their own"
        if len({one.kernel for one in ties}) == len(ties):
            fix = "say which: kernel" if found.endswith("in one series") else f"{fix}, or kernel"
    names = "; ".join(_name(one) + (f", kernel {one.kernel}" if one.kernel and not one.trait else "") for one in ties)
    return _fault("SERIES_CHOICE", f"{found}: {names}", "one", fix, path)


def _none_fits(judged: Sequence[Candidate], named: Sequence[Candidate], options: ReadOptions, path: Path) -> DataFault:
    """The fault of the only series of slices there is, or of all."""
    whole = [one for one in judged if (not named or one.verdict != "another series was asked for")]
    slices = [one for one in whole if one.frames and not all(is_localizer(frame) for frame in one.frames)]
    [*only] = slices if len(slices) == 1 else [one for one in slices if one.series.modality == "CT"]
    if len(only) == 1 and only[0].verdict in ("UNEVEN_SPACING", "GANTRY_TILT") and only[0].stack is not None:
        return refused(only[0].stack, path)
    if len(only) == 1 and only[0].fault is not None:
        if only[0].series.modality == "CT":
            return only[0].fault
        said = str(only[0].fault).partition(": ")[2].partition(" (expected")[0]
        listed = f"{only[0].series.modality}, no CT; and {only[0].fault.code}: {said}"
        return _fault("NO_SERIES", listed, "a CT", "give the folder of the CT", path)
    if len(only) == 1 and only[0].stack is not None and len(only[0].stack.frames) < options.min_slices:
        fix = "use a whole chest CT, or lower min_slices"
        count = counted(len(only[0].stack.frames), "slice")
        if only[0].series.modality != "CT":
            count, fix = f"{only[0].series.modality}, no CT; and {count}", "give the folder of the CT"
        return _fault("FEW_SLICES", count, f"at least {options.min_slices}", fix, path)
    listed = "; ".join(f"{_name(one)}: {one.verdict}" for one in judged[:_LISTED])
    fix = "export the CT's own series; series (its UID) reads one in spite of the rules on kind and plane"
    return _fault("NO_SERIES", f"no series that is a sound axial CT ({listed})", "one", fix, path)


def refused(one: Stack, path: Path) -> DataFault:
    """The fault of a series that an option lets be resampled."""
    if one.uneven:
        found = f"slices {one.gaps()} mm apart"
        fix = "set uneven=resample to interpolate between them, or export an even series"
        return _fault("UNEVEN_SPACING", found, "an even step", fix, path)
    fix = "set tilt=shear, which brings it onto an upright grid"
    return _fault("GANTRY_TILT", f"a gantry tilted by {one.tilt:.1f} degrees", "none, as tilt=refuse says", fix, path)


def _fault(code: str, found: str, expected: str, fix: str, path: Path) -> DataFault:
    return DataFault.of(code, found=found, expected=expected, fix=fix, path=path)
