"""Reports written from embedded prompts: freely, held to their form, or paragraph by paragraph."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from reg2rg.core.errors import ConfigError
from reg2rg.core.report import OrderCertificate, Written, surplus_prefix
from reg2rg.data.batch import Batch
from reg2rg.data.prompt import IGNORED
from reg2rg.models.constrained import Frames, ReportGuide
from reg2rg.models.constrained.witness import Witness
from reg2rg.models.findings import StudyFindings
from reg2rg.models.llm.base import Decoding, Form, Guide, LanguageModel
from reg2rg.models.llm.decoding import FreeAnswer

log = logging.getLogger(__name__)

_PREFIX_TOKENS = 32
"""More tokens than "The region 12 is" has in any vocabulary, a character each."""

_LEAST = 1e-9
"""Probability of a name that was not read, where names are given out."""


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
        findings: what the head told of it, ``None`` without a head.
        order: that the order of its paragraphs plays no part, where that was asked for; else ``None``.
    """

    study: str
    regions: tuple[str, ...]
    text: str
    truncated: bool
    written: tuple[Written, ...] = ()
    findings: StudyFindings | None = None
    order: OrderCertificate | None = None


class ToTheLastRegion(FreeAnswer):
    """A free answer that ends where it would go on to a region that was not given.

    Args:
        decoding: limits.
        tokenizer: of the language model.
        given: how many regions the prompt has.
    """

    def __init__(self, decoding: Decoding, tokenizer: Any, given: int) -> None:
        super().__init__(decoding)
        self._tokenizer, self._given = tokenizer, given

    def take(self, token: int) -> bool:
        """Write a token; whether the answer goes on. What began the surplus paragraph is taken back."""
        goes_on = super().take(token)
        before = max(0, len(self.ids) - _PREFIX_TOKENS)
        start = surplus_prefix(self._text(before, len(self.ids)), self._given)
        if start is None:
            return goes_on
        while len(self.ids) > before and len(self._text(before, len(self.ids))) > start:
            del self.ids[-1]
        self.truncated = False
        return False

    def _text(self, first: int, last: int) -> str:
        return str(self._tokenizer.decode(self.ids[first:last], skip_special_tokens=True))


class ReportWriter:
    """Writes reports; keeps what a tokenizer makes of frames."""

    def __init__(self) -> None:
        self._frames: Frames | None = None

    def write(
        self, llm: LanguageModel, prompts: Batch, embedded: Tensor, decoding: Decoding, certify: bool = False
    ) -> list[GeneratedReport]:
        """Report on each study of a batch.

        Args:
            llm: writes.
            prompts: ids and masks of the prompts, without targets.
            embedded: (B, L, E), with every slot filled.
            decoding: limits and form.
            certify: show of independent paragraphs that their order plays no part, by reading them once more.
        """
        form = decoding.form
        if form is None:
            return self._write_whole(llm, prompts, embedded, decoding, None)
        if self._frames is None or (self._frames.names, self._frames.identity) != (form.names, form.identity):
            self._frames = Frames(llm.tokenizer, form.names, form.identity)
        if form.independent:
            return _Apart(llm, self._frames, prompts, embedded, decoding, form).write(certify)
        return self._write_whole(llm, prompts, embedded, decoding, form)

    def _write_whole(
        self, llm: LanguageModel, prompts: Batch, embedded: Tensor, decoding: Decoding, form: Form | None
    ) -> list[GeneratedReport]:
        rooms = (llm.context_length - prompts.attention_mask.sum(1)).tolist()

        def guide_of(regions: Sequence[str], room: int) -> Guide:
            if regions and form is not None and self._frames is not None:
                return ReportGuide(self._frames, regions, decoding, room, form.forced, form.tail)
            if regions and decoding.stop_after_last:
                return ToTheLastRegion(decoding, llm.tokenizer, len(regions))
            return FreeAnswer(decoding)

        guides = [guide_of(regions, room) for regions, room in zip(prompts.regions, rooms, strict=True)]
        answers = llm.decode(embedded, prompts.attention_mask, decoding, guides, prompts.study_ids)
        reports = []
        for study, regions, answer, guide in zip(prompts.study_ids, prompts.regions, answers, guides, strict=True):
            if isinstance(guide, ReportGuide):
                reports.append(GeneratedReport(study, regions, guide.text(), guide.truncated, guide.written()))
            else:
                text = llm.tokenizer.decode(answer.ids, skip_special_tokens=True).strip()
                reports.append(GeneratedReport(study, regions, text, answer.truncated))
        return reports


@dataclass(slots=True)
class _Part:
    """One paragraph while it is written: row of its prompt, slot, and its guide."""

    row: int
    slot: int
    guide: ReportGuide
    witness: Witness | None = None


