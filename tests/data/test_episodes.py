import json
import pickle
import time

import jax
import numpy as np
import pytest

from jxai import data
from jxai.fewshot.episode import Episode

TASK = {"way": 3, "shot": 2, "num_query": 4}


def make_source(name, *, num_classes=8, per_class=6, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(num_classes), per_class))
    images = rng.integers(0, 256, (len(labels), 10, 10, 3), np.uint8)
    return data.from_arrays(name, images, labels)


def assert_equal(one: Episode, other: Episode) -> None:
    assert one.way == other.way
    jax.tree.map(np.testing.assert_array_equal, one, other)


def joined(parts: list[Episode]) -> Episode:
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def test_dataset_elements_are_the_drawn_pictures_normalized(source):
    dataset = data.episode_dataset(source, **TASK, seed=7, batch_size=2, image_size=10)
    batch = dataset[3]
    assert batch.way == 3
    assert batch.support.shape == (2, 6, 10, 10, 3) and batch.query.shape == (2, 12, 10, 10, 3)
    for leaf in jax.tree.leaves(batch):
        assert isinstance(leaf, np.ndarray)
    assert batch.support.dtype == np.float32 and batch.support_labels.dtype == np.int32
    for offset in range(2):
        support, query = data.episode_indices(source, **TASK, seed=7, index=6 + offset)
        np.testing.assert_array_equal(batch.support[offset], source.array(10)[support])
        np.testing.assert_array_equal(batch.query[offset], source.array(10)[query])
        np.testing.assert_array_equal(batch.support_labels[offset], [0, 0, 1, 1, 2, 2])
        np.testing.assert_array_equal(batch.query_labels[offset], np.repeat([0, 1, 2], 4))


@pytest.mark.parametrize("augment", [None, "resized-crop", "crop-erase"])
def test_batches_and_shards_hold_the_same_episodes(source, augment):
    options = {**TASK, "seed": 7, "image_size": 8, "augment": augment}
    single = data.episode_dataset(source, **options)
    whole = data.episode_dataset(source, **options, batch_size=4)
    assert_equal(whole[2], joined([single[i] for i in range(8, 12)]))
    for count in (2, 4):
        shards = [
            data.episode_dataset(source, **options, batch_size=4, shard_index=i, shard_count=count)
            for i in range(count)
        ]
        assert_equal(whole[2], joined([shard[2] for shard in shards]))
        assert shards[0][2].support.shape[0] == 4 // count


@pytest.mark.parametrize("kind", ["resized-crop", "crop-erase"])
def test_augmented_episodes_are_the_same_each_time_and_not_the_plain_ones(source, kind):
    plain, augmented, again = (
        data.episode_dataset(source, **TASK, seed=7, image_size=10, augment=augment)[5]
        for augment in (None, kind, kind)
    )
    assert_equal(augmented, again)
    assert augmented.support.shape == plain.support.shape
    assert (augmented.support != plain.support).any(axis=(2, 3, 4)).all()


def test_each_episode_draws_one_of_several_domains():
    sources = [make_source("a", seed=1), make_source("b", seed=2, num_classes=5), make_source("c", seed=3)]
    dataset = data.episode_dataset(sources, **TASK, seed=0, image_size=10)
    counts = np.zeros(3)
    for index in range(150):
        episode = dataset[index]
        of = [
            domain
            for domain, source in enumerate(sources)
            if (episode.support[0, 0] == source.array(10)).all(axis=(1, 2, 3)).any()
        ]
        counts[of] += 1
        support, query = data.episode_indices(sources[of[0]], **TASK, seed=0, index=index)
        np.testing.assert_array_equal(episode.support[0], sources[of[0]].array(10)[support])
        np.testing.assert_array_equal(episode.query[0], sources[of[0]].array(10)[query])
    assert counts.sum() == 150 and (abs(counts - 50) < 25).all()


def test_an_iterator_restored_from_json_goes_on_with_the_same_episodes(source):
    def fresh():
        return data.iterate(data.episode_dataset(source, **TASK, seed=7, batch_size=2, image_size=10))

    straight = fresh()
    batches = [next(straight) for _ in range(6)]
    stopped = fresh()
    for _ in range(3):
        next(stopped)
    resumed = fresh()
    resumed.set_state(json.loads(json.dumps(stopped.get_state())))
    for batch in batches[3:]:
        assert_equal(next(resumed), batch)


def test_a_number_of_episodes_ends_the_dataset(source):
    dataset = data.episode_dataset(source, **TASK, seed=7, num_episodes=6, batch_size=2, image_size=10)
    assert len(dataset) == 3 and len(list(data.iterate(dataset))) == 3
    endless = data.episode_dataset(source, **TASK, seed=7, batch_size=2, image_size=10)
    assert len(endless) > 10**15
    assert endless[10**12].support.shape == (2, 6, 10, 10, 3)


def test_datasets_can_be_sent_to_worker_processes(source):
    dataset = data.episode_dataset(source, **TASK, seed=7, image_size=10)
    assert_equal(pickle.loads(pickle.dumps(dataset))[4], dataset[4])


