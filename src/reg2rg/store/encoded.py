"""Tokens of frozen encoders, made once by ``reg2rg data encode``: one file a study and view, checked as the store's.

``<root>/encoded/<view>-<key>/<study>.r2g``, where the key is a digest of all that decides the tokens beside the study:
the view and its settings, the encoder's classes, what they were built with, every weight, and the precision. It stands
in words in ``encoder.json`` beside them. Each file names the key of the study's entry, so that tokens of another scan
or other masks are noticed; they are refused by name, and made anew by the next ``encode``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from reg2rg.core.errors import DataFault
from reg2rg.core.files import write_json
from reg2rg.core.task import Views
from reg2rg.store.attributes import Attributes
from reg2rg.store.container import Header, read_header, read_into, verify, write_container
from reg2rg.store.files import chosen_regions, file_name
from reg2rg.store.index import INDEX, Listing, load_index, save_index
from reg2rg.store.store import Store
from reg2rg.store.views import StudyViews, ViewName, views_key

Facts = Mapping[str, Any]
"""All that decides an encoder's tokens, in plain values; ``tokens`` and ``channels`` are among them."""
Bits = Literal[16, 8]
Tokens = npt.NDArray[np.float16] | npt.NDArray[np.float32]

FOLDER = "encoded"
FORMAT = 1
"""Version of the files; a change makes `encode` write them anew."""
_IMAGE = "image"
_LARGEST = 127
_ENCODE = "run `reg2rg data encode` with the config of this model"


@dataclass(frozen=True, slots=True)
class Encoding:
    """Which tokens of a study: of what view, by which encoder, how exactly.

    Attributes:
        view: that the encoder looks at.
        views: its settings.
        encoder: what is known of the encoder.
        bits: 16, float16; 8, whole numbers with a float32 step a token.
    """

    view: ViewName
    views: Views
    encoder: Facts
    bits: Bits = 16

    @property
    def key(self) -> str:
        """Digest of it all."""
        facts = [FORMAT, self.view, views_key(self.views), dict(self.encoder), self.bits]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    def facts(self) -> dict[str, Any]:
        """The same in words."""
        return {"key": self.key, "view": self.view, "bits": self.bits, "views": asdict(self.views), **self.encoder}


