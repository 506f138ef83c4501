"""Sums that two sites can compare: exact, in one order, of every byte."""

from __future__ import annotations

import hashlib
import math

import pytest
import torch
from safetensors.torch import save_file

from reg2rg.core.errors import ConfigError
from reg2rg.extras.convert import differences, read_sums, sum_tensor, sum_tensors
from reg2rg.extras.convert.checksums import LANES
from reg2rg.models.tensors import open_tensors


@pytest.fixture(scope="module")
def weights():
    generator = torch.Generator().manual_seed(0)
    return {
        "b.half": torch.randn(3, 70_001, generator=generator).bfloat16(),
        "a.wide": torch.randn(2, 5, generator=generator),
        "ids": torch.arange(514)[None],
        "nothing": torch.zeros(0, 4),
        "one": torch.tensor(2.5, dtype=torch.float16),
    }


def test_sums_are_those_of_the_definition(weights):
    for tensor in weights.values():
        found, numbers = sum_tensor(tensor), tensor.double().flatten().tolist()
        lanes = [0.0] * LANES
        for i, number in enumerate(numbers):
            lanes[i % LANES] += number
        assert found.sum == math.fsum(lanes)
        assert found.sum == pytest.approx(math.fsum(numbers), rel=1e-9, abs=1e-9)
        assert found.abs_sum == pytest.approx(math.fsum(map(abs, numbers)), rel=1e-12)
        assert (
            found.sha256 == hashlib.sha256(bytes(tensor.contiguous().flatten().view(torch.uint8).tolist())).hexdigest()
        )
        assert (found.shape, found.dtype) == (tuple(tensor.shape), str(tensor.dtype)[6:])


def test_numbers_that_are_not_finite_are_counted():
    found = sum_tensor(torch.tensor([1.0, float("nan"), float("-inf")]))
    assert (found.sum, found.abs_sum, found.non_finite) == (None, None, 2)


def test_the_digest_does_not_depend_on_file_or_order(weights, tmp_path):
    save_file({name: weights[name] for name in sorted(weights, reverse=True)}, tmp_path / "a.safetensors")
    torch.save(weights, tmp_path / "b.pth")
    one, other = (sum_tensors(open_tensors(tmp_path / name)) for name in ("a.safetensors", "b.pth"))
    assert one.digest == other.digest
    assert one.lines() == other.lines()
    assert not differences(one, other)
    assert one.lines()[-1] == f"5 tensors, {3 * 70_001 + 10 + 514 + 1} numbers, digest {one.digest}"
    changed = {**weights, "a.wide": weights["a.wide"].flip(0)}
    save_file({name: tensor.contiguous() for name, tensor in changed.items()}, tmp_path / "c.safetensors")
    third = sum_tensors(open_tensors(tmp_path / "c.safetensors"))
    assert third.digest != one.digest
    assert [line.split(":")[0] for line in differences(one, third)] == ["a.wide"]


def test_sums_travel_as_json(weights, tmp_path):
    torch.save({**weights, "bad": torch.tensor([float("nan")])}, tmp_path / "w.pth")
    sums = sum_tensors(open_tensors(tmp_path / "w.pth"))
    sums.write(tmp_path / "sums.json")
    back = read_sums(tmp_path / "sums.json")
    assert back == sums
    assert back.digest == sums.digest
    (tmp_path / "other.json").write_text("{}")
    for name in ("other.json", "none.json"):
        with pytest.raises(ConfigError, match=rf"--against .*{name}: cannot be read as sums"):
            read_sums(tmp_path / name)


def test_what_only_one_site_has_is_told(weights):
    from reg2rg.extras.convert import Sums

    here = Sums("here", {"a": sum_tensor(weights["one"]), "b": sum_tensor(weights["ids"])})
    there = Sums("there", {"b": sum_tensor(weights["ids"]), "c": sum_tensor(weights["ids"])})
    assert differences(here, there) == ["a: only here", "c: only there"]


def test_progress_counts_every_mib():
    steps = []
    sum_tensor(torch.zeros(3 * 2**20 + 7), steps.append)
    assert sum(steps) == 12
