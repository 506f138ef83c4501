"""Prompts with slots for visual tokens, and the labelled target behind them.

Strings and their order are the published ones (paper section III-D; published code). A prompt is text in pieces with
runs of slots between them::

    [bos] The global information is provided as the context: <open> Tg slots <close>. The region 0 is
    <open> Tt texture slots, Tgeo geometry slots <close>. The region 1 is ... <close>. {instruction}

A slot holds the pad id in the ids and is filled from a table of vectors by position: no vocabulary grows. Every text
piece between two slots is tokenised on its own, as the published tokenizer does around its special tokens.

Reports, region names and instructions are foreign text, and text they stay: ``</s>`` in a report is four characters,
and the only EOS of a sample is the one behind its report. An added token that is not special is a word of the
vocabulary like any other.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.report import SENTENCE_BREAK, write_paragraph, write_tail
from reg2rg.core.task import INSTRUCTION
from reg2rg.store.views import ViewName

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Int = npt.NDArray[np.int64]

IGNORED = -100
"""Label of a position that carries no loss."""

GLOBAL_PREFIX = "The global information is provided as the context: "
REGION_PREFIX = "The region {slot} is "
AFTER_RUN = ". "
PARAGRAPH_HEAD = "The region {slot}"
"""What a paragraph begins with, whatever its region: see `reg2rg.core.report.write_paragraph`."""

IMAGE_OPEN, IMAGE_CLOSE, REGION_OPEN, REGION_CLOSE = range(4)
"""Rows of the source table that hold the learned tags."""
TAGS = 4

_ANCHOR = "."
"""What the target is tokenised behind: the prompt and every sentence end with it."""


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Visual tokens of a sample; 0 means that the encoder is off.

    Attributes:
        texture: tokens of a region's texture.
        geometry: tokens of a region's geometry.
        global_: tokens of the whole image.
        pooled: a region's texture tokens are pooled out of the whole image under its mask (`MaskPool`), so that both
            are needed and no texture view is.
        attributes: tokens of what is measured of a region.
    """

    texture: int
    geometry: int
    global_: int
    attributes: int = 0
    pooled: bool = False

    @property
    def region(self) -> int:
        """Tokens of one region, without its tags."""
        return self.texture + self.geometry + self.attributes

    def slots(self, regions: int) -> int:
        """Slots of a prompt of so many regions, and two tags around each run of them."""
        return self.global_ + 2 * bool(self.global_) + regions * (self.region + 2 * bool(self.region))

    @property
    def measured(self) -> str:
        """What attributes add to the arithmetic of a message."""
        return f" + {self.attributes} attributes" if self.attributes else ""

    @property
    def views(self) -> frozenset[ViewName]:
        """The views that the encoders look at."""
        whole, own = self.pooled and self.texture > 0, not self.pooled and self.texture > 0
        wanted = {"texture": own, "geometry": self.geometry > 0 or whole, "global": self.global_ > 0 or whole}
        return frozenset(name for name, wants in wanted.items() if wants)  # type: ignore[misc]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt without target; the same for every sample with as many regions.

    Attributes:
        ids: (P,) token ids, the pad id at slots.
        visual_positions: (S,) positions of the slots.
        visual_sources: (S,) row of the sample's table that fills each slot. The table of a sample with R regions is
            ``[4 tags | Tg global | R * Tr region]``, texture before geometry before attributes; see `rebase_sources`
            for a batch.
    """

    ids: Int
    visual_positions: Int
    visual_sources: Int


@dataclass(frozen=True, slots=True)
class EncodedSample:
    """A prompt, with its target when there is one.

    Attributes:
        ids: (L,) token ids, the pad id at slots. Ends with EOS when there is a target.
        labels: (L,) the id at target positions and at EOS, `IGNORED` elsewhere. Not shifted.
        visual_positions: (S,), as in `Prompt`.
        visual_sources: (S,), as in `Prompt`.
        region_of_label: (K,) for each label position, in order, the slot whose paragraph it belongs to; -1 for EOS, for
            a tail and for a report without regions.
        sentences_cut: sentences dropped from the end of the report because the sample was too long.
        blocks: (L,) of a target whose paragraphs see the prompt and themselves alone: 0 in the prompt, then the number
            of the paragraph from 1; ``None`` where a paragraph sees all before it.
    """

    ids: Int
    labels: Int
    visual_positions: Int
    visual_sources: Int
    region_of_label: Int
    sentences_cut: int = 0
    blocks: Int | None = None


def rebase_sources(sources: Int, counts: TokenCounts, sample: int, batch: int, first_region: int) -> Int:
    """Rows of a sample's table -> rows of the batch's, ``[4 tags | B * Tg global | N * Tr region]``.

    Args:
        sources: (S,) as `Prompt.visual_sources`.
        counts: visual tokens of a sample.
        sample: index of the sample in the batch.
        batch: samples in the batch, B.
        first_region: index of the sample's first region among the N packed ones.
    """
    regions_from = TAGS + counts.global_
    to_global = sample * counts.global_
    to_region = (batch - 1) * counts.global_ + first_region * counts.region
    return np.where(sources < TAGS, sources, sources + np.where(sources < regions_from, to_global, to_region))


class PromptEncoder:
    """Writes samples as token ids, slots and labels. Picklable; what depends on the number of regions is kept.

    Args:
        tokenizer: a fast Hugging Face tokenizer. BOS is what it puts before a text by itself; EOS must be set; slots
            get its pad id, else unk, else EOS (slots and padding are told apart by position, never by id).
        counts: visual tokens of a sample. Without global tokens there is no global prefix.
        identity: name the region in its target paragraph (region-report alignment).
        max_length: longest sample in tokens, slots included.
        instruction: text at the end of the prompt; the published one by default. Should end with a period.
        independent: each paragraph is a target of its own, with an EOS of its own.

    Raises:
        ConfigError: a tokenizer without EOS, or one that cannot tell where in the text its tokens come from.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        counts: TokenCounts,
        identity: bool = True,
        max_length: int = 2048,
        instruction: str = INSTRUCTION,
        independent: bool = False,
    ) -> None:
        name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        if tokenizer.eos_token_id is None:
            raise ConfigError(
                f"tokenizer {name} has no EOS token, so a report could never end. Fix: set eos_token in it"
            )
        if not tokenizer.is_fast:
            raise ConfigError(f"tokenizer {name} is a slow one without offsets. Fix: save it with a tokenizer.json")
        self.tokenizer, self.counts, self.identity = tokenizer, counts, identity
        self.max_length, self.instruction, self.independent = max_length, instruction, independent
        self.eos_id = int(tokenizer.eos_token_id)
        self.pad_id = _first_id(tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.eos_token_id)
        self._control = control_ids(tokenizer)
        self._bos = leading_specials(tokenizer)
        self._prompts: dict[int, Prompt] = {}
        self._anchor_ids = self._tokens(_ANCHOR)

    def encode(self, num_regions: int) -> Prompt:
        """The prompt of a sample with `num_regions` regions.

        Raises:
            ConfigError: the prompt alone does not fit into `max_length`, with the arithmetic.
        """
        if num_regions not in self._prompts:
            self._prompts[num_regions] = self._build(num_regions)
        return self._prompts[num_regions]

    def prompt_text(self, num_regions: int) -> str:
        """The prompt as people read it, each run of slots as ``<image>`` or ``<region>``."""
        start = f"{GLOBAL_PREFIX}<image>{AFTER_RUN}" if self.counts.global_ else ""
        regions = (REGION_PREFIX.format(slot=slot) + "<region>" + AFTER_RUN for slot in range(num_regions))
        return start + "".join(regions) + self.instruction

    def encode_sample(
        self,
        regions: Sequence[str],
        texts: Sequence[str] | None = None,
        with_target: bool = True,
        others: Mapping[str, str] | None = None,
    ) -> EncodedSample:
        """Encode one sample.

        Args:
            regions: region names in slot order.
            texts: their descriptions; needed with a target.
            with_target: append the report and EOS, labelled. Without, the sample is the prompt, for generation.
            others: texts of a tail, see `reg2rg.core.report.write_tail`; ``None`` for a report without one.

        Raises:
            ConfigError: as `encode`.
            DataFault: code ``REPORT_TOO_LONG``, not one sentence of the report fits behind the prompt; code
                ``CONTROL_TOKEN``, the vocabulary has no other way to write what the report says.
        """
        prompt = self.encode(len(regions))
        if not with_target:
            return _without_target(prompt)
        if texts is None:
            raise ValueError("a sample with a target needs texts")
        paragraphs = [
            write_paragraph(slot, region, text, self.identity) + " "
            for slot, (region, text) in enumerate(zip(regions, texts, strict=True))
        ]
        if self.independent:
            return self._with_paragraphs(prompt, paragraphs)
        sample = self._with_target(prompt, paragraphs if others is None else [*paragraphs, write_tail(others)])
        slots = sample.region_of_label
        return replace(sample, region_of_label=np.where(slots < len(regions), slots, -1))

    def encode_whole(self, report: str | None) -> EncodedSample:
        """Encode a sample without regions: the prompt has the tokens of the whole image alone.

        Args:
            report: the whole report, or ``None`` for the prompt alone.

        Raises:
            ConfigError, DataFault: as `encode_sample`.
        """
        prompt = self.encode(0)
        if report is None:
            return _without_target(prompt)
        sample = self._with_target(prompt, [report + " "])
        return replace(sample, region_of_label=np.full_like(sample.region_of_label, -1))

    def _with_target(self, prompt: Prompt, paragraphs: Sequence[str]) -> EncodedSample:
        ids, last, cut = self._fit(paragraphs, len(prompt.ids))
        slots = np.maximum(np.searchsorted(_starts(paragraphs), last, side="right") - 1, 0)
        target = np.append(np.asarray(ids, dtype=np.int64), self.eos_id)
        return EncodedSample(
            ids=np.concatenate([prompt.ids, target]),
            labels=np.concatenate([np.full(len(prompt.ids), IGNORED, dtype=np.int64), target]),
            visual_positions=prompt.visual_positions,
            visual_sources=prompt.visual_sources,
            region_of_label=np.append(slots, -1),
            sentences_cut=cut,
        )

    def _with_paragraphs(self, prompt: Prompt, paragraphs: Sequence[str]) -> EncodedSample:
        """Each paragraph behind the prompt by itself. Its beginning, ``The region 3``, is given: it carries no loss.

        What does not fit is cut from the end, as of a report that is written in turn.
        """
        ids, labels, slots, blocks = list(prompt.ids), [IGNORED] * len(prompt.ids), [], [0] * len(prompt.ids)
        cut = 0
        for slot, paragraph in enumerate(paragraphs):
            try:
                own, last, lost = self._fit([paragraph], len(ids))
            except DataFault:
                if slot == 0:
                    raise
                cut += sum(len(SENTENCE_BREAK.findall(rest)) for rest in paragraphs[slot:])
                break
            given = int(np.sum(last < len(PARAGRAPH_HEAD.format(slot=slot))))
            told = [*own, self.eos_id]
            ids += told
            labels += [*[IGNORED] * given, *told[given:]]
            slots += [*[slot] * (len(own) - given), -1]
            blocks += [slot + 1] * len(told)
            cut += lost
        arrays = (np.asarray(values, dtype=np.int64) for values in (ids, labels, slots, blocks))
        ids_, labels_, slots_, blocks_ = arrays
        return EncodedSample(ids_, labels_, prompt.visual_positions, prompt.visual_sources, slots_, cut, blocks_)

    def _tokens(self, text: str) -> list[int]:
        return self._written(text)[0]

    def _written(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids of foreign text, none of them a special token's, and where in the text each one comes from."""
        encoded = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
        ids, spans = list(encoded["input_ids"]), list(encoded["offset_mapping"])
        if not self._control.isdisjoint(ids):  # a vocabulary whose model itself joins characters to a special token
            start, end = next(span for token, span in zip(ids, spans, strict=True) if token in self._control)
            raise DataFault.of(
                "CONTROL_TOKEN",
                found=f"the tokenizer writes {text[start:end]!r} in {text[max(0, start - 30) : end + 30]!r} as a "
                "special token, even where it is told that this is text",
                expected="text without it",
                fix="take it out of the report or the instruction",
            )
        return ids, spans

    def _build(self, num_regions: int) -> Prompt:
        counts = self.counts
        text, ids = "", list(self._bos)
        positions: list[int] = []
        sources: list[int] = []

        def run(tags: tuple[int, int], first: int, length: int) -> None:
            positions.extend(range(len(ids), len(ids) + length + 2))
            sources.extend((tags[0], *range(first, first + length), tags[1]))
            ids.extend([self.pad_id] * (length + 2))

        if counts.global_:
            ids += self._tokens(GLOBAL_PREFIX)
            run((IMAGE_OPEN, IMAGE_CLOSE), TAGS, counts.global_)
            text = AFTER_RUN
        for slot in range(num_regions):
            ids += self._tokens(text + REGION_PREFIX.format(slot=slot))
            run((REGION_OPEN, REGION_CLOSE), TAGS + counts.global_ + slot * counts.region, counts.region)
            text = AFTER_RUN
        ids += self._tokens(text + self.instruction)
        if len(ids) >= self.max_length:
            raise ConfigError(self._no_room(num_regions, len(ids), len(positions)))
        return Prompt(*(np.asarray(values, dtype=np.int64) for values in (ids, positions, sources)))

    def _no_room(self, num_regions: int, length: int, slots: int) -> str:
        counts = self.counts
        image = f"{counts.global_} + 2 for the image and " if counts.global_ else ""
        return (
            f"the prompt of {num_regions} regions takes {length} tokens ({image}{num_regions} x ({counts.texture} "
            f"texture + {counts.geometry} geometry{counts.measured} + 2) visual, {length - slots} of text), but "
            f"max_length is {self.max_length}, report included. Fix: raise max_length, or use an encoder with fewer "
            "tokens"
        )

    def _target(self, text: str) -> tuple[list[int], Int]:
        """Ids of `text` as they follow the prompt and one space, and the place of each one's last character.

        The prompt ends with a period, so tokenising a period, a space and the text gives the ids that the whole would
        give, and the boundary cannot merge: prompt ids are the same with and without target by construction.
        """
        before, skip = f"{_ANCHOR} ", len(self._anchor_ids)
        ids, spans = self._written(before + text)
        if ids[:skip] != self._anchor_ids:  # a vocabulary that joins the period with a word
            before, skip = " ", 0
            ids, spans = self._written(before + text)
        return ids[skip:], np.asarray([end for _, end in spans[skip:]], dtype=np.int64) - len(before) - 1

    def _fit(self, paragraphs: Sequence[str], prompt_length: int) -> tuple[list[int], Int, int]:
        """The longest head of whole sentences that fits, as `_target` gives it, and the number of sentences cut."""
        text, room = "".join(paragraphs), self.max_length - prompt_length - 1
        ids, last = self._target(text)
        total, cut = len(ids), 0
        if total > room:
            sentences = {match.end() for match in SENTENCE_BREAK.finditer(text)} | {*_starts(paragraphs)}
            ends = sorted(end for end in sentences if 0 < end < len(text))
            kept = bisect_right(ends, room, key=lambda end: len(self._target(text[:end].rstrip() + " ")[0]))
            if kept == 0:
                raise DataFault.of(
                    "REPORT_TOO_LONG",
                    found=f"no sentence fits: prompt {prompt_length} + report {total} + EOS 1 tokens",
                    expected=f"at most {self.max_length}",
                    fix="raise max_length, or use an encoder with fewer tokens",
                )
            ids, last = self._target(text[: ends[kept - 1]].rstrip() + " ")
            cut = len(ends) + 1 - kept
        return ids, last, cut


def _starts(paragraphs: Sequence[str]) -> list[int]:
    return [0, *itertools.accumulate(len(paragraph) for paragraph in paragraphs[:-1])]


def _without_target(prompt: Prompt) -> EncodedSample:
    ignored, nothing = np.full(len(prompt.ids), IGNORED, dtype=np.int64), np.empty(0, dtype=np.int64)
    return EncodedSample(prompt.ids, ignored, prompt.visual_positions, prompt.visual_sources, nothing)


def _first_id(*ids: int | None) -> int:
    return next(int(token) for token in ids if token is not None)


def control_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Special tokens, but for unk: it stands for what the vocabulary lacks, unless it is EOS too."""
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset({*special, *tokenizer.all_special_ids} - {tokenizer.unk_token_id} | {tokenizer.eos_token_id})


def leading_specials(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer puts before a text by itself: BOS for LLaMA, nothing for GPT-2.

    Its post-processor decides; a fast tokenizer ignores ``add_bos_token``.
    """
    encoded = tokenizer("a", return_special_tokens_mask=True)
    mask = [*encoded["special_tokens_mask"], 0]
    return list(encoded["input_ids"])[: mask.index(0)]
