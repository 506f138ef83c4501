import inspect
import os
import signal
import time

import numpy as np
import pytest
import torch

from reg2rg.core.errors import ConfigError, DataFault, TooManySkippedError
from reg2rg.core.report import parse_report
from reg2rg.data import loader as loader_module
from reg2rg.data.datamodule import RegionReportDataModule
from reg2rg.data.loader import LoaderError, StudyLoader
from reg2rg.data.prompt import TokenCounts
from reg2rg.data.samples import ViewCache


@pytest.fixture(scope="module")
def module(toy):
    class Counts:
        token_counts = TokenCounts(texture=2, geometry=1, global_=2)
        task = toy.task({})[0]

    return Counts()


@pytest.fixture
def data(toy, module):
    return toy.data(module)


def batches_of(loader, epoch=0):
    loader.set_epoch(epoch)
    return [
        (batch.study_ids, batch.regions, batch.input_ids.sum().item(), int(batch.texture.sum())) for batch in loader
    ]


def test_batches_do_not_depend_on_workers(toy, module):
    plain = toy.data(module).train_dataloader()
    for workers in (1, 2):
        loader = toy.data(module, workers=workers).train_dataloader()
        for epoch in (0, 1, 1):
            assert batches_of(loader, epoch) == batches_of(plain, epoch)
    assert batches_of(plain, 0) != batches_of(plain, 1)


def test_seed_changes_training_but_not_validation_and_test(toy, module):
    one, other = toy.data(module, seed=0), toy.data(module, seed=1)
    assert batches_of(one.train_dataloader()) != batches_of(other.train_dataloader())
    assert batches_of(one.test_dataloader()) == batches_of(other.test_dataloader())
    loader = one.val_dataloader()
    assert batches_of(loader, 0) == batches_of(loader, 3)


def test_shuffle_covers_listed_order_and_target_follows(toy, module):
    listed = toy.data(module, order="listed", batch_size=1)
    for batch in listed.train_dataloader():
        order = [name for name in listed.task.region_set.names if name in batch.regions[0]]
        assert list(batch.regions[0]) == order
    shuffled = toy.data(module, batch_size=5).train_dataloader()
    seen = {batch.regions for epoch in range(4) for batch in _at(shuffled, epoch)}
    assert len(seen) > 1
    batch = next(iter(shuffled))
    tokenizer = toy.data(module).encoder.tokenizer
    for row, names in enumerate(batch.regions):
        labels = batch.labels[row]
        text = tokenizer.decode(labels[labels != -100])
        parsed = parse_report(text, names)
        assert [paragraph.region for paragraph in parsed.paragraphs] == list(names)
        assert all(paragraph.text.startswith(f"The {paragraph.region} is") for paragraph in parsed.paragraphs)
        assert text.endswith("</s>")


def test_listed_in_evaluation_shuffles_in_training_alone(toy, module):
    data = toy.data(module, order="listed_in_evaluation", batch_size=1)
    for loader in (data.val_dataloader(), data.test_dataloader(), data.predict_dataloader()):
        for batch in loader:
            assert list(batch.regions[0]) == [name for name in data.task.region_set.names if name in batch.regions[0]]
    ours, shuffled = data.train_dataloader(), toy.data(module, batch_size=1).train_dataloader()
    assert batches_of(ours) == batches_of(shuffled)
    assert batches_of(ours, 0) != batches_of(ours, 1)


def test_padding_to_max_length(toy, module):
    short, long = (toy.data(module, max_length=300, pad_to_max_length=pads) for pads in (False, True))
    for split in ("train_dataloader", "val_dataloader", "test_dataloader"):
        for few, many in zip(getattr(short, split)(), getattr(long, split)(), strict=True):
            length = few.input_ids.shape[1]
            assert many.input_ids.shape[1] == many.labels.shape[1] == many.attention_mask.shape[1] == 300 > length
            assert torch.equal(many.input_ids[:, :length], few.input_ids)
            assert torch.equal(many.labels[:, :length], few.labels)
            assert (many.input_ids[:, length:] == long.encoder.pad_id).all()
            assert (many.labels[:, length:] == -100).all()
            assert many.attention_mask.sum() == few.attention_mask.sum()
            assert torch.equal(many.prompts(0).input_ids, few.prompts(0).input_ids)
    for few, many in zip(short.predict_dataloader(), long.predict_dataloader(), strict=True):
        assert torch.equal(many.input_ids, few.input_ids)  # nothing to predict at: nothing to pad


def _at(loader, epoch):
    loader.set_epoch(epoch)
    return loader


