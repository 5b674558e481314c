"""Heat maps: colors around zero, the scale, errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jxai import viz


def test_white_is_zero_red_is_for_blue_is_against():
    blue, white, red = viz.diverging_colors([-1, 0, 1])
    assert white.tolist() == [255, 255, 255]
    assert red[0] > red[1:].max() and blue[2] > blue[:2].max()
    np.testing.assert_array_equal(viz.diverging_colors([-7, 7]), [blue, red])


def test_colors_change_with_the_value_everywhere():
    colors = viz.diverging_colors(np.linspace(-1, 1, 201)).astype(int)
    assert (np.abs(np.diff(colors, axis=0)).sum(axis=1) > 0).all()


def test_channels_are_summed_with_their_signs():
    relevance = np.zeros((2, 2, 3))
    relevance[0, 0] = [1, 2, -3]  # cancels
    relevance[1, 1] = [1, 1, -0.5]
    np.testing.assert_array_equal(viz.signed_sum(relevance), [[0, 0], [0, 1.5]])
    picture = viz.heatmap(relevance, scale=1.5)
    assert picture.shape == (2, 2, 3) and picture.dtype == np.uint8
    assert picture[0, 0].tolist() == [255, 255, 255]
    np.testing.assert_array_equal(picture[1, 1], viz.diverging_colors(1))


def test_scale_is_a_quantile_of_the_magnitude():
    relevance = np.linspace(-1, 0, 101).reshape(1, 101, 1)
    np.testing.assert_allclose(viz.shared_scale(relevance, quantile=1), 1)
    np.testing.assert_allclose(viz.shared_scale(relevance, quantile=0.5), 0.5, atol=1e-6)


def test_scale_of_many_maps_forgets_a_few_extreme_ones():
    relevance = np.ones((10, 4, 4, 1))
    relevance[3] = -1000
    assert viz.shared_scale(relevance) == 1
    assert viz.shared_scale(relevance, maps=1) == 1000
    with pytest.raises(ValueError, match=r"expected maps in \(0, 1\], got 0"):
        viz.shared_scale(relevance, maps=0)


def test_scale_of_sparse_and_of_no_relevance():
    sparse = np.zeros((100, 100, 1))
    sparse[3, 4] = -2
    assert viz.shared_scale(sparse) == 2
    assert viz.shared_scale(np.zeros((4, 4, 3))) == 1
    assert (viz.heatmap(np.zeros((4, 4, 3)), scale=1.0) == 255).all()


@settings(max_examples=50, deadline=None, derandomize=True)
@given(hnp.arrays(np.float32, (3, 4, 2), elements=st.floats(-1e6, 1e6, width=32)), st.floats(1e-3, 1e3))
def test_any_relevance_draws_the_sign_it_has(relevance, scale):
    picture = viz.heatmap(relevance, scale=scale).astype(int)
    total = viz.signed_sum(relevance)
    assert (picture[..., 0] >= picture[..., 2])[total >= 0].all()
    assert (picture[..., 0] <= picture[..., 2])[total <= 0].all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite(bad):
    relevance = np.zeros((2, 2, 1))
    relevance[0, 1] = bad
    with pytest.raises(ValueError, match="got 1 of 4 values that are not"):
        viz.heatmap(relevance, scale=1.0)


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match=r"\(\.\.\., H, W, C\), got \(4, 4\)"):
        viz.signed_sum(np.zeros((4, 4)))
    for scale in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="expected scale above 0"):
            viz.heatmap(np.zeros((4, 4, 1)), scale=scale)
    for quantile in (0.0, 1.5):
        with pytest.raises(ValueError, match=r"quantile in \(0, 1\]"):
            viz.shared_scale(np.zeros((4, 4, 1)), quantile=quantile)
