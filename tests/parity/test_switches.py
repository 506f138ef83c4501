"""What ``parity.yaml`` switches, seen from outside: the same run with a switch off and on.

Order and prompted regions: tests/unit/data/test_datamodule.py. Ids: tests/unit/data/test_published_ids.py. Residual and
adapters: tests/unit/language/test_causal_lm.py. Sampling: tests/unit/language/test_decoding.py.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from parity.agreement import EXACT, exactly
from reg2rg.models.encoders import Frozen
from reg2rg.models.llm.base import Sampling


@pytest.fixture(scope="module")
def batch(toy):
    """Two training studies."""
    return next(iter(toy.data(toy.module()).train_dataloader())).scaled((-1000, 200))


def losses(module, batch, seed: int):
    torch.manual_seed(seed)
    return module.reporter(batch).detach()


def test_dropout_in_the_frozen_encoder(toy, batch) -> None:
    """Ours: none, and no gradient. Published: drawn anew for each step while training, none at test, no gradient."""
    for published in (False, True):
        module = toy.module(texture=Frozen(toy.encoder(dropout=0.5), dropout=published))
        module.on_fit_start()
        module.reporter.llm.eval()
        module.reporter.geometry.eval()  # what differs now comes from the frozen encoder
        assert torch.equal(losses(module, batch, 0), losses(module, batch, 1)) != published
        assert torch.equal(losses(module, batch, 0), losses(module, batch, 0))
        module.reporter(batch).mean().backward()
        assert all(parameter.grad is None for parameter in module.reporter.texture.parameters())
        module.eval()
        assert torch.equal(losses(module, batch, 0), losses(module, batch, 1))


def test_padding_changes_no_loss_and_no_gradient(toy) -> None:
    module = toy.module(dropout=0.0).double().eval()
    found = []
    for padded in (False, True):
        data = toy.data(module, max_length=300, pad_to_max_length=padded)
        batch = next(iter(data.train_dataloader())).scaled((-1000, 200))
        views = {name: getattr(batch, name).double() for name in ("texture", "geometry", "global_")}
        module.zero_grad()
        nll = module.reporter(replace(batch, **views))
        nll.mean().backward()
        gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
        found.append((batch.input_ids.shape[1], nll, gradients))
    (short, plain, grads), (long, padded_nll, padded_grads) = found
    assert short < long == 300
    assert exactly(padded_nll, plain) < EXACT
    assert max(exactly(one, other) for one, other in zip(padded_grads, grads, strict=True)) < EXACT


def test_decoding(toy, batch) -> None:
    """Greedy that stops in a loop; sampled and endless as published. Each the same in every run, alone or together."""
    greedy, published = toy.module(), toy.module(stop_on_loop=0, sampling=Sampling())
    assert greedy.decoding.sampling is None
    assert published.decoding.stop_on_loop == 0
    texts = {}
    for name, module in (("greedy", greedy), ("published", published)):
        module.reporter.llm.eos_ids = frozenset()
        texts[name] = [report.text for report in module.predict_step(batch, 0)]
        assert texts[name] == [report.text for report in module.predict_step(batch, 1)]
    assert texts["greedy"] != texts["published"]
    other = toy.module(stop_on_loop=0, sampling=Sampling(seed=21))
    other.reporter.llm.eos_ids = frozenset()
    assert texts["published"] != [report.text for report in other.predict_step(batch, 0)]
