"""Samples of studies: which regions, in which order, with which text and views. Stateless: f(study, seed, epoch)."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from reg2rg.core.task import Views
from reg2rg.data.batch import Sample
from reg2rg.data.order import EVAL_SEED, kept_regions, scheduled_regions, shuffled_regions
from reg2rg.data.prompt import EncodedSample, PromptEncoder
from reg2rg.store.attributes import Attributes, vector
from reg2rg.store.views import StudyViews

_CHARACTERS_PER_TOKEN = 4
TokenForms = Mapping[str, tuple[int, int, npt.DTypeLike]]
"""View that comes as tokens -> their number, channels and type."""


class ViewSource(Protocol):
    """Where views come from; the store is one."""

    def views(self, study: str, views: Views, regions: Sequence[str], want: Collection[str]) -> StudyViews:
        """Views of some regions, in the order asked for."""

    def attributes(self, study: str) -> Attributes:
        """What is measured of the study's regions."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A study as samples need it.

    Attributes:
        study: its id.
        regions: the regions that may be prompted, in the order of the region set. None for a report as a whole.
        reports: their texts, ``""`` where there is none; without regions the whole report alone.
        others: key and text of a tail; ``None`` for a report without one.
    """

    study: str
    regions: tuple[str, ...]
    reports: tuple[str, ...]
    others: tuple[tuple[str, str], ...] | None = None


class ViewCache:
    """Views in memory that this process and the workers forked from it share. Bounded; the first studies go in.

    Args:
        regions: number of regions of each study.
        want: views that are read.
        size: (H, W, D) of a view.
        limit: bytes at most. Pages are taken from the system only when a study is written to them.
        tokens: view that comes as tokens -> their number, channels and type.
    """

    def __init__(
        self,
        regions: Sequence[int],
        want: Collection[str],
        size: tuple[int, int, int],
        limit: int,
        tokens: TokenForms | None = None,
    ) -> None:
        self._arguments = (tuple(regions), frozenset(want), tuple(size), limit, tokens)
        plain: dict[str, tuple[tuple[int, ...], npt.DTypeLike]] = {
            name: (tuple(size), np.int16) for name in ("texture", "geometry", "global") if name in want
        }
        forms = plain | {name: (shape, kind) for name, (*shape, kind) in (tokens or {}).items() if name in want}
        self._forms = [
            {
                name: (tuple(shape) if name == "global" else (count, *shape), np.dtype(kind))
                for name, (shape, kind) in forms.items()
            }
            for count in regions
        ]
        lengths = [sum(int(np.prod(shape)) * kind.itemsize for shape, kind in forms.values()) for forms in self._forms]
        ends = np.cumsum(lengths)
        self._starts = [int(end) - length for end, length in zip(ends, lengths, strict=True)]
        self.held = int(np.searchsorted(ends, limit, side="right"))
        """Number of studies that fit."""
        self._bytes = mmap.mmap(-1, max(1, int(ends[self.held - 1]) if self.held else 0))
        self._filled = mmap.mmap(-1, max(1, self.held))

    def __reduce__(self) -> tuple[Any, ...]:
        """A worker that was spawned, not forked, gets a cache of its own."""
        return type(self), self._arguments

    def get(self, index: int) -> dict[str, npt.NDArray[Any]] | None:
        """Views of a study by name, or ``None`` if it is not in here (yet)."""
        return self._arrays(index) if index < self.held and self._filled[index] else None

    def put(self, index: int, views: Mapping[str, npt.NDArray[Any]]) -> None:
        """Keep the views of a study, if it is one of those that fit."""
        if index < self.held:
            for name, array in self._arrays(index).items():
                array[...] = views[name]
            self._filled[index] = 1

    def _arrays(self, index: int) -> dict[str, npt.NDArray[Any]]:
        arrays, start = {}, self._starts[index]
        for name, (shape, kind) in self._forms[index].items():
            count = int(np.prod(shape))
            arrays[name] = np.frombuffer(self._bytes, kind, count, start).reshape(shape)
            start += kind.itemsize * count
        return arrays


class StudySamples:
    """Makes the samples of one split.

    Args:
        entries: its studies.
        source: where views come from.
        views: their settings.
        encoder: writes prompt and target.
        seed: seed of the run; validation and test use a fixed one.
        train: the region order depends on the epoch.
        shuffled: shuffle the regions; otherwise they come in the order of the region set.
        schedule: curriculum: first epoch -> most regions a sample; see `scheduled_regions`.
        dropout: share of the training samples that have some of their regions only; see `kept_regions`.
        with_target: append the report, labelled.
        cache_bytes: memory for views; 0 keeps none.
        augmented: (seed, epoch) -> where the views of that epoch come from; for training alone.
        tokens: views that `source` gives as tokens.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        source: ViewSource,
        views: Views,
        encoder: PromptEncoder,
        *,
        seed: int = 0,
        train: bool = False,
        shuffled: bool = True,
        schedule: Mapping[int, int] | None = None,
        dropout: float = 0.0,
        with_target: bool = True,
        cache_bytes: int = 0,
        augmented: Callable[[int, int], ViewSource] | None = None,
        tokens: TokenForms | None = None,
    ) -> None:
        self.augmented = augmented if train else None
        self.entries, self.source, self.views, self.encoder = list(entries), source, views, encoder
        self.seed, self.train = (seed if train else EVAL_SEED), train
        self.dropout = dropout if train else 0.0
        self.shuffled, self.schedule, self.with_target = shuffled, (schedule if train else None), with_target
        self.want = encoder.counts.views
        self._vectors: dict[str, Mapping[str, npt.NDArray[np.float32]]] | None = (
            {} if encoder.counts.attributes else None
        )
        lengths = [len(entry.regions) for entry in self.entries]
        self.cache = ViewCache(lengths, self.want, views.size, cache_bytes, tokens) if cache_bytes else None

    def __len__(self) -> int:
        return len(self.entries)

    def study(self, index: int) -> str:
        """Id of a study."""
        return self.entries[index].study

    def order(self, index: int, epoch: int) -> tuple[str, ...]:
        """Regions of a study in slot order. A curriculum and dropout take the first of the shuffled ones."""
        entry = self.entries[index]
        epoch = epoch if self.train else 0
        count = len(entry.regions)
        bound = scheduled_regions(self.schedule, epoch)
        if self.dropout and count:
            bound = kept_regions(min(bound or count, count), self.dropout, self.seed, epoch, entry.study)
        if not self.shuffled and (bound is None or bound >= len(entry.regions)):
            return entry.regions
        names = shuffled_regions(entry.regions, self.seed, epoch, entry.study)[:bound]
        return names if self.shuffled else tuple(name for name in entry.regions if name in names)

    def sample(self, index: int, epoch: int) -> Sample:
        """Make one sample.

        Raises:
            DataFault: the study cannot be read, or its report does not fit.
            ConfigError: its prompt alone does not fit.
        """
        names, texts, encoded = self.written(index, epoch)
        found = self._views(index, names, epoch)
        views = (found.get("texture"), found.get("geometry"), found.get("global"))
        entry = self.entries[index]
        measured = self._measured(index, names)
        return Sample(entry.study, names, texts, encoded, *views, attributes=measured, others=entry.others)

    def written(self, index: int, epoch: int) -> tuple[tuple[str, ...], tuple[str, ...], EncodedSample]:
        """Regions in slot order, their texts, and both as tokens: a sample without its views.

        Raises:
            DataFault: the report does not fit.
            ConfigError: the prompt alone does not fit.
        """
        entry, names = self.entries[index], self.order(index, epoch)
        if not entry.regions:
            return names, entry.reports, self.encoder.encode_whole(entry.reports[0] if self.with_target else None)
        by_region = dict(zip(entry.regions, entry.reports, strict=True))
        texts = tuple(by_region[name] for name in names)
        others = None if entry.others is None else dict(entry.others)
        return names, texts, self.encoder.encode_sample(names, texts, self.with_target, others)

    def lengths(self, epoch: int) -> list[int]:
        """How long each study's sample is, roughly, in tokens: what batches are bucketed by."""
        bound = scheduled_regions(self.schedule, epoch if self.train else 0)
        region = self.encoder.counts.region + 12  # tags, "The region 3 is", ". "
        lengths = []
        for entry in self.entries:
            count = min(len(entry.regions), bound or len(entry.regions))
            characters = sum(map(len, entry.reports)) * (count or 1) // max(1, len(entry.regions))
            characters += sum(len(key) + len(text) + 4 for key, text in entry.others or ())
            lengths.append(count * region + characters // _CHARACTERS_PER_TOKEN)
        return lengths

    def _measured(self, index: int, names: tuple[str, ...]) -> npt.NDArray[np.float32] | None:
        """Attributes in slot order; each study's are read once."""
        if self._vectors is None or not names:
            return None
        entry = self.entries[index]
        if entry.study not in self._vectors:
            measured = self.source.attributes(entry.study)
            self._vectors[entry.study] = {name: vector(measured, name) for name in entry.regions}
        return np.stack([self._vectors[entry.study][name] for name in names])

    def _views(self, index: int, names: tuple[str, ...], epoch: int) -> dict[str, Any]:
        if not self.want:
            return {}
        entry = self.entries[index]
        if self.augmented is not None:
            return _by_name(self.augmented(self.seed, epoch).views(entry.study, self.views, names, self.want))
        if self.cache is None or index >= self.cache.held:
            return _by_name(self.source.views(entry.study, self.views, names, self.want))
        kept = self.cache.get(index)
        if kept is None:
            kept = _by_name(self.source.views(entry.study, self.views, entry.regions, self.want))
            self.cache.put(index, kept)
        places = [entry.regions.index(name) for name in names]
        return {name: array if name == "global" else array[places] for name, array in kept.items()}


def _by_name(views: StudyViews) -> dict[str, Any]:
    named = {"texture": views.texture, "geometry": views.geometry, "global": views.global_}
    return {name: array for name, array in named.items() if array is not None}
