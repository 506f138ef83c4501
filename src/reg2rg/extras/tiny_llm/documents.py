"""Documents from which a language model learns to report by region, made of report text alone.

A document has the form of a sample: numbered regions, then the report. Where a sample has the visual tokens of a
region, a document has as many sums of embeddings of that region's words, often with its name among them: what visual
tokens come to be under word alignment (`reg2rg.extras.word_alignment`), and no matter which words are missing. So the
model learns the words of reports, the form of the answer, and to look up by number what stands behind
'The region i is', before it sees an image. Region order is random, and nothing but the words ties a number to a region.

For models without regions a document shows the whole image alone, as sums of words of the whole report, and the report
is one text.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from reg2rg.core.report import SENTENCE_BREAK, write_paragraph
from reg2rg.evaluation.labelers import Labeler
from reg2rg.models.cues import cue_text, order_in_text
from reg2rg.models.lookup import take

IGNORED = -100

_SHOWN, _IN_SLOT = 0.9, 0.7
"""Chances that a word of the paragraph is shown at all, and that a shown one is in a slot."""
_TOLD = 0.6
"""Chance that the region's name is shown."""
_CUED = 0.9
"""Chance that the findings of a region that may have any are named."""
_COMPOSED = 0.7
"""Chance that a region that may have findings gets sentences of several studies."""
_LISTED = (1, 2, 2, 3, 3)
"""How many such sentences, each as often as it stands here."""
_IN_IMAGE_SLOT = 0.25
"""Chance that a word of the report is in a slot of the whole image."""
_IMAGE_SLOTS = (4, 16)


@dataclass(frozen=True, slots=True)
class Document:
    """One document.

    Attributes:
        ids: token ids.
        start: where the report begins; what stands before carries no loss.
        names: positions of the first token of each region's name in the report.
        told: for each of `names`, whether the name is among the words given in its place.
        turns: positions of the first token after each sentence of a paragraph.
        slots: position -> the words whose embeddings' sum stands there, with their weights.
    """

    ids: list[int]
    start: int
    names: list[int]
    told: list[bool]
    turns: list[int]
    slots: dict[int, dict[int, float]]


@dataclass(frozen=True, slots=True)
class Documents:
    """A padded batch.

    Attributes:
        ids: (B, L) int64; the pad id in slots.
        labels: (B, L) int64.
        names: (B, L) bool, at the first token of the names in the report.
        told: (B, L) bool, at those of them that were told.
        turns: (B, L) bool, at the first token after each sentence of a paragraph.
        slot_of: (W,) int64, row * L + column of the slot that each word is in.
        words: (W,) int64, token ids.
        weights: (W,) float32.
    """

    ids: Tensor
    labels: Tensor
    names: Tensor
    told: Tensor
    turns: Tensor
    slot_of: Tensor
    words: Tensor
    weights: Tensor

    def embed(self, table: Tensor) -> Tensor:
        """Embeddings (B, L, E) from the token table (V, E): slots hold weighted sums, as large as one word."""
        embedded = take(table, self.ids)
        sums = torch.zeros_like(embedded).flatten(0, 1)
        sums = sums.index_add(0, self.slot_of, take(table, self.words) * self.weights[:, None])
        sums = F.rms_norm(sums, sums.shape[-1:]) * table.detach().square().mean().sqrt()
        is_slot = torch.zeros(len(sums), 1, dtype=torch.bool).index_fill_(0, self.slot_of, True)
        return torch.where(is_slot, sums, embedded.flatten(0, 1)).view_as(embedded)


def stated_findings(reports: Sequence[Mapping[str, str]], labeler: Labeler) -> dict[tuple[str, str], tuple[str, ...]]:
    """Region and text -> the labels that it states, in its order, of regions whose texts state any."""
    pairs = sorted({(region, text) for report in reports for region, text in report.items() if text})
    told = {pair: _in_order(pair[1], labeler) for pair in pairs}
    able = {region for (region, _), labels in told.items() if labels}
    return {pair: labels for pair, labels in told.items() if pair[0] in able}