class _Apart:
    """Paragraphs of a batch, each an answer of its own to its study's prompt."""

    def __init__(
        self, llm: LanguageModel, frames: Frames, prompts: Batch, embedded: Tensor, decoding: Decoding, form: Form
    ) -> None:
        self._llm, self._frames, self._prompts, self._embedded = llm, frames, prompts, embedded
        self._decoding, self._form = decoding, form
        self._rooms = (llm.context_length - prompts.attention_mask.sum(1)).tolist()

    def write(self, certify: bool) -> list[GeneratedReport]:
        regions = self._prompts.regions
        parts = [
            self._part(row, slot, names, self._form.forced)
            for row, names in enumerate(regions)
            for slot in range(len(names))
        ]
        self._decode(parts, certify)
        if self._frames.identity and not self._form.forced:
            self._settle_names(parts, certify)
        reports = []
        for row, study in enumerate(self._prompts.study_ids):
            own = [part for part in parts if part.row == row]
            written = tuple(replace(one, forced=self._form.forced) for part in own for one in part.guide.written())
            text = " ".join(part.guide.text() for part in own)
            truncated = any(part.guide.truncated for part in own)
            order = None
            if certify and own:
                try:
                    order = self._certificate(row, own)
                except ConfigError as error:  # the report is written, and no less a report
                    log.warning("%s: that the order plays no part is not certified: %s", study, error)
            reports.append(GeneratedReport(study, regions[row], text, truncated, written, None, order))
        return reports

    def _part(self, row: int, slot: int, names: Sequence[str], forced: bool) -> _Part:
        guide = ReportGuide(self._frames, names, self._decoding, self._rooms[row], forced, slot=slot)
        return _Part(row, slot, guide)

    def _decode(self, parts: Sequence[_Part], certify: bool) -> None:
        if not parts:
            return
        eos = int(self._llm.tokenizer.eos_token_id or 0)
        for part in parts:
            part.witness = Witness(part.guide, eos) if certify else None
        # What a paragraph draws follows from its region, wherever that stands.
        regions = self._prompts.regions
        names = [f"{self._prompts.study_ids[part.row]}\x1f{regions[part.row][part.slot]}" for part in parts]
        guides: list[Guide] = [part.witness or part.guide for part in parts]
        rows = [part.row for part in parts]
        self._llm.decode(self._embedded, self._prompts.attention_mask, self._decoding, guides, names, rows)

    def _settle_names(self, parts: list[_Part], certify: bool) -> None:
        """Give each name once. Where paragraphs chose one name, all are named as is likeliest in sum.

        A paragraph whose name changes is written anew. What follows does not depend on the order of paragraphs.
        """
        anew = []
        for row, given in enumerate(self._prompts.regions):
            own = [part for part in parts if part.row == row]
            told = [part.guide.written()[0] for part in own]
            if {one.region for one in told} == set(given):
                continue
            costs = np.array([[-math.log(max(one.referring.get(name, 0), _LEAST)) for name in given] for one in told])
            for part, place in zip(own, linear_sum_assignment(costs)[1], strict=True):
                if told[part.slot].region != given[place]:
                    names = (*given[: part.slot], given[place], *given[part.slot + 1 :])
                    part.guide = self._part(row, part.slot, names, True).guide
                    anew.append(part)
        self._decode(anew, certify)

    @torch.no_grad()
    def _certificate(self, row: int, parts: Sequence[_Part]) -> OrderCertificate:
        """Read the paragraphs once more, all at once and the last one first, and compare.

        Raises:
            ConfigError: the language model takes no mask of blocks.
        """
        mask, llm = self._prompts.attention_mask[row].bool(), self._llm
        prompt = self._embedded[row, mask]
        told = [part for part in reversed(parts) if part.guide.ids]
        ids = [torch.tensor(part.guide.ids, device=prompt.device) for part in told]
        longest = len(prompt) + max((len(one) for one in ids), default=0)
        llm.require_blocks(longest)
        texts = [llm.embed(one[None])[0] for one in ids]
        numbers = [torch.full_like(one, place + 1) for place, one in enumerate(ids)]
        inputs = torch.cat([prompt, *texts])[None]
        none = torch.full((len(prompt),), IGNORED, device=prompt.device)
        labels = torch.cat([none, *ids])[None]
        blocks = torch.cat([torch.zeros_like(none), *numbers])[None]
        read = llm.answer_nll(inputs, torch.ones_like(labels), labels, blocks)
        written = [nll for part in told if part.witness is not None for nll in part.witness.nll]
        far = float((read.double().cpu() - torch.tensor(written, dtype=torch.float64)).abs().max()) if written else 0.0
        margins = [part.witness.margin for part in parts if part.witness is not None]
        drawn = self._decoding.sampling is not None
        return OrderCertificate(len(written), far, None if drawn else min(margins, default=math.inf))
