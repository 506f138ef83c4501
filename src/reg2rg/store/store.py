"""The store: one file a study with native detail, and beside it, if asked, its views ready to use.

```
<root>/native/<study>.r2g              the scan cropped to its foreground (int16) and boxed masks, losslessly packed;
                                       or, where views alone are kept, what is told of them; or a grid of features
<root>/views/<settings>/<study>.r2g    views of stated settings, ready to be unpacked into a batch
<root>/attributes/<study>.json         what is measured of each region, if it was
<root>/encoded/<view>-<key>/<study>.r2g  tokens of frozen encoders, if they were made (`reg2rg.store.encoded`)
<root>/index.json                      regions of every study, a mere cache of the files' headers
```

A file appears under its name only when it is whole, and carries digests of all its bytes; an entry is either as it was
written or it raises `STORE_CORRUPT`. Each file names the key of what it was made from, so that a changed input or
setting is noticed. NumPy alone: no torch is imported here.
"""

from __future__ import annotations

import glob
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from reg2rg.core.errors import DataFault
from reg2rg.core.regions import RegionSet
from reg2rg.core.task import Views
from reg2rg.core.types import RegionVolume
from reg2rg.scans.features import FeatureVolume
from reg2rg.scans.grid_layout import GridLayout
from reg2rg.scans.intensity import NOT_HU
from reg2rg.store.attributes import (
    ATTRIBUTES_FORMAT,
    Attributes,
    attributes_key,
    measure,
    read_attributes,
    write_attributes,
)
from reg2rg.store.container import SUFFIX, Header, read_header, verify
from reg2rg.store.crop import Detail, crop_to_foreground
from reg2rg.store.files import file_name, read_native, read_views, write_native, write_views
from reg2rg.store.grid_files import KIND, read_grid_views, write_grid
from reg2rg.store.index import INDEX, NATIVE_FORMAT, VIEWS_FORMAT, Listing, is_index, load_index, save_index
from reg2rg.store.views import ALL_VIEWS, StudyViews, compute_views, views_key, wanted_views


@dataclass(frozen=True, slots=True)
class Entry:
    """A study of the store with its native detail.

    Attributes:
        id: study id.
        key: digest of the inputs and settings that it was made from.
        detail: the cropped scan and the masks.
    """

    id: str
    key: str
    detail: Detail


