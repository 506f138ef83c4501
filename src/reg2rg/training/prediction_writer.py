"""Predictions on disk: one JSON a study, whole or absent, and one table of them all."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from pathlib import Path
from typing import Any

import lightning as L

from reg2rg.core.errors import ConfigError
from reg2rg.core.files import sha256, write_json
from reg2rg.core.report import parse_report
from reg2rg.data.batch import Batch
from reg2rg.data.loader import StudyLoader
from reg2rg.evaluation.records import STUDIES, read_records, write_table
from reg2rg.models.reporter import GeneratedReport

log = logging.getLogger(__name__)

RUN, SKIPPED = "run.json", "skipped.json"
_SAY_EVERY_S = 30.0


class PredictionWriter(L.Callback):
    """Writes the reports that ``predict`` generates into a folder, and goes on where an earlier run stopped.

    The folder gets ``studies/<id>.json`` for each study as soon as it is done, ``predictions.csv`` in the published
    column layout at the end, ``skipped.json`` with the studies that could not be read, and ``run.json`` with what the
    predictions were made by; predictions of another checkpoint are not mixed with them.

    Args:
        out: the folder.
    """

    def __init__(self, out: str) -> None:
        self.out = Path(out)
        self._begun = self._said = 0.0
        self._written = self._total = 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find what is complete and leave it out.

        Raises:
            ConfigError: the folder holds predictions that something else made.
        """
        if stage != "predict":
            return
        self._check_run(trainer, pl_module)
        done = frozenset(record["study"] for record in read_records(self.out))
        if done:
            log.warning("%s: %d studies are complete; the others follow", self.out, len(done))
        trainer.datamodule.skip_studies(done)  # type: ignore[attr-defined]

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
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        for answer, texts in zip(outputs, batch.reports, strict=True):
            question = data.encoder.prompt_text(len(answer.regions))
            write_json(self._path(answer.study), record(answer, texts, question, data.identity))
        self._written += len(outputs) * trainer.world_size
        self._say(min(self._written, self._total))

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Write the table, once all processes are done."""
        if stage != "predict":
            return
        trainer.strategy.barrier("predictions")
        skipped = {study: str(fault) for loader in _loaders(trainer) for study, fault in loader.skipped.items()}
        if trainer.is_global_zero:
            write_table(self.out)
            if skipped:
                write_json(self.out / SKIPPED, skipped)

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

    def _check_run(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        run = {
            "model": _weights_digest(trainer, pl_module),
            "target": data.target,
            "identity": data.identity,
            "order": data.order,
            "decoding": str(getattr(pl_module, "decoding", "")),
        }
        path = self.out / RUN
        before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else run
        changed = sorted(key for key in run if before.get(key) != run[key])
        if changed:
            raise ConfigError(
                f"{self.out}: holds predictions made with another {', '.join(changed)} (see {path}). Fix: give another "
                "folder, or delete this one"
            )
        trainer.strategy.barrier("run.json")
        if trainer.is_global_zero:
            write_json(path, run)


def record(answer: GeneratedReport, texts: tuple[str, ...], question: str, identity: bool = True) -> dict[str, Any]:
    """What is written of one study.

    Args:
        answer: its generated report.
        texts: reference texts in slot order, ``""`` where there is none; without regions the whole report alone.
        question: the prompt as people read it.
        identity: the report names its regions.

    Returns:
        the record. Its ``reference`` maps region -> text; a report without regions stands there under ``""``, as in
        RadGenome's tables.
    """
    report = parse_report(answer.text, answer.regions, identity)
    return {
        "study": answer.study,
        "regions": list(answer.regions),
        "text": answer.text,
        "truncated": answer.truncated,
        "paragraphs": [{"slot": p.slot, "region": p.region, "text": p.text} for p in report.paragraphs],
        "invalid": list(report.invalid),
        "duplicate": list(report.duplicate),
        "missing": list(report.missing),
        "reference": dict(zip(answer.regions or ("",), texts, strict=True)),
        "question": question,
    }


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
