import dataclasses

import numpy as np
import pytest
from PIL import Image

from jxai import data
from jxai.data import preprocess
from jxai.data.source import digest, from_pictures

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (4, 6, 6), np.uint8)
LABELS = np.asarray([0, 1, 1, 0])


def test_gray_pictures_get_three_equal_channels():
    for images in (GRAY, GRAY[..., None]):
        source = data.from_arrays("gray", images, LABELS)
        assert source.image(2).shape == (6, 6, 3) and source.image(2).dtype == np.uint8
        for channel in range(3):
            np.testing.assert_array_equal(source.image(2)[..., channel], GRAY[2])
    assert source.class_names == ("0", "1")


def test_images_of_the_stored_size_are_as_stored(source):
    np.testing.assert_array_equal(
        source.images([5, 0, 5], 10), np.stack([source.image(5), source.image(0), source.image(5)])
    )


def test_images_of_another_size_are_resized_and_cropped(source):
    images = source.images([5, 0], 7)
    assert images.shape == (2, 7, 7, 3) and images.dtype == np.uint8
    np.testing.assert_array_equal(images[0], preprocess.resize_and_crop(Image.fromarray(source.image(5)), 7))


@pytest.mark.parametrize("size", [10, 4])
def test_array_is_the_whole_source_normalized(source, size):
    array = source.array(size)
    assert array.shape == (len(source), size, size, 3) and array.dtype == np.float32
    np.testing.assert_array_equal(array, data.normalize(source.images(np.arange(len(source)), size)))


def test_nobody_can_write_into_a_source(source):
    with pytest.raises(dataclasses.FrozenInstanceError):
        source.name = "other"
    for part in (source, source.restrict("base")):
        for array in (part.image(0), part.labels, part.digests, part.rows):
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0


def test_the_caller_keeps_his_arrays():
    images, labels = GRAY[..., None].repeat(3, axis=3), LABELS.astype(np.int32)
    source = data.from_arrays("gray", images, labels)
    images[:] = 0
    labels[:] = 0
    np.testing.assert_array_equal(source.image(3)[..., 0], GRAY[3])
    np.testing.assert_array_equal(source.labels, LABELS)


def test_restrict_numbers_classes_anew(source):
    part = source.restrict("validation")  # classes 1 and 5 of 8
    assert part.class_names == ("class 1", "class 5") and part.split == "validation"
    kept = np.flatnonzero(np.isin(source.labels, [1, 5]))
    np.testing.assert_array_equal(part.labels, np.where(source.labels[kept] == 1, 0, 1))
    np.testing.assert_array_equal(part.digests, source.digests[kept])
    np.testing.assert_array_equal(part.array(10), source.array(10)[kept])
    assert source.restrict("all") is source


def test_a_split_is_not_split_again(source):
    with pytest.raises(ValueError, match="expected a whole domain, got the split 'base' of 'toy'"):
        source.restrict("base").restrict("novel")


def test_split_rule():
    for split, expected in (
        ("all", range(9)),
        ("base", [0, 2, 4, 6, 8]),
        ("validation", [1, 5]),
        ("novel", [3, 7]),
    ):
        np.testing.assert_array_equal(data.split_classes(9, split), expected)
    # Classes of miniImageNet's peers, from METHODS.md: CUB 200, Cars 196, Places365 365.
    for num_classes, sizes in ((200, (100, 50, 50)), (196, (98, 49, 49)), (365, (183, 91, 91))):
        assert (
            tuple(len(data.split_classes(num_classes, s)) for s in ("base", "validation", "novel")) == sizes
        )


def test_the_fingerprint_is_of_the_content():
    one = data.from_arrays("one", GRAY, LABELS)
    same = data.from_arrays("two", GRAY.copy(), LABELS.astype(np.int64))
    assert one.fingerprint == same.fingerprint
    changed = GRAY.copy()
    changed[3, 0, 0] ^= 1
    others = (
        data.from_arrays("one", changed, LABELS),
        data.from_arrays("one", GRAY, LABELS[::-1].copy() * 0),
        data.from_arrays("one", GRAY, LABELS, class_names=["a", "b"]),
        one.restrict("base"),
    )
    assert len({one.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_digests_tell_pictures_apart():
    assert digest(b"a") == digest(b"a") != digest(b"b")
    source = data.from_arrays("twice", GRAY[[0, 1, 0, 2]], LABELS)
    assert source.digests[0] == source.digests[2] and len(np.unique(source.digests)) == 3


@pytest.mark.parametrize(
    "images",
    [GRAY.astype(np.float32), GRAY[0], np.zeros((4, 6, 6, 4), np.uint8), np.zeros((4, 1, 6, 6, 3), np.uint8)],
)
def test_pictures_of_another_kind_are_refused(images):
    with pytest.raises(ValueError, match="expected images as uint8"):
        data.from_arrays("bad", images, LABELS)


@pytest.mark.parametrize("labels", [LABELS[:3], LABELS.astype(float), LABELS[:, None]])
def test_labels_of_another_kind_are_refused(labels):
    with pytest.raises(ValueError, match=r"expected labels of shape \((4|n),\)"):
        data.from_arrays("bad", GRAY, labels)


@pytest.mark.parametrize(("labels", "said"), [([0, 1, 2, 0], "0 to 2"), ([0, -1, 1, 0], "-1 to 1")])
def test_labels_without_a_name_are_refused(labels, said):
    with pytest.raises(ValueError, match=rf"expected labels in \[0, 2\), got {said}"):
        data.from_arrays("bad", GRAY, np.asarray(labels), class_names=["a", "b"])


def test_pictures_may_have_different_sizes():
    pictures = [np.full((4 + i, 9, 3), i, np.uint8) for i in range(4)]
    source = from_pictures("mixed", pictures, LABELS, digests=[1, 2, 3, 4])
    assert source.image(3).shape == (7, 9, 3)
    assert source.images([0, 3], 8).shape == (2, 8, 8, 3)
    np.testing.assert_array_equal(np.unique(source.images([3], 8)), [3])


def test_classes_of_one_name_are_refused():
    with pytest.raises(
        ValueError, match="expected class names that differ, got 'a' more than once in 'twice'"
    ):
        data.from_arrays("twice", GRAY, LABELS, class_names=["a", "a"])


def test_a_data_set_may_have_its_own_splits():
    pictures = [np.full((4, 4, 3), i, np.uint8) for i in range(4)]
    splits = ["novel", "base", "base", "validation"]
    source = from_pictures("own", pictures, np.arange(4), digests=range(4), class_splits=splits)
    assert source.restrict("base").class_names == ("1", "2")
    assert source.restrict("novel").class_names == ("0",)
    assert source.restrict("validation").class_splits == ("validation",)
    np.testing.assert_array_equal(source.restrict("base").image(1), pictures[2])