def test_views_follow_the_slot_order(toy, module):
    data = toy.data(module, batch_size=1, cache=False)
    cached = toy.data(module, batch_size=1, cache=True)
    for batch, again in zip(data.train_dataloader(), cached.train_dataloader(), strict=True):
        direct = data.store.views(batch.study_ids[0], data.task.views, batch.regions[0])
        assert np.array_equal(batch.texture[:, 0].numpy(), direct.texture)
        assert np.array_equal(batch.geometry[:, 0].numpy(), direct.geometry)
        assert np.array_equal(batch.global_[0, 0].numpy(), direct.global_)
        assert np.array_equal(again.texture.numpy(), batch.texture.numpy())
        assert np.array_equal(again.global_.numpy(), batch.global_.numpy())


def test_cache_is_filled_by_workers_and_reads_the_store_no_more(toy, module, monkeypatch):
    data = toy.data(module, workers=2, cache=True)
    loader = data.train_dataloader()
    first = batches_of(loader, 0)
    monkeypatch.setattr(type(data.store), "views", lambda *_: pytest.fail("the store was read"))
    samples = loader.samples
    assert samples.cache.held == len(samples)
    for index in range(len(samples)):
        samples.sample(index, 3)
    assert batches_of(loader, 0) == first


def test_cache_is_bounded():
    cache = ViewCache([2, 3], {"texture"}, (4, 4, 4), limit=2 * 2 * 64 + 10)
    assert cache.held == 1
    cache.put(0, {"texture": np.ones((2, 4, 4, 4), np.int16)})
    cache.put(1, {"texture": np.ones((3, 4, 4, 4), np.int16)})
    assert cache.get(0)["texture"].sum() == 128
    assert cache.get(1) is None
    assert ViewCache([2], {"texture"}, (4, 4, 4), limit=0).get(0) is None


def test_schedule_bounds_regions_in_training_alone(toy, module):
    data = toy.data(module, batch_size=1, region_schedule={0: 2, 2: 0})
    loader = data.train_dataloader()
    assert {len(batch.regions[0]) for batch in _at(loader, 1)} == {2}
    assert max(len(batch.regions[0]) for batch in _at(loader, 2)) == 4
    assert max(len(batch.regions[0]) for batch in data.test_dataloader()) == 3


def test_regions_are_dropped_in_training_alone(toy, module):
    data = toy.data(module, batch_size=1, region_dropout=1.0)
    loader = data.train_dataloader()
    seen = {study: set() for study in ("s2", "s4")}  # of four and of three regions
    for epoch in range(12):
        for batch in _at(loader, epoch):
            seen.get(batch.study_ids[0], set()).add(len(batch.regions[0]))
    assert seen == {"s2": {1, 2, 3, 4}, "s4": {1, 2, 3}}
    whole = {batch.study_ids[0]: len(batch.regions[0]) for batch in data.test_dataloader()}
    assert whole == {study.id: len(study.reports) for study in toy.studies if study.split == "test"}
    bounded = toy.data(module, batch_size=1, region_dropout=1.0, region_schedule={0: 2}).train_dataloader()
    assert {len(batch.regions[0]) for epoch in range(6) for batch in _at(bounded, epoch)} == {1, 2}
    with pytest.raises(ConfigError, match=r"region_dropout is 1.5 \(expected a share"):
        toy.data(module, region_dropout=1.5)


def test_it_is_on_by_default():
    assert inspect.signature(RegionReportDataModule).parameters["region_dropout"].default == 0.5


def test_only_regions_with_text_unless_all_are_asked_for(toy, module, monkeypatch):
    study = next(study for study in toy.studies if study.id == "s7")
    monkeypatch.setitem(study.reports, "lung", "")
    with_text = next(iter(toy.data(module, batch_size=2).test_dataloader()))
    assert set(with_text.regions[with_text.study_ids.index("s7")]) == {"heart", "bone"}
    everything = next(iter(toy.data(module, batch_size=2, test_regions="all").test_dataloader()))
    row = everything.study_ids.index("s7")
    assert set(everything.regions[row]) == {"heart", "lung", "bone"}
    assert everything.reports[row][everything.regions[row].index("lung")] == ""


def test_predict_prompts_alone_and_leaves_out_what_is_done(data):
    data.setup("predict")
    batch = next(iter(data.predict_dataloader()))
    assert (batch.labels == -100).all()
    data.skip_studies(frozenset({"s6"}))
    assert [study for batch in data.predict_dataloader() for study in batch.study_ids] == ["s7"]
    data.skip_studies(frozenset({"s6", "s7"}))
    assert data.predict_dataloader() == []


def test_limit_of_evaluation_takes_the_same_studies(toy, module):
    chosen = [
        [
            study
            for batch in toy.data(module, limit_eval_studies=1, seed=seed).test_dataloader()
            for study in batch.study_ids
        ]
        for seed in (0, 1)
    ]
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 1


