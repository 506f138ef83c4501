"""Contract checks for components: what the rest of the package relies on, in one call a component.

Authors of plug-ins call them in their own tests::

    from reg2rg.testing import check_encoder, check_projector

    def test_my_encoder():
        check_encoder(lambda: MyEncoder(size=(32, 32, 16)), size=(32, 32, 16))
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import torch
from torch import Tensor, nn

from reg2rg.datasets.base import SPLITS, Dataset
from reg2rg.models.encoders.base import Encoder
from reg2rg.models.projectors import Projector


class ContractError(AssertionError):
    """A component breaks its contract; the message says which part, what was found and what is expected."""


def check_encoder(
    build: Callable[[], Encoder], size: tuple[int, int, int], volumes: int = 3, tolerance: float = 1e-5
) -> None:
    """Check an encoder against the contract of `reg2rg.models.encoders.Encoder`.

    Shape and widths as announced; finite output, also under bfloat16 autocast, for a volume of one value, and with
    weights in bfloat16 and float64; the same tokens whatever else is in the batch (eval mode); two passes agree (eval
    mode); a gradient for every trainable parameter; a state dict that restores the tokens exactly.

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
    _require(isinstance(encoder, Encoder), encoder, "type", "no subclass of reg2rg.models.encoders.Encoder", "one")
    for name in ("out_channels", "num_tokens"):
        found = getattr(encoder, name, None)
        _require(isinstance(found, int) and found > 0, encoder, name, repr(found), "a positive int after construction")
    expected = (volumes, encoder.num_tokens, encoder.out_channels)

    encoder.eval()
    with torch.no_grad():
        tokens = encoder(batch)
        _check_tokens(encoder, tokens, expected, "on random volumes")
        _check_tokens(encoder, encoder(torch.full_like(batch, -1.0)), expected, "on empty volumes")
        with torch.autocast("cpu", torch.bfloat16):
            _check_tokens(encoder, encoder(batch), expected, "under bfloat16 autocast")
        for dtype in (torch.bfloat16, torch.float64):
            cast = copy.deepcopy(encoder).to(dtype)(batch)
            _check_tokens(encoder, cast, expected, f"with weights in {dtype}")
            _require(
                cast.dtype == dtype, encoder, f"dtype with weights in {dtype}", str(cast.dtype), "that of the weights"
            )
        _require(torch.equal(encoder(batch), tokens), encoder, "eval mode", "two passes that differ", "equal ones")
        alone = torch.cat([encoder(volume[None]) for volume in batch])
    gap = float((alone - tokens).abs().max())
    fix = "normalise within a volume, not over the batch"
    _require(gap <= tolerance, encoder, "batch composition", f"tokens that move by {gap:.2g} with it", fix)
    _check_gradients(encoder, lambda: encoder(batch))
    _check_round_trip(encoder, build, lambda copy: copy(batch))


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
    _require(isinstance(projector, Projector), projector, "type", "no subclass of Projector", "one")
    with torch.no_grad():
        projected = projector(tokens)
        _check_tokens(projector, projected, (3, 4, out_channels), "on random tokens")
        alone = torch.cat([projector(row[None]) for row in tokens])
    gap = float((alone - projected).abs().max())
    _require(gap <= tolerance, projector, "batch composition", f"tokens that move by {gap:.2g} with it", "none")
    _check_gradients(projector, lambda: projector(tokens))
    _check_round_trip(projector, lambda: build(in_channels, out_channels), lambda copy: copy(tokens))


def check_dataset(build: Callable[[], Dataset]) -> None:
    """Check a dataset against the contract of `reg2rg.datasets.base.Dataset`, on a folder that has studies.

    Ids sorted, unique and fit for file names; known splits; no patient in two splits; images that exist; two
    constructions that list the same; records that can be sent to worker processes.

    Args:
        build: makes the dataset; called twice.

    Raises:
        ContractError: naming the first part that is broken.
    """
    dataset = build()
    _require(isinstance(dataset, Dataset), dataset, "type", "no subclass of Dataset", "one")
    studies = dataset.studies()
    ids = [study.id for study in studies]
    _require(bool(ids), dataset, "studies", "none", "some in the folder that the check is given")
    _require(ids == sorted(set(ids)), dataset, "study ids", "duplicates or no order", "sorted, unique ids")
    patients: dict[str, str] = {}
    for study in studies:
        unsafe = not study.id or study.id.startswith(".") or any(c in study.id for c in "/\\\0")
        _require(not unsafe, dataset, "study id", repr(study.id), "one fit for a file name")
        _require(study.split in SPLITS, dataset, f"split of {study.id}", repr(study.split), f"one of {SPLITS}")
        other = patients.setdefault(study.patient, study.split)
        _require(other == study.split, dataset, f"patient {study.patient}", "two splits", "one")
        _require(study.image.is_file(), dataset, f"image of {study.id}", f"no file at {study.image}", "a file")
    _require(build().studies() == studies, dataset, "studies", "another list the second time", "the same")
    _require(pickle.loads(pickle.dumps(studies)) == studies, dataset, "pickling", "other records", "the same")


def _check_tokens(module: nn.Module, tokens: Tensor, expected: tuple[int, ...], when: str) -> None:
    _require(tuple(tokens.shape) == expected, module, f"shape {when}", str(tuple(tokens.shape)), str(expected))
    _require(bool(tokens.isfinite().all()), module, f"output {when}", "inf or nan", "finite numbers")


def _check_gradients(module: nn.Module, run: Callable[[], Tensor]) -> None:
    """Every trainable parameter gets a finite gradient, and some are not zero.

    Single ones may be zero: residual branches that start at zero have them.
    """
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
        _require(good, module, f"gradient of {name}", found, "a finite one; set requires_grad False if it is unused")
    moving = any(bool(p.grad.any()) for _, p in trainable if p.grad is not None)
    _require(moving, module, "gradients", "zeros alone", "some that are not zero")
    module.zero_grad()
    module.eval()


def _check_round_trip(module: nn.Module, build: Callable[[], nn.Module], run: Callable[[nn.Module], Tensor]) -> None:
    """A second module with the state dict of the first gives equal output."""
    torch.manual_seed(1)
    copy = build()
    copy.load_state_dict(module.state_dict())
    with torch.no_grad():
        same = torch.equal(run(copy.eval()), run(module.eval()))
    _require(same, module, "state dict", "other output after a round trip", "all that matters to be in it")
    for name, tensor in module.state_dict().items():
        _require(
            tensor.is_contiguous(), module, f"state dict {name}", "strides", "a contiguous tensor, for safetensors"
        )


def _require(good: bool, module: object, part: str, found: str, expected: str) -> None:
    if not good:
        raise ContractError(f"{type(module).__name__}: {part}: found {found}, expected {expected}")
