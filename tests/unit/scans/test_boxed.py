"""Boxed masks are the whole masks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reg2rg.core.types import RegionVolume, Volume
from reg2rg.scans.boxed import BoxedMasks
from reg2rg.store.crop import crop_to_foreground


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.tuples(*[st.integers(1, 9)] * 3), st.tuples(*[st.integers(1, 4)] * 3))
def test_whole_thinned_and_together(seed, shape, step):
    rng = np.random.default_rng(seed)
    one, other = (rng.random(shape) < share for share in (0.05, 0.2))
    masks = BoxedMasks.of({"a": one, "b": other, "none": np.zeros(shape, bool)})
    assert [*masks] == [name for name, mask in (("a", one), ("b", other)) if mask.any()]
    assert BoxedMasks.of(masks) is masks
    for name in masks:
        whole = {"a": one, "b": other}[name]
        np.testing.assert_array_equal(masks[name], whole)
        assert masks[name].flags.f_contiguous
        np.testing.assert_array_equal(masks.thinned(name, np.array(step)), whole[:: step[0], :: step[1], :: step[2]])
    masks.add("b", one)
    if one.any() or other.any():
        np.testing.assert_array_equal(masks["b"], one | other)
        assert [*masks.only(["b"])] == ["b"]
    with pytest.raises(KeyError):
        masks["none"]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_a_crop_of_boxes_is_that_of_whole_masks(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(3, 10, 3))
    array = np.full(shape, -1024, np.int16)
    low = [int(rng.integers(0, n)) for n in shape]
    array[tuple(slice(a, int(rng.integers(a + 1, n + 1))) for a, n in zip(low, shape, strict=True))] = 40
    mask = rng.random(shape) < 0.1
    detail = crop_to_foreground(RegionVolume(Volume(array, np.eye(4)), {"a": mask}), needs_regions=False)
    box = tuple(slice(a, a + n) for a, n in zip(detail.origin, detail.array.shape, strict=True))
    if mask[box].any():
        np.testing.assert_array_equal(detail.mask("a"), mask[box])
        part = detail.masks["a"].array
        assert all(part.take(end, axis).any() for axis in range(3) for end in (0, -1))
    else:
        assert not detail.masks
        assert detail.notes == ("a: its mask lies wholly outside the scan's foreground",)
