"""Predictions on disk: one JSON a study, whole or absent, and one table of them all."""

from __future__ import annotations

import hashlib
import logging
import signal
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import lightning as L
from lightning.pytorch.utilities.exceptions import SIGTERMException

from reg2rg.core.claims import CAMPAIGNS, COMPLETE, Campaign, ClaimLostError, Claims
from reg2rg.core.documents import DocumentError, read_record, write_record
from reg2rg.core.errors import ConfigError, Reg2RGError
from reg2rg.core.files import fenced, sha256, write_json
from reg2rg.core.parallel import shard_of
from reg2rg.core.report import parse_report
from reg2rg.core.task import ReportTask
from reg2rg.core.types import PathText
from reg2rg.data.batch import Batch
from reg2rg.data.loader import StudyLoader
from reg2rg.data.shared import Share, SharedLoader
from reg2rg.evaluation.records import STUDIES, as_facts, read_records, told_decoding, write_table
from reg2rg.models.llm.base import Decoding
from reg2rg.models.writing import GeneratedReport
from reg2rg.store.running import of_shard

log = logging.getLogger(__name__)

RUN = "run.json"
_SAY_EVERY_S = 30.0


@runtime_checkable
class PredictionSource(Protocol):
    """What the writer asks of the data that are reported on; `RegionReportDataModule` answers."""

    task: ReportTask

    def prediction_facts(self) -> dict[str, Any]:
        """What decides the predictions beside the model, and is the same for all studies; plain values by name."""

    def prediction_keys(self) -> dict[str, str]:
        """Study that may be reported on -> digest of what its prediction is made from."""

    def question(self, regions: int) -> str:
        """The prompt of so many regions as people read it."""

    def skip_studies(self, done: frozenset[str]) -> None:
        """Leave these studies out."""


@runtime_checkable
class SharedPredictionSource(PredictionSource, Protocol):
    """Data of which several processes may each report on a part."""

    def share_studies(self, share: Share) -> None:
        """Hand out what is this process's."""


@runtime_checkable
class Reporting(Protocol):
    """A module that says how its reports are decoded; `Reg2RG` does."""

    decoding: Decoding


