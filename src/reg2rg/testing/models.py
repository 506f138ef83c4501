"""Contract checks of encoders and projectors."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from reg2rg.models.encoders.base import Encoder
from reg2rg.models.projectors import Projector
from reg2rg.testing.contract import require


def check_encoder(
    build: Callable[[], Encoder], size: tuple[int, int, int], volumes: int = 3, tolerance: float = 1e-5
) -> None:
    """Check an encoder against the contract of `reg2rg.models.encoders.Encoder`.

    Shape and widths as announced; finite output, also under bfloat16 autocast, for a volume of one value, and with
    weights in bfloat16 and float64; the same tokens whatever else is in the batch (eval mode); two passes agree (eval
    mode); a gradient for every trainable parameter, none of which is a scalar; a state dict that restores the tokens
    exactly. One that says it is settled gives the same tokens in training, and takes them in place of volumes.

    Args:
        build: makes the encoder; called twice.
        size: H, W, D that it takes.
        volumes: size of the batch, at least 2.
        tolerance: largest difference between a volume alone and the same volume in a batch.

    Raises:
        ContractError: naming the first part that is broken.
    """
    torch.manual_seed(0)
    encoder, batch = build(), torch.rand(volumes, 1, *size) * 2 - 1
    require(isinstance(encoder, Encoder), encoder, "type", "no subclass of reg2rg.models.encoders.Encoder", "one")
    for name in ("out_channels", "num_tokens"):
        found = getattr(encoder, name, None)
        require(isinstance(found, int) and found > 0, encoder, name, repr(found), "a positive int after construction")
    expected = (volumes, encoder.num_tokens, encoder.out_channels)

    encoder.eval()
    with torch.no_grad():
        tokens = encoder(batch)
        _check_tokens(encoder, tokens, expected, "on random volumes")
        _check_tokens(encoder, encoder(torch.full_like(batch, -1.0)), expected, "on empty volumes")
        with torch.autocast("cpu", torch.bfloat16):
            _check_tokens(encoder, encoder(batch), expected, "under bfloat16 autocast")
        for dtype in (torch.bfloat16, torch.float64):
            if next(encoder.parameters(), None) is None:
                break
            cast = copy.deepcopy(encoder).to(dtype)(batch)
            _check_tokens(encoder, cast, expected, f"with weights in {dtype}")
            require(
                cast.dtype == dtype, encoder, f"dtype with weights in {dtype}", str(cast.dtype), "that of the weights"
            )
        require(torch.equal(encoder(batch), tokens), encoder, "eval mode", "two passes that differ", "equal ones")
        alone = torch.cat([encoder(volume[None]) for volume in batch])
    gap = float((alone - tokens).abs().max())
    fix = "normalise within a volume, not over the batch"
    require(gap <= tolerance, encoder, "batch composition", f"tokens that move by {gap:.2g} with it", fix)
    if encoder.settled():
        with torch.no_grad():
            same = torch.equal(encoder.train()(batch), tokens) and torch.equal(encoder(tokens), tokens)
        encoder.eval()
        require(same, encoder, "settled", "other tokens in training", "settled() false, or tokens that stay the same")
    check_gradients(encoder, lambda: encoder(batch))
    check_round_trip(encoder, build, lambda copy: copy(batch))


def check_projector(
    build: Callable[[int, int], Projector], in_channels: int = 12, out_channels: int = 20, tolerance: float = 1e-5
) -> None:
    """Check a projector, or a factory of one, against the contract of `reg2rg.models.projectors.Projector`.

    Args:
        build: called with the two widths, twice.
        in_channels: width of the tokens that come in.
        out_channels: width of the tokens that go out.
        tolerance: largest difference between a row alone and the same row in a batch.

    Raises:
        ContractError: naming the first part that is broken.
    """
    torch.manual_seed(0)
    projector, tokens = build(in_channels, out_channels).eval(), torch.randn(3, 4, in_channels)
    require(isinstance(projector, Projector), projector, "type", "no subclass of Projector", "one")
    with torch.no_grad():
        projected = projector(tokens)
        _check_tokens(projector, projected, (3, 4, out_channels), "on random tokens")
        alone = torch.cat([projector(row[None]) for row in tokens])
    gap = float((alone - projected).abs().max())
    require(gap <= tolerance, projector, "batch composition", f"tokens that move by {gap:.2g} with it", "none")
    check_gradients(projector, lambda: projector(tokens))
    check_round_trip(projector, lambda: build(in_channels, out_channels), lambda copy: copy(tokens))


def _check_tokens(module: nn.Module, tokens: Tensor, expected: tuple[int, ...], when: str) -> None:
    require(tuple(tokens.shape) == expected, module, f"shape {when}", str(tuple(tokens.shape)), str(expected))
    require(bool(tokens.isfinite().all()), module, f"output {when}", "inf or nan", "finite numbers")


def check_gradients(module: nn.Module, run: Callable[[], Tensor]) -> None:
    """Every trainable parameter gets a finite gradient, and some are not zero.

    Single ones may be zero: residual branches that start at zero have them.
    """
    for name, parameter in module.named_parameters():
        one = "one dimension, for DeepSpeed and FSDP"
        require(parameter.ndim > 0, module, f"shape of {name}", "a scalar", one)
    trainable = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    if not trainable:
        return
    module.train()
    output = run()
    # A weighted sum: the plain sum has no gradient below a final normalisation.
    torch.autograd.backward((output * torch.randn_like(output)).sum())
    for name, parameter in trainable:
        found = "none" if parameter.grad is None else "inf or nan"
        good = parameter.grad is not None and bool(parameter.grad.isfinite().all())
        require(good, module, f"gradient of {name}", found, "a finite one; set requires_grad False if it is unused")
    moving = any(bool(p.grad.any()) for _, p in trainable if p.grad is not None)
    require(moving, module, "gradients", "zeros alone", "some that are not zero")
    module.zero_grad()
    module.eval()


def check_round_trip(module: nn.Module, build: Callable[[], nn.Module], run: Callable[[nn.Module], Tensor]) -> None:
    """A second module with the state dict of the first gives equal output."""
    torch.manual_seed(1)
    copy = build()
    copy.load_state_dict(module.state_dict())
    with torch.no_grad():
        same = torch.equal(run(copy.eval()), run(module.eval()))
    require(same, module, "state dict", "other output after a round trip", "all that matters to be in it")
    for name, tensor in module.state_dict().items():
        require(tensor.is_contiguous(), module, f"state dict {name}", "strides", "a contiguous tensor, for safetensors")
