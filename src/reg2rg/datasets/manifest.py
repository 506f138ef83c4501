"""One's own data: a CSV, or JSON, with a row a study."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.regions import RegionSet, load_region_set
from reg2rg.core.registry import did_you_mean
from reg2rg.core.text import TextGate
from reg2rg.core.types import LabelMap, PathInside, PathOrName, PathText, RegionFiles, Study, UnitFloat
from reg2rg.datasets.base import DATASETS, SPLITS, Dataset, Listing, Notes, Skip, carve_validation
from reg2rg.datasets.columns import Key, Keys, any_rows
from reg2rg.datasets.labels import truth
from reg2rg.datasets.names import inside, study_id
from reg2rg.datasets.splitters.base import OTHER, Splitter, by_region, split_report
from reg2rg.datasets.spreadsheets import check_cell, lost_signs, whole_id
from reg2rg.datasets.tables import Row, check_encoding, clean, is_empty
from reg2rg.scans.dicom.files import is_dicom
from reg2rg.scans.find_masks import by_region as masks_by_region
from reg2rg.scans.find_masks import matching
from reg2rg.scans.label_names import version_1

_REPORT_LIKE = re.compile(r"report|finding|befund|impression|text|\u62a5\u544a|\u6240\u89c1", re.IGNORECASE)
_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


@DATASETS.register
class Manifest(Dataset):
    """A table that lists one's own studies, one a row.

    Columns: ``id`` and ``image`` must be there. ``patient`` (default: the id), ``split`` (``train``, ``val``,
    ``test``; default ``train``), ``report`` (the whole report), ``report:<region>`` (text of a region), ``mask``
    (a multilabel file), ``mask:<region>`` (a mask file a region), ``finding:<label>`` (0 or 1). In JSON lines the same
    keys, or nested: ``"masks": {"lung": "..."}``, ``"reports"``, ``"findings"``. A table without any mask column, and
    without the option `masks`, lists scans without regions. A ``report`` alone is text enough for `task.target` whole;
    for training by region a `splitter` puts its sentences under regions.

    Args:
        path: the table: CSV; or JSON lines, a JSON list, or a JSON object id -> row, told by its content.
        regions: region set, a packaged name or a YAML file.
        root: folder that all files must lie in, and to which their paths are relative; default: the table's folder. If
            the table lies below it, a path may be relative to the table's folder too.
        masks: template of mask files instead of mask columns, for example ``masks/{id}/{region}.nii.gz`` (one file a
            region, or a class of TotalSegmentator; those that do not exist are absent) or ``seg/{id}.nii.gz``
            (multilabel).
        label_map: label values of multilabel masks: ``totalsegmentator`` (its task ``total``; where a file names its
            labels, the names count), ``totalsegmentator_v1``, or a mapping region -> values.
        columns: name here -> name of the column in the table, where they differ: ``{id: AccNum, image: nifti}``.
        splitter: puts the sentences of ``report`` under regions, for rows without text of any region.
        val_fraction: share of train patients held out for validation if no row says ``val``.
        encoding: how the table is encoded.
        max_skip: largest share of studies that may be left out.
    """

    def __init__(
        self,
        path: PathText,
        regions: PathOrName = "radgenome",
        root: PathText | None = None,
        masks: PathInside | None = None,
        label_map: str | dict[str, list[int]] | None = None,
        columns: dict[str, str] | None = None,
        splitter: Splitter | None = None,
        val_fraction: UnitFloat = 0.05,
        encoding: str = "utf-8-sig",
        max_skip: UnitFloat = 0.05,
    ) -> None:
        super().__init__(max_skip)
        check_encoding(encoding)
        carve_validation((), val_fraction)
        self.path = Path(path)
        self.root = (Path(root) if root is not None else self.path.parent).resolve()
        beside = self.path.parent.resolve()
        self.starts = tuple(dict.fromkeys((self.root, *((beside,) if beside.is_relative_to(self.root) else ()))))
        self.regions = load_region_set(regions)
        self.masks, self.encoding, self.val_fraction = masks, encoding, val_fraction
        self.label_map = _label_values(label_map, self.regions)
        self.columns = {theirs: ours for ours, theirs in (columns or {}).items()}
        self.splitter = splitter
        _check_template(masks, self.label_map)
        self._folders: dict[str, str] = {}

    def watched(self) -> Sequence[Path] | None:
        """The table, and the folders that it names files in, as it spells them: a link to one may be set anew."""
        if len(self.starts) > 1:
            return None
        return [self.path, *map(Path, self._folders)]

    def scan(self) -> Listing:
        """Read the table and look for the files it names.

        Raises:
            DataFault: the table cannot be read.
            ConfigError: a column that names no region of the set, or masks without a label map.
        """
        notes, studies, skipped = Notes(), [], []
        first_line: dict[str, int] = {}
        folders = self._folders = {}  # of this listing: links may lead elsewhere by the next
        keys = Keys(self.path, self.columns, self.regions)
        gate = TextGate()
        rows = list(self.rows(gate))
        for told in gate.told(self.path.name):
            notes.add("TEXT_CLEANED", told)
        named = {key.kind for row in rows for name in row.values if (key := keys[name]) is not None}
        faults = self._without_reports(rows) if rows and "report" not in named else ()
        masked = self.needs_masks and (self.masks is not None or "mask" in named)
        for row in rows:
            where = f"{self.path.name} line {row.line}"
            cells = {key: text for name, text in row.values.items() if (key := keys[name]) is not None}
            name = cells.get(Key("id"), "")
            try:
                study = study_id(whole_id(name, where))
                if study in first_line:
                    raise _fault(
                        "DUPLICATE_STUDY",
                        study,
                        where,
                        f"the id stands at line {first_line[study]} too",
                        "one row a study",
                        "delete or rename one of the rows",
                    )
                first_line[study] = row.line
                studies.append(_RowReader(self, study, where, cells, notes, folders).study(masked))
            except DataFault as fault:
                skipped.append(Skip.of(fault, where))
        for column in keys.unused:
            notes.add("UNUSED_COLUMN", column)
        if self.label_map is not None:
            for region in self.regions:
                if region.name not in self.label_map:
                    notes.add("NO_SOURCE", f"{region.name}: no label in label_map. {region.note}".rstrip())
        if not any(study.split == "val" for study in studies):
            studies = carve_validation(studies, self.val_fraction)
        return Listing(tuple(studies), tuple(skipped), notes.freeze(), faults)

    def column(self, name: str) -> str:
        """What the table calls a column."""
        return next((theirs for theirs, ours in self.columns.items() if ours == name), name)

    def rows(self, gate: TextGate, needed: Sequence[str] = ("id", "image")) -> Iterator[Row]:
        """Rows of the table, whose cells are as they stand there.

        Args:
            gate: cleans every cell, and counts.
            needed: columns that must be there, by their names here; so must be those that the option `columns` names.
        """
        wanted = dict.fromkeys([*map(self.column, needed), *self.columns])
        return any_rows(self.path, list(wanted), self.encoding, gate)

    def _without_reports(self, rows: Sequence[Row]) -> tuple[DataFault, ...]:
        """The fault of a table that has studies to train on and no column of reports; none if all are for tests."""
        split = self.column("split")
        if all(row.values.get(split, "").strip().lower() == "test" for row in rows):
            return ()
        header = list(rows[0].values)
        likely = next((name for name in header if _REPORT_LIKE.search(name)), None)
        return (
            DataFault.of(
                "TABLE_COLUMNS",
                path=self.path,
                found=f"no column of reports; the header has: {', '.join(header)}",
                expected="report, or report:<region>, where studies are to be trained on",
                fix=f"columns: {{report: {likely or 'NAME'}}}, or give every row the split test",
            ),
        )


class _RowReader:
    """One row made into a study."""

    def __init__(
        self,
        manifest: Manifest,
        study: str,
        where: str,
        cells: Mapping[Key, str],
        notes: Notes,
        folders: dict[str, str],
    ) -> None:
        self.manifest, self.id, self.where, self.notes, self.folders = manifest, study, where, notes, folders
        self.cells = {key: text.strip() for key, text in cells.items() if not is_empty(text)}

    def study(self, masked: bool) -> Study:
        """The study.

        Args:
            masked: the table says where masks are; otherwise no study has regions.

        Raises:
            DataFault: with the reason code for which it is skipped.
        """
        split = self._split()
        image = self._file(Key("image"), "VOLUME_MISSING")
        masks = self._masks() if masked else None
        whole = self.cells.get(Key("report"), "")
        for key, text in self.cells.items():
            if key.kind == "report":
                check_cell(text, f"{key.kind}:{key.item}" if key.item else key.kind, self.id, self.where)
                if lost := lost_signs(text):
                    self.notes.add("TEXT_GARBLED", f"{self.id}: {lost}")
        reports = self._reports() or self._split_report(whole)
        if not reports and not whole:
            if split != "test":
                raise _fault(
                    "NO_REPORT",
                    self.id,
                    self.where,
                    "no text",
                    "report, or report:<region> in at least one column",
                    "write the text, or give the row the split test",
                )
            self.notes.add("NO_REPORT", self.id)
        elif not reports and masks is not None:
            self.notes.add("WHOLE_REPORT_ONLY", self.id)
        if masks is not None:
            regions = masks.files if isinstance(masks, RegionFiles) else masks.labels
            for region in reports:
                if region not in regions:
                    self.notes.add("TEXT_WITHOUT_MASK", f"{self.id} {region}")
        return Study(
            id=self.id,
            patient=self.cells.get(Key("patient"), self.id),
            split=split,
            image=image,
            masks=masks,
            reports=reports,
            whole=whole,
            findings=self._findings(),
        )

    def _split(self) -> str:
        text = self.cells.get(Key("split"), "train")
        if text.lower() in _SPLIT_NAMES:
            return _SPLIT_NAMES[text.lower()]
        raise _fault("BAD_SPLIT", self.id, self.where, f"split is {text!r}", " or ".join(SPLITS), "correct the cell")

    def _reports(self) -> dict[str, str]:
        texts = {region: self.cells.get(Key("report", region), "") for region in self.manifest.regions.names}
        return {region: clean(text) for region, text in texts.items() if text}

    def _split_report(self, whole: str) -> dict[str, str]:
        """Texts of regions that the splitter makes of a whole report."""
        splitter, regions = self.manifest.splitter, self.manifest.regions
        if splitter is None or not whole:
            return {}
        placed = split_report(whole, splitter, regions)
        for sentence in placed:
            if not sentence.regions:
                self.notes.add("OTHER_SENTENCE", f"{self.id}: {sentence.text[:80]}")
        return {region: text for region, text in by_region(placed, regions).items() if region != OTHER}

    def _findings(self) -> dict[str, bool] | None:
        found: dict[str, bool] = {}
        for key, text in self.cells.items():
            if key.kind == "finding":
                value = truth(text)
                if value is None:
                    raise _fault(
                        "BAD_FINDING",
                        self.id,
                        self.where,
                        f"finding:{key.item} is {text[:20]!r}",
                        "0 or 1",
                        "correct the cell, or leave it empty",
                    )
                found[key.item] = value
        return found or None

    def _masks(self) -> RegionFiles | LabelMap:
        """From the row's cells if it has any, else from the template."""
        template, labels = self.manifest.masks, self.manifest.label_map
        files = {
            region: self._file(key, "MASK_MISSING")
            for region in self.manifest.regions.names
            if (key := Key("mask", region)) in self.cells
        }
        if files:
            return RegionFiles(files)
        if Key("mask") in self.cells:
            return LabelMap(self._file(Key("mask"), "MASK_MISSING"), self._label_map())
        if template is not None and "{region}" in template:
            pattern, _ = self._path(template.format(id=self.id, region="{region}"))
            there, _ = masks_by_region(matching(pattern), self.manifest.regions)
            if there.files:
                for file in itertools.chain.from_iterable(there.parts().values()):
                    inside(self.manifest.root, str(file), self.id, folders=self.folders)  # a link may lead anywhere
                return there
        elif template is not None:
            path, found = self._path(template.format(id=self.id))
            if found and path.is_file():
                return LabelMap(path, labels or {})
        raise _fault(
            "NO_MASK",
            self.id,
            self.where,
            "no mask file" + (f" at {template}" if template else " named"),
            "a mask column, mask:<region> columns, or the option masks",
            "segment the scan, or leave it out",
        )

    def _label_map(self) -> Mapping[str, tuple[int, ...]]:
        if self.manifest.label_map is None:
            raise ConfigError(
                f"{self.where}: the column mask names a multilabel file, but the option label_map is not set. "
                "Fix: label_map: totalsegmentator, or a mapping region -> label values."
            )
        return self.manifest.label_map

    def _path(self, text: str) -> tuple[Path, bool]:
        """A file by its path in the table, and whether it is there."""
        root, folders = self.manifest.root, self.folders
        for start in self.manifest.starts if text else ():
            with contextlib.suppress(DataFault):
                if _is_there(path := inside(root, text, self.id, start, folders)):
                    return path, True
        return inside(root, text, self.id, folders=folders), False

    def _file(self, key: Key, code: str) -> Path:
        text = self.cells.get(key, "")
        path, there = self._path(text)
        if there:
            return path
        name = f"{key.kind}:{key.item}" if key.item else key.kind
        raise _fault(
            code,
            self.id,
            self.where,
            f"{name} is {text!r}: " + ("no such file" if text else "no file named"),
            f"a file below {self.manifest.root}",
            "correct the path, or copy the file there",
        )