class PredictionWriter(L.Callback):
    """Writes the reports that ``predict`` generates into a folder, and goes on where an earlier run stopped.

    The folder gets ``studies/<id>.json`` for each study as soon as it is done, ``predictions.csv`` in the published
    column layout at the end, ``skipped.json`` with the studies that could not be read (``skipped-I-of-N.json`` of a
    part without a campaign), and ``run.json`` with what the predictions were made by: the model's weights, its task,
    the kind of the data. Predictions of another run are not mixed with them. Each record has the key of what it was
    made from, in the store and of the reference texts; a study whose key has changed is reported on anew.

    Args:
        out: the folder.

    Attributes:
        is_complete: all studies have a record.
    """

    def __init__(self, out: PathText) -> None:
        self.out = Path(out)
        self.is_complete = False
        self._begun = self._said = 0.0
        self._written = self._total = 0
        self._keys: dict[str, str] = {}
        self._shard, self._campaign = (1, 1), Campaign("")
        self._claims: Claims | None = None

    def take_part(self, shard: tuple[int, int], campaign: Campaign | None) -> None:
        """Write the reports of a part of the studies.

        Args:
            shard: (i, n): of the sorted studies, every n-th from the i-th on, counted from 1.
            campaign: that the parts share. With it a part that is through takes over what others have not begun, or
                left behind when they died; no study is reported on twice at a time, and table and ``skipped.json``
                are written by who finds all studies done.
        """
        self._shard, self._campaign = shard, campaign or Campaign("")

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find what is complete and leave it out.

        Raises:
            ConfigError: the folder holds predictions that something else made, or a part of a campaign has several
                processes.
        """
        if stage != "predict":
            return
        data = _source(trainer)
        self._keys = data.prediction_keys()
        run = self._check_run(trainer, pl_module, data)
        keys = {record["study"]: record.get("key") for record in read_records(self.out, _damaged)}
        self._refuse_others(keys)
        trainer.strategy.barrier("records")  # all have read them before one writes
        done = frozenset(study for study, key in keys.items() if key == self._keys[study])
        if changed := sorted(keys.keys() - done):
            few = f"{', '.join(changed[:3])}{', ...' if len(changed) > 3 else ''}"
            log.warning("%s: the data of %d studies have changed since (%s); they are reported on anew", self.out,
                        len(changed), few)  # fmt: skip
        if done:
            rest = "the others follow" if len(done) < len(self._keys) else "nothing is left to do"
            log.warning("%s: %d studies are complete; %s", self.out, len(done), rest)
        if self._campaign.name:
            self._share_studies(trainer, data, run, done)
        else:
            mine = shard_of(sorted(self._keys), self._shard)
            data.skip_studies(done | self._keys.keys() - frozenset(mine))

    def _share_studies(
        self, trainer: L.Trainer, data: PredictionSource, run: Mapping[str, Any], done: frozenset[str]
    ) -> None:
        if trainer.world_size > 1 or not isinstance(data, SharedPredictionSource):
            raise ConfigError(
                f"trainer: {trainer.world_size} processes on {type(data).__name__}: a part of --shards has one "
                "process, and data that can be shared. Fix: --trainer.devices 1, and as many shards as GPUs"
            )
        self._claims = self._campaign.claims(self.out, [run, self._keys]).__enter__()
        data.share_studies(Share(self._claims, self._shard, done))

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._begun = self._said = time.monotonic()
        self._total = sum(len(loader.samples) for loader in _loaders(trainer))

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: list[GeneratedReport],
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the studies of one batch."""
        data = _source(trainer)
        for place, (answer, texts) in enumerate(zip(outputs, batch.reports, strict=True)):
            told = record(answer, texts, data.question(len(answer.regions)), data.task.identity, batch.tail(place))
            self._write(answer.study, told | {"key": self._keys[answer.study]})
        self._written += len(outputs) * trainer.world_size
        self._say(min(self._written, self._total))
        if trainer.received_sigterm and trainer.world_size == 1:  # Lightning's loop does not look
            raise SIGTERMException(128 + signal.SIGTERM)

    def _write(self, study: str, told: Mapping[str, Any]) -> None:
        """Write a record, unless another process has taken the study over: this one was frozen meanwhile."""
        claim = self._claims.held(study) if self._claims is not None else None
        if self._claims is None or claim is None:
            write_record(self._path(study), told)
            return
        try:
            with fenced(claim.check):
                write_record(self._path(study), told)
        except ClaimLostError:
            self._claims.forget(claim)
        else:
            self._claims.settle(claim, {})

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Leave what is in work to others. What ended an attempt with an error is tried alone the next time."""
        if self._claims is not None:
            self._claims.__exit__(type(exception), exception)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Write the table, once all processes are done."""
        if stage != "predict":
            return
        trainer.strategy.barrier("predictions")
        loaders = _loaders(trainer)
        if self._claims is not None:
            self._claims.__exit__(None)
        if not trainer.is_global_zero or not all(loader.is_complete for loader in loaders):
            return
        skipped = {study: why for loader in loaders for study, why in sorted(loader.faults().items())}
        studies = [study for loader in loaders for study in loader.studies() if study not in skipped]
        missing = [study for study in studies if not self._path(study).is_file()]
        if self._claims is not None and missing:
            raise Reg2RGError(
                f"{self.out}: {len(missing)} studies were reported on, and have no record any more ({missing[0]}). "
                f"Fix: remove {self.out / CAMPAIGNS} and run again"
            )
        self.is_complete = not skipped and not missing
        write_table(self.out)
        if skipped:
            alone = self._shard if self._claims is None else (1, 1)  # a part by itself knows of its own alone
            write_json(self.out / of_shard("skipped", alone), skipped)
        if self._claims is not None:
            write_record(self._claims.folder / COMPLETE, {"skipped": len(skipped)})
            for loader in loaders:
                if isinstance(loader, SharedLoader):
                    loader.hold_limit()

    def _path(self, study: str) -> Path:
        return self.out / STUDIES / f"{study}.json"

    def _say(self, done: int) -> None:
        now = time.monotonic()
        if now - self._said < _SAY_EVERY_S and done < self._total:
            return
        self._said = now
        rate = done / max(now - self._begun, 1e-9)
        left = (self._total - done) / max(rate, 1e-9)
        log.info("%d of %d reports, %.2f a second, about %.0f s left", done, self._total, rate, left)

    def _check_run(self, trainer: L.Trainer, pl_module: L.LightningModule, data: PredictionSource) -> dict[str, Any]:
        run = {
            "model": _weights_digest(trainer, pl_module),
            "decoding": pl_module.decoding.told() if isinstance(pl_module, Reporting) else "",
            **data.prediction_facts(),
            **_findings_facts(pl_module),
        }
        path = self.out / RUN
        before = read_record(path, "give another folder, or delete this one") if path.is_file() else run
        if unknown := [key for key in run if key not in before]:
            raise ConfigError(
                f"{self.out}: holds predictions of an older version, which did not note their {', '.join(unknown)} "
                f"(see {path}), so that nothing can be added to them. Fix: give another folder, or delete this one"
            )
        changed = sorted(key for key in run if key != "task" and before[key] != run[key])
        changed += sorted(data.task.differences(before["task"]))
        if changed:
            raise ConfigError(
                f"{self.out}: holds predictions made with another {', '.join(changed)} (see {path}). Fix: give another "
                "folder, or delete this one"
            )
        trainer.strategy.barrier("run.json")
        if trainer.is_global_zero:
            write_record(path, run)
        return run

    def _refuse_others(self, studies: Collection[str]) -> None:
        if others := sorted(study for study in studies if study not in self._keys):
            few = f"{', '.join(others[:3])}{', ...' if len(others) > 3 else ''}"
            raise ConfigError(
                f"{self.out}: holds predictions of {len(others)} studies that the data do not list ({few}): of another "
                "data set or split. Fix: give another folder, or delete this one"
            )


