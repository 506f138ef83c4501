"""A trained model as an audit sees it: encoders that are run once, and a language model that writes from any tokens."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reg2rg.audit.masks import AMOUNTS_MM, altered_detail
from reg2rg.audit.plan import INTERVENTIONS, MASKS, MIXED, NO_GLOBAL, Case
from reg2rg.audit.records import digest_of
from reg2rg.audit.subject import ATTRIBUTES, GEOMETRY, TEXTURE, Array, Emptiness, StudyTokens
from reg2rg.core.errors import ConfigError
from reg2rg.core.regions import RegionSet
from reg2rg.core.report import split_report, split_tail
from reg2rg.data.batch import Batch, Sample, collate
from reg2rg.data.datamodule import RegionReportDataModule, Split
from reg2rg.data.prompt import TAGS
from reg2rg.data.samples import StudySamples
from reg2rg.pretrained.fingerprint import digest
from reg2rg.store.attributes import measure, vector
from reg2rg.store.crop import Detail
from reg2rg.store.views import FRACTION_SCALE, HU_SCALE, compute_views
from reg2rg.training.module import Reg2RG


class ModelSubject:
    """A trained model on the studies of a data set; see `reg2rg.audit.subject.Subject`.

    Args:
        model: in eval mode, on its device.
        data: as the model takes them (`Reg2RG.conform`).
        split: whose studies; those of `data.limit_eval_studies` where that is set.

    Raises:
        ConfigError: a model that reports without regions, or sees nothing of them.
    """

    def __init__(self, model: Reg2RG, data: RegionReportDataModule, split: Split = "test") -> None:
        if model.task.target != "regions" or not model.token_counts.region:
            raise ConfigError(
                "reg2rg audit intervenes on the tokens of one region, and this model has none "
                f"(task.target '{model.task.target}', {model.token_counts.region} tokens a region). Fix: audit what it "
                "writes: reg2rg audit PREDICTIONS"
            )
        self.model, self.data = model, data
        samples = data.texts_dataloader(split).samples
        wanted = {samples.study(place) for place in range(len(samples))}
        chosen = [entry for entry in data.entries(split) if entry.study in wanted]
        patients = {study.id: study.patient for study in data.dataset.studies()}
        self.cases = [
            Case(one.study, patients[one.study], dict(zip(one.regions, one.reports, strict=True))) for one in chosen
        ]
        shuffled = model.task.order == "shuffled"
        self._samples = StudySamples(
            chosen, data.store, model.task.views, data.encoder, shuffled=shuffled, with_target=False
        )
        self._places = {entry.study: place for place, entry in enumerate(chosen)}
        self._prompts: dict[str, Sample] = {}
        self._detail: tuple[str, Detail] | None = None
        self._weights = {  # now: merging adapters changes the weights that they stand beside
            "model": digest(model.state_dict()),
            "language model": digest(dict(model.reporter.llm.reference_tensors())),
        }

    @property
    def region_set(self) -> RegionSet:
        """The model's."""
        return self.model.task.region_set

    def facts(self) -> dict[str, Any]:
        """Weights, decoding, operating point, task, and what the studies were prepared from."""
        index, reporter = self.data.store.index(), self.model.reporter
        return {
            **self._weights,
            "decoding": self.model.decoding.told(),
            "operating point": reporter.told_point,
            "task": self.model.task.values(),
            "dataset": type(self.data.dataset).__name__,
            "scans": digest_of([[case.study, index[case.study].key] for case in self.cases]),
            "masks": dict(AMOUNTS_MM),
        }

    def able(self) -> tuple[tuple[str, ...], str]:
        """All interventions but those on what the model does not see, or the store does not hold."""
        counts, left = self.data.token_counts, dict[str, str]()
        if not counts.geometry or not (counts.texture or counts.attributes):
            left[MIXED] = "the model does not see texture and geometry apart"
        if not counts.global_:
            left[NO_GLOBAL] = "the model does not see the whole image"
        if self.model.task.views.features:
            left |= dict.fromkeys(MASKS, "the store holds features, and no scan to lay other masks on")
        elif not self.data.store.native_path(self.cases[0].study).is_file():
            left |= dict.fromkeys(MASKS, "the store was prepared with --views-only")
        why = "; ".join(
            f"{', '.join(n for n in left if left[n] == said)}: {said}" for said in dict.fromkeys(left.values())
        )
        return tuple(name for name in INTERVENTIONS if name not in left), why

    def read(self, study: str) -> StudyTokens:
        """Run the encoders on one study."""
        sample = self._sample(study)
        own, image = self._encoded(sample)
        return StudyTokens(study, sample.regions, own, image)

    def empty(self) -> Emptiness:
        """Tokens of air with an empty mask and nothing measured; features are 0.

        Tokens that are pooled under a mask have one that is everywhere: there is no mean over nothing.
        """
        sample, low = _first(self._sample(self.cases[0].study)), self.model.task.views.window[0] * HU_SCALE

        def air(view: Any) -> Any:
            return np.full_like(view, low if view.dtype == np.int16 else 0)

        own, image = self._encoded(
            replace(
                sample,
                texture=_of(sample.texture, air),
                geometry=_of(
                    sample.geometry,
                    lambda view: np.full_like(view, FRACTION_SCALE if self.data.token_counts.pooled else 0),
                ),
                global_=_of(sample.global_, air),
                attributes=_of(sample.attributes, np.zeros_like),
            )
        )
        return Emptiness({part: tokens[0] for part, tokens in own.items()}, image)

    def noise(self, study: str, generator: np.random.Generator) -> Mapping[str, Mapping[str, Array]]:
        """Tokens of voxels, fractions and measured values that are white noise over their whole range."""
        sample = self._sample(study)
        low, high = (bound * HU_SCALE for bound in self.model.task.views.window)

        def voxels(view: Any) -> Any:
            if view.dtype != np.int16:  # features
                return generator.standard_normal(view.shape, np.float32).astype(view.dtype)
            return generator.integers(low, high, view.shape, np.int16, endpoint=True)

        def fractions(view: Any) -> Any:
            return generator.integers(0, FRACTION_SCALE, view.shape, np.int16, endpoint=True)

        def numbers(view: Any) -> Any:
            return generator.standard_normal(view.shape, np.float32)

        own, _ = self._encoded(
            replace(
                sample,
                texture=_of(sample.texture, voxels),
                geometry=_of(sample.geometry, fractions),
                global_=_of(sample.global_, voxels if self.data.token_counts.pooled else np.copy),
                attributes=_of(sample.attributes, numbers),
            )
        )
        return {name: {part: own[part][slot] for part in own} for slot, name in enumerate(sample.regions)}

    def altered(self, study: str, how: str) -> Mapping[str, Mapping[str, Array]]:
        """Tokens of each region under a mask that is not its own, all views and measures made anew."""
        sample, detail = self._sample(study), self._native(study)
        changed = {name: new for name in sample.regions if (new := altered_detail(detail, name, how)) is not None}
        if not changed:
            return {}
        task, want = self.model.task, self._samples.want
        views = [compute_views(task.views, new, [name], want - {"global"}) for name, new in changed.items()]
        measured = None
        if self.data.token_counts.attributes:
            measured = np.stack([vector(measure(new, task.region_set), name) for name, new in changed.items()])
        names = tuple(changed)
        own, _ = self._encoded(
            Sample(
                study,
                names,
                ("",) * len(names),
                self.data.encoder.encode_sample(names, ("",) * len(names), False, None),
                _joined([one.texture for one in views]),
                _joined([one.geometry for one in views]),
                sample.global_,
                measured,
            )
        )
        return {name: {part: own[part][place] for part in own} for place, name in enumerate(names)}

    @torch.no_grad()
    def write(self, tokens: Sequence[StudyTokens], named: bool = False) -> list[tuple[str, ...]]:
        """Write reports from tokens; paragraphs go by their slots, whatever names they have."""
        decoding, reporter = self.model.decoding, self.model.reporter
        if named and decoding.form is not None:
            decoding = replace(decoding, form=replace(decoding.form, forced=True))
        batch = self._batch([self._prompt(one.study) for one in tokens])
        answers = reporter.generate(batch, decoding, self._table(tokens))
        return [paragraphs_at_slots(answer.text, len(answer.regions)) for answer in answers]

    def _batch(self, samples: Sequence[Sample]) -> Batch:
        batch = collate(samples, self.data.token_counts, self.data.encoder.pad_id)
        return batch.to(self.model.device).scaled(self.model.task.views.window)

    def _sample(self, study: str) -> Sample:
        return self._samples.sample(self._places[study], 0)

    def _prompt(self, study: str) -> Sample:
        """A study's sample without views: what the language model needs beside tokens."""
        if study not in self._prompts:
            names, texts, encoded = self._samples.written(self._places[study], 0)
            self._prompts[study] = Sample(study, names, texts, encoded)
        return self._prompts[study]

    def _native(self, study: str) -> Detail:
        if self._detail is None or self._detail[0] != study:
            self._detail = study, self.data.store.read(study).detail
        return self._detail[1]

    @torch.no_grad()
    def _encoded(self, sample: Sample) -> tuple[dict[str, Array], Array | None]:
        """Part -> (R, T, E) tokens of the regions of a sample, and (T, E) those of the whole image."""
        table = self.model.reporter.visual_table(self._batch([sample])).float().cpu()
        counts = self.data.token_counts
        image = table[TAGS : TAGS + counts.global_].numpy() if counts.global_ else None
        own = table[TAGS + counts.global_ :].view(len(sample.regions), counts.region, -1)
        parts = torch.split(own, [counts.texture, counts.geometry, counts.attributes], dim=1)
        named = zip((TEXTURE, GEOMETRY, ATTRIBUTES), parts, strict=True)
        return {name: part.numpy() for name, part in named if part.shape[1]}, image

    def _table(self, tokens: Sequence[StudyTokens]) -> Tensor:
        """The table that fills the slots of a batch, as `RegionReporter.visual_table` lays it out."""
        tags = self.model.reporter.tags
        images = [torch.from_numpy(one.image) for one in tokens if one.image is not None]
        regions = [
            torch.from_numpy(np.concatenate([one.own[part] for part in _parts(one.own)], axis=1)).flatten(0, 1)
            for one in tokens
        ]
        rows = torch.cat([*images, *regions]).to(tags.device, tags.dtype)
        return torch.cat([tags, rows])


def _parts(own: Collection[str]) -> list[str]:
    return [part for part in (TEXTURE, GEOMETRY, ATTRIBUTES) if part in own]


def paragraphs_at_slots(text: str, slots: int) -> tuple[str, ...]:
    """The paragraph at each slot, whichever region it names; ``""`` where there is none. Of two the first counts."""
    found: dict[int, str] = {}
    for part in split_report(split_tail(text)[0]):
        if part.slot is not None and part.slot < slots:
            found.setdefault(part.slot, " ".join(part.text.split()))
    return tuple(found.get(slot, "") for slot in range(slots))


def _first(sample: Sample) -> Sample:
    """The sample's first region alone; its prompt stays that of all, and is not looked at."""
    return replace(
        sample,
        regions=sample.regions[:1],
        reports=sample.reports[:1],
        texture=_of(sample.texture, lambda view: view[:1]),
        geometry=_of(sample.geometry, lambda view: view[:1]),
        attributes=_of(sample.attributes, lambda view: view[:1]),
    )


def _of(view: Any, change: Callable[[Any], Any]) -> Any:
    return None if view is None else change(view)


def _joined(views: Sequence[Any]) -> Any:
    return None if views[0] is None else np.concatenate(views)
