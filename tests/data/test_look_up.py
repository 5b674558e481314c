"""Batches of numbers, looked up, against the batches of pictures."""

from typing import Any

import jax
import numpy as np
import pytest

from jxai import data
from jxai.data import archive, loading

TASK = {"way": 3, "shot": 1, "num_query": 2, "seed": 5}


@pytest.fixture(scope="module")
def sources():
    random = np.random.default_rng(0)

    def source(name, classes):
        images = random.integers(0, 256, (classes * 6, 8, 8, 3), np.uint8)
        return data.from_arrays(name, images, np.repeat(np.arange(classes), 6))

    return [source("one", 4), source("two", 5), source("three", 3)]


def assert_identical(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("make", [data.episode_dataset, data.episode_pairs_dataset])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_episodes_are_the_same_to_the_bit(sources, make, batch_size):
    pictures = np.concatenate([source.array(8) for source in sources])
    expected = make(sources, **TASK, batch_size=batch_size, image_size=8)
    numbers = make(sources, **TASK, batch_size=batch_size, numbers=True)
    for step in (0, 1, 2, 3, 40):
        assert_identical(jax.jit(data.look_up)(numbers[step], pictures), expected[step])


def test_labeled_pictures_are_the_same_to_the_bit(sources):
    source = sources[0]
    expected = data.classification_dataset(source, batch_size=5, seed=2, image_size=8)
    numbers = data.classification_dataset(source, batch_size=5, seed=2, numbers=True)
    for step in (0, 3, 11):
        assert_identical(jax.jit(data.look_up)(numbers[step], source.array(8)), expected[step])


def test_iterators_of_either_stand_alike(sources):
    options: Any = {"batch_size": 5, "seed": 2, "num_epochs": 2}
    numbers = data.iterate(data.classification_dataset(sources[0], **options, numbers=True))
    pictures = data.iterate(data.classification_dataset(sources[0], **options, image_size=8))
    for _ in range(3):
        assert (next(numbers)["label"] == next(pictures)["label"]).all()
    assert numbers.get_state() == pictures.get_state()
    pictures.set_state(numbers.get_state())
    numbers.set_state(numbers.get_state())
    rest = list(numbers)
    assert [batch["label"].tolist() for batch in rest] == [batch["label"].tolist() for batch in pictures]
    assert len(rest) == 8 - 3


def test_there_are_no_more(sources):
    dataset = data.classification_dataset(sources[0], batch_size=5, seed=2, num_epochs=1, numbers=True)
    assert len(dataset) == 4
    for step in (4, -1):
        with pytest.raises(IndexError, match="expected a step in"):
            dataset[step]


@pytest.mark.parametrize("make", [data.episode_dataset, data.episode_pairs_dataset])
def test_numbers_cannot_be_augmented(sources, make):
    with pytest.raises(ValueError, match="expected no `augment` with `numbers`, got 'crop-erase'"):
        make(sources, **TASK, numbers=True, augment="crop-erase")


@pytest.mark.parametrize("name", ["pictograms", "fashion"])
def test_an_archive_is_the_prepared_domain(name):
    found, expected = archive.read(name), data.load(name)
    assert found.fingerprint == expected.fingerprint
    assert found.class_names == expected.class_names
    np.testing.assert_array_equal(found.pictures, expected.pictures)
    assert found.labels.dtype == expected.labels.dtype


def test_a_domain_is_loaded_without_tensorflow_datasets(monkeypatch):
    found = loading.importlib.util.find_spec
    monkeypatch.setattr(
        loading.importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "tensorflow_datasets" else found(name, *rest),
    )
    monkeypatch.setattr(loading, "prepare", lambda *given, **options: pytest.fail("prepared"))
    loaded = loading.load("pictograms")
    assert loaded.fingerprint == archive.read("pictograms").fingerprint
