from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reg2rg.data.order import (
    bucketed_batches,
    generator,
    kept_regions,
    mixed_seed,
    scheduled_regions,
    share_of,
    shuffled_regions,
)

REGIONS = ("abdomen", "bone", "heart", "lung")


def test_order_depends_on_seed_epoch_and_study_alone():
    order = shuffled_regions(REGIONS, 1, 2, "s")
    assert order == shuffled_regions(REGIONS, 1, 2, "s")
    others = [shuffled_regions(REGIONS, *key) for key in [(0, 2, "s"), (1, 3, "s"), (1, 2, "t")]]
    assert any(other != order for other in others)
    assert sorted(order) == sorted(REGIONS)


def test_order_is_the_same_on_every_machine():
    """Held numbers: another NumPy or another machine must not change an order that a checkpoint counts on."""
    assert shuffled_regions(REGIONS, 0, 0, "train_1_a_1") == ("heart", "abdomen", "lung", "bone")
    assert bucketed_batches([3, 1, 2, 5, 4], 2, 0, 0) == [[0, 3], [1, 2], [4]]
    assert mixed_seed(0, 1, 2, 3) == 2191249937787519195


def test_every_order_of_regions_is_as_likely():
    counts = Counter(shuffled_regions(REGIONS[:3], 0, epoch, "s") for epoch in range(1200))
    assert set(counts) == set(permutations(REGIONS[:3]))
    assert max(counts.values()) < 1.5 * min(counts.values())


def test_names_do_not_run_into_each_other():
    assert generator(0, 0, "ab", "c").integers(1 << 60) != generator(0, 0, "a", "bc").integers(1 << 60)


@given(lengths=st.lists(st.integers(0, 50), max_size=200), batch=st.integers(1, 9), epoch=st.integers(0, 3))
def test_every_study_stands_in_one_batch(lengths, batch, epoch):
    batches = bucketed_batches(lengths, batch, 7, epoch)
    assert sorted(index for one in batches for index in one) == list(range(len(lengths)))
    assert all(len(one) == batch for one in batches[:-1])
    assert batches == bucketed_batches(lengths, batch, 7, epoch)


def test_batches_hold_like_lengths_and_epochs_differ():
    lengths = list(generator(0, 0, "lengths").integers(100, 2000, 512))

    def padding(batches):
        return 1 - sum(lengths) / sum(len(b) * max(lengths[i] for i in b) for b in batches)

    batches = bucketed_batches(lengths, 8, 0, 0)
    plain = [list(range(i, i + 8)) for i in range(0, 512, 8)]
    assert padding(batches) < 0.1 * padding(plain)
    assert batches != bucketed_batches(lengths, 8, 0, 1)


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("even", [True, False])
def test_shares_of_processes(world, even):
    batches = bucketed_batches([1] * 13, 3, 0, 0)  # the last one has a single study
    shares = [share_of(batches, rank, world, even) for rank in range(world)]
    seen = sorted(index for share in shares for batch in share for index in batch)
    if even:
        assert len({len(share) for share in shares}) == 1
        assert len(seen) == (13 if world == 1 else 12)
    else:
        assert seen == list(range(13))
    for number, batch in enumerate(batches[:-1]):
        assert sorted(i for share in shares for i in share[number]) == sorted(batch)


def test_a_process_without_a_study_repeats_the_first():
    assert [share_of([[4]], rank, 2, even=False) for rank in (0, 1)] == [[[4]], [[4]]]
    assert share_of([], 0, 2, even=False) == []


def test_schedule():
    schedule = {2: 2, 5: 4, 8: 0}
    assert [scheduled_regions(schedule, epoch) for epoch in (0, 1, 2, 4, 5, 8, 9)] == [None, None, 2, 2, 4, None, None]
    assert scheduled_regions(None, 3) is None


class TestRegionDropout:
    def test_half_of_the_samples_have_all_regions_or_one_of_each_number(self):
        counts = Counter(kept_regions(5, 0.5, 0, epoch, f"s{study}") for epoch in range(20) for study in range(200))
        shares = {count: times / 4000 for count, times in counts.items()}
        assert set(shares) == {1, 2, 3, 4, 5}
        assert all(abs(shares[count] - 0.1) < 0.02 for count in (1, 2, 3, 4))
        assert abs(shares[5] - 0.6) < 0.03

    def test_none_keeps_all_and_the_number_follows_from_seed_epoch_and_study(self):
        assert {kept_regions(7, 0.0, 0, epoch, "s") for epoch in range(50)} == {7}
        drawn = [kept_regions(7, 1.0, 3, epoch, "s") for epoch in range(50)]
        assert drawn == [kept_regions(7, 1.0, 3, epoch, "s") for epoch in range(50)]
        assert drawn != [kept_regions(7, 1.0, 4, epoch, "s") for epoch in range(50)]
        assert {kept_regions(1, 1.0, 0, epoch, "s") for epoch in range(9)} == {1}
