"""The contract checks catch what they are for."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from reg2rg.core.types import LabelMap, Study
from reg2rg.datasets.base import Dataset, Listing
from reg2rg.models.encoders import Encoder
from reg2rg.models.projectors import LinearProjector, Projector
from reg2rg.runners import Local, Outcome, Runner
from reg2rg.testing import ContractError, check_dataset, check_encoder, check_projector, check_runner

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
