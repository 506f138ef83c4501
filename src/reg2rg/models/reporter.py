"""The model without a trainer: packed regions in, losses of the report's tokens or a report out.

Follows the paper's section III: regions as texture and geometry tokens, the whole image as context, one prompt with all
of them, a report in which each paragraph first names its region.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from reg2rg.core.errors import ConfigError
from reg2rg.core.report import Written
from reg2rg.data.batch import Batch
from reg2rg.data.prompt import IGNORED, TAGS, TokenCounts
from reg2rg.models.constrained import Frames, ReportGuide
from reg2rg.models.encoders.base import Encoder
from reg2rg.models.encoders.grids import MaskPool
from reg2rg.models.llm.base import Decoding, Guide, LanguageModel
from reg2rg.models.llm.decoding import FreeAnswer
from reg2rg.models.projectors import Projector
from reg2rg.models.word_alignment import WordAlignment

ProjectorFactory = Callable[[int, int], Projector]


@dataclass(slots=True)  # not frozen: Lightning copies what predict returns field by field
class GeneratedReport:
    """One study's report as generated.

    Attributes:
        study: id of the study.
        regions: names of its regions in slot order.
        text: the report, without special tokens.
        truncated: it was stopped by length or by a loop, not by its own end; of a report that is held to its form,
            a paragraph was.
        written: what is known of each paragraph, in slot order, where the report was held to its form; else empty.
    """

    study: str
    regions: tuple[str, ...]
    text: str
    truncated: bool
    written: tuple[Written, ...] = ()


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
        align_words: give the model a `WordAlignment`, whose loss `losses` returns.

    Raises:
        ConfigError: ``global_="texture"`` without a texture encoder.
    """

    def __init__(
        self,
        texture: Encoder | None,
        geometry: Encoder | None,
        global_: Encoder | Literal["texture"] | None,
        projector: ProjectorFactory,
        llm: LanguageModel,
        tag_std: float = 1.0,
        align_words: bool = False,
    ) -> None:
        super().__init__()
        self.shares_texture = isinstance(global_, str)
        if self.shares_texture and (global_ != "texture" or texture is None):
            raise ConfigError(
                f"model.global_ is {global_!r} (expected an encoder, null, or 'texture' together with a texture "
                "encoder). Fix: set model.global_ to null, or give model.texture an encoder"
            )
        self.texture, self.geometry = texture, geometry
        self.global_ = None if isinstance(global_, str) else global_
        width = llm.hidden_size
        self.texture_projector = None if texture is None else projector(texture.out_channels, width)
        self.geometry_projector = None if geometry is None else projector(geometry.out_channels, width)
        self.global_projector = None if self.global_ is None else projector(self.global_.out_channels, width)
        self.tags = nn.Parameter(torch.randn(TAGS, width) * tag_std)
        self.llm = llm
        sees = any(encoder is not None for encoder in (texture, geometry, global_))
        self._frames: Frames | None = None
        self.words = WordAlignment(len(llm.tokenizer)) if align_words and sees else None

    @property
    def token_counts(self) -> TokenCounts:
        """Visual tokens of a sample; the data needs them to lay out the prompt."""
        context = self.texture if self.shares_texture else self.global_
        texture, geometry, global_ = (
            0 if one is None else one.num_tokens for one in (self.texture, self.geometry, context)
        )
        return TokenCounts(texture, geometry, global_, pooled=isinstance(self.texture, MaskPool))

    def forward(self, batch: Batch) -> Tensor:
        """Negative log-likelihood of each label token.

        Args:
            batch: scaled (`Batch.scaled`), on this model's device.

        Returns:
            (K,) float32, row by row.

        Raises:
            ConfigError: the longest sample is longer than the language model's context; with the arithmetic.
        """
        return self.losses(batch)[0]

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """What `forward` returns, and the summed word-alignment loss of the same pass, or ``None`` without one."""
        self._require_context(batch)
        table = self.visual_table(batch)
        nll = self.llm.answer_nll(self._filled(batch, table), batch.attention_mask, batch.labels)
        return nll, None if self.words is None else self._word_loss(batch, table)

    def word_loss(self, batch: Batch) -> Tensor | None:
        """The summed word-alignment loss alone: the language model is not run. ``None`` without one."""
        return None if self.words is None else self._word_loss(batch, self.visual_table(batch))

    def _word_loss(self, batch: Batch, table: Tensor) -> Tensor:
        assert self.words is not None
        counts = self.token_counts
        vocabulary = self.llm.embed(torch.arange(len(self.words.bias), device=table.device)[None])[0]
        is_label = batch.labels != IGNORED
        if counts.region:
            tokens = table[TAGS + len(batch) * counts.global_ :].view(-1, counts.region, table.shape[1])
            label_text = batch.label_region
        else:
            tokens = table[TAGS:].view(len(batch), counts.global_, table.shape[1])
            label_text = is_label.nonzero()[:, 0]
        loss: Tensor = self.words(tokens, vocabulary, batch.labels[is_label], label_text)
        return loss

    @torch.no_grad()
    def generate(self, batch: Batch, decoding: Decoding | None = None) -> list[GeneratedReport]:
        """Report on each study of the batch. Targets in the batch are not looked at.

        Args:
            batch: scaled, on this model's device.
            decoding: limits, the form of reports, and whether tokens are drawn; greedy and free if not given. Without
                regions a report has no form.

        Raises:
            ConfigError: prompt and report could be longer than the language model's context, or a tokenizer that
                cannot write the form.
        """
        decoding = decoding or Decoding()
        tokenizer = self.llm.tokenizer
        prompts = batch.prompts(int(tokenizer.pad_token_id or 0))
        self._require_context(prompts, decoding.max_new_tokens)
        guides = self._guides(prompts, decoding)
        training = self.training
        self.eval()
        try:
            embedded = self.embed(prompts)
            answers = self.llm.decode(embedded, prompts.attention_mask, decoding, guides, batch.study_ids)
        finally:
            self.train(training)
        reports = []
        for study, regions, answer, guide in zip(batch.study_ids, batch.regions, answers, guides, strict=True):
            if isinstance(guide, ReportGuide):
                reports.append(GeneratedReport(study, regions, guide.text(), guide.truncated, guide.written()))
            else:
                text = tokenizer.decode(answer.ids, skip_special_tokens=True).strip()
                reports.append(GeneratedReport(study, regions, text, answer.truncated))
        return reports

    def _guides(self, prompts: Batch, decoding: Decoding) -> list[Guide]:
        form = decoding.form
        if form is None:
            return [FreeAnswer(decoding) for _ in prompts.regions]
        if self._frames is None or (self._frames.names, self._frames.identity) != (form.names, form.identity):
            self._frames = Frames(self.llm.tokenizer, form.names, form.identity)
        rooms = (self.llm.context_length - prompts.attention_mask.sum(1)).tolist()
        return [
            ReportGuide(self._frames, regions, decoding, room, form.forced, form.tail)
            if regions
            else FreeAnswer(decoding)
            for regions, room in zip(prompts.regions, rooms, strict=True)
        ]

    def embed(self, batch: Batch) -> Tensor:
        """The embedded prompt with every slot filled, in one indexed write.

        Returns:
            (B, L, E).
        """
        return self._filled(batch, self.visual_table(batch))

    def _filled(self, batch: Batch, table: Tensor) -> Tensor:
        text = self.llm.embed(batch.input_ids)
        slots = (batch.visual_rows, batch.visual_cols)
        filled: Tensor = text.index_put(slots, table.to(text.dtype)[batch.visual_source])
        return filled

    def visual_table(self, batch: Batch) -> Tensor:
        """All vectors that slots may hold.

        Returns:
            (4 + B * Tg + N * (Tt + Tgeo), E): the tags, the global tokens study by study, the region tokens region by
            region with texture before geometry.
        """
        context, texture = self._texture_and_context(batch)
        parts = [] if texture is None else [texture]
        if self.geometry is not None and self.geometry_projector is not None:
            parts.append(self.geometry_projector(self.geometry(_given(batch.geometry, "geometry"))))
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
            counts = [len(names) for names in batch.regions]
            texture = self.texture_projector(self.texture.of_regions(images, masks, counts))
            context = self.texture_projector(self.texture(images)) if self.shares_texture else None
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
        lengths = batch.attention_mask.sum(1)
        if int(lengths.max()) + new_tokens <= self.llm.context_length:  # one answer: a GPU is waited for once
            return
        row = int(lengths.argmax())
        report = int((batch.labels[row] != -100).sum())
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
            f"{counts.geometry} geometry + 2) visual, {prompt - slots} of prompt text, {report} of report), but the "
            f"language model reads at most {limit}. Fix: lower task.max_length or the tokens to generate, use an "
            "encoder with fewer tokens, or a model with a longer context"
        )


def _given(volumes: Tensor | None, view: str) -> Tensor:
    if volumes is None:
        raise ConfigError(
            f"the model looks at the {view} view, but the batch has none. Fix: give the data the model's token_counts"
        )
    return volumes
