"""Samples, and batches that pack the regions of all their studies: what travels from workers to the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reg2rg.data.prompt import IGNORED, REGION_CLOSE, EncodedSample, TokenCounts, rebase_sources
from reg2rg.data.scaling import fraction, to_input

Views = npt.NDArray[np.int16]
Features = npt.NDArray[np.float16] | npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sample:
    """One study in the slot order of this epoch.

    Attributes:
        study: its id.
        regions: region names in slot order; none for a report as a whole.
        reports: their texts; ``""`` for a region that is prompted without having one. Without regions, the whole report
            alone.
        encoded: prompt, and target where there is one.
        texture: (R, H, W, D) int16, slot order, or ``None`` when no encoder looks at it; or (R, T, C) floats, tokens of
            a frozen encoder that were made before.
        geometry: (R, H, W, D) int16, or (R, T, C) tokens, or ``None``.
        global_: (H, W, D) int16, (H, W, D, C) floats of features, (T, C) tokens, or ``None``.
        attributes: (R, A) float32, slot order, what is measured of each region (`reg2rg.store.attributes.vector`), or
            ``None``.
        others: key and text of the report's tail, ``None`` where it has none.
    """

    study: str
    regions: tuple[str, ...]
    reports: tuple[str, ...]
    encoded: EncodedSample
    texture: Views | Features | None = None
    geometry: Views | Features | None = None
    global_: Views | Features | None = None
    attributes: npt.NDArray[np.float32] | None = None
    others: tuple[tuple[str, str], ...] | None = None


@dataclass  # nothing changes one, but it is not frozen: Lightning's precision plugins copy it field by field
class Batch:
    """Several samples. Rows of text are padded on the right (`prompts` pads on the left, for generation).

    Attributes:
        texture: (N, 1, H, W, D), the N regions of all studies one after another; int16 on the way, float in [-1, 1]
            once scaled on the device. ``None`` without a texture encoder. Or (N, T, C), tokens that were made before.
        geometry: (N, 1, H, W, D), int16 or fractions; or (N, T, C); or ``None``.
        global_: (B, 1, H, W, D), as texture; or (B, C, H, W, D) features, float32 once scaled; or (B, T, C); or
            ``None``.
        input_ids: (B, L) token ids, the pad id at slots and in padding.
        attention_mask: (B, L) bool, false in padding.
        labels: (B, L) token ids, -100 where there is no loss; not shifted.
        visual_rows: (M,) row of `input_ids` of every slot.
        visual_cols: (M,) its column.
        visual_source: (M,) row of the table ``[4 tags | B * Tg global | N * Tr region]`` that fills it.
        label_region: (K,) for each label, in row-major order: index among the N regions, -1 for EOS.
        study_ids: ids of the B studies.
        regions: names in slot order, for each study.
        reports: their texts, for each study; of a study without regions the whole report alone.
        sentences_cut: sentences that did not fit, over all studies.
        others: key -> text of each study's tail, ``None`` where it has none; empty if no study has one.
        attributes: (N, 1, A, 1, 1) float32, what is measured of each region, shaped as encoders take it; or ``None``.
        blocks: (B, L), 0 in the prompt, then the number of the paragraph from 1, -1 in padding, where each paragraph
            sees the prompt and itself alone; or ``None``.
    """

    texture: Tensor | None
    geometry: Tensor | None
    global_: Tensor | None
    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    visual_rows: Tensor
    visual_cols: Tensor
    visual_source: Tensor
    label_region: Tensor
    study_ids: tuple[str, ...]
    regions: tuple[tuple[str, ...], ...]
    reports: tuple[tuple[str, ...], ...]
    sentences_cut: int = 0
    others: tuple[dict[str, str] | None, ...] = ()
    attributes: Tensor | None = None
    blocks: Tensor | None = None

    def __len__(self) -> int:
        return len(self.study_ids)

    @property
    def positions(self) -> Tensor:
        """(B,), how many each row takes: of independent paragraphs, those of the prompt and of the longest one."""
        if self.blocks is None:
            return self.attention_mask.sum(1)
        counts = torch.zeros(len(self), int(self.blocks.max()) + 1, dtype=torch.long, device=self.blocks.device)
        counts.scatter_add_(1, self.blocks.clamp(min=0), (self.blocks >= 0).long())
        return counts[:, 0] + (counts[:, 1:].amax(1) if counts.shape[1] > 1 else 0)

    @property
    def region_names(self) -> tuple[str, ...]:
        """Names of the N packed regions."""
        return tuple(name for names in self.regions for name in names)

    def tail(self, place: int) -> dict[str, str] | None:
        """The tail's texts of the study at a place, ``None`` where its report has none."""
        return self.others[place] if self.others else None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """The batch on another device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self, device: str | None = None) -> Self:
        """The batch in page-locked memory, from where a GPU fetches it without waiting."""
        return self._each(lambda tensor: tensor.pin_memory())

    def scaled(self, window: tuple[int, int]) -> Self:
        """The batch with views as model input; views that are floating point already stay as they are.

        Args:
            window: HU range that becomes [-1, 1].
        """
        views = {"texture": self.texture, "geometry": self.geometry, "global_": self.global_}
        changes: dict[str, Any] = {
            name: fraction(view) if name == "geometry" else to_input(view, window)
            for name, view in views.items()
            if view is not None and not view.is_floating_point()
        }
        if (
            self.global_ is not None and self.global_.ndim == 5 and self.global_.dtype == torch.float16
        ):  # as they travel
            changes["global_"] = self.global_.float()
        return replace(self, **changes)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        changes: dict[str, Any] = {
            field.name: change(value)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **changes)

    def cued(self, words: Sequence[Sequence[int]], pad_id: int) -> Self:
        """The same studies with text behind the visual tokens of each region.

        Args:
            words: token ids of each of the N packed regions; none for a region without.
            pad_id: id that stands in padding.
        """
        closes = self.visual_source == REGION_CLOSE
        rows, cols = self.visual_rows[closes], self.visual_cols[closes] + 1  # where other text stands now
        device = self.input_ids.device
        lengths = torch.tensor([len(ids) for ids in words], device=device)
        added = torch.zeros_like(self.input_ids)
        added[rows, cols] = lengths
        shift = added.cumsum(1)  # (B, L): how far each position moves
        longest = self.input_ids.shape[1] + int(shift[:, -1].max())
        place = torch.arange(self.input_ids.shape[1], device=device) + shift
        region = torch.repeat_interleave(torch.arange(len(words), device=device), lengths)
        within = torch.arange(len(region), device=device) - (lengths.cumsum(0) - lengths)[region]
        to = rows[region], (cols + shift[rows, cols] - lengths)[region] + within

        def moved(old: Tensor, empty: int, new: Tensor | int) -> Tensor:
            wider = old.new_full((len(self), longest), empty).scatter_(1, place, old)
            wider[to] = torch.as_tensor(new, dtype=old.dtype, device=device)
            return wider

        ids = torch.tensor([token for own in words for token in own], dtype=self.input_ids.dtype)
        return replace(
            self,
            input_ids=moved(self.input_ids, pad_id, ids),
            attention_mask=moved(self.attention_mask, False, True),
            labels=moved(self.labels, IGNORED, IGNORED),
            visual_cols=self.visual_cols + shift[self.visual_rows, self.visual_cols],
            blocks=None if self.blocks is None else moved(self.blocks, -1, 0),
        )

    def prompts(self, pad_id: int) -> Self:
        """The same studies without their targets, padded on the left: what generation starts from."""
        is_label = self.labels != IGNORED if self.blocks is None else self.blocks > 0
        ends = torch.where(is_label.any(1), is_label.int().argmax(1), self.attention_mask.sum(1))
        longest = int(ends.max())
        ids = self.input_ids.new_full((len(self), longest), pad_id)
        mask = self.attention_mask.new_zeros((len(self), longest))
        for row, end in enumerate(ends.tolist()):
            ids[row, longest - end :] = self.input_ids[row, :end]
            mask[row, longest - end :] = True
        return replace(
            self,
            input_ids=ids,
            attention_mask=mask,
            labels=torch.full_like(ids, IGNORED),
            visual_cols=self.visual_cols + (longest - ends)[self.visual_rows],
            label_region=self.label_region[:0],
            blocks=None,
        )


def collate(samples: Sequence[Sample], counts: TokenCounts, pad_id: int, pad_to: int = 0) -> Batch:
    """Pack samples: text padded to the longest, regions one after another, slots as rows, columns and sources.

    Args:
        samples: of one batch.
        counts: visual tokens of a sample.
        pad_id: id that stands in padding.
        pad_to: pad further, to this many tokens; no longer sample is cut.
    """
    encoded = [sample.encoded for sample in samples]
    shape = len(samples), max(pad_to, *(len(one.ids) for one in encoded))
    ids = np.full(shape, pad_id, dtype=np.int64)
    labels = np.full(shape, IGNORED, dtype=np.int64)
    mask = np.zeros(shape, dtype=bool)
    blocks = None if encoded[0].blocks is None else np.full(shape, -1, dtype=np.int64)
    rows, sources, label_region = [], [], []
    first = 0
    for row, (sample, one) in enumerate(zip(samples, encoded, strict=True)):
        length = len(one.ids)
        ids[row, :length], labels[row, :length], mask[row, :length] = one.ids, one.labels, True
        if blocks is not None and one.blocks is not None:
            blocks[row, :length] = one.blocks
        rows.append(np.full(len(one.visual_positions), row, dtype=np.int64))
        sources.append(rebase_sources(one.visual_sources, counts, row, len(samples), first))
        label_region.append(np.where(one.region_of_label < 0, -1, one.region_of_label + first))
        first += len(sample.regions)
    return Batch(
        texture=_packed([sample.texture for sample in samples]),
        geometry=_packed([sample.geometry for sample in samples]),
        global_=_images([sample.global_ for sample in samples]),
        input_ids=torch.from_numpy(ids),
        attention_mask=torch.from_numpy(mask),
        labels=torch.from_numpy(labels),
        visual_rows=torch.from_numpy(np.concatenate(rows)),
        visual_cols=torch.from_numpy(np.concatenate([one.visual_positions for one in encoded])),
        visual_source=torch.from_numpy(np.concatenate(sources)),
        label_region=torch.from_numpy(np.concatenate(label_region)),
        study_ids=tuple(sample.study for sample in samples),
        regions=tuple(sample.regions for sample in samples),
        reports=tuple(sample.reports for sample in samples),
        sentences_cut=sum(one.sentences_cut for one in encoded),
        others=tuple(None if sample.others is None else dict(sample.others) for sample in samples),
        attributes=_measured([sample.attributes for sample in samples]),
        blocks=None if blocks is None else torch.from_numpy(blocks),
    )


def _packed(views: Sequence[Views | Features | None]) -> Tensor | None:
    """(R, H, W, D) arrays to one (N, 1, H, W, D) tensor, (R, T, C) tokens to one (N, T, C) tensor."""
    present = [view for view in views if view is not None]
    if not present:
        return None
    packed = torch.from_numpy(np.concatenate(present) if len(present) > 1 else present[0])
    return packed if packed.ndim == 3 else packed.unsqueeze(1)


def _images(views: Sequence[Views | Features | None]) -> Tensor | None:
    """(H, W, D) arrays to one (B, 1, H, W, D) tensor, (H, W, D, C) features to one (B, C, H, W, D) view of theirs.

    (T, C) tokens become one (B, T, C) tensor.
    """
    present = [view for view in views if view is not None]
    if not present:
        return None
    images = torch.from_numpy(np.stack(present))
    if images.ndim == 3:
        return images
    return images.unsqueeze(1) if images.ndim == 4 else images.movedim(-1, 1)


def _measured(vectors: Sequence[npt.NDArray[np.float32] | None]) -> Tensor | None:
    """(R, A) arrays to one (N, 1, A, 1, 1) tensor."""
    present = [vector for vector in vectors if vector is not None]
    return torch.from_numpy(np.concatenate(present))[:, None, :, None, None] if present else None
