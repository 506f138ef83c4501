"""The contract checks catch what they are for."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.regions import RegionSet, load_region_set
from reg2rg.core.types import LabelMap, RegionFiles, Study
from reg2rg.datasets.base import Dataset, Listing
from reg2rg.inference.exporters import JSON, Exporter
from reg2rg.inference.result import ReportResult
from reg2rg.models.encoders import Encoder
from reg2rg.models.projectors import LinearProjector, Projector
from reg2rg.runners import Local, Outcome, Runner
from reg2rg.scans.base import Reader, ReadOptions, StoredImage
from reg2rg.scans.nifti import NIfTI
from reg2rg.scans.segmenters import MadeBy, Segmentation, Segmenter
from reg2rg.testing import (
    ContractError,
    check_dataset,
    check_encoder,
    check_exporter,
    check_projector,
    check_reader,
    check_runner,
    check_segmenter,
)

SIZE = (4, 4, 2)


class Good(Encoder):
    def __init__(self) -> None:
        super().__init__()
        self.out_channels, self.num_tokens = 3, 2
        self.linear = nn.Linear(16, 3)

    def forward(self, volumes: Tensor) -> Tensor:
        return self.linear(volumes.reshape(len(volumes), 2, 16))


class NoWidth(Good):
    def __init__(self) -> None:
        super().__init__()
        del self.num_tokens


class WrongWidth(Good):
    def __init__(self) -> None:
        super().__init__()
        self.out_channels = 4


class LooksAtOthers(Good):
    def forward(self, volumes: Tensor) -> Tensor:
        return super().forward(volumes - volumes.mean(0))


class NotFinite(Good):
    def forward(self, volumes: Tensor) -> Tensor:
        return super().forward(volumes / volumes.std(dim=(1, 2, 3, 4), keepdim=True))


class Random(Good):
    def forward(self, volumes: Tensor) -> Tensor:
        return super().forward(volumes + torch.rand_like(volumes))


class Unused(Good):
    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(1, 1)


class Scalar(Good):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(1.0))


class Detached(Good):
    def forward(self, volumes: Tensor) -> Tensor:
        return super().forward(volumes) * 0


class Forgetful(Good):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = torch.rand(3)

    def forward(self, volumes: Tensor) -> Tensor:
        return super().forward(volumes) + self.hidden.to(volumes)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (NoWidth, "num_tokens: found None"),
        (WrongWidth, r"shape on random volumes: found \(3, 2, 3\), expected \(3, 2, 4\)"),
        (LooksAtOthers, "batch composition"),
        (NotFinite, "output on empty volumes: found inf or nan"),
        (Random, "eval mode: found two passes that differ"),
        (Unused, "gradient of spare.weight: found none"),
        (Scalar, "shape of gain: found a scalar"),
        (Detached, "gradients: found zeros alone"),
        (Forgetful, "state dict: found other output"),
    ],
)
def test_encoders_that_break_the_contract(encoder: Callable[[], Encoder], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check_encoder(encoder, SIZE)


def test_an_encoder_that_keeps_it() -> None:
    check_encoder(Good, SIZE)


class Narrow(Projector):
    def forward(self, tokens: Tensor) -> Tensor:
        return tokens


def test_projectors() -> None:
    check_projector(LinearProjector)
    with pytest.raises(ContractError, match=r"Narrow: shape on random tokens: found \(3, 4, 12\)"):
        check_projector(Narrow)


class Listed(Dataset):
    def __init__(self, *studies: Study) -> None:
        super().__init__()
        self.listed = studies

    def scan(self) -> Listing:
        return Listing(self.listed)


def study(image: Path, name: str = "a", split: str = "train") -> Study:
    return Study(name, name, split, image, LabelMap(image, {"lung": (1,)}))


def test_datasets(tmp_path: Path) -> None:
    image = tmp_path / "a.nii"
    image.touch()
    check_dataset(lambda: Listed(study(image)))
    for wrong, message in (
        (study(tmp_path / "none.nii"), "image of a: found no file"),
        (study(image, "../a"), "study id: found '../a'"),
        (study(image, split="dev"), "split of a: found 'dev'"),
    ):
        with pytest.raises(ContractError, match=message):
            check_dataset(lambda wrong=wrong: Listed(wrong))
    with pytest.raises(ContractError, match="duplicates"):
        check_dataset(lambda: Listed(study(image), study(image)))


class Swaps(Local):
    """Gives each job the outcome of the one before."""

    def run(self, jobs, begin, stop):
        pairs = list(super().run(jobs, begin, stop))
        yield from ((job, pairs[place - 1][1]) for place, (job, _) in enumerate(pairs))


class Loses(Local):
    def run(self, jobs, begin, stop):
        return super().run(jobs[1:], begin, stop)


class SaysNothing(Local):
    def run(self, jobs, begin, stop):
        return super().run(jobs, lambda job: None, stop)


class HandsOverAll(Local):
    """Begins jobs though it was told to stop."""

    def run(self, jobs, begin, stop):
        for job in jobs if stop.event.is_set() else ():
            begin(job)
        yield from super().run(jobs, begin, stop)


class GivesUp(Runner):
    """Raises what a job raises."""

    def run(self, jobs, begin, stop):
        for job in jobs:
            begin(job)
            yield job, job.execute(stop)


class Forgets(Local):
    """Folder and environment stay behind."""

    def run(self, jobs, begin, stop):
        for job, outcome in super().run(jobs, begin, stop):
            yield job, Outcome(outcome.status, outcome.seconds, outcome.message.replace(str(job.cwd), "/"))


@pytest.mark.parametrize(
    ("build", "part"),
    [
        (Swaps, "status of job 1: found done, expected failed"),
        (Loses, "jobs begun"),
        (SaysNothing, "order"),
        (HandsOverAll, "jobs when told to stop"),
        (Forgets, "environment and folder of job 0"),
    ],
)
def test_a_bad_runner_is_named(build: type[Local], part: str) -> None:
    with pytest.raises(ContractError, match=part):
        check_runner(lambda folder: build(1))


def test_a_runner_must_not_give_up(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot even begin"):
        check_runner(lambda folder: GivesUp(folder, {}))


class TakesAll(NIfTI):
    def matches(self, path: Path) -> bool:
        return True


class Tolerant(NIfTI):
    """Gives what it had, as careless readers do."""

    had: StoredImage

    def read(self, path: Path) -> StoredImage:
        try:
            type(self).had = super().read(path)
        except DataFault:
            if path.name != "a.nii":
                raise
        return self.had


class Crashes(NIfTI):
    def read(self, path: Path) -> StoredImage:
        return super().read(path) if path.stat().st_size > 5000 else {}["voxels"]


class Flips(NIfTI):
    seen = 0

    def read(self, path: Path) -> StoredImage:
        type(self).seen += 1
        image = super().read(path)
        return replace(image, stored=image.stored[:: (-1) ** self.seen])


@pytest.mark.parametrize(
    ("reader", "message"),
    [
        (TakesAll, "matches for a text: found True"),
        (Tolerant, "bytes: found an image, expected DataFault"),
        (Crashes, "KeyError"),
        (Flips, "another image the second time"),
    ],
)
def test_readers_that_break_the_contract(reader: type[Reader], message: str, tmp_path: Path) -> None:
    array = np.arange(4096).reshape(16, 16, 16).astype(np.int16)
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "a.nii")
    check_reader(NIfTI, tmp_path / "a.nii")
    with pytest.raises(ContractError, match=message):
        check_reader(reader, tmp_path / "a.nii")


class Found(Segmenter):
    def __init__(self, masks: RegionFiles | LabelMap, name: str = "Found") -> None:
        self.found = Segmentation(masks, MadeBy(name))

    def segment(self, scan: Path, regions: RegionSet, options: ReadOptions | None = None) -> Segmentation:
        return self.found


def test_segmenters_that_break_the_contract(tmp_path: Path) -> None:
    scan, regions = tmp_path / "a.nii", load_region_set()
    nib.save(nib.Nifti1Image(np.arange(4096).reshape(16, 16, 16).astype(np.int16) % 9, np.eye(4)), scan)
    nib.save(nib.Nifti1Image(np.ones((16, 16, 16), np.uint8), np.diag([1.0, 1.0, 1.0, 1.0])), tmp_path / "m.nii")
    good = RegionFiles({"lung": tmp_path / "m.nii"})
    check_segmenter(lambda: Found(good), scan, regions)
    check_segmenter(lambda: Found(LabelMap(tmp_path / "m.nii", {"lung": (1,)})), scan, regions)
    for masks, name, message in (
        (RegionFiles({}), "a", "masks: found none"),
        (RegionFiles({"liver": tmp_path / "m.nii"}), "a", "regions: found \\['liver'\\]"),
        (RegionFiles({"lung": tmp_path / "none.nii"}), "a", "files: found nothing at"),
        (RegionFiles({"lung": scan}), "a", "MASK_VALUES"),
        (good, "", "made_by.name: found none"),
    ):
        with pytest.raises(ContractError, match=message):
            check_segmenter(lambda masks=masks, name=name: Found(masks, name), scan, regions)


class Nameless(Exporter):
    def write(self, result: ReportResult, out: Path) -> list[Path]:
        [path] = JSON().write(result, out)
        return [path.rename(out / "report.json")]


class Untidy(Exporter):
    def write(self, result: ReportResult, out: Path) -> list[Path]:
        written = JSON().write(result, out)
        (out / "draft").touch()
        return written


class Counts(Exporter):
    written = 0

    def write(self, result: ReportResult, out: Path) -> list[Path]:
        [path] = JSON().write(result, out)
        type(self).written += 1
        path.write_text(str(self.written))
        return [path]


class NeedsRegions(Exporter):
    def write(self, result: ReportResult, out: Path) -> list[Path]:
        return JSON().write(result, out) if result.asked else []


class Refuses(Exporter):
    def refusal(self, scan: Path, regions: bool, read: ReadOptions) -> str:
        return "not this one"

    def write(self, result: ReportResult, out: Path) -> list[Path]:
        raise ConfigError("not this one")


class RefusesAndWrites(Refuses):
    def write(self, result: ReportResult, out: Path) -> list[Path]:
        return JSON().write(result, out)


@pytest.mark.parametrize(
    ("exporter", "message"),
    [
        (Refuses, "refusal: found a reason against every result"),
        (RefusesAndWrites, "refusal: found nothing when it wrote"),
        (Nameless, "the study's id, sample, in a name"),
        (Untidy, "draft.* beside what it tells of"),
        (Counts, "bytes: found others the second time"),
        (NeedsRegions, r"files: found \[\]"),
    ],
)
def test_exporters_that_break_the_contract(exporter: type[Exporter], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check_exporter(exporter)
