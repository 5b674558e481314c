import json
import pickle
import time

import jax
import numpy as np
import pytest

from jxai import data
from jxai.data.source import digest, from_pictures
from jxai.fewshot.episode import Episode

TASK = {"way": 3, "shot": 2, "num_query": 4}
LABELS = np.tile(np.arange(8), 6)


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


def test_an_episode_is_classes_and_different_pictures_of_them():
    for index in range(50):
        support, query = data.episode_indices(LABELS, **TASK, seed=0, index=index)
        assert support.shape == (6,) and query.shape == (12,)
        assert len({*support, *query}) == 18
        classes = LABELS[support].reshape(3, 2)
        assert len(set(classes[:, 0])) == 3 and (classes == classes[:, :1]).all()
        np.testing.assert_array_equal(LABELS[query].reshape(3, 4), np.repeat(classes[:, :1], 4, axis=1))


def test_an_episode_depends_on_seed_and_index_alone():
    def drawn(seed, index):
        return np.concatenate(data.episode_indices(LABELS, **TASK, seed=seed, index=index)).tolist()

    assert drawn(3, 5) == drawn(3, 5)
    others = [drawn(3, 5), drawn(3, 6), drawn(4, 5), drawn(5, 3), drawn(0, 0), drawn(3, 10**12)]
    assert len({tuple(other) for other in others}) == len(others)
    # Written down on the first run (numpy 2.4): the same episodes on every machine and in every release.
    assert drawn(0, 0) == [45, 21, 15, 31, 24, 16, 5, 37, 13, 29, 47, 23, 7, 39, 40, 32, 8, 0]


def test_every_class_and_picture_is_drawn_as_often():
    in_support = np.zeros(48)
    for index in range(2000):
        support, _ = data.episode_indices(LABELS, **TASK, seed=1, index=index)
        in_support[support] += 1
    expected = 2000 * 6 / 48
    assert abs(in_support - expected).max() < 5 * np.sqrt(expected)


def test_dataset_elements_are_the_drawn_pictures_normalised(source):
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


def test_a_table_is_the_drawn_episodes(source):
    support, query = data.episode_table(source, **TASK, seed=7, num_episodes=5)
    assert support.shape == (5, 6) and query.shape == (5, 12)
    for index in range(5):
        drawn = data.episode_indices(source, **TASK, seed=7, index=index)
        np.testing.assert_array_equal(support[index], drawn[0])
        np.testing.assert_array_equal(query[index], drawn[1])
    with pytest.raises(ValueError, match="expected `num_episodes` as an integer of at least 1, got 0"):
        data.episode_table(source, **TASK, seed=7, num_episodes=0)


@pytest.mark.parametrize("augment", [False, True])
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


