"""The data of a run: studies of a dataset, views from the store, prompts and targets, in batches."""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Self

import lightning as L
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.parallel import usable_cores
from reg2rg.core.report import OTHER
from reg2rg.core.task import ReportTask, Target
from reg2rg.core.types import NonNegativeFloat, NonNegativeInt, PathOrHubId, PathText, PositiveInt, Study, UnitFloat
from reg2rg.data.augment import Augment, AugmentedStore
from reg2rg.data.batch import Batch, collate
from reg2rg.data.encoded import Features, SettledViews, WantedTokens
from reg2rg.data.loader import StudyLoader
from reg2rg.data.order import EVAL_SEED, bucketed_batches, generator
from reg2rg.data.prompt import EncodedSample, PromptEncoder, TokenCounts
from reg2rg.data.published_ids import check_published_ids
from reg2rg.data.samples import Entry, StudySamples
from reg2rg.data.shared import Share, SharedLoader
from reg2rg.datasets.base import Dataset
from reg2rg.scans.base import ReadOptions
from reg2rg.store.encoded import Bits, EncodedStore
from reg2rg.store.store import Store

log = logging.getLogger(__name__)

Split = Literal["train", "val", "test"]
_MOST_WORKERS = 8
"""Most workers by default; one core is left to the training process."""
_LONGEST = 64
"""Samples of a split, the longest by characters, among which the longest in tokens is looked for."""
_NEEDS: dict[Target, str] = {
    "regions": "a region that has text and a mask",
    "joined": "a region that has text and a mask",
    "whole": "a whole report",
}


