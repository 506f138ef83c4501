"""Paragraphs that see the prompt and themselves alone: trained on in one row, written at once, in any order."""

from dataclasses import replace

import lightning as L
import numpy as np
import pytest
import torch

from reg2rg.core.errors import ConfigError
from reg2rg.core.report import parse_report, write_paragraph
from reg2rg.core.task import ReportTask
from reg2rg.data.batch import collate
from reg2rg.data.prompt import IGNORED
from reg2rg.models.llm.base import Decoding, Form, Sampling


@pytest.fixture(scope="module")
def module(toy):
    module = toy.module(dropout=0.0, independent_paragraphs=True).eval()
    with torch.no_grad():
        for parameter in module.reporter.llm.parameters():
            parameter.mul_(2.5)
    return module


@pytest.fixture(scope="module")
def reporter(module):
    return module.reporter


@pytest.fixture(scope="module")
def samples(toy, module):
    made = toy.data(module).train_dataloader().samples
    return [made.sample(index, 0) for index in range(4)]


def batch_of(samples, reporter):
    return collate(samples, reporter.token_counts, 0).scaled((-1000, 200))


def in_order(sample, order):
    """The sample with its paragraphs in another order, their slots as they were."""
    encoded, blocks = sample.encoded, sample.encoded.blocks
    places = np.concatenate([np.flatnonzero(blocks == number) for number in (0, *order)])
    labelled = np.flatnonzero(encoded.labels != IGNORED)
    regions = dict(zip(labelled.tolist(), encoded.region_of_label.tolist(), strict=True))
    moved = replace(
        encoded,
        ids=encoded.ids[places],
        labels=encoded.labels[places],
        blocks=blocks[places],
        region_of_label=np.array([regions[place] for place in places.tolist() if place in regions]),
    )
    return replace(sample, encoded=moved)


def held(toy, forced=False, **options):
    names = toy.module().task.region_set.names
    return Decoding(max_new_tokens=12, form=Form(names, True, forced, independent=True), **options)


def test_a_target_is_each_paragraph_by_itself_and_its_number_is_given(toy, samples):
    in_turn = toy.data(toy.module()).train_dataloader().samples.sample(0, 0)
    sample, tokenizer = samples[0], toy.module().tokenizer
    encoded, prompt = sample.encoded, int((samples[0].encoded.blocks == 0).sum())
    assert (encoded.ids[:prompt] == in_turn.encoded.ids[:prompt]).all()
    for slot, (region, text) in enumerate(zip(sample.regions, sample.reports, strict=True)):
        own = encoded.blocks == slot + 1
        whole = write_paragraph(slot, region, text) + " "
        assert tokenizer.decode(encoded.ids[own][:-1]) == " " + whole
        labels = encoded.labels[own]
        given = labels == IGNORED
        assert tokenizer.decode(encoded.ids[own][given]) == f" The region {slot}"
        assert (labels[~given] == encoded.ids[own][~given]).all()
        assert labels[-1] == tokenizer.eos_token_id
    assert len(encoded.region_of_label) == (encoded.labels != IGNORED).sum()
    assert (encoded.region_of_label == -1).sum() == len(sample.regions)


def test_what_is_too_long_is_cut_from_the_end(toy, module, samples):
    whole = samples[2].encoded
    limit = len(whole.ids) - 3
    data = toy.data(module)
    data._take(replace(module.task, max_length=limit), module.tokenizer, module.token_counts)
    cut = data.encoder.encode_sample(samples[2].regions, samples[2].reports)
    assert len(cut.ids) <= limit
    assert cut.sentences_cut == 1
    assert (cut.ids == whole.ids[: len(cut.ids)]).all()
    assert cut.ids[-1] == module.tokenizer.eos_token_id


def test_the_loss_is_that_of_paragraphs_run_one_by_one(reporter, samples):
    counts = [len(sample.regions) for sample in samples]
    together = reporter.losses(batch_of(samples, reporter)).nll
    alone = [
        reporter.losses(batch_of([in_order(sample, [number])], reporter)).nll
        for sample, count in zip(samples, counts, strict=True)
        for number in range(1, count + 1)
    ]
    torch.testing.assert_close(together, torch.cat(alone), atol=2e-5, rtol=0)
    assert abs(float(together.mean() - torch.cat(alone).mean())) < 1e-5
    in_turn = reporter.losses(replace(batch_of(samples, reporter), blocks=None)).nll
    assert float((in_turn - together).abs().max()) > 0.01, "the mask counts"


def test_the_order_of_paragraphs_plays_no_part_in_the_loss(reporter, samples):
    sample = samples[2]
    count = len(sample.regions)
    backwards = in_order(sample, range(count, 0, -1))
    here, there = (reporter.losses(batch_of([one], reporter)).nll for one in (sample, backwards))
    labelled = [int((sample.encoded.labels[sample.encoded.blocks == n] != IGNORED).sum()) for n in range(1, count + 1)]
    torch.testing.assert_close(torch.cat(here.split(labelled)[::-1]), there, atol=2e-5, rtol=0)


def test_gradients_pass_through_the_mask(toy, samples):
    module = toy.module(dropout=0.0, independent_paragraphs=True, lora=True)
    module.reporter.losses(batch_of(samples[:2], module.reporter)).nll.mean().backward()
    assert float(module.reporter.tags.grad.abs().sum()) > 0


