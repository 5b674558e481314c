"""Heat maps that a notebook shows."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from jxai import viz

RELEVANCE = np.random.default_rng(0).normal(size=(2, 4, 5, 3))
PICTURES = np.random.default_rng(1).integers(0, 256, (2, 8, 10, 3), np.uint8)


def images(html):
    """What the page holds, decoded."""
    return [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        for data in re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    ]


def test_the_maps_are_those_of_heatmap_at_one_scale():
    shown = viz.inline(RELEVANCE)
    assert shown.scale == viz.shared_scale(RELEVANCE)
    drawn = images(shown._repr_html_())
    np.testing.assert_array_equal(drawn, viz.heatmap(RELEVANCE, scale=viz.shared_scale(RELEVANCE)))
    assert f"±{shown.scale:.3g}" in shown._repr_html_()


def test_each_picture_stands_before_its_map():
    drawn = images(viz.inline(RELEVANCE, pictures=PICTURES, scale=2.0)._repr_html_())
    np.testing.assert_array_equal(drawn[::2], PICTURES)
    np.testing.assert_array_equal(drawn[1::2], viz.heatmap(RELEVANCE, scale=2.0))


def test_captions_are_escaped():
    html = viz.inline(RELEVANCE, captions=["<script>", 'a "cat" & more'])._repr_html_()
    assert "<script>" not in html and "&lt;script&gt;" in html and "&quot;cat&quot; &amp; more" in html


def test_it_says_what_it_is_where_nothing_shows_it():
    assert repr(viz.inline(RELEVANCE)) == "2 heat maps of 4 x 5, for notebooks"


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            {"relevance": RELEVANCE[0]},
            ValueError,
            r"expected relevance of shape \(N, H, W, C\), got \(4, 5, 3\)",
        ),
        ({"relevance": np.full((1, 2, 2, 1), np.nan)}, ValueError, "expected finite relevance"),
        ({"pictures": PICTURES[:1]}, ValueError, r"expected 2 pictures of shape \(N, H, W, 3\)"),
        ({"pictures": PICTURES / 255.0}, ValueError, "integers in"),
        ({"captions": ["one"]}, ValueError, "expected 2 captions, got 1"),
        ({"captions": "ab"}, TypeError, "expected captions as a sequence of texts"),
        ({"scale": 0.0}, ValueError, "expected scale above 0, got 0"),
        ({"width": 0}, ValueError, "expected width"),
    ],
)
def test_errors(given, error, message):
    with pytest.raises(error, match=message):
        viz.inline(**{"relevance": RELEVANCE, **given})