class RegionReportDataModule(L.LightningDataModule):
    """Batches of regions with their reports.

    Training keeps the regions that have text and a non-empty mask; so do validation and test, unless `test_regions`
    asks for every mask. Regions are shuffled for each sample by (seed, epoch, study id); validation and test by a
    fixed seed, so that no slot gives a region away.

    Args:
        dataset: lists the studies.
        store: folder that ``reg2rg data prepare`` wrote.
        tokenizer: the language model's, or its folder or hub id.
        token_counts: visual tokens of a sample; the model says them.
        task: what the model sees and writes; the model holds the same one.
        read: how ``reg2rg data check`` and ``prepare`` read scans and masks; kept here so that one config says it all.
        batch_size: studies a batch and process.
        eval_batch_size: the same for validation, test and predict; `batch_size` by default.
        workers: worker processes; by default one for each core but one, at most 8.
        pad_to_max_length: pad samples with a target to the task's `max_length`, as the published code does, instead of
            to the longest of the batch. It changes no result and costs time and memory.
        published_ids: refuse a tokenizer that would not give the published special tokens the ids that the published
            weights were trained with; see `check_published_ids`.
        seed: of the order of studies and regions.
        region_dropout: share of the training samples that have some of their regions only, one to all, so that a model
            reports on the regions that it is given and no others. The published code has none: 0.
        region_schedule: curriculum: first epoch -> most regions a sample; 0 lifts the bound.
        max_skip: share of a split's studies that may be missing in the store or unreadable.
        limit_eval_studies: validate, test and predict on so many studies, always the same ones.
        cache: keep views in memory, where the data are small.
        cache_gb: memory for them, for each split.
        test_regions: regions that test and predict prompt: those with a text, or all that have a mask. Without
            regions: studies that have a text, or all.
        predict_split: the split that ``predict`` reports on.
        timeout: seconds to wait for a worker.
        augment: transforms of training studies; validation, test and predict see studies as they are.
        features: tokens of frozen encoders that ``reg2rg data encode`` made: ``auto`` takes them where all that are
            needed are there and legal, and says why not where some are; ``required`` goes on with no others; ``never``.
        feature_bits: of these tokens. 16 is float16; 8 is half as large and less exact, for ``encode`` and here.
    """

    def __init__(
        self,
        dataset: Dataset,
        store: PathText,
        tokenizer: PreTrainedTokenizerBase | PathOrHubId,
        token_counts: TokenCounts,
        task: ReportTask = ReportTask(),  # noqa: B008 (frozen)
        read: ReadOptions = ReadOptions(),  # noqa: B008 (frozen)
        batch_size: PositiveInt = 1,
        eval_batch_size: PositiveInt | None = None,
        workers: NonNegativeInt | None = None,
        pad_to_max_length: bool = False,
        published_ids: bool = False,
        seed: int = 0,
        region_schedule: dict[int, int] | None = None,
        max_skip: UnitFloat = 0.0,
        limit_eval_studies: PositiveInt | None = None,
        cache: bool = False,
        cache_gb: NonNegativeFloat = 4.0,
        test_regions: Literal["with_text", "all"] = "with_text",
        predict_split: Split = "test",
        timeout: NonNegativeFloat = 600.0,
        augment: Augment | None = None,
        region_dropout: UnitFloat = 0.5,
        features: Features = "auto",
        feature_bits: Bits = 16,
    ) -> None:
        super().__init__()
        if batch_size < 1 or (eval_batch_size is not None and eval_batch_size < 1):
            raise ConfigError(f"data.batch_size {batch_size}, eval_batch_size {eval_batch_size}: 1 or more is expected")
        self.dataset, self.read, self.store_path = dataset, read, store
        self.pad_to_max_length, self.published_ids, self.seed = pad_to_max_length, published_ids, seed
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size or batch_size
        self.workers = min(_MOST_WORKERS, usable_cores() - 1) if workers is None else workers
        if region_dropout > 1:
            raise ConfigError(f"data.region_dropout is {region_dropout} (expected a share, 0 to 1)")
        self.region_schedule, self.max_skip, self.region_dropout = region_schedule, max_skip, region_dropout
        self.limit_eval_studies, self.cache_bytes = limit_eval_studies, int(cache_gb * 2**30) if cache else 0
        self.test_regions, self.predict_split, self.timeout = test_regions, predict_split, timeout
        self.augment, self.features, self.feature_bits = augment, features, feature_bits
        self._take(task, tokenizer, token_counts)
        self._done: frozenset[str] = frozenset()
        self._share: Share | None = None
        self._loaders: list[StudyLoader] = []

    def _take(self, task: ReportTask, tokenizer: PreTrainedTokenizerBase | str, token_counts: TokenCounts) -> None:
        if task.target != "regions" and token_counts.region:
            raise ConfigError(
                f"task.target '{task.target}' puts no region into the prompt, but the model has {token_counts.texture} "
                f"texture and {token_counts.geometry} geometry tokens for each. Fix: set model.texture and "
                "model.geometry to null, and give the encoder of the whole image as model.global_"
            )
        _refuse_together(task, self.augment, self.cache_bytes > 0)
        self.task, self.tokenizer, self.token_counts = task, tokenizer, token_counts
        self._entries: dict[tuple[Split, bool], list[Entry]] = {}
        self._settled: SettledViews | None = None

    def offer_settled(self, settled: SettledViews) -> None:
        """Be told by the model, view by view, what is known of its frozen encoder, or why it has none."""
        self._settled = functools.cache(settled)  # gigabytes of weights are hashed: once, not for every loader

    def with_task(self, task: ReportTask, tokenizer: PreTrainedTokenizerBase, token_counts: TokenCounts) -> Self:
        """The same data for another model; see `Reg2RG.conform`.

        Args:
            task: what it sees and writes.
            tokenizer: its language model's.
            token_counts: its visual tokens.
        """
        other = copy.copy(self)
        other.__dict__.pop("encoder", None)
        other._take(task, tokenizer, token_counts)
        return other

    @functools.cached_property
    def store(self) -> Store:
        """The prepared studies."""
        return Store(self.store_path)

    @functools.cached_property
    def encoder(self) -> PromptEncoder:
        """Writes prompts and targets."""
        tokenizer = self.tokenizer
        if isinstance(tokenizer, str):
            try:
                tokenizer = AutoTokenizer.from_pretrained(tokenizer)
            except (OSError, ValueError) as error:
                raise ConfigError(f"data.tokenizer {self.tokenizer}: {str(error).partition(chr(10))[0]}") from None
        if self.published_ids:
            check_published_ids(tokenizer)
        task = self.task
        written = task.identity, task.max_length, task.instruction_text, task.independent_paragraphs
        return PromptEncoder(tokenizer, self.token_counts, *written)

    def setup(self, stage: str) -> None:
        """List the studies of the splits that `stage` needs.

        Raises:
            ConfigError: a split without studies, or prompts that cannot fit.
            DataFault: more studies than `max_skip` allows are not in the store.
        """
        for split in self._splits(stage):
            entries = self.entries(split, all_masks=self._all_masks(stage))
            if entries:
                self.encoder.encode(max(len(entry.regions) for entry in entries))
            elif split != "val" or stage != "fit":
                raise ConfigError(
                    f"the dataset has no study in split '{split}' that is in the store {self.store_path} with "
                    f"{_NEEDS[self.task.target]}. Fix: check the dataset's folders, and run `reg2rg data prepare`"
                )

    def _splits(self, stage: str) -> tuple[Split, ...]:
        needed: dict[str, tuple[Split, ...]] = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}
        return needed.get(stage, (self.predict_split,))

    def longest(self, stage: str) -> Iterator[tuple[Split, str, int, EncodedSample]]:
        """The longest samples of a stage, by characters: split, study, number of regions, and tokens with report."""
        for split in self._splits(stage):
            entries = self.entries(split, all_masks=self._all_masks(stage))
            entries = entries if split == "train" else self._limited(entries)
            samples = StudySamples(entries, self.store, self.task.views, self.encoder)
            lengths = samples.lengths(0)
            for index in sorted(range(len(entries)), key=lambda place: -lengths[place])[:_LONGEST]:
                with contextlib.suppress(DataFault):  # of a report: told when its turn comes, and counted
                    names, _, sample = samples.written(index, 0)
                    yield split, entries[index].study, len(names), sample

    def entries(self, split: Split, all_masks: bool = False) -> list[Entry]:
        """Studies of a split with the regions that may be prompted, sorted by id; listed once.

        Args:
            split: which.
            all_masks: every region with a mask, not only those with text.
        """
        if (split, all_masks) not in self._entries:
            studies = [study for study in self.dataset.studies() if study.split == split]
            self._entries[split, all_masks] = self._listed(split, studies, all_masks)
        return self._entries[split, all_masks]

    # ---- what the prediction writer asks (`PredictionSource`)

    def prediction_facts(self) -> dict[str, Any]:
        """What decides the predictions of ``predict`` beside the model, and is the same for all studies."""
        facts = {"task": self.task.values(), "dataset": type(self.dataset).__name__, "test_regions": self.test_regions}
        coarse = self.feature_bits != 16 and self.features != "never"  # float16 is within rounding
        return facts | ({"feature_bits": self.feature_bits} if coarse else {})

    def prediction_keys(self) -> dict[str, str]:
        """Study that ``predict`` may report on -> digest of its entry in the store, its regions and reference texts."""
        index = self.store.index()
        entries = self.entries(self.predict_split, self._all_masks("predict"))
        facts: dict[str, list[Any]] = {e.study: [index[e.study].key, e.regions, e.reports] for e in entries}
        for entry in entries:  # a record without a tail keeps the key that it had before there was one
            facts[entry.study] += [] if entry.others is None else [entry.others]
        return {study: hashlib.sha256(json.dumps(told).encode()).hexdigest() for study, told in facts.items()}

    def question(self, regions: int) -> str:
        """The prompt of so many regions as people read it."""
        return self.encoder.prompt_text(regions)

    def skip_studies(self, done: frozenset[str]) -> None:
        """Leave these studies out of ``predict``: they are complete."""
        self._done = done

    def share_studies(self, share: Share) -> None:
        """Let ``predict`` report on what is this process's of studies that several report on."""
        self._share = share

    def train_dataloader(self) -> StudyLoader:
        """Batches in an order that depends on seed and epoch alone."""
        return self._loader("train", self.entries("train"), train=True)

    def val_dataloader(self) -> StudyLoader | list[Any]:
        """Batches in a fixed order."""
        entries = self._limited(self.entries("val"))
        return self._loader("val", entries) if entries else []

    def test_dataloader(self) -> StudyLoader:
        """Batches in a fixed order."""
        return self._loader("test", self._limited(self.entries("test", self._all_masks("test"))))

    def texts_dataloader(self, split: Split) -> StudyLoader:
        """Studies of a split with their texts, in a fixed order, for what looks at them without training.

        Raises:
            ConfigError: there are none.
        """
        entries = self._limited(self.entries(split))
        if not entries:
            raise ConfigError(f"no study of split '{split}' with {_NEEDS[self.task.target]}. Fix: another split")
        return self._loader("texts", entries)

    def rest_of(self, split: Split, studies: int) -> Self:
        """The same data without those studies of a split that `limit_eval_studies` of this number would choose."""
        other = copy.copy(self)
        other.limit_eval_studies = studies
        taken = {entry.study for entry in other._limited(self.entries(split))}
        other._entries = {(split, False): [entry for entry in self.entries(split) if entry.study not in taken]}
        other.limit_eval_studies = None
        return other

    def predict_dataloader(self) -> StudyLoader | list[Any]:
        """Prompts without target, in a fixed order, of studies that are not done."""
        entries = self._limited(self.entries(self.predict_split, self._all_masks("predict")))
        if self._share is not None:
            return self._loader("predict", entries, with_target=False)
        left = [entry for entry in entries if entry.study not in self._done]
        return self._loader("predict", left, with_target=False) if left else []

    def teardown(self, stage: str) -> None:
        """End the loaders' workers."""
        while self._loaders:
            self._loaders.pop().close()

    def on_exception(self, exception: BaseException) -> None:
        """End the loaders' workers; Lightning does not call `teardown` then."""
        self.teardown("exception")

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Fixed point to floating point, on the device."""
        return batch.scaled(self.task.views.window)

    def _all_masks(self, stage: str) -> bool:
        return stage in ("test", "predict") and self.test_regions == "all"

    def _listed(self, split: Split, studies: Sequence[Study], all_masks: bool) -> list[Entry]:
        prepared = set(self.store.studies())
        missing = [study.id for study in studies if study.id not in prepared]
        if len(missing) > self.max_skip * len(studies):
            raise DataFault.of(
                "NOT_PREPARED",
                found=f"{len(missing)} of {len(studies)} studies of split '{split}' are not in the store: "
                f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}",
                expected=f"at most {self.max_skip:.1%} (data.max_skip)",
                fix="run `reg2rg data prepare` and see what it skipped; to go on without them raise data.max_skip",
                path=self.store_path,
            )
        known = self.task.region_set.names
        listed = [self._entry(study, known, all_masks) for study in studies if study.id in prepared]
        entries = [entry for entry in listed if entry is not None]
        if missing or len(entries) < len(listed):
            log.warning(
                "Split %s: %d studies; left out %d that are not in the store and %d without %s.",
                split,
                len(entries),
                len(missing),
                len(listed) - len(entries),
                _NEEDS[self.task.target],
            )
        return entries

    def _entry(self, study: Study, known: Sequence[str], all_masks: bool) -> Entry | None:
        """What samples of a study need, or ``None`` if there is nothing to report on."""
        masks = set(self.store.regions(study.id))
        if study.masks is None and self.task.target != "regions":  # no mask is left out: all texts count
            masks = set(known)
        names = tuple(name for name in known if name in masks and (all_masks or study.reports.get(name)))
        texts = tuple(study.reports.get(name, "") for name in names)
        if self.task.target == "regions":
            return Entry(study.id, names, texts, self._tail(study, names)) if names else None
        report = study.whole if self.task.target == "whole" else " ".join(filter(None, texts))
        return Entry(study.id, (), (report,)) if report or all_masks else None

    def _tail(self, study: Study, given: Sequence[str]) -> tuple[tuple[str, str], ...] | None:
        """Texts of regions that are not given, for they have no mask, and of no region; ``None`` without a tail."""
        if not self.task.tail:
            return None
        unmasked = [name for name in self.task.region_set.names if name not in given and study.reports.get(name)]
        return (*((name, study.reports[name]) for name in unmasked), (OTHER, study.other))

    def _limited(self, entries: list[Entry]) -> list[Entry]:
        if self.limit_eval_studies is None or len(entries) <= self.limit_eval_studies:
            return entries
        chosen = generator(EVAL_SEED, 0, "limit").permutation(len(entries))[: self.limit_eval_studies]
        return [entries[i] for i in sorted(chosen)]

    def _loader(
        self, purpose: str, entries: Sequence[Entry], train: bool = False, with_target: bool = True
    ) -> StudyLoader:
        wanted = WantedTokens(self.features, self.feature_bits, self.augment is not None)
        encoded = wanted.find(self.store, self.task.views, self.encoder.counts.views, entries, self._settled)
        samples = StudySamples(
            entries,
            EncodedStore(self.store, encoded) if encoded else self.store,
            self.task.views,
            self.encoder,
            seed=self.seed,
            train=train,
            shuffled=self.task.order == "shuffled" or (train and self.task.order == "listed_in_evaluation"),
            schedule=self.region_schedule,
            dropout=self.region_dropout,
            with_target=with_target,
            cache_bytes=self.cache_bytes if purpose in ("train", "val") else 0,
            augmented=functools.partial(AugmentedStore, self.store, self.augment) if self.augment else None,
            tokens={name: (*one.shape, one.dtype) for name, one in encoded.items()},
        )
        if self.workers:  # the tokenizer's own threads do not survive a fork; it would say so for every worker
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        size = (self.batch_size if train else self.eval_batch_size) * world
        seed = self.seed if train else EVAL_SEED

        pad_to = self.task.max_length if self.pad_to_max_length and with_target else 0
        overfits = train and getattr(self.trainer, "overfit_batches", 0) > 0

        def plan(epoch: int) -> list[list[int]]:
            epoch = 0 if overfits else epoch  # always the same few batches
            return bucketed_batches(samples.lengths(epoch), size, seed, epoch)

        shares = self._share is not None and purpose == "predict"
        loader = (SharedLoader if shares else StudyLoader)(
            samples,
            plan,
            functools.partial(collate, counts=self.token_counts, pad_id=self.encoder.pad_id, pad_to=pad_to),
            workers=min(self.workers, len(entries)),
            train=train,
            rank=rank,
            world=world,
            max_skip=self.max_skip,
            timeout=self.timeout,
            pin=torch.cuda.is_available(),
        )
        if isinstance(loader, SharedLoader) and self._share is not None:
            loader.join(self._share)
        self._loaders.append(loader)
        return loader


def _refuse_together(task: ReportTask, augment: Augment | None, cache: bool) -> None:
    """Refuse settings that contradict each other."""
    if task.views.features and cache:
        raise ConfigError("data.cache keeps views of scans, and the task's are features. Fix: data.cache: false")
    if task.views.features and augment is not None:
        raise ConfigError(
            "data.augment transforms scans, and the task sees features that were made of them before "
            f"({task.views.features}). Fix: leave data.augment out"
        )
    if augment is not None and cache:
        raise ConfigError(
            "data.cache would keep one epoch's views for all, and data.augment makes others in each. Fix: data.cache: "
            "false, or leave data.augment out"
        )
