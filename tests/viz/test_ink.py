"""The share of relevance on ink."""

import numpy as np
import pytest

from jxai import viz


def drawing(background, ink):
    """A 6x6 picture with a 2x3 stroke, which is 1/6 of it."""
    image = np.empty((1, 6, 6, 3), np.uint8)
    image[:] = background
    image[0, 2:4, 1:4] = ink
    return image


BLACK, WHITE, RED = (0, 0, 0), (255, 255, 255), (200, 10, 10)


@pytest.mark.parametrize(("background", "ink"), [(BLACK, WHITE), (WHITE, BLACK), (WHITE, RED), (RED, WHITE)])
def test_ink_is_what_differs_from_the_border(background, ink):
    mask = viz.ink_mask(drawing(background, ink))
    want = np.zeros((1, 6, 6), bool)
    want[0, 2:4, 1:4] = True
    np.testing.assert_array_equal(mask, want)


def test_ink_that_touches_the_border_is_still_ink():
    image = drawing(BLACK, WHITE)
    image[0, :, 5] = 255  # 6 of 20 pixels of the ring
    assert viz.ink_mask(image)[0, :, 5].all() and not viz.ink_mask(image)[0, :, 0].any()


def test_threshold_is_exceeded_not_reached():
    image = drawing((10, 10, 10), (42, 42, 42))
    assert not viz.ink_mask(image).any()
    assert viz.ink_mask(image, threshold=31).sum() == 6


def test_share_of_even_relevance_is_the_share_of_ink():
    image = drawing(BLACK, WHITE)
    np.testing.assert_allclose(viz.ink_share(np.full((1, 6, 6, 2), -0.3), image), [1 / 6])


def test_share_counts_magnitudes_of_the_signed_sums():
    relevance = np.zeros((1, 6, 6, 2))
    relevance[0, 2, 1] = [-2, -1]  # on ink: 3
    relevance[0, 0, 0] = [4, -3]  # beside: 1
    relevance[0, 5, 5] = [9, -9]  # cancels: nothing
    np.testing.assert_allclose(viz.ink_share(relevance, drawing(BLACK, WHITE)), [0.75])


def test_each_image_has_its_own_background_and_share():
    images = np.concatenate([drawing(BLACK, WHITE), drawing(WHITE, BLACK)])
    relevance = np.zeros((2, 6, 6, 1))
    relevance[0, 2, 2] = relevance[1, 0, 0] = 1
    np.testing.assert_array_equal(viz.ink_share(relevance, images), [1, 0])


def test_no_relevance_has_no_share():
    assert np.isnan(viz.ink_share(np.zeros((1, 6, 6, 3)), drawing(BLACK, WHITE))).all()


def test_errors_say_what_to_do():
    image = drawing(BLACK, WHITE)
    with pytest.raises(ValueError, match="before normalization"):
        viz.ink_mask(image / 255.0 - 0.5)
    with pytest.raises(ValueError, match=r"\(N, H, W, C\)"):
        viz.ink_mask(image[0])
    with pytest.raises(ValueError, match=r"relevance of shape \(1, 6, 6\) \+ \(C,\), got \(1, 3, 3, 1\)"):
        viz.ink_share(np.zeros((1, 3, 3, 1)), image)


def test_margin_counts_what_is_around():
    picture = np.zeros((1, 7, 7, 3))
    picture[0, 3, 3] = 255
    expected = np.zeros((7, 7), bool)
    expected[2:5, 2:5] = True
    assert np.array_equal(viz.ink_mask(picture, margin=1)[0], expected)
    assert viz.ink_mask(picture, margin=2).sum() == 25
    assert viz.ink_share(np.ones((1, 7, 7, 1)), picture, margin=1).item() == pytest.approx(9 / 49)
    with pytest.raises(ValueError, match="expected margin of at least 0, got -1"):
        viz.ink_mask(picture, margin=-1)
