from dataclasses import replace

import numpy as np
import pytest
import torch

from reg2rg.data.batch import Sample, collate
from reg2rg.data.prompt import EncodedSample, TokenCounts

COUNTS = TokenCounts(texture=2, geometry=1, global_=2)
SIZE = (2, 3, 4)


def sample(study, regions, length, labelled=3):
    """Ids 100 + position; one slot run of each kind at the front; the last `labelled` positions carry loss."""
    slots = 4 + 5 * regions  # tags and tokens: 2 + 2, then 3 + 2 a region
    sources = [0, 4, 5, 1]
    for region in range(regions):
        first = 6 + 3 * region
        sources += [2, first, first + 1, first + 2, 3]
    ids = np.arange(100, 100 + length)
    labels = np.full(length, -100)
    labels[length - labelled :] = ids[length - labelled :]
    region_of_label = np.array([0] * (labelled - 1) + [-1])
    encoded = EncodedSample(ids, labels, np.arange(1, 1 + slots), np.array(sources), region_of_label)
    value = int(study)
    views = np.full((regions, *SIZE), value, np.int16)
    names = tuple(f"r{i}" for i in range(regions))
    return Sample(study, names, ("text",) * regions, encoded, views, views + 1, np.full(SIZE, value, np.int16))


@pytest.fixture
def batch():
    return collate([sample("1", 2, 30), sample("2", 1, 24)], COUNTS, pad_id=9)


def test_regions_are_packed_and_text_is_padded_on_the_right(batch):
    assert batch.texture.shape == (3, 1, *SIZE)
    assert batch.texture.dtype == torch.int16
    assert batch.global_.shape == (2, 1, *SIZE)
    assert batch.texture[:, 0, 0, 0, 0].tolist() == [1, 1, 2]
    assert batch.region_names == ("r0", "r1", "r0")
    assert batch.input_ids.shape == (2, 30)
    assert batch.input_ids[1, 24:].tolist() == [9] * 6
    assert batch.attention_mask.sum(1).tolist() == [30, 24]
    assert (batch.labels[1, 24:] == -100).all()
    assert batch.label_region.tolist() == [0, 0, -1, 2, 2, -1]


def test_sources_point_into_the_table_of_the_batch(batch):
    """Table: 4 tags | 2 x 2 global | 3 x 3 region."""
    second = batch.visual_source[batch.visual_rows == 1].tolist()
    assert second == [0, 6, 7, 1, 2, 14, 15, 16, 3]
    first = batch.visual_source[batch.visual_rows == 0].tolist()
    assert first == [0, 4, 5, 1, 2, 8, 9, 10, 3, 2, 11, 12, 13, 3]


def test_prompts_lose_the_target_and_pad_on_the_left(batch):
    prompts = batch.prompts(pad_id=7)
    assert prompts.input_ids.shape == (2, 27)
    assert prompts.input_ids[0].tolist() == list(range(100, 127))
    assert prompts.input_ids[1].tolist() == [7] * 6 + list(range(100, 121))
    assert prompts.attention_mask.sum(1).tolist() == [27, 21]
    ids = batch.input_ids[batch.visual_rows, batch.visual_cols]
    assert torch.equal(prompts.input_ids[prompts.visual_rows, prompts.visual_cols], ids)
    assert (prompts.labels == -100).all()
    assert len(prompts.label_region) == 0


def test_prompts_of_a_batch_without_targets():
    full = sample("1", 1, 20)
    encoded = replace(full.encoded, labels=np.full(20, -100), region_of_label=np.empty(0, dtype=np.int64))
    batch = collate([replace(full, encoded=encoded)], COUNTS, 9)
    assert torch.equal(batch.prompts(9).input_ids, batch.input_ids)


def test_scaling_happens_once(batch):
    scaled = batch.scaled((-1000, 200))
    assert scaled.texture.dtype == torch.float32
    assert scaled.texture[0].unique().item() == pytest.approx((1 / 16 + 400) / 600, abs=1e-6)
    assert scaled.geometry[0].unique().item() == pytest.approx(2 / 32767)
    again = scaled.scaled((-1000, 200))
    assert torch.equal(again.texture, scaled.texture)


def test_moving_moves_every_tensor(batch):
    moved = batch.to("meta")
    tensors = [value for value in vars(moved).values() if isinstance(value, torch.Tensor)]
    assert len(tensors) == 10
    assert all(tensor.device.type == "meta" for tensor in tensors)
    assert moved.study_ids == ("1", "2")


def test_views_that_nobody_looks_at_are_absent():
    bare = sample("1", 1, 20)
    bare = Sample(bare.study, bare.regions, bare.reports, bare.encoded)
    batch = collate([bare], COUNTS, 0)
    assert batch.texture is None
    assert batch.scaled((-1000, 200)).geometry is None
    assert batch.to("cpu").global_ is None