@pytest.mark.parametrize(("forced", "sampling"), [(False, None), (True, Sampling(temperature=1.5, seed=3))])
def test_a_batch_gives_what_each_study_gives_alone_and_each_region_once(toy, reporter, samples, forced, sampling):
    decoding = held(toy, forced, sampling=sampling)
    together = reporter.generate(batch_of(samples[1:3], reporter), decoding)
    for sample, one in zip(samples[1:3], together, strict=True):
        alone = reporter.generate(batch_of([sample], reporter), decoding)[0]
        assert (alone.text, alone.truncated) == (one.text, one.truncated)
        read = parse_report(one.text, one.regions)
        assert (read.invalid, read.duplicate, read.missing) == ((), (), ())
        assert [found.slot for found in read.paragraphs] == list(range(len(one.regions)))
        assert [found.slot for found in one.written] == list(range(len(one.regions)))
        for here, region in zip(one.written, one.regions, strict=True):
            assert sum(here.referring.values()) == pytest.approx(1, abs=1e-5)
            assert here.forced == forced
            assert not forced or here.region == region


def test_names_that_paragraphs_share_are_given_out_as_is_likeliest(toy, reporter, samples):
    """All paragraphs choose one name here: each still has one of its own, and the same in every order of reading."""
    decoding = held(toy)
    batch = batch_of(samples[2:3], reporter)
    [free] = reporter.generate(batch, decoding)
    logits = []

    def lean(layer, inputs, output):
        output[..., bone] += 40
        logits.append(output)

    bone = reporter.llm.tokenizer(" bone", add_special_tokens=False)["input_ids"][0]
    hook = reporter.llm.model.get_output_embeddings().register_forward_hook(lean)
    try:
        [leaning] = reporter.generate(batch, decoding)
    finally:
        hook.remove()
    assert sorted(one.region for one in leaning.written) == sorted(free.regions)
    assert not parse_report(leaning.text, leaning.regions).duplicate


def test_a_certificate_says_that_no_order_would_change_a_word(toy, reporter, samples):
    reports = reporter.generate(batch_of(samples[:2], reporter), held(toy), certify=True)
    plain = reporter.generate(batch_of(samples[:2], reporter), held(toy))
    for one, other in zip(reports, plain, strict=True):
        assert one.text == other.text
        assert other.order is None
        assert one.order.tokens > 5 * len(one.regions)
        assert one.order.rounding < 1e-4
        assert one.order.holds == (2 * one.order.rounding < one.order.margin)
    assert any(one.order.holds for one in reports)
    drawn = reporter.generate(batch_of(samples[:1], reporter), held(toy, sampling=Sampling()), certify=True)
    assert drawn[0].order.margin is None
    assert drawn[0].order.rounding < 1e-4


def test_a_report_that_cannot_be_certified_is_still_a_report(toy, reporter, samples, monkeypatch, caplog):
    [plain] = reporter.generate(batch_of(samples[:1], reporter), held(toy))

    def refuse(length):
        raise ConfigError(f"no mask of blocks for {length} positions")

    monkeypatch.setattr(reporter.llm, "require_blocks", refuse)
    [report] = reporter.generate(batch_of(samples[:1], reporter), held(toy), certify=True)
    assert (report.text, report.order) == (plain.text, None)
    assert "is not certified: no mask of blocks for" in caplog.text


def test_limits_are_those_of_each_paragraph(toy, reporter, samples):
    [report] = reporter.generate(batch_of(samples[:1], reporter), held(toy, max_paragraph_tokens=2))
    assert report.truncated
    assert all(one.truncated for one in report.written)


def test_a_run_trains_and_predicts(toy, module):
    trained = toy.module(independent_paragraphs=True)
    trainer = L.Trainer(
        max_steps=3, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, num_sanity_val_steps=0, default_root_dir=toy.root,
    )  # fmt: skip
    trainer.fit(trained, datamodule=toy.data(trained))
    for batch in trainer.predict(trained, datamodule=toy.data(trained)):
        for report in batch:
            assert not parse_report(report.text, report.regions).missing


def test_what_does_not_go_together_is_refused(toy):
    with pytest.raises(ConfigError, match=r"independent_paragraphs writes each paragraph by itself.*a tail"):
        ReportTask(independent_paragraphs=True, tail=True)
    with pytest.raises(ConfigError, match=r"independent_paragraphs.*target 'whole'"):
        ReportTask(independent_paragraphs=True, target="whole")
    with pytest.raises(ConfigError, match=r"model\.decoding is free.*constrained, or forced"):
        toy.module(independent_paragraphs=True, decoding="free")


def test_a_language_model_that_cannot_is_refused_before_anything_is_trained(toy, monkeypatch):
    module = toy.module(independent_paragraphs=True)
    monkeypatch.setattr(module.reporter.llm, "_blocks", "it does not want to")
    trainer = L.Trainer(max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False)
    with pytest.raises(ConfigError, match=r"LlamaForCausalLM .*it does not want to .*independent_paragraphs: false"):
        trainer.fit(module, datamodule=toy.data(module))
