import numpy as np
import pytest

from jxai import data
from jxai.data.source import digest, from_pictures

TASK = {"way": 3, "shot": 2, "num_query": 4}
LABELS = np.tile(np.arange(8), 6)


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


def test_a_table_is_the_drawn_episodes(source):
    support, query = data.episode_table(source, **TASK, seed=7, num_episodes=5)
    assert support.shape == (5, 6) and query.shape == (5, 12)
    for index in range(5):
        drawn = data.episode_indices(source, **TASK, seed=7, index=index)
        np.testing.assert_array_equal(support[index], drawn[0])
        np.testing.assert_array_equal(query[index], drawn[1])
    with pytest.raises(ValueError, match="expected `num_episodes` as an integer of at least 1, got 0"):
        data.episode_table(source, **TASK, seed=7, num_episodes=0)


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


def test_too_few_pictures_are_repeated_if_asked_and_never_in_both_parts():
    labels = np.repeat(np.arange(3), [2, 4, 30])
    for index in range(40):
        drawn = data.episode_indices(labels, way=3, shot=5, num_query=8, seed=0, index=index, repeat=True)
        support, query = drawn[0].reshape(3, 5), drawn[1].reshape(3, 8)
        for s, q in zip(support, query, strict=True):
            size = np.bincount(labels)[labels[s[0]]]
            # Of 2 pictures one is left for the queries, of 4 as well; 30 are enough.
            expected = {2: (1, 1), 4: (3, 1), 30: (5, 8)}[int(size)]
            assert (len(set(s)), len(set(q))) == expected and not set(s) & set(q)
            assert len(set(labels[s]) | set(labels[q])) == 1
            assert np.ptp(np.unique(s, return_counts=True)[1]) <= 1  # each as often, up to the rest


def test_repeating_changes_nothing_where_pictures_are_enough():
    for index in range(20):
        for one, other in zip(
            data.episode_indices(LABELS, **TASK, seed=0, index=index),
            data.episode_indices(LABELS, **TASK, seed=0, index=index, repeat=True),
            strict=True,
        ):
            np.testing.assert_array_equal(one, other)


def test_a_single_picture_cannot_be_repeated():
    with pytest.raises(
        ValueError, match=r"at least 2 different pictures a class .*, got 1 of class '1' .*remove"
    ):
        data.episode_indices([0, 0, 0, 1], way=1, shot=1, num_query=1, seed=0, index=0, repeat=True)


def test_repeated_pictures_of_two_classes_never_meet():
    images = np.arange(9, dtype=np.uint8)[:, None, None].repeat(4, axis=1).repeat(4, axis=2)
    images[3] = images[2]  # the last of class 0 is the first of class 1
    source = data.from_arrays("copies", images, np.repeat(np.arange(3), 3))
    for index in range(100):
        drawn = data.episode_indices(source, way=3, shot=2, num_query=3, seed=0, index=index, repeat=True)
        assert not {2, 3} <= {*drawn[0], *drawn[1]}
        assert not set(source.digests[drawn[0]]) & set(source.digests[drawn[1]])
