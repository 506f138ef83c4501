"""Documents from which a language model learns to report by region, made of report text alone.

A document has the form of a sample: numbered regions, then the report. Where a sample has the visual tokens of a
region, a document has a few words of that region's paragraph, shuffled, often with its name. So the model learns the
words of reports, the form of the answer, and to look up by number what stands behind 'The region i is', before it sees
an image. Region order is random, and nothing but the words ties a number to a region.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reg2rg.report import write_paragraph

IGNORED = -100


@dataclass(frozen=True, slots=True)
class Document:
    """One document.

    Attributes:
        ids: token ids.
        start: where the report begins; what stands before carries no loss.
        names: positions of the first token of each region's name in the report.
        told: for each of `names`, whether the name stands among the words given in its place.
    """

    ids: list[int]
    start: int
    names: list[int]
    told: list[bool]


@dataclass(frozen=True, slots=True)
class Documents:
    """A padded batch: ids (B, L), labels (B, L), and (B, L) bool at the names, and at those that were told."""

    ids: Tensor
    labels: Tensor
    names: Tensor
    told: Tensor


class DocumentWriter:
    """Composes documents from the reports of studies.

    Args:
        tokenizer: writes text as ids.
        reports: region -> text of each study.
        instruction: text between the regions and the report; used in a quarter of the documents, as it is always the
            same and costs time.
        words: fewest and most words in a region's place.
    """

    def __init__(
        self,
        tokenizer: Any,
        reports: Sequence[Mapping[str, str]],
        instruction: str = "",
        words: tuple[int, int] = (2, 6),
    ) -> None:
        self.tokenizer, self.words = tokenizer, words
        self.studies = [dict(report) for report in reports if report]
        self.most_regions = max(len(report) for report in self.studies)
        self._ids: dict[str, list[int]] = {}
        self._instruction = instruction

    def _tokens(self, text: str) -> list[int]:
        if text not in self._ids:
            self._ids[text] = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return self._ids[text]

    def _words(self, region: str, text: str, rng: random.Random) -> tuple[list[int], bool]:
        """What stands in a region's place, and whether its name is among it. No digits: they number regions."""
        plain = [token for word in text.split() if word.isalpha() for token in self._tokens(word)]
        chosen = rng.sample(plain, min(len(plain), rng.randint(*self.words)))
        told = not chosen or rng.random() < 0.6
        if told:
            chosen.insert(rng.randint(0, len(chosen)), self._tokens(region)[0])
        return chosen[: self.words[1]], told and self._tokens(region)[0] in chosen[: self.words[1]]

    def write(self, rng: random.Random, regions: int, brief: bool) -> Document:
        """One document of at most `regions` regions; a brief one has no text but the names."""
        study = rng.choice(self.studies)
        names = rng.sample(sorted(study), min(regions, len(study)))
        outside = self.tokenizer.unk_token_id  # stands for the tags around visual tokens
        ids, told = [self.tokenizer.bos_token_id], []
        for slot, name in enumerate(names):
            opening = write_paragraph(slot, "", "").partition(":")[0]
            words, is_told = self._words(name, study[name], rng)
            told.append(is_told)
            ids += [*self._tokens((". " if slot else "") + opening), outside, *words, outside]
        with_instruction = bool(self._instruction) and rng.random() < 0.25
        ids += self._tokens(". " + self._instruction if with_instruction else ".")
        start, places = len(ids), []
        for slot, name in enumerate(names):
            opening = write_paragraph(slot, "", "").partition(":")[0].rstrip()
            places.append(len(ids) + len(self._tokens(opening)))
            ids += self._tokens(write_paragraph(slot, name, "" if brief else study[name]).rstrip())
        return Document([*ids, *self._tokens(" "), self.tokenizer.eos_token_id], start, places, told)

    def batch(self, rng: random.Random, regions: int, brief: bool, tokens: int) -> Documents:
        """Documents of the same number of regions, about `tokens` ids in all: next to no padding, no packing mask."""
        documents = [self.write(rng, regions, brief)]
        while (len(documents) + 1) * max(len(document.ids) for document in documents) <= tokens:
            documents.append(self.write(rng, regions, brief))
        shape = len(documents), max(len(document.ids) for document in documents)
        out = Documents(
            torch.full(shape, self.tokenizer.pad_token_id),
            torch.full(shape, IGNORED),
            torch.zeros(shape, dtype=torch.bool),
            torch.zeros(shape, dtype=torch.bool),
        )
        for row, document in enumerate(documents):
            ids = torch.tensor(document.ids)
            out.ids[row, : len(ids)] = ids
            out.labels[row, document.start : len(ids)] = ids[document.start :]
            for place, told in zip(document.names, document.told, strict=True):
                out.names[row, place] = True
                out.told[row, place] = told
        return out
