"""Mosaics and focus: what is in them, and what heatmaps of known places get."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import metrics

LABEL = np.array([4, 1, 4, 1, 7, 4])
X = np.broadcast_to(np.arange(6, dtype=np.float32)[:, None, None, None], (6, 2, 3, 1)) + 1
KEY = jax.random.key(0)


def quarters(pictures):
    """(M, 4): one pixel of each image of a mosaic."""
    pictures = np.asarray(pictures)
    rows, columns = pictures.shape[1] // 2, pictures.shape[2] // 2
    return np.stack(
        [pictures[:, r : r + rows, c : c + columns] for r in (0, rows) for c in (0, columns)], axis=1
    ).reshape(len(pictures), 4, -1)


@pytest.fixture(scope="module")
def found():
    return jax.jit(lambda x, label: metrics.mosaics(KEY, x, label, num_mosaics=60))(X, LABEL)


def test_two_images_are_of_the_class_and_two_are_not(found):
    assert found.x.shape == (60, 4, 6, 1) and found.mask.dtype == bool
    images = quarters(found.x)
    assert (images == images[..., :1]).all()  # whole images
    images = images[..., 0].astype(int) - 1
    inside = quarters(found.mask).all(axis=-1)
    assert (quarters(found.mask).any(axis=-1) == inside).all()
    np.testing.assert_array_equal(inside.sum(axis=1), 2)
    np.testing.assert_array_equal(LABEL[images] == np.asarray(found.target)[:, None], inside)
    for number, (four, own, target) in enumerate(zip(images, inside, found.target, strict=True)):
        assert LABEL[number % 6] == target and number % 6 in four[own]
        assert len(set(four[~own])) == 2
        assert len(set(four[own])) == (1 if target == 7 else 2)  # of class 7 there is one image


def test_places_and_company_are_random(found):
    inside = quarters(found.mask).all(axis=-1)
    assert len({tuple(row) for row in inside}) == 6  # all pairs of places
    images = quarters(found.x)[::6, :, 0]  # of image 0, whose two others of the class are 2 and 5
    assert {2 + 1, 5 + 1} <= set(images.ravel())


@pytest.mark.slow
def test_mosaics_depend_on_the_key_and_their_number(found):
    again = metrics.mosaics(KEY, X, LABEL)
    assert len(again.x) == 6
    np.testing.assert_array_equal(again.x, found.x[:6])
    assert (np.asarray(metrics.mosaics(jax.random.key(1), X, LABEL).x) != np.asarray(again.x)).any()


def test_focus_is_the_share_of_positive_relevance(found):
    mask = np.asarray(found.mask)
    np.testing.assert_allclose(metrics.focus(mask.astype(np.float32), mask), 1)
    np.testing.assert_allclose(metrics.focus(np.ones(mask.shape, np.float32), mask), 0.5)
    heatmap = np.random.default_rng(0).normal(size=mask.shape).astype(np.float32)
    positive = np.maximum(heatmap, 0)
    expected = (positive * mask).sum(axis=(1, 2)) / positive.sum(axis=(1, 2))
    np.testing.assert_allclose(metrics.focus(heatmap, mask), expected, rtol=1e-5)
    assert not np.asarray(metrics.focus(-np.ones(mask.shape, np.float32), mask)).any()


@pytest.mark.parametrize(
    ("x", "label", "match"),
    [
        (X, np.ones(6, int), "two classes"),
        (X[..., 0], LABEL, "mosaics are of images"),
        (X, LABEL[:5], "one class index"),
    ],
)
def test_errors(x, label, match):
    with pytest.raises(ValueError, match=match):
        metrics.mosaics(KEY, x, label)


def test_one_class_alone_is_nan_under_jit():
    assert jnp.isnan(jax.jit(lambda label: metrics.mosaics(KEY, X, label).x)(jnp.ones(6, int))).all()
