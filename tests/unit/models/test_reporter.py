import pytest
import torch

from reg2rg.core.errors import ConfigError
from reg2rg.data.batch import collate
from reg2rg.data.prompt import TokenCounts
from reg2rg.models.encoders import CNN3D, MaskPool
from reg2rg.models.llm.base import Decoding


@pytest.fixture(scope="module")
def reporter(toy):
    return toy.module(dropout=0.0).reporter.eval()


@pytest.fixture(scope="module")
def samples(toy):
    data = toy.data(toy.module())
    made = data.train_dataloader().samples
    return [made.sample(index, 0) for index in range(4)]


def batch_of(samples, counts, pad_id=0):
    return collate(samples, counts, pad_id).scaled((-1000, 200))


def test_loss_of_a_study_does_not_depend_on_its_batch(reporter, samples):
    counts = reporter.token_counts
    with torch.no_grad():
        together = reporter(batch_of(samples, counts))
        alone = torch.cat([reporter(batch_of([sample], counts)) for sample in samples])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


def test_every_slot_gets_its_vector(reporter, samples):
    """Against a plain loop over studies, regions and tokens."""
    counts = reporter.token_counts
    batch = batch_of(samples, counts)
    with torch.no_grad():
        filled = reporter.embed(batch)
        first = 0
        for row, sample in enumerate(samples):
            n = len(sample.regions)
            expected = reporter.llm.embed(batch.input_ids[row : row + 1])[0].clone()
            texture = reporter.texture_projector(reporter.texture(batch.texture[first : first + n]))
            geometry = reporter.geometry_projector(reporter.geometry(batch.geometry[first : first + n]))
            context = reporter.texture_projector(reporter.texture(batch.global_[row : row + 1]))[0]
            run = [reporter.tags[0], *context, reporter.tags[1]]
            for i in range(n):
                run += [reporter.tags[2], *texture[i], *geometry[i], reporter.tags[3]]
            expected[torch.from_numpy(sample.encoded.visual_positions)] = torch.stack(run)
            torch.testing.assert_close(filled[row], expected, rtol=1e-5, atol=1e-6)
            first += n


def test_regions_and_image_come_of_one_pass(toy, monkeypatch):
    """Where regions are pooled, the image passes the encoder once; a region whose mask has no weight is named."""
    encoder = CNN3D(toy.size, channels=(8, 16), grid=(2, 2, 2), dim=12)
    module = toy.module(texture=MaskPool(encoder), dropout=0.0)
    batch = toy.data(module).on_after_batch_transfer(next(iter(toy.data(module).train_dataloader())), 0)
    passes, forward = [], encoder.forward
    monkeypatch.setattr(encoder, "forward", lambda volumes: passes.append(len(volumes)) or forward(volumes))
    reporter, counts = module.reporter, module.token_counts
    table = reporter.visual_table(batch)
    assert passes == [len(batch)]
    image = table[4 : 4 + len(batch) * counts.global_].view(len(batch), counts.global_, -1)
    torch.testing.assert_close(image, reporter.texture_projector(reporter.texture(batch.global_)))
    batch.geometry[1] = 0
    with pytest.raises(ConfigError, match=f"any share of {batch.regions[0][1]} of study {batch.study_ids[0]} "):
        reporter.visual_table(batch)


def test_gradient_reaches_all_that_trains(toy, samples):
    reporter = toy.module(dropout=0.0).reporter
    reporter(batch_of(samples, reporter.token_counts)).mean().backward()
    without = [name for name, p in reporter.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    assert all(p.grad.abs().sum() > 0 for p in (reporter.tags, reporter.texture.conv.weight))


@pytest.mark.parametrize(
    ("texture", "geometry", "global_", "counts"),
    [
        (True, True, "texture", TokenCounts(2, 2, 2)),
        (True, True, "own", TokenCounts(2, 2, 2)),
        (True, False, None, TokenCounts(2, 0, 0)),
        (False, True, None, TokenCounts(0, 2, 0)),
        (False, False, "own", TokenCounts(0, 0, 2)),
        (False, False, None, TokenCounts(0, 0, 0)),
    ],
)
def test_any_encoder_may_be_off(toy, texture, geometry, global_, counts):
    module = toy.module(
        texture=toy.encoder() if texture else None,
        geometry=toy.encoder(4) if geometry else None,
        global_=toy.encoder(5) if global_ == "own" else global_,
    )
    assert module.token_counts == counts
    batch = toy.data(module).on_after_batch_transfer(next(iter(toy.data(module).train_dataloader())), 0)
    assert (batch.texture is None) == (not texture)
    assert (batch.global_ is None) == (global_ is None)
    nll = module.reporter(batch)
    assert nll.shape == batch.label_region.shape
    assert torch.isfinite(nll).all()


def test_shared_texture_encoder_has_one_set_of_weights(toy):
    shared = sum(p.numel() for p in toy.module().reporter.parameters())
    own = sum(p.numel() for p in toy.module(global_=toy.encoder()).reporter.parameters())
    assert own > shared
    with pytest.raises(ConfigError, match=r"model\.global_ is 'texture'"):
        toy.module(texture=None)


def test_generation_is_deterministic_and_batch_1_equals_batch_n(reporter, samples):
    counts, decoding = reporter.token_counts, Decoding(max_new_tokens=20)
    together = reporter.generate(batch_of(samples, counts), decoding)
    assert together == reporter.generate(batch_of(samples, counts), decoding)
    alone = [reporter.generate(batch_of([sample], counts), decoding)[0] for sample in samples]
    assert together == alone
    assert reporter.generate(batch_of(samples[::-1], counts), decoding) == together[::-1]
    assert [answer.study for answer in together] == [sample.study for sample in samples]


def test_the_target_is_not_seen_by_generation(toy, reporter, samples):
    data = toy.data(toy.module())
    bare = data._loader("predict", data.entries("train"), with_target=False).samples
    counts, decoding = reporter.token_counts, Decoding(max_new_tokens=20)
    without = [bare.sample(index, 0) for index in range(4)]
    answers = {a.study: a for a in reporter.generate(batch_of(without, counts), decoding)}
    for sample, other in zip(samples, without, strict=True):
        if sample.regions == other.regions:
            assert reporter.generate(batch_of([sample], counts), decoding)[0] == answers[sample.study]


def test_context_is_checked_before_the_forward_pass(toy, samples):
    reporter = toy.module().reporter
    batch = batch_of(samples, reporter.token_counts)
    reporter.llm.context_length = 40
    reporter.texture.forward = lambda _: pytest.fail("the encoder ran")
    with pytest.raises(ConfigError, match=r"study s\d takes \d+ positions \(2 \+ 2 for the image and \d regions x"):
        reporter(batch)
    with pytest.raises(ConfigError, match="reads at most 40"):
        reporter.generate(batch, Decoding(max_new_tokens=5))


def test_a_batch_without_the_view_is_refused(reporter, samples):
    batch = batch_of([samples[0]], reporter.token_counts)
    object.__setattr__(batch, "geometry", None)
    with pytest.raises(ConfigError, match="looks at the geometry view"):
        reporter(batch)