def test_augmented_episodes_are_the_same_each_time_and_not_the_plain_ones(source):
    plain, augmented, again = (
        data.episode_dataset(source, **TASK, seed=7, image_size=10, augment=augment)[5]
        for augment in (False, True, True)
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


def test_identical_pictures_of_two_classes_never_meet():
    # Classes 0 and 1 share a picture; two of six draws of two classes out of three hold both classes.
    images = np.arange(12, dtype=np.uint8)[:, None, None].repeat(4, axis=1).repeat(4, axis=2)
    images[4] = images[3]
    source = data.from_arrays("copies", images, np.repeat(np.arange(3), 4))
    both = 0
    for index in range(200):
        support, query = data.episode_indices(source, way=2, shot=1, num_query=2, seed=0, index=index)
        drawn = {*support, *query}
        assert len(drawn) == 6 and not {3, 4} <= drawn
        both += bool(drawn & {0, 1, 2, 3}) and bool(drawn & {4, 5, 6, 7})
    assert both > 10


def test_identical_pictures_of_one_class_count_once():
    images = np.arange(12, dtype=np.uint8)[:, None, None].repeat(4, axis=1).repeat(4, axis=2)
    images[3] = images[2]
    source = data.from_arrays("copies", images, np.repeat(np.arange(3), 4))
    for index in range(50):
        assert 3 not in np.concatenate(
            data.episode_indices(source, way=3, shot=1, num_query=2, seed=0, index=index)
        )
    with pytest.raises(ValueError, match=r"at least 4 different pictures .*, got 3 of class '0' in 'copies'"):
        data.episode_indices(source, way=3, shot=2, num_query=2, seed=0, index=0)


def test_classes_of_the_same_pictures_are_refused():
    pictures = [np.full((4, 4, 3), i % 3, np.uint8) for i in range(6)]
    digests = [digest(picture.tobytes()) for picture in pictures]
    source = from_pictures("copies", pictures, np.repeat([0, 1], 3), digests=digests)
    with pytest.raises(ValueError, match="got classes that share too many of 'copies'"):
        data.episode_indices(source, way=2, shot=1, num_query=2, seed=0, index=0)


def test_no_embedded_episode_holds_a_picture_twice():
    # `latin` has eight pictures that stand in two classes, such as 5 and S of one typeface.
    source = data.load("latin")
    assert len(np.unique(source.digests)) == len(source) - 8
    for index in range(20):
        drawn = np.concatenate(
            data.episode_indices(source, way=47, shot=5, num_query=100, seed=0, index=index)
        )
        assert len(np.unique(source.digests[drawn])) == len(drawn)


@pytest.mark.parametrize("name", ["way", "shot", "num_query"])
@pytest.mark.parametrize("value", [0, -1])
def test_way_shot_and_query_below_one_are_refused(source, name, value):
    task = {**TASK, name: value}
    with pytest.raises(ValueError, match=f"expected `{name}` as an integer of at least 1, got {value}"):
        data.episode_indices(source, **task, seed=0, index=0)
    with pytest.raises(ValueError, match=f"expected `{name}` as an integer of at least 1, got {value}"):
        data.episode_dataset(source, **task, seed=0)


@pytest.mark.parametrize("name", ["seed", "index"])
def test_negative_seed_and_index_are_refused(name):
    with pytest.raises(ValueError, match=f"expected `{name}` as an integer of at least 0, got -1"):
        data.episode_indices(LABELS, **TASK, **{"seed": 0, "index": 0, name: -1})


def test_too_few_classes_are_counted(source):
    with pytest.raises(
        ValueError, match=r"at least 9 classes for 9-way episodes, got 8 in 'toy' \(split 'all'\)"
    ):
        data.episode_dataset(source, way=9, shot=1, num_query=1, seed=0)
    with pytest.raises(ValueError, match="at least 9 classes for 9-way episodes, got 8 in the labels"):
        data.episode_indices(LABELS, way=9, shot=1, num_query=1, seed=0, index=0)
    with pytest.raises(ValueError, match="got 0 in the labels"):
        data.episode_indices(np.zeros(0, int), way=1, shot=1, num_query=1, seed=0, index=0)


def test_too_few_pictures_are_counted_and_their_class_is_named():
    said = r"at least 20 different pictures a class \(5 shots, 15 queries\), got 5 of class 'amphora' in "
    with pytest.raises(ValueError, match=said + r"'pictograms' .*285 of 285 classes have too few"):
        data.episode_dataset(data.load("pictograms"), way=5, shot=5, num_query=15, seed=0)
    with pytest.raises(ValueError, match=r"got 1 of class '1' in the labels \(1 of 2"):
        data.episode_indices([0, 0, 0, 1], way=1, shot=1, num_query=1, seed=0, index=0)


@pytest.mark.parametrize("labels", [np.zeros((2, 3), int), np.zeros(6)])
def test_labels_of_another_kind_are_refused(labels):
    with pytest.raises(ValueError, match=r"expected labels of shape \(n,\) and an integer type"):
        data.episode_indices(labels, **TASK, seed=0, index=0)


def test_dataset_options_are_checked(source):
    for options, said in (
        ({"num_episodes": 5, "batch_size": 2}, "`num_episodes` as a multiple of the batch size 2, got 5"),
        ({"num_episodes": 0}, "`num_episodes` as an integer of at least 1"),
        ({"batch_size": 0}, "`batch_size` as an integer of at least 1"),
        ({"batch_size": 3, "shard_count": 2}, "`batch_size` divisible by 2 shards, got 3"),
        ({"image_size": 0}, "`image_size` as an integer of at least 1"),
    ):
        with pytest.raises(ValueError, match=f"expected {said}"):
            data.episode_dataset(source, **TASK, seed=0, **options)
    with pytest.raises(ValueError, match="expected at least one source, got none"):
        data.episode_dataset([], **TASK, seed=0)


def test_thousands_of_pictures_a_second():
    # The embedded source at 5-way 5-shot with 15 queries; tens of thousands on an idle core.
    dataset = data.episode_dataset(data.load("latin"), way=5, shot=5, num_query=15, seed=0, batch_size=8)
    dataset[0]
    start = time.perf_counter()
    for step in range(1, 4):
        dataset[step]
    assert 3 * 8 * 100 / (time.perf_counter() - start) > 2000
