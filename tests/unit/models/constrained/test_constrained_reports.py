"""Held reports of a real, tiny model, through `RegionReporter.generate`."""

from dataclasses import replace

import pytest
import torch

from reg2rg.core.report import parse_report
from reg2rg.data.batch import collate
from reg2rg.data.prompt import PromptEncoder
from reg2rg.models.llm.base import Decoding, Form, Sampling


@pytest.fixture(scope="module")
def reporter(toy):
    reporter = toy.module(dropout=0.0).reporter.eval()
    with torch.no_grad():
        for parameter in reporter.llm.parameters():
            parameter.mul_(2.5)
    return reporter


@pytest.fixture(scope="module")
def samples(toy):
    made = toy.data(toy.module()).train_dataloader().samples
    return [made.sample(index, 0) for index in range(4)]


def batch_of(samples, counts):
    return collate(samples, counts, 0).scaled((-1000, 200))


def held(toy, forced=False, **options):
    names = toy.module().task.region_set.names
    return Decoding(max_new_tokens=24, form=Form(names, True, forced), **options)


@pytest.mark.parametrize("sampling", [None, Sampling(temperature=1.5, seed=3)])
@pytest.mark.parametrize("forced", [False, True])
def test_a_batch_gives_what_each_study_gives_alone(toy, reporter, samples, sampling, forced):
    counts, decoding = reporter.token_counts, held(toy, forced, sampling=sampling)
    together = reporter.generate(batch_of(samples, counts), decoding)
    for sample, one in zip(samples, together, strict=True):
        alone = reporter.generate(batch_of([sample], counts), decoding)[0]
        assert (alone.text, alone.truncated) == (one.text, one.truncated)
        read = parse_report(one.text, one.regions)
        assert (read.invalid, read.duplicate, read.missing) == ((), (), ())
        assert [found.slot for found in read.paragraphs] == list(range(len(one.regions)))
        for here, there, region in zip(one.written, alone.written, one.regions, strict=True):
            assert here.referring == pytest.approx(there.referring, abs=1e-5)
            assert sum(here.referring.values()) == pytest.approx(1, abs=1e-5)
            assert set(here.referring) == set(decoding.form.names)
            assert not forced or here.region == region


def test_free_decoding_knows_nothing_of_paragraphs(toy, reporter, samples):
    free = reporter.generate(batch_of(samples, reporter.token_counts), replace(held(toy), form=None))
    assert all(one.written == () for one in free)


def test_a_study_without_regions_has_no_form_and_takes_none_from_others(toy, reporter, samples):
    counts, decoding = reporter.token_counts, held(toy)
    bare = replace(
        samples[0], study="bare", regions=(), texture=samples[0].texture[:0], geometry=samples[0].geometry[:0]
    )
    encoder = PromptEncoder(reporter.llm.tokenizer, counts)
    bare = replace(bare, reports=("",), encoded=encoder.encode_whole(None))
    together = reporter.generate(batch_of([samples[1], bare], counts), decoding)
    assert (together[1].written, together[1].regions) == ((), ())
    assert together[0].text == reporter.generate(batch_of([samples[1]], counts), decoding)[0].text


def test_what_a_module_says_of_its_decoding(toy):
    said = [toy.module(decoding=kind).decoding for kind in ("constrained", "forced", "free")]
    assert [one.form and one.form.forced for one in said] == [False, True, None]
    assert [one.told().split(":")[0] for one in said] == ["constrained", "forced", "free, to the last region"]
    assert toy.module(decoding="free", stop_after_last=False).decoding.told().startswith("free: ")
    assert toy.module().decoding == said[0], "the default"
    assert toy.module(identity=False).decoding.form.identity is False
