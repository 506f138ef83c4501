"""Contract checks for components: what the rest of the package relies on, in one call a component.

Authors of plug-ins call them in their own tests::

    from reg2rg.testing import check_encoder, check_projector

    def test_my_encoder():
        check_encoder(lambda: MyEncoder(size=(32, 32, 16)), size=(32, 32, 16))
"""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from reg2rg.core.regions import load_region_set
from reg2rg.datasets.base import SPLITS, Dataset
from reg2rg.evaluation.bootstrap import Resamples, Statistic
from reg2rg.evaluation.cohort import Cohort, Settings
from reg2rg.evaluation.labelers import Labeler, RuleLabeler
from reg2rg.evaluation.metrics.base import Metric, Scores
from reg2rg.evaluation.pairs import Pair, Side, pair_sides
from reg2rg.evaluation.results import REPORT
from reg2rg.models.encoders.base import Encoder
from reg2rg.models.projectors import Projector

_REGIONS = ("heart", "lung")


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


def check_metric(build: Callable[[], Metric], tolerance: float = 1e-9) -> None:
    """Check a metric against the contract of `reg2rg.evaluation.metrics.base.Metric`, on six made-up studies.

    Declared names; a unit a study; finite numbers; numbers that do not depend on the order of the studies; units that
    do not depend on the other studies, unless the metric says so; a bootstrap that gives numbers, or none at all; no
    exception where no report was generated.

    Args:
        build: makes the metric; called once.
        tolerance: largest difference between equal numbers.

    Raises:
        ContractError: naming the first part that is broken.
    """
    metric, pairs = build(), _reports()
    _require(isinstance(metric, Metric), metric, "type", "no subclass of Metric", "one")
    scores = _scored(metric, pairs)
    found = {statistic.key: statistic for statistic in scores.statistics}
    _require(bool(found), metric, "numbers", "none", "some, of reports by region with findings and labels")
    for name in (*metric.logged, *metric.tabled, *metric.plotted, *(statistic.name for statistic in found.values())):
        _require(metric.gives(name), metric, "keys", f"a number '{name}' that no key fits", "every number declared")
    for statistic in found.values():
        _check_statistic(metric, statistic, pairs)
    for column in scores.columns:
        fits = len(column.rows) == len(column.values) and set(column.rows.tolist()) <= set(range(len(pairs)))
        _require(fits, metric, f"column {column.name}", "rows that fit no value or study", "a row for each value")
    turned = {one.key: one.number().value for one in _scored(metric, pairs[::-1]).statistics}
    same = all(abs(turned.get(key, math.nan) - one.number().value) <= tolerance for key, one in found.items())
    _require(same, metric, "order of studies", "other numbers in another order", "the same")
    if not metric.depends_on_set:
        halves = [{one.key: one for one in _scored(metric, part).statistics} for part in (pairs[:3], pairs[3:])]
        for key, one in found.items():
            parts = [half[key].units for half in halves if key in half]
            good = len(parts) == len(halves) and np.allclose(np.concatenate(parts), one.units, atol=tolerance)
            _require(good, metric, one.name, "units that depend on the other studies", "depends_on_set, or none")
    _scored(metric, _reports(answered=False))


def check_labeler(build: Callable[[], Labeler], texts: Sequence[str] = ()) -> None:
    """Check a labeler against the contract of `reg2rg.evaluation.labelers.Labeler`.

    A name, a definition, labels without repetition; one row of booleans a text, also of no texts; labels that depend
    on the text alone.

    Args:
        build: makes the labeler; called once.
        texts: what it reads; a few sentences if there are none.

    Raises:
        ContractError: naming the first part that is broken.
    """
    labeler, texts = build(), list(texts or ("A nodule of 6 mm.", "No pleural effusion.", "Cardiomegaly."))
    _require(isinstance(labeler, Labeler), labeler, "type", "no subclass of Labeler", "one")
    for name in ("name", "definition"):
        _require(bool(getattr(labeler, name, "")), labeler, name, "nothing", "a text that goes into outputs")
    labels = labeler.labels
    _require(len(set(labels)) == len(labels) > 0, labeler, "labels", repr(labels), "names without repetition")
    found, shape = labeler.label(texts), (len(texts), len(labels))
    good = isinstance(found, np.ndarray) and found.shape == shape and found.dtype == np.bool_
    _require(
        good, labeler, "label", f"{getattr(found, 'shape', found)!r}", f"an array of booleans of the shape {shape}"
    )
    _require(labeler.label([]).shape == (0, len(labels)), labeler, "label", "another shape", "no row for no text")
    alone = np.concatenate([labeler.label([text]) for text in texts[::-1]])[::-1]
    _require(bool((alone == found).all()), labeler, "label", "labels that depend on other texts", "on the text alone")


def _check_statistic(metric: Metric, statistic: Statistic, pairs: Sequence[Pair]) -> None:
    name, value = statistic.name, statistic.number().value
    _require(statistic.group == metric.group, metric, f"group of {name}", statistic.group, metric.group)
    known = statistic.scope == REPORT or statistic.scope in _REGIONS
    _require(known, metric, f"scope of {name}", statistic.scope, f"'{REPORT}' or a region")
    shape = statistic.units.shape
    _require(len(shape) == 2 and shape[0] == len(pairs), metric, f"units of {name}", str(shape), "(studies, k)")
    _require(math.isfinite(value), metric, name, str(value), "a finite number")
    draws = Resamples([pair.patient for pair in pairs], 20).draws(statistic)
    expected = "value: (..., k) sums -> (...,) numbers"
    _require(draws.shape == (20,), metric, f"bootstrap of {name}", f"the shape {draws.shape}", expected)


def _scored(metric: Metric, pairs: Sequence[Pair]) -> Scores:
    truth = {pair.study: {"Lung nodule": "nodule" in pair.reference, "Cardiomegaly": True} for pair in pairs}
    return metric.score(Cohort(pairs, _REGIONS, Settings(labeler=RuleLabeler(), truth=truth)))


def _reports(answered: bool = True) -> list[Pair]:
    """Six studies of three patients: heart and lung in turns, a third of the paragraphs right."""
    regions, pairs = load_region_set("radgenome"), []
    for i in range(6):
        given = _REGIONS if i % 2 else _REGIONS[::-1]
        texts = {"lung": f"A nodule of {i % 3 + 4} mm is seen.", "heart": f"The heart has size {i}."}
        told = {"lung": f"A nodule of {i // 2 + 4} mm is seen.", "heart": "Cardiomegaly is seen."}
        said = " ".join(f"The region {slot} is {name}: {told[name]}" for slot, name in enumerate(given))
        reference = Side.of_paragraphs(given, [texts[name] for name in given])
        pairs.append(pair_sides(f"p{i // 2}_{i}", f"p{i // 2}", reference, Side(said if answered else ""), regions))
    return pairs


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