def test_studies_missing_in_the_store(toy, module, monkeypatch):
    data = toy.data(module)
    monkeypatch.setattr(type(data.store), "studies", lambda self: ("s0", "s1", "s2", "s3", "s5"))
    with pytest.raises(DataFault, match=r"NOT_PREPARED.*1 of 5 studies of split 'train'.*s4"):
        data.setup("fit")
    data = toy.data(module, max_skip=0.2)
    monkeypatch.setattr(type(data.store), "studies", lambda self: ("s0", "s1", "s2", "s3", "s5"))
    data.setup("fit")
    assert len(data.entries("train")) == 4
    with pytest.raises(DataFault, match="2 of 2 studies"):
        data.setup("test")


def test_prompt_that_cannot_fit_is_refused_before_anything_runs(toy, module):
    with pytest.raises(ConfigError, match=r"the prompt of 4 regions takes .* max_length is 60"):
        toy.data(module, max_length=60).setup("fit")


# Faults in workers


class Samples:
    """Six studies, of which some fail in their own way."""

    def __init__(self, failing):
        self.failing = failing

    def __len__(self):
        return 6

    def study(self, index):
        return f"study{index}"

    def sample(self, index, epoch):
        from reg2rg.data.batch import Sample
        from reg2rg.data.prompt import EncodedSample

        if index in self.failing:
            self.failing[index]()
        ids = np.arange(4)
        encoded = EncodedSample(ids, ids, np.empty(0, int), np.empty(0, int), np.zeros(4, int))
        return Sample(self.study(index), ("lung",), ("text",), encoded)


def unpicklable():
    class Local(Exception):
        def __init__(self, a, b):
            super().__init__(a)

    raise Local("odd", lambda: None)


def fault():
    raise DataFault.of("STORE_CORRUPT", found="x", expected="y", fix="z")


def leave():
    raise SystemExit("No mask")


def die():
    os._exit(7)


def hang():
    time.sleep(60)


def loader(failing, workers, **options):
    from functools import partial

    from reg2rg.data.batch import collate

    return StudyLoader(
        Samples(failing),
        lambda epoch: [[0, 1], [2, 3], [4, 5]],
        partial(collate, counts=TokenCounts(0, 0, 0), pad_id=0),
        workers=workers,
        train=True,
        **options,
    )


def test_a_process_of_several_knows_the_studies_of_all():
    for rank in (0, 1):
        made = loader({}, 0, rank=rank, world=2)
        assert made.studies() == [f"study{index}" for index in range(6)]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("failure", [unpicklable, fault, leave])
def test_a_fault_names_its_study(failure, workers):
    with pytest.raises(DataFault, match="study3") as caught:
        list(loader({3: failure}, workers))
    assert caught.value.code == ("STORE_CORRUPT" if failure is fault else "UNREADABLE")


@pytest.mark.parametrize(("failure", "options"), [(die, {}), (hang, {"timeout": 1})])
def test_a_dead_or_silent_worker_ends_with_the_studies_it_had(failure, options):
    begun = time.monotonic()
    with pytest.raises(LoaderError, match=r"studies study2, study3.*--data.workers"):
        list(loader({3: failure}, 2, **options))
    assert time.monotonic() - begun < 30


def test_a_dead_worker_is_noticed_without_the_signal_that_tells_of_it():
    """Lightning's trainer puts back the handlers that it found, so a second run in a process has torch's no more."""
    list(loader({}, 2))  # sets torch's handler, which it does once
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        test_a_dead_or_silent_worker_ends_with_the_studies_it_had(die, {})
    finally:
        signal.signal(signal.SIGCHLD, handler)


def test_a_slow_worker_is_waited_for(monkeypatch):
    monkeypatch.setattr(loader_module, "_LOOK", 0.2)
    assert len(list(loader({3: lambda: time.sleep(1)}, 2))) == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_some_faults_are_left_out_and_counted(workers):
    some = loader({3: fault, 4: leave, 5: unpicklable}, workers, max_skip=0.5)
    assert [batch.study_ids for batch in some] == [("study0", "study1"), ("study2",)]
    assert sorted(some.skipped) == ["study3", "study4", "study5"]
    assert [batch.study_ids for batch in some] == [("study0", "study1"), ("study2",)]
    with pytest.raises(TooManySkippedError, match=r"3 of 6 studies could not be read; max_skip allows 2"):
        list(loader({3: fault, 4: leave, 5: unpicklable}, workers, max_skip=0.4))


def test_position_is_the_state():
    whole = [batch.study_ids for batch in loader({}, 0)]
    first = loader({}, 0)
    stream = iter(first)
    next(stream)
    state = first.state_dict()
    assert state["batches"] == 1
    second = loader({}, 2)
    second.load_state_dict(state)
    assert [batch.study_ids for batch in second] == whole[1:]
    assert [batch.study_ids for batch in second] == whole


def test_state_of_another_epoch_or_data_set(caplog):
    one = loader({}, 0)
    one.load_state_dict({"epoch": 3, "batches": 2, "length": 9, "studies": 99})
    assert "not the uninterrupted run" in caplog.text
    one.set_epoch(4)
    assert len(list(one)) == 3