def _in_order(text: str, labeler: Labeler) -> tuple[str, ...]:
    return tuple(labeler.labels[place] for place in order_in_text(text, labeler.label))


def _sentences(texts: Iterable[tuple[str, str]], labeler: Labeler) -> dict[str, dict[tuple[str, ...], list[str]]]:
    """Region -> labels -> the sentences that state just these, of regions with sentences of several kinds."""
    found: dict[str, dict[tuple[str, ...], list[str]]] = {}
    for region, sentence in sorted({(region, one) for region, text in texts for one in SENTENCE_BREAK.split(text)}):
        if labels := _in_order(sentence, labeler):
            found.setdefault(region, {}).setdefault(labels, []).append(sentence)
    return {region: own for region, own in found.items() if len(own) > 1}


class DocumentWriter:
    """Composes documents from the reports of studies.

    Most paragraphs state one finding or none, and a model that has met few lists stops after the first finding. So
    where findings are named, most of the paragraphs that may state any are of sentences from several studies.

    Args:
        tokenizer: writes text as ids.
        reports: region -> text of each study.
        instruction: text between the regions and the report; used in a quarter of the documents, as it is always the
            same and costs time.
        slots: fewest and most slots of a region.
        image_prefix: text before the slots of the whole image, for documents of it alone; ``""`` for those of regions.
        labeler: reads findings that documents name as a prompt with cues does (`reg2rg.models.cues`), where the slots
            of the region then show fewer of its words; ``None`` names none.
    """

    def __init__(
        self,
        tokenizer: Any,
        reports: Sequence[Mapping[str, str]],
        instruction: str = "",
        slots: tuple[int, int] = (3, 6),
        image_prefix: str = "",
        labeler: Labeler | None = None,
    ) -> None:
        self._findings = {} if labeler is None else stated_findings(reports, labeler)
        self._sentences = {} if labeler is None else _sentences(self._findings, labeler)
        self.tokenizer, self.slots, self.image_prefix = tokenizer, slots, image_prefix
        self.studies = [dict(report) for report in reports if report]
        self.most_regions = max(len(report) for report in self.studies)
        self._ids: dict[str, list[int]] = {}
        self._instruction = instruction

    def _tokens(self, text: str) -> list[int]:
        if text not in self._ids:
            encoded = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)
            self._ids[text] = list(encoded["input_ids"])
        return self._ids[text]

    def _words(self, text: str) -> set[int]:
        """Tokens of its words. No digits: they number regions."""
        return {token for word in text.split() if not any(map(str.isdigit, word)) for token in self._tokens(word)}

    def _slots(
        self, region: str, text: str, rng: random.Random, shown_share: float = _SHOWN
    ) -> tuple[list[dict[int, float]], bool]:
        """Words and weights of each of a region's slots, and whether its name is among them."""
        name = self._tokens(region)[0]
        shown = [word for word in sorted(self._words(text) - {name}) if rng.random() < shown_share]
        told = not shown or rng.random() < _TOLD
        out = []
        for _ in range(rng.randint(*self.slots)):
            here = [word for word in shown if rng.random() < _IN_SLOT] + [name] * told
            here = here or [rng.choice(shown)]
            out.append({word: rng.uniform(0.3, 1.0) for word in here})
        return out, told

    def _text(self, region: str, text: str, rng: random.Random) -> tuple[str, tuple[str, ...] | None]:
        """A text of the region and its findings: the one given, or sentences of several studies."""
        pool = self._sentences.get(region)
        if pool is None or rng.random() >= _COMPOSED:
            return text, self._findings.get((region, text))
        kinds = rng.sample(sorted(pool), min(len(pool), rng.choice(_LISTED)))
        sentences = [rng.choice(pool[kind]) for kind in kinds]
        return " ".join(sentences), tuple(dict.fromkeys(label for kind in kinds for label in kind))

    def write(self, rng: random.Random, regions: int) -> Document:
        """One document of at most `regions` regions, or of the whole image with the text of as many."""
        study = rng.choice(self.studies)
        names = rng.sample(sorted(study), min(regions, len(study)))
        if self.image_prefix:
            return self._write_whole(rng, [text for name, text in study.items() if name in names])
        outside, empty = self.tokenizer.unk_token_id, self.tokenizer.pad_token_id  # the former stands for tags
        ids, told = [self.tokenizer.bos_token_id], []
        filled: dict[int, dict[int, float]] = {}
        told_of = {name: self._text(name, study[name], rng) for name in names}
        for slot, (name, (text, findings)) in enumerate(told_of.items()):
            opening = write_paragraph(slot, "", "").partition(":")[0]
            cued = findings is not None and rng.random() < _CUED
            slots, is_told = self._slots(name, text, rng, rng.random() if cued else _SHOWN)
            told.append(is_told)
            ids += [*self._tokens((". " if slot else "") + opening), outside]
            filled |= {len(ids) + i: words for i, words in enumerate(slots)}
            ids += [*[empty] * len(slots), outside]
            if cued and findings is not None:
                ids += self._tokens(cue_text(slot, findings))
        ids += self._prompt_end(rng)
        start, places, turns = len(ids), [], []
        for slot, (name, (text, _)) in enumerate(told_of.items()):
            opening = write_paragraph(slot, "", "").partition(":")[0].rstrip()
            places.append(len(ids) + len(self._tokens(opening)))
            for sentence in SENTENCE_BREAK.split(write_paragraph(slot, name, text).rstrip()):
                ids += self._tokens(sentence)
                turns.append(len(ids))
        ids += [*self._tokens(" "), self.tokenizer.eos_token_id]
        return Document(ids, start, places, told, turns, filled)

    def _write_whole(self, rng: random.Random, texts: Sequence[str]) -> Document:
        """A document of the whole image and one text."""
        outside, empty = self.tokenizer.unk_token_id, self.tokenizer.pad_token_id
        words = sorted(set().union(*map(self._words, texts)))
        ids = [self.tokenizer.bos_token_id, *self._tokens(self.image_prefix), outside]
        count = rng.randint(*_IMAGE_SLOTS)
        bags = [{word: rng.uniform(0.3, 1.0) for word in words if rng.random() < _IN_IMAGE_SLOT} for _ in range(count)]
        filled = {len(ids) + i: bag for i, bag in enumerate(bags)}
        ids += [*[empty] * count, outside, *self._prompt_end(rng)]
        text = self._tokens(" ".join(texts) + " ")
        return Document([*ids, *text, self.tokenizer.eos_token_id], len(ids), [], [], [], filled)

    def _prompt_end(self, rng: random.Random) -> list[int]:
        with_instruction = bool(self._instruction) and rng.random() < 0.25
        return self._tokens(". " + self._instruction if with_instruction else ".")

    def batch(self, rng: random.Random, regions: int, tokens: int) -> Documents:
        """Documents of the same number of regions, about `tokens` ids in all: next to no padding, no packing mask."""
        documents = [self.write(rng, regions)]
        while (len(documents) + 1) * max(len(document.ids) for document in documents) <= tokens:
            documents.append(self.write(rng, regions))
        rows, length = len(documents), max(len(document.ids) for document in documents)
        ids = torch.full((rows, length), self.tokenizer.pad_token_id)
        labels = torch.full((rows, length), IGNORED)
        names, told, turns = (torch.zeros(rows, length, dtype=torch.bool) for _ in range(3))
        words: list[tuple[int, int, float]] = []
        for row, document in enumerate(documents):
            own = torch.tensor(document.ids)
            ids[row, : len(own)] = own
            labels[row, document.start : len(own)] = own[document.start :]
            for place, is_told in zip(document.names, document.told, strict=True):
                names[row, place] = True
                told[row, place] = is_told
            turns[row, document.turns] = True
            words += [
                (row * length + at, word, weight) for at, bag in document.slots.items() for word, weight in bag.items()
            ]
        slot_of, word_ids, weights = zip(*words, strict=True)
        places = torch.tensor(slot_of), torch.tensor(word_ids), torch.tensor(weights)
        return Documents(ids, labels, names, told, turns, *places)
