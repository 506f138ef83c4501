"""The model without a trainer: packed regions in, losses of the report's tokens or a report out.

Follows the paper's section III: regions as texture and geometry tokens, the whole image as context, one prompt with all
of them, a report in which each paragraph first names its region.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from reg2rg.core.errors import ConfigError
from reg2rg.data.batch import Batch
from reg2rg.data.prompt import IGNORED, TAGS, TokenCounts
from reg2rg.models.auxiliary import AuxiliaryLosses
from reg2rg.models.cues import CueWriter, order_in_text
from reg2rg.models.encoders.base import Encoder
from reg2rg.models.encoders.grids import MaskPool
from reg2rg.models.heads.base import HeadInputs
from reg2rg.models.heads.operating import OperatingPoint
from reg2rg.models.heads.options import FindingsOptions
from reg2rg.models.llm.base import Decoding, LanguageModel
from reg2rg.models.lookup import take
from reg2rg.models.projectors import Projector
from reg2rg.models.writing import GeneratedReport, ReportWriter

ProjectorFactory = Callable[[int, int], Projector]


@dataclass(slots=True)
class Losses:
    """What a training step adds up.

    Attributes:
        nll: (K,) float32, negative log-likelihood of each label token, row by row; ``None`` where the language model
            was not run.
        auxiliary: in training, name -> weight and summed loss.
        findings: summed loss of the head, or ``None`` without one.
        detected: (N, L) logits of the head, (N,) places in the region set, and (N, L) bool, what the texts state.
    """

    nll: Tensor | None
    auxiliary: dict[str, tuple[float, Tensor]]
    findings: Tensor | None = None
    detected: tuple[Tensor, Tensor, Tensor] | None = None


class RegionReporter(nn.Module):
    """Encoders, projectors and a language model.

    Args:
        texture: encodes a region's cropped detail, or ``None``; a `MaskPool` gives a region's part of the whole image.
        geometry: encodes a region's mask in the frame of the whole image, or ``None``.
        global_: encodes the whole image; ``"texture"`` shares the texture encoder and its projector, as published;
            or ``None``.
        projector: ``(encoder width, language model width) -> Projector``; each encoder gets its own.
        llm: the language model.
        tag_std: standard deviation of the learned tag vectors at the start; the published code has 1.
        attributes: encodes what is measured of a region, or ``None``.
        findings: the head, and what becomes of what it tells; no head if not given.

    Raises:
        ConfigError: ``global_="texture"`` without a texture encoder; a head without anything to look at; cues without a
            head.
    """

    def __init__(
        self,
        texture: Encoder | None,
        geometry: Encoder | None,
        global_: Encoder | Literal["texture"] | None,
        projector: ProjectorFactory,
        llm: LanguageModel,
        tag_std: float = 1.0,
        attributes: Encoder | None = None,
        findings: FindingsOptions | None = None,
    ) -> None:
        super().__init__()
        self.shares_texture = isinstance(global_, str)
        if self.shares_texture and (global_ != "texture" or texture is None):
            raise ConfigError(
                f"model.global_ is {global_!r} (expected an encoder, null, or 'texture' together with a texture "
                "encoder). Fix: set model.global_ to null, or give model.texture an encoder"
            )
        options = findings or FindingsOptions()
        if options.cues and options.head is None:
            raise ConfigError(
                "model.cues needs a head that detects findings. Fix: give model.head one, or leave cues off"
            )
        self.texture, self.geometry, self.attributes = texture, geometry, attributes
        self.global_ = None if isinstance(global_, str) else global_
        width = llm.hidden_size
        self.texture_projector = None if texture is None else projector(texture.out_channels, width)
        self.geometry_projector = None if geometry is None else projector(geometry.out_channels, width)
        self.attributes_projector = None if attributes is None else projector(attributes.out_channels, width)
        self.global_projector = None if self.global_ is None else projector(self.global_.out_channels, width)
        self.tags = nn.Parameter(torch.randn(TAGS, width) * tag_std)
        self.llm = llm
        self._writer = ReportWriter()
        self.auxiliary = AuxiliaryLosses()
        counts = self.token_counts
        inputs = HeadInputs(width, counts.region, counts.global_, tuple(options.regions))
        self.head = None if options.head is None else options.head(inputs)
        self.cues = CueWriter(llm.tokenizer) if options.cues else None
        self.findings, self.operating_point = options, OperatingPoint.of(options.operating_point)

    @property
    def told_point(self) -> str:
        """The operating point as results and records have it; empty without a head."""
        return "" if self.head is None else str(self.operating_point)

    @property
    def token_counts(self) -> TokenCounts:
        """Visual tokens of a sample; the data needs them to lay out the prompt."""
        context = self.texture if self.shares_texture else self.global_
        texture, geometry, global_, attributes = (
            0 if one is None else one.num_tokens for one in (self.texture, self.geometry, context, self.attributes)
        )
        return TokenCounts(texture, geometry, global_, pooled=isinstance(self.texture, MaskPool), attributes=attributes)

    def forward(self, batch: Batch) -> Tensor:
        """Negative log-likelihood of each label token.

        Args:
            batch: scaled (`Batch.scaled`), on this model's device.

        Returns:
            (K,) float32, row by row.

        Raises:
            ConfigError: the longest sample is longer than the language model's context; with the arithmetic.
        """
        nll = self.losses(batch).nll
        assert nll is not None
        return nll

    def losses(self, batch: Batch, write: bool = True) -> Losses:
        """What a training step adds up, of one pass through the encoders.

        Args:
            batch: scaled, on this model's device, with targets.
            write: run the language model too.

        Raises:
            ConfigError: as `forward`.
        """
        if write:
            self._require_context(batch)
        table = self.visual_table(batch)
        losses = Losses(None, self.auxiliary(self, batch, table) if self.training else {})
        if self.head is not None:
            logits, region, stated = losses.detected = self._findings_of(batch, table)
            losses.findings = self.head.loss(logits, region, stated)
        if not write:
            return losses
        if self.cues is not None and self.head is not None:
            kept = torch.rand(len(region)) >= self.findings.cue_dropout if self.training else None
            told = stated if self.training else self.head.detected(logits, region, self.operating_point)
            batch = self._cued(batch, region, told, kept, as_written=self.training)
            self._require_context(batch)
        blocks = () if batch.blocks is None else (batch.blocks,)
        losses.nll = self.llm.answer_nll(self._filled(batch, table), batch.attention_mask, batch.labels, *blocks)
        return losses

    def detect(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """What the head says of each packed region, without a report.

        Args:
            batch: scaled, on this model's device, with its texts.

        Returns:
            (N, L) logits, (N,) places in the region set, and (N, L) bool, what the texts state.
        """
        return self._findings_of(batch, self.visual_table(batch))

    def _findings_of(self, batch: Batch, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `detect`, from a table of visual tokens."""
        assert self.head is not None
        logits, region = self._head_logits(batch, table)
        texts = [text for own in batch.reports for text in own]
        return logits, region, torch.from_numpy(self.head.targets(texts).copy()).to(table.device)

    def _head_logits(self, batch: Batch, table: Tensor) -> tuple[Tensor, Tensor]:
        assert self.head is not None
        counts, width = self.token_counts, table.shape[1]
        places = {name: place for place, name in enumerate(self.findings.regions)}
        names = batch.region_names
        region = torch.tensor([places[name] for name in names], dtype=torch.long, device=table.device)
        study = torch.tensor([row for row, own in enumerate(batch.regions) for _ in own], dtype=torch.long)
        image = table[TAGS : TAGS + len(batch) * counts.global_].view(len(batch), counts.global_, width)
        tokens = table[TAGS + len(batch) * counts.global_ :].view(len(names), counts.region, width)
        return self.head(tokens, take(image, study.to(table.device)), region), region

    def _cued(
        self, batch: Batch, region: Tensor, told: Tensor, kept: Tensor | None = None, as_written: bool = False
    ) -> Batch:
        """The batch with the findings of each region in its prompt.

        Args:
            batch: any.
            region: (N,).
            told: (N, L) bool.
            kept: (N,) bool, regions of which anything is said; all that can have findings by default.
            as_written: findings stand in the order of their region's text, else in that of the labels.
        """
        assert self.head is not None
        assert self.cues is not None
        able = self.head.possible.any(1)[region]
        chosen = able if kept is None else able & kept.to(able.device)
        rows = zip((told & self.head.possible[region]).tolist(), chosen.tolist(), strict=True)
        slots = [slot for own in batch.regions for slot in range(len(own))]
        texts = [text if as_written else "" for own in batch.reports for text in own]
        words = [
            self.cues.ids(slot, self._named(row, text) if keep else None)
            for slot, text, (row, keep) in zip(slots, texts, rows, strict=True)
        ]
        return batch.cued(words, int(self.llm.tokenizer.pad_token_id or 0))

    def _named(self, row: Sequence[bool], text: str) -> tuple[str, ...]:
        """Labels of one row (L,), in the order of a text that states them all, if there is one."""
        assert self.head is not None
        names = self.head.named(row)
        if len(names) < 2 or not text:
            return names
        order = [self.head.labels[place] for place in order_in_text(text, self.head.targets)]
        return tuple(sorted(names, key=order.index))

    @torch.no_grad()
    def generate(
        self, batch: Batch, decoding: Decoding | None = None, table: Tensor | None = None, certify: bool = False
    ) -> list[GeneratedReport]:
        """Report on each study of the batch. Targets in the batch are not looked at.

        Args:
            batch: scaled, on this model's device.
            decoding: limits, the form of reports, and whether tokens are drawn; greedy and free if not given. Without
                regions a report has no form.
            table: what fills the slots, as `visual_table` gives it; views in the batch are not looked at then.
            certify: give reports of independent paragraphs an `OrderCertificate`, by reading them once more.

        Raises:
            ConfigError: prompt and report could be longer than the language model's context, or a tokenizer that
                cannot write the form.
        """
        decoding = decoding or Decoding()
        training = self.training
        self.eval()
        pad = int(self.llm.tokenizer.pad_token_id or 0)
        try:
            prompts = batch.prompts(pad)
            self._require_context(prompts, decoding.max_new_tokens)
            table = self.visual_table(batch) if table is None else table
            logits = region = None
            if self.head is not None:
                logits, region = self._head_logits(batch, table)
                if self.cues is not None:
                    told = self.head.detected(logits, region, self.operating_point)
                    prompts = self._cued(batch, region, told).prompts(pad)
                    self._require_context(prompts, decoding.max_new_tokens)
            embedded = self._filled(prompts, table)
            reports = self._writer.write(self.llm, prompts, embedded, decoding, certify)
        finally:
            self.train(training)
        if self.head is not None and logits is not None and region is not None:
            identity, cued = self.findings.identity, self.cues is not None
            found = self.head.told(reports, logits, region, self.operating_point, identity, cued)
            for report, findings in zip(reports, found, strict=True):
                report.findings = findings
        return reports

    def embed(self, batch: Batch) -> Tensor:
        """The embedded prompt with every slot filled, in one indexed write.

        Returns:
            (B, L, E).
        """
        return self._filled(batch, self.visual_table(batch))

    def _filled(self, batch: Batch, table: Tensor) -> Tensor:
        text = self.llm.embed(batch.input_ids)
        slots = (batch.visual_rows, batch.visual_cols)
        filled: Tensor = text.index_put(slots, take(table.to(text.dtype), batch.visual_source))
        return filled

    def visual_table(self, batch: Batch) -> Tensor:
        """All vectors that slots may hold.

        Returns:
            (4 + B * Tg + N * Tr, E): the tags, the global tokens study by study, the region tokens region by region,
            texture before geometry before attributes.
        """
        context, texture = self._texture_and_context(batch)
        parts = [] if texture is None else [texture]  # order as in `TokenCounts.region`
        if self.geometry is not None and self.geometry_projector is not None:
            parts.append(self.geometry_projector(self.geometry(_given(batch.geometry, "geometry"))))
        if self.attributes is not None and self.attributes_projector is not None:
            parts.append(self.attributes_projector(self.attributes(_given(batch.attributes, "attributes"))))
        table: list[Tensor] = [self.tags]
        if context is not None:
            table.append(context.flatten(0, 1).to(self.tags.dtype))
        if parts:
            table.append(torch.cat(parts, dim=1).flatten(0, 1).to(self.tags.dtype))
        return torch.cat(table)

    def _texture_and_context(self, batch: Batch) -> tuple[Tensor | None, Tensor | None]:
        """Projected global (B, Tg, E) and texture (N, Tt, E) tokens; one pass where they share an encoder."""
        context = texture = None
        if isinstance(self.texture, MaskPool) and self.texture_projector is not None:
            images, masks = _given(batch.global_, "global"), _given(batch.geometry, "geometry")
            cells = self.texture.encoder(images)
            texture = self.texture_projector(self.texture.under(cells, masks, batch.regions, batch.study_ids))
            context = self.texture_projector(self.texture.everywhere(cells)) if self.shares_texture else None
        elif self.texture is not None and self.texture_projector is not None:
            volumes = _given(batch.texture, "texture")
            if self.shares_texture:
                volumes = torch.cat([_given(batch.global_, "global"), volumes])
            tokens = self.texture_projector(self.texture(volumes))
            texture = tokens[len(batch) :] if self.shares_texture else tokens
            context = tokens[: len(batch)] if self.shares_texture else None
        if self.global_ is not None and self.global_projector is not None:
            context = self.global_projector(self.global_(_given(batch.global_, "global")))
        return context, texture

    def _require_context(self, batch: Batch, new_tokens: int = 0) -> None:
        lengths = batch.positions
        if int(lengths.max()) + new_tokens <= self.llm.context_length:  # one answer: a GPU is waited for once
            return
        row = int(lengths.argmax())
        told = batch.labels[row] != IGNORED
        if batch.blocks is not None:
            told = batch.blocks[row] == batch.blocks[row].clamp(min=0).bincount(minlength=2)[1:].argmax() + 1
        report = int(told.sum())
        slots = int((batch.visual_rows == row).sum())
        self.require_context(
            batch.study_ids[row], len(batch.regions[row]), slots, int(lengths[row]) - report, report + new_tokens
        )

    def require_context(self, study: str, regions: int, slots: int, prompt: int, report: int) -> None:
        """Refuse a sample that is longer than the language model's context.

        Args:
            study: its id.
            regions: that it has.
            slots: visual tokens with their tags.
            prompt: tokens of the prompt, slots included.
            report: tokens of the report, or most that are generated.

        Raises:
            ConfigError: with the arithmetic.
        """
        limit, counts = self.llm.context_length, self.token_counts
        if prompt + report <= limit:
            return
        image = f"{counts.global_} + 2 for the image and " if counts.global_ else ""
        raise ConfigError(
            f"study {study} takes {prompt + report} positions ({image}{regions} regions x ({counts.texture} texture + "
            f"{counts.geometry} geometry{counts.measured} + 2) visual, {prompt - slots} of prompt text, {report} of "
            f"report), but the language model reads at most {limit}. Fix: lower task.max_length or the "
            "tokens to generate, use an encoder with fewer tokens, or a model with a longer context"
        )


def _given(volumes: Tensor | None, view: str) -> Tensor:
    if volumes is None:
        raise ConfigError(
            f"the model looks at the {view} view, but the batch has none. Fix: give the data the model's token_counts"
        )
    return volumes