def _is_there(path: Path) -> bool:
    """Whether it is a file, or the folder of a DICOM study."""
    return path.is_file() or is_dicom(path)


def _fault(code: str, study: str, where: str, found: str, expected: str, fix: str) -> DataFault:
    return DataFault.of(code, study=study, path=where, found=found, expected=expected, fix=fix)


def _label_values(labels: str | dict[str, list[int]] | None, regions: RegionSet) -> dict[str, tuple[int, ...]] | None:
    """Region -> label values, from the option `label_map`."""
    if labels is None:
        return None
    if isinstance(labels, str):
        known = {"totalsegmentator": regions.from_totalsegmentator(), "totalsegmentator_v1": version_1(regions)}
        if labels.lower() not in known:
            hint = did_you_mean(labels, list(known))
            raise ConfigError(
                f"Manifest: label_map is {labels!r}.{hint} Expected: {' or '.join(known)}, or region -> values."
            )
        values = dict(known[labels.lower()])
    else:
        values = {regions.canonical(region): tuple(numbers) for region, numbers in labels.items()}
    if not values:
        raise ConfigError("Manifest: label_map gives no region any label value. Fix: name at least one region.")
    return values


def _check_template(masks: str | None, labels: object) -> None:
    if masks is None:
        return
    try:
        masks.format(id="a", region="b")
    except (KeyError, IndexError, ValueError):
        raise ConfigError(f"Manifest: masks is {masks!r}: only {{id}} and {{region}} may stand in braces.") from None
    if "{region}" in masks and masks.rpartition("/")[2].count("{region}") != masks.count("{region}"):
        raise ConfigError(
            f"Manifest: masks is {masks!r}: {{region}} may stand in the file's name alone, not in a folder."
        )
    if "{id}" not in masks:
        raise ConfigError(f"Manifest: masks is {masks!r}: {{id}} must stand in it, or all studies share one file.")
    if "{region}" not in masks and labels is None:
        raise ConfigError(
            f"Manifest: masks is {masks!r}, one file a study, but label_map is not set. "
            "Fix: label_map: totalsegmentator or a mapping region -> values; or put {region} into the template."
        )
