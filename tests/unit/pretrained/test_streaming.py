"""Files of tensors that are written one tensor at a time."""

import gc
import weakref
from collections.abc import Mapping

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from reg2rg.pretrained.streaming import read_metadata, write_safetensors

DTYPES = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
)


def test_every_dtype_and_shape_comes_back_bit_for_bit(tmp_path):
    tensors = {str(dtype): (torch.randn(7, 5) * 100).to(dtype) for dtype in DTYPES}
    tensors |= {"scalar": torch.tensor(3.5), "empty": torch.ones(0, 3), "turned": torch.randn(6, 4).T}
    tensors["nan"] = torch.tensor([float("nan"), float("inf"), -0.0])
    write_safetensors(tmp_path / "x.safetensors", tensors, {"by": "test"}, leave_out=["turned"])
    found = load_file(tmp_path / "x.safetensors")
    assert found.keys() == tensors.keys() - {"turned"}
    for name, tensor in found.items():
        assert tensor.dtype == tensors[name].dtype
        assert torch.equal(tensor.contiguous().view(-1).view(torch.uint8), tensors[name].view(-1).view(torch.uint8)), (
            name
        )
    assert read_metadata(tmp_path / "x.safetensors") == {"format": "pt", "by": "test"}


def test_a_view_is_written_as_it_looks(tmp_path):
    whole = torch.randn(100, 100)
    write_safetensors(tmp_path / "x.safetensors", {"part": whole[3:7, ::9], "turned": whole.T})
    with safe_open(tmp_path / "x.safetensors", framework="pt") as file:
        assert torch.equal(file.get_tensor("part"), whole[3:7, ::9])
        assert torch.equal(file.get_tensor("turned"), whole.T)


class Lazy(Mapping):
    """Six tensors of 4 MiB, made when they are asked for; knows how many are alive."""

    def __init__(self):
        self.alive, self.most = weakref.WeakSet(), 0

    def __getitem__(self, name):
        gc.collect()
        tensor = torch.full((1 << 20,), float(name), dtype=torch.float32)
        self.alive.add(tensor)
        self.most = max(self.most, len(self.alive))
        return tensor

    def __iter__(self):
        return iter([f"{i:02d}" for i in range(6)])

    def __len__(self):
        return 6


def test_no_more_than_two_tensors_are_ever_in_memory(tmp_path):
    lazy = Lazy()
    write_safetensors(tmp_path / "x.safetensors", lazy)
    assert lazy.most <= 2
    assert (tmp_path / "x.safetensors").stat().st_size > 6 * 4 << 20
    with safe_open(tmp_path / "x.safetensors", framework="pt") as file:
        assert [float(file.get_tensor(name)[-1]) for name in lazy] == list(range(6))


def test_a_dtype_that_the_format_has_not_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"w is torch\.complex64"):
        write_safetensors(tmp_path / "x.safetensors", {"w": torch.ones(2, dtype=torch.complex64)})