def test_dataset_options_are_checked(source):
    for options, said in (
        ({"num_episodes": 5, "batch_size": 2}, "`num_episodes` as a multiple of the batch size 2, got 5"),
        ({"num_episodes": 0}, "`num_episodes` as an integer of at least 1"),
        ({"batch_size": 0}, "`batch_size` as an integer of at least 1"),
        ({"batch_size": 3, "shard_count": 2}, "`batch_size` divisible by 2 shards, got 3"),
        ({"image_size": 0}, "`image_size` as an integer of at least 1"),
        ({"epoch": 0}, "`epoch` as an integer of at least 1"),
        ({"augment": "flip"}, "`augment` as None or one of resized-crop, crop-erase, got 'flip'"),
    ):
        with pytest.raises(ValueError, match=f"expected {said}"):
            data.episode_dataset(source, **TASK, seed=0, **options)
    with pytest.raises(ValueError, match="expected at least 1 sources, got 0"):
        data.episode_dataset([], **TASK, seed=0)


def test_thousands_of_pictures_a_second():
    # The embedded source at 5-way 5-shot with 15 queries; tens of thousands on an idle core.
    dataset = data.episode_dataset(data.load("latin"), way=5, shot=5, num_query=15, seed=0, batch_size=8)
    dataset[0]
    start = time.perf_counter()
    for step in range(1, 4):
        dataset[step]
    assert 3 * 8 * 100 / (time.perf_counter() - start) > 2000


def test_queries_know_their_classes_among_all_sources():
    sources = [make_source("a", seed=1), make_source("b", seed=2, num_classes=5), make_source("c", seed=3)]
    merged = data.merge(sources)
    pictures = merged.array(10)
    dataset = data.episode_dataset(sources, **TASK, seed=0, image_size=10, batch_size=2)
    for step in range(10):
        batch = dataset[step]
        assert batch.query_classes.shape == (2, 12) and batch.query_classes.dtype == np.int32
        for query, classes in zip(
            batch.query.reshape(-1, 10, 10, 3), batch.query_classes.ravel(), strict=True
        ):
            (number,) = np.flatnonzero((pictures == query).all(axis=(1, 2, 3)))
            assert merged.labels[number] == classes


def domains_of(dataset, sources, steps):
    """Which source each episode is of."""
    bounds = np.cumsum([len(source.class_names) for source in sources])
    return [int(np.searchsorted(bounds, dataset[step].query_classes[0, 0], side="right")) for step in steps]


def test_an_epoch_of_episodes_is_of_one_domain():
    sources = [make_source(name, seed=seed) for seed, name in enumerate("abc")]
    dataset = data.episode_dataset(sources, **TASK, seed=0, image_size=10, epoch=5)
    drawn = np.reshape(domains_of(dataset, sources, range(60)), (12, 5))
    assert (drawn == drawn[:, :1]).all() and set(drawn[:, 0]) == {0, 1, 2}


def test_pairs_are_of_two_domains_that_an_epoch_draws():
    sources = [make_source(name, seed=seed, num_classes=6 + seed) for seed, name in enumerate("abc")]
    options = {**TASK, "seed": 0, "image_size": 10, "epoch": 4}
    pairs = data.episode_pairs_dataset(sources, **options)
    drawn = [domains_of(pairs.map(lambda pair, k=k: pair[k]), sources, range(80)) for k in (0, 1)]
    by_epoch = np.reshape(drawn, (2, 20, 4))
    assert (by_epoch == by_epoch[:, :, :1]).all()
    assert (by_epoch[0] != by_epoch[1]).all()
    assert len({*map(tuple, by_epoch[:, :, 0].T)}) == 6  # every ordered pair of three
    # A pair's episodes are those that one domain has at twice the index, and at the next.
    seen, unseen = pairs[7]
    for episode, domain, index in ((seen, drawn[0][7], 14), (unseen, drawn[1][7], 15)):
        support, query = data.episode_indices(sources[domain], **TASK, seed=0, index=index)
        np.testing.assert_array_equal(episode.support[0], sources[domain].array(10)[support])
        np.testing.assert_array_equal(episode.query[0], sources[domain].array(10)[query])


def test_pairs_come_in_batches_and_shards():
    sources = [make_source(name, seed=seed) for seed, name in enumerate("ab")]
    options = {**TASK, "seed": 3, "image_size": 8, "augment": "crop-erase", "epoch": 3}
    single = data.episode_pairs_dataset(sources, **options)
    whole = data.episode_pairs_dataset(sources, **options, batch_size=4, num_episodes=12)
    assert len(whole) == 3
    shards = [
        data.episode_pairs_dataset(sources, **options, batch_size=4, shard_index=i, shard_count=2)
        for i in (0, 1)
    ]
    for k in (0, 1):
        assert_equal(whole[1][k], joined([single[i][k] for i in range(4, 8)]))
        assert_equal(whole[1][k], joined([shard[1][k] for shard in shards]))


def test_pairs_need_two_sources(source):
    with pytest.raises(ValueError, match="expected at least 2 sources, got 1"):
        data.episode_pairs_dataset([source], **TASK, seed=0)


def test_repeated_pictures_fill_an_episode(source):
    task = {"way": 3, "shot": 5, "num_query": 4}  # of six pictures a class
    with pytest.raises(ValueError, match=r"at least 9 different pictures .*or say repeat=True"):
        data.episode_dataset(source, **task, seed=0)
    episode = data.episode_dataset(source, **task, seed=0, image_size=10, repeat=True)[0]
    support, query = data.episode_indices(source, **task, seed=0, index=0, repeat=True)
    np.testing.assert_array_equal(episode.support[0], source.array(10)[support])
    np.testing.assert_array_equal(episode.query[0], source.array(10)[query])
