import numpy as np
import pytest

from jxai import data

GRAY = np.random.default_rng(0).integers(0, 256, (4, 6, 6), np.uint8)
LABELS = np.asarray([0, 1, 1, 0])


def test_merged_sources_have_the_classes_of_all(source):
    gray = data.from_arrays("gray", GRAY, LABELS)
    merged = data.merge([source, gray])
    assert merged.name == "toy+gray" and len(merged) == len(source) + 4
    assert merged.class_names == (*(f"toy/{name}" for name in source.class_names), "gray/0", "gray/1")
    np.testing.assert_array_equal(merged.labels, [*source.labels, *(LABELS + 8)])
    assert merged.labels.dtype == np.int32
    np.testing.assert_array_equal(merged.array(10), np.concatenate([source.array(10), gray.array(10)]))
    np.testing.assert_array_equal(merged.image(len(source) + 2), gray.image(2))
    with pytest.raises(IndexError):
        merged.pictures[len(merged)]
    assert data.merge([gray]) is gray
    with pytest.raises(ValueError, match="expected at least 1 sources, got 0"):
        data.merge([])


def test_the_same_source_twice_is_refused(source):
    again = data.from_arrays("again", GRAY, LABELS)
    for sources in ([source, source], [data.from_arrays("gray", GRAY, LABELS), source, again]):
        with pytest.raises(ValueError, match="expected sources of different data, got one twice among "):
            data.merge(sources)


def test_splits_can_be_merged(source):
    merged = data.merge([source.restrict("base"), source.restrict("novel")])
    assert len(merged.class_names) == 6 and merged.labels.max() == 5 and merged.split == "all"
    np.testing.assert_array_equal(merged.restrict("novel").image(0), source.restrict("novel").image(0))
    np.testing.assert_array_equal(merged.image(0), source.restrict("base").image(0))


def test_a_merged_domain_keeps_the_splits_of_each(source):
    gray = data.from_arrays("gray", GRAY, LABELS)
    base = data.merge([source, gray]).restrict("base")
    assert base.class_names == (*(f"toy/class {c}" for c in (0, 2, 4, 6)), "gray/0")


def test_merged_pictures_are_opened_where_they_are(source):
    gray = data.from_arrays("gray", GRAY, LABELS)
    with data.merge([source, gray]).opened(len(source) + 1) as picture:
        np.testing.assert_array_equal(np.asarray(picture)[..., 0], GRAY[1])