def record(
    answer: GeneratedReport,
    texts: tuple[str, ...],
    question: str,
    identity: bool = True,
    others: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What is written of one study.

    Args:
        answer: its generated report.
        texts: reference texts in slot order, ``""`` where there is none; without regions the whole report alone.
        question: the prompt as people read it.
        identity: the report names its regions.
        others: the reference's tail, ``None`` for a report without one.

    Returns:
        the record. Its ``decoding`` is ``free``, ``constrained`` or ``forced``; of the last two each paragraph has what
        `reg2rg.core.report.Written` knows of it. Its ``reference`` maps region -> text; a report without regions stands
        there under ``""``, as in RadGenome's tables. With a tail there are ``others`` and ``reference_others``, key ->
        text.
    """
    report = parse_report(answer.text, answer.regions, identity)
    facts = {one.slot: as_facts(one) for one in answer.written}
    tail = {} if others is None else {"others": dict(report.others), "reference_others": dict(others)}
    return tail | {
        "study": answer.study,
        "regions": list(answer.regions),
        "text": answer.text,
        "truncated": answer.truncated,
        "decoding": told_decoding(answer.written),
        "paragraphs": [
            {"slot": p.slot, "region": p.region, "text": p.text} | facts.get(p.slot, {}) for p in report.paragraphs
        ],
        "invalid": list(report.invalid),
        "duplicate": list(report.duplicate),
        "missing": list(report.missing),
        "reference": dict(zip(answer.regions or ("",), texts, strict=True)),
        "question": question,
        **({} if answer.findings is None else {"findings": answer.findings.plain()}),
    }


def _findings_facts(model: L.LightningModule) -> dict[str, Any]:
    """What decides the predictions of a model with a head."""
    point = getattr(getattr(model, "reporter", None), "told_point", "")
    return {"operating_point": point} if point else {}


def _damaged(path: Path, error: DocumentError) -> None:
    log.warning("%s: the study is reported on anew (%s)", path, error)


def _source(trainer: L.Trainer) -> PredictionSource:
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, PredictionSource):
        raise ConfigError(
            f"PredictionWriter: the data are {type(data).__name__}, which does not say what its studies are made from. "
            "Fix: predict with a RegionReportDataModule, or with a data module that has the methods of PredictionSource"
        )
    return data


def _loaders(trainer: L.Trainer) -> list[StudyLoader]:
    loaders = trainer.predict_dataloaders or []
    return list(loaders) if isinstance(loaders, list) else [loaders]


def _weights_digest(trainer: L.Trainer, pl_module: L.LightningModule) -> str:
    """Digest of the checkpoint that is used, or of the weights themselves where there is none."""
    if trainer.ckpt_path:
        path = Path(str(trainer.ckpt_path))
        if path.is_file():
            return sha256(path)
    digest = hashlib.sha256()
    for name, value in sorted(pl_module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(-1)[:4096].float().numpy().tobytes())
    return digest.hexdigest()
