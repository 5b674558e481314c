import json

import numpy as np
import pytest

from jxai import data

SIZE = 48  # pictures of the toy source


def order_of(dataset, source, steps):
    """Numbers of the pictures in the steps' batches."""
    known = {image.tobytes(): i for i, image in enumerate(source.array(10))}
    return [known[image.tobytes()] for step in steps for image in dataset[step]["image"]]


def test_batches_are_labeled_normalized_pictures(source):
    batch = data.classification_dataset(source, batch_size=5, seed=0, image_size=10)[2]
    assert batch["image"].shape == (5, 10, 10, 3) and batch["image"].dtype == np.float32
    assert batch["label"].shape == (5,) and batch["label"].dtype == np.int32
    dataset = data.classification_dataset(source, batch_size=5, seed=0, image_size=10)
    np.testing.assert_array_equal(source.labels[order_of(dataset, source, [2])], batch["label"])


def test_an_epoch_is_every_picture_once_and_each_in_another_order(source):
    dataset = data.classification_dataset(source, batch_size=8, seed=0, image_size=10)
    epochs = [order_of(dataset, source, range(6 * epoch, 6 * epoch + 6)) for epoch in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(SIZE)) != epoch
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    other = data.classification_dataset(source, batch_size=8, seed=1, image_size=10)
    assert order_of(other, source, range(6)) != epochs[0]


def test_what_does_not_fill_a_batch_is_left_out(source):
    dataset = data.classification_dataset(source, batch_size=20, seed=0, image_size=10, num_epochs=3)
    assert len(dataset) == 6
    left_out = [set(range(SIZE)) - set(order_of(dataset, source, [2 * e, 2 * e + 1])) for e in range(3)]
    assert [len(left) for left in left_out] == [8, 8, 8]
    assert left_out[0] != left_out[1] != left_out[2]


@pytest.mark.parametrize("augment", [None, "resized-crop", "crop-erase"])
def test_shards_in_order_are_the_batch(source, augment):
    options = {"batch_size": 12, "seed": 3, "image_size": 8, "augment": augment}
    whole = data.classification_dataset(source, **options)
    for count in (2, 3):
        shards = [
            data.classification_dataset(source, **options, shard_index=i, shard_count=count)
            for i in range(count)
        ]
        for step in (0, 5, 10**9):
            for key, expected in whole[step].items():
                np.testing.assert_array_equal(
                    np.concatenate([shard[step][key] for shard in shards]), expected
                )


def test_augmentation_is_another_one_in_each_epoch(source):
    dataset = data.classification_dataset(
        source, batch_size=SIZE, seed=0, image_size=10, augment="resized-crop"
    )
    plain = data.classification_dataset(source, batch_size=SIZE, seed=0, image_size=10)
    epochs = []
    for step in range(2):
        where = np.argsort(order_of(plain, source, [step]))
        epochs.append(dataset[step]["image"][where])
        np.testing.assert_array_equal(dataset[step]["label"], plain[step]["label"])
    different = (epochs[0] != epochs[1]).any(axis=(1, 2, 3))
    assert different.all()
    np.testing.assert_array_equal(dataset[1]["image"], dataset[1]["image"])


def test_an_iterator_restored_from_json_goes_on_with_the_same_batches(source):
    def fresh():
        return data.iterate(data.classification_dataset(source, batch_size=16, seed=0, image_size=10))

    straight, stopped, resumed = fresh(), fresh(), fresh()
    batches = [next(straight) for _ in range(8)]
    for _ in range(4):
        next(stopped)
    resumed.set_state(json.loads(json.dumps(stopped.get_state())))
    for expected in batches[4:]:
        np.testing.assert_array_equal(next(resumed)["image"], expected["image"])


def test_options_are_checked(source):
    for options, said in (
        ({"batch_size": 49}, "`batch_size` of at most 48, the pictures of 'toy'"),
        ({"batch_size": 0}, "`batch_size` as an integer of at least 1"),
        ({"batch_size": 9, "shard_count": 2}, "`batch_size` divisible by 2 shards, got 9"),
        ({"batch_size": 8, "num_epochs": 0}, "`num_epochs` as an integer of at least 1"),
        ({"batch_size": 8, "image_size": 0}, "`image_size` as an integer of at least 1"),
        (
            {"batch_size": 8, "augment": "flip"},
            "`augment` as None or one of resized-crop, crop-erase, got 'flip'",
        ),
        ({"batch_size": 8, "seed": -1}, "`seed` as an integer of at least 0"),
    ):
        with pytest.raises(ValueError, match=f"expected {said}"):
            data.classification_dataset(source, **{"seed": 0, **options})
