import json

import grain
import numpy as np
import pytest

from jxai import data
from jxai.data import pipeline


@pytest.mark.parametrize("value", [0, -3, 1.5, "2", None])
def test_a_count_is_a_positive_integer(value):
    with pytest.raises(ValueError, match="expected `shot` as an integer of at least 1, got"):
        pipeline.check_count("shot", value)


def test_a_count_may_be_numpys():
    assert pipeline.check_count("shot", np.int32(3)) == 3
    assert pipeline.check_count("seed", 0, least=0) == 0


@pytest.mark.parametrize("shard_count", [1, 2, 3, 6])
def test_shards_in_order_are_the_batch(shard_count):
    shards = [pipeline.shard_positions(6, shard_index=i, shard_count=shard_count) for i in range(shard_count)]
    assert [position for shard in shards for position in shard] == list(range(6))
    assert {len(shard) for shard in shards} == {6 // shard_count}


def test_shards_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="expected `batch_size` divisible by 4 shards, got 6"):
        pipeline.shard_positions(6, shard_index=0, shard_count=4)
    for shard_index in (-1, 2):
        with pytest.raises(ValueError, match=rf"expected `shard_index` in \[0, 2\), got {shard_index}"):
            pipeline.shard_positions(6, shard_index=shard_index, shard_count=2)
    with pytest.raises(ValueError, match="expected `shard_count`"):
        pipeline.shard_positions(6, shard_index=0, shard_count=0)


def test_a_stream_depends_on_each_of_its_numbers():
    def first(*args, **options):
        return pipeline.stream(*args, **options).integers(2**62)

    assert first(3, 5) == first(3, 5)
    drawn = [
        first(3, 5),
        first(3, 6),
        first(4, 5),
        first(5, 3),
        first(3, 5, purpose=1),
        first(3, 5, purpose=2),
    ]
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("num_threads", [0, 2])
def test_an_iterator_goes_on_where_its_state_says(num_threads):
    dataset = grain.MapDataset.range(20).map(lambda i: {"i": np.asarray(i)})
    iterator = data.iterate(dataset, num_threads=num_threads)
    assert iterator.get_state() == {"next_index": 0}
    assert [int(next(iterator)["i"]) for _ in range(5)] == [0, 1, 2, 3, 4]
    state = json.loads(json.dumps(iterator.get_state()))
    fresh = data.iterate(dataset, num_threads=num_threads)
    fresh.set_state(state)
    assert [int(element["i"]) for element in fresh] == list(range(5, 20))
    iterator.set_state({"next_index": 18})  # also one that has begun
    assert [int(element["i"]) for element in iterator] == [18, 19]
    iterator.set_state({"next_index": 20})
    assert list(iterator) == []


def test_a_closed_iterator_goes_on_where_it_was():
    iterator = data.iterate(grain.MapDataset.range(10))
    assert [int(next(iterator)) for _ in range(3)] == [0, 1, 2]
    iterator.close()
    assert [int(i) for i in iterator] == [3, 4, 5, 6, 7, 8, 9]


def test_an_iterator_makes_few_batches_ahead():
    made = []
    dataset = grain.MapDataset.range(1000).map(lambda i: made.append(i) or i)
    next(data.iterate(dataset, buffer_size=3))
    assert len(made) <= 6  # three ahead, and one that each thread may be making


@pytest.mark.parametrize(("option", "value"), [("num_threads", -1), ("num_workers", -1), ("buffer_size", 0)])
def test_iterator_options_are_checked(option, value):
    with pytest.raises(ValueError, match=f"expected `{option}`"):
        data.iterate(grain.MapDataset.range(3), **{option: value})