class EncodedView:
    """The tokens of one view of a store's studies.

    Args:
        store: whose studies they are.
        encoding: which tokens.
    """

    def __init__(self, store: Store, encoding: Encoding) -> None:
        self.store, self.encoding, self.key = store, encoding, encoding.key
        self.folder = store.root / FOLDER / f"{encoding.view}-{self.key}"
        self._index: dict[str, Listing] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Tokens and channels of a volume."""
        return int(self.encoding.encoder["tokens"]), int(self.encoding.encoder["channels"])

    @property
    def dtype(self) -> type[np.float16] | type[np.float32]:
        """Of what `read` gives."""
        return np.float16 if self.encoding.bits == 16 else np.float32

    def path(self, study: str) -> Path:
        """File of a study."""
        return self.folder / file_name(study)

    @property
    def is_indexed(self) -> bool:
        """Whether there is an index; one that is there is as the files are."""
        return (self.folder / INDEX).exists()

    # Writing

    def begin(self) -> None:
        """Say what the folder holds, and forget its index before files change."""
        self._index = None
        if not (self.folder / "encoder.json").exists():
            write_json(self.folder / "encoder.json", self.encoding.facts())
        (self.folder / INDEX).unlink(missing_ok=True)

    def end(self) -> None:
        """Write the index, a mere cache of the files' headers."""
        self._index = None
        save_index(self.folder, load_index(self.folder, "."))

    def write(self, study: str, key: str, regions: Sequence[str], tokens: npt.NDArray[np.float32]) -> int:
        """Write a study's tokens, atomically.

        Args:
            study: id.
            key: of the entry that they were made from.
            regions: one for each row of `tokens`; none for the view of the whole image, which is one row.
            tokens: (N, T, C).

        Returns:
            bytes of the file.

        Raises:
            DataFault: ``NON_FINITE``, or numbers that float16 does not hold.
        """
        peak = float(np.abs(tokens).max(initial=0.0))
        if not peak <= float(np.finfo(np.float16).max):
            raise DataFault.of(
                "NON_FINITE",
                found=f"tokens of the {self.encoding.view} view up to {peak}",
                expected="numbers that float16 holds",
                fix="look at the encoder's weights; data.feature_bits: 8 holds larger ones"
                if np.isfinite(peak)
                else "look at the encoder's weights and at the scan",
                study=study,
            )
        arrays: list[tuple[str, npt.NDArray[Any], str]] = []
        for name, row in zip(regions if self.encoding.view != "global" else (_IMAGE,), tokens, strict=True):
            if self.encoding.bits == 16:
                arrays.append((f"tokens/{name}", row.astype(np.float16), "view"))
                continue
            step = np.abs(row).max(axis=1, keepdims=True) / np.float32(_LARGEST)
            whole = np.rint(row / np.where(step > 0, step, 1)).astype(np.int8)
            arrays += [(f"step/{name}", step, "view"), (f"tokens/{name}", whole, "share")]
        meta = {"format": FORMAT, "kind": "tokens", "id": study, "key": key, "encoding": self.key}
        return write_container(self.path(study), {**meta, "regions": list(regions)}, arrays)

    # Reading

    def index(self) -> dict[str, Listing]:
        """Studies that have tokens, and of which entry; what is damaged is not among them."""
        if self._index is None:
            self._index = load_index(self.folder, ".")
        return self._index

    def state(self, study: str, key: str, regions: Sequence[str], *, full: bool = False) -> str:
        """``"good"``, ``"absent"``, ``"stale"`` (of another entry or other regions) or ``"damaged"``.

        Args:
            study: id.
            key: of its entry.
            regions: that it has.
            full: check every byte.
        """
        try:
            meta = (verify if full else read_header)(self.path(study)).meta
        except FileNotFoundError:
            return "absent"
        except DataFault:
            return "damaged"
        return "good" if self._is_of(meta, key) and set(regions) <= set(meta["regions"]) else "stale"

    def lacking(self, studies: Mapping[str, Collection[str]]) -> dict[str, str]:
        """Study whose tokens cannot be used -> ``absent`` or ``stale``; by the index, without opening files.

        Args:
            studies: id -> regions that are wanted of it.
        """
        known, entries, found = self.index(), self.store.index(), dict[str, str]()
        whole = self.encoding.view == "global"
        for study, regions in studies.items():
            row = known.get(study)
            if row is None:
                found[study] = "damaged" if self.path(study).exists() else "absent"
            elif row.key != entries[study].key or not (whole or set(regions) <= set(row.regions)):
                found[study] = "stale"
        return found

    def read(self, study: str, regions: Sequence[str], key: str) -> Tokens:
        """Tokens of a study, every byte of them checked.

        Args:
            study: id.
            regions: in the wanted order; of the whole image all the same.
            key: of the entry whose tokens are wanted.

        Returns:
            (R, T, C), of the whole image (T, C); float16, or float32 where they are kept in 8 bits.

        Raises:
            DataFault: ``NOT_ENCODED``: absent or of another entry; ``STORE_CORRUPT``.
        """
        path = self.path(study)
        try:
            header = read_header(path)
            if not self._is_of(header.meta, key):
                found = "tokens of an older entry (another scan, other masks or settings)"
                raise self._fault("NOT_ENCODED", study, found, f"{_ENCODE}: it makes them anew")
            return self._read(path, header, (_IMAGE,) if self.encoding.view == "global" else regions)
        except FileNotFoundError:
            raise self._fault("NOT_ENCODED", study, "none", _ENCODE) from None
        except DataFault as fault:
            if fault.code != "STORE_CORRUPT":
                raise
            fix = f"{_ENCODE} and --check-contents: it makes damaged ones anew"
            raise self._fault("STORE_CORRUPT", study, "damaged ones", fix) from fault

    def _read(self, path: Path, header: Header, names: Sequence[str]) -> Tokens:
        whole = self.encoding.view == "global"
        names = names if whole else chosen_regions(header.meta, names)
        if self.encoding.bits == 16:
            halves = np.empty((len(names), *self.shape), np.float16)
            read_into(path, header, {f"tokens/{name}": row for name, row in zip(names, halves, strict=True)})
            return halves[0] if whole else halves
        parts = np.empty((len(names), *self.shape), np.int8)
        steps = np.empty((len(names), self.shape[0], 1), np.float32)
        targets: dict[str, npt.NDArray[Any]] = {f"tokens/{n}": row for n, row in zip(names, parts, strict=True)}
        read_into(path, header, targets | {f"step/{n}": row for n, row in zip(names, steps, strict=True)})
        tokens = np.multiply(parts, steps, dtype=np.float32)
        return tokens[0] if whole else tokens

    def _is_of(self, meta: Mapping[str, Any], key: str) -> bool:
        return meta["format"] == FORMAT and meta.get("encoding") == self.key and meta["key"] == key

    def _fault(self, code: str, study: str, found: str, fix: str) -> DataFault:
        expected = f"tokens of its {self.encoding.view} view by this encoder"
        return DataFault.of(code, found=found, expected=expected, fix=fix, path=self.path(study), study=study)


class EncodedStore:
    """A store, some views of which come as tokens: a source of samples.

    Args:
        store: gives all else.
        encoded: view -> its tokens.
    """

    def __init__(self, store: Store, encoded: Mapping[ViewName, EncodedView]) -> None:
        self.store, self.encoded = store, dict(encoded)

    def attributes(self, study: str) -> Attributes:
        """What is measured of a study's regions."""
        return self.store.attributes(study)

    def views(self, study: str, views: Views, regions: Sequence[str], want: Collection[str]) -> StudyViews:
        """Views of some regions, as tokens where there are some.

        Raises:
            DataFault: as `Store.views` and `EncodedView.read`.
        """
        live = frozenset(want) - self.encoded.keys()
        found = StudyViews(tuple(regions), None, None, None)
        if live:
            found = self.store.views(study, views, regions, live)
        self.store.regions(study)  # refuses a study that is not there
        key = self.store.index()[study].key
        tokens = {name: one.read(study, regions, key) for name, one in self.encoded.items() if name in want}
        return StudyViews(
            tuple(regions),
            tokens.get("texture", found.texture),
            tokens.get("geometry", found.geometry),
            tokens.get("global", found.global_),
        )