class Store:
    """A folder of prepared studies.

    Args:
        root: the folder; made on the first write.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._index: dict[str, Listing] | None = None

    # Reading

    def studies(self) -> tuple[str, ...]:
        """Ids of all studies, sorted."""
        return tuple(self.index())

    def regions(self, study: str) -> tuple[str, ...]:
        """Names of a study's regions, in the order of the region set; no file of the study is opened.

        Raises:
            DataFault: ``NOT_PREPARED``.
        """
        try:
            return self.index()[study].regions
        except KeyError:
            raise self._missing(study) from None

    def read(self, study: str, regions: Sequence[str] | None = None) -> Entry:
        """Native detail of a study, every byte checked.

        Args:
            study: id.
            regions: names of the masks to unpack; all by default.

        Raises:
            DataFault: ``NOT_PREPARED``, ``STORE_CORRUPT``.
            ConfigError: a region that the study does not have.
        """
        path = self.native_path(study)
        header = self._header(path, study)
        return Entry(study, header.meta["key"], read_native(path, header, regions))

    def views(
        self,
        study: str,
        views: Views,
        regions: Sequence[str] | None = None,
        want: Collection[str] = ALL_VIEWS,
    ) -> StudyViews:
        """Views of a study: unpacked where they were baked with these settings, else computed from native detail.

        Args:
            study: id.
            views: settings.
            regions: names in the wanted order; all of the study by default.
            want: any of ``texture``, ``geometry``, ``global``.

        Raises:
            DataFault: ``NOT_PREPARED`` (also where native detail would be needed and was not kept), ``STORE_CORRUPT``.
            ConfigError: a region that the study does not have.
        """
        asked = wanted_views(want)
        if views.features:
            path = self.native_path(study)
            return read_grid_views(path, self._header(path, study), views, regions, self.root)
        path = self.views_path(study, views)
        header = self._baked(path, study)
        if header is None:
            return compute_views(views, self.read(study, regions), regions, asked)
        return read_views(path, header, regions, asked, views.size)

    def attributes(self, study: str) -> Attributes:
        """What was measured of a study's regions.

        Raises:
            DataFault: ``NOT_PREPARED``: nothing was measured, on other inputs, or by another version.
        """
        path = self.attributes_path(study)
        known = self.index().get(study)
        if known is None:
            raise self._missing(study)
        if attributes_key(path) != (known.key, ATTRIBUTES_FORMAT):
            found, fix = "no attributes of this entry", "run `reg2rg data prepare` again, without --views-only"
            meta = self._header(self.native_path(study), study).meta
            if meta["kind"] == KIND or any(NOT_HU in note for note in meta["notes"]):
                found, fix = (
                    "an entry that is not in Hounsfield units",
                    "measure scans in HU, or set model.attributes to null",
                )
            expected = f"attributes of format {ATTRIBUTES_FORMAT}, measured on the same inputs"
            raise DataFault.of("NOT_PREPARED", found=found, expected=expected, fix=fix, path=path, study=study)
        return read_attributes(path)

    def index(self) -> dict[str, Listing]:
        """Regions and keys of all studies by id, from ``index.json`` and, for what it lacks, from the files."""
        if self._index is None:
            self._index = load_index(self.root)
        return self._index

    # Writing

    def write(
        self, study: str, key: str, source: RegionVolume | Detail, views: Views | None = None, *, native: bool = True
    ) -> Detail:
        """Write a study's native detail, and its views if asked; atomically, a kill leaves the old file or the new one.

        Args:
            study: id, used as the file name.
            key: digest of inputs and settings.
            source: the scan with its masks.
            views: settings of views to bake.
            native: keep native detail; without it nothing but these views can be had from the entry.

        Returns:
            the native detail.

        Raises:
            DataFault: a scan without foreground, or with masks that all lie outside it.
        """
        detail = crop_to_foreground(source) if isinstance(source, RegionVolume) else source
        self.drop_index()
        write_native(self.native_path(study), study, key, detail, whole=native)
        if views is not None:
            self.bake(study, key, detail, views)
        return detail

    def write_features(self, study: str, key: str, volume: FeatureVolume, layout: GridLayout) -> None:
        """Write features that take the place of a study's scan, atomically.

        Args:
            study: id, used as the file name.
            key: digest of inputs and settings.
            volume: features and weights of regions.
            layout: says what made them.
        """
        self.drop_index()
        write_grid(self.native_path(study), study, key, volume, layout)

    def bake(self, study: str, key: str, detail: Detail, views: Views) -> None:
        """Compute and write the views of one setting.

        Args:
            study: id.
            key: key of the native entry that the views belong to.
            detail: its native detail.
            views: settings.
        """
        write_views(self.views_path(study, views), study, key, detail, views)

    def measure(self, study: str, key: str, detail: Detail, regions: RegionSet) -> None:
        """Measure the regions of an entry and write that.

        Args:
            study: id.
            key: key of the native entry that the attributes belong to.
            detail: its native detail.
            regions: the region set.
        """
        write_attributes(self.attributes_path(study), study, key, measure(detail, regions))

    def write_index(self) -> None:
        """Write ``index.json`` anew from the files, atomically."""
        self._index = None
        studies = load_index(self.root)
        save_index(self.root, studies)
        self._index = studies

    def has_index(self) -> bool:
        """Whether there is an index that can be read; one that is there is as the files are."""
        return is_index(self.root)

    def drop_index(self) -> None:
        """Forget the index before an entry changes, so that it never tells of an older one."""
        self._index = None
        (self.root / INDEX).unlink(missing_ok=True)

    # Checking

    def state(self, study: str, key: str, views: Views | None, *, full: bool, native: bool = True) -> str:
        """Whether an entry can be kept.

        Args:
            study: id.
            key: what its key should be.
            views: settings whose baked views must be there too.
            full: check every byte, not the headers alone.
            native: native detail must be there.

        Returns:
            ``"good"``, ``"absent"``, ``"stale"`` (other inputs or settings, or lacking what is not made without the
            inputs), ``"corrupt"`` or ``"unbaked"`` (native detail is good, its views are not).
        """
        check = verify if full else read_header
        try:
            meta = check(self.native_path(study)).meta
        except FileNotFoundError:
            return "absent"
        except DataFault:
            return "corrupt"
        if meta["key"] != key or meta["format"] != NATIVE_FORMAT or (native and not meta["whole"]):
            return "stale"
        if views is None:
            return "good"
        lacking = "unbaked" if meta["whole"] else "stale"
        try:
            baked = check(self.views_path(study, views)).meta
        except FileNotFoundError:
            return lacking
        except DataFault:
            return "corrupt"
        return "good" if baked["key"] == key and baked["format"] == VIEWS_FORMAT else lacking

    def measured(self, study: str, key: str) -> bool:
        """Whether the attributes of an entry with this key are there."""
        return attributes_key(self.attributes_path(study)) == (key, ATTRIBUTES_FORMAT)

    def describe(self, study: str, views: Views | None) -> tuple[tuple[str, ...], int]:
        """Regions of an entry, and bytes of its files."""
        header = read_header(self.native_path(study))
        size = header.size + (self.views_path(study, views).stat().st_size if views is not None else 0)
        return tuple(header.meta["regions"]), size

    def remove(self, study: str) -> None:
        """Remove an entry, all its baked views and its tokens."""
        self.drop_index()
        name = file_name(study)
        for path in [
            self.native_path(study),
            self.attributes_path(study),
            *self.root.glob(f"views/*/{glob.escape(name)}"),
            *self.root.glob(f"encoded/*/{glob.escape(name)}"),
        ]:
            path.unlink(missing_ok=True)

    def native_path(self, study: str) -> Path:
        """File of a study's native detail."""
        return self.root / "native" / file_name(study)

    def views_path(self, study: str, views: Views) -> Path:
        """File of a study's baked views of one setting."""
        return self.root / "views" / views_key(views) / file_name(study)

    def attributes_path(self, study: str) -> Path:
        """File of a study's attributes."""
        return self.root / "attributes" / f"{file_name(study).removesuffix(SUFFIX)}.json"

    # Details

    def _header(self, path: Path, study: str) -> Header:
        try:
            return read_header(path)
        except FileNotFoundError:
            raise self._missing(study) from None

    def _baked(self, path: Path, study: str) -> Header | None:
        """Header of baked views, if they are there and belong to the native entry (a kill can part the two)."""
        try:
            header = read_header(path)
        except FileNotFoundError:
            return None
        if header.meta["format"] != VIEWS_FORMAT:
            return None
        known = self.index().get(study)
        return header if known is None or known.key == header.meta["key"] else None

    def _missing(self, study: str) -> DataFault:
        return DataFault.of(
            "NOT_PREPARED",
            found=f"no entry in the store {self.root}",
            expected="a prepared study",
            fix="run `reg2rg data prepare` for this data set; summary.json in the store lists what was skipped",
            study=study,
        )
