"""The sheet of methods side by side: what stands in the PNG, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from jxai import viz

COUNT, SIDE = 2, 16


def arguments(**changes):
    rng = np.random.default_rng(0)
    values = {
        "pictures": rng.integers(0, 256, (COUNT, SIDE, SIDE, 3), np.uint8),
        "maps": {"one": np.ones((COUNT, SIDE, SIDE, 1)), "two": -np.ones((COUNT, SIDE, SIDE, 3))},
        "captions": [("jeep", "score 3.5"), ("ก $x_ and a name that is far too long", "")],
    }
    return {**values, **changes}


def pixels(path):
    with Image.open(path) as opened:
        assert opened.mode == "P"
        return np.asarray(opened.convert("RGB"))


def test_a_row_a_picture_and_a_column_a_method(tmp_path):
    path = viz.method_sheet(
        **arguments(notes={"two": ["sum = 1", "sum = 2"]}), path=tmp_path / "new" / "s.png"
    )
    sheet = pixels(path)
    # Inches of two rows of three panels with their margins and the legend, at 112 dots.
    assert abs(sheet.shape[0] / 112 - (0.3 + 2 * 2.56 - 0.12 + 0.62)) < 0.02
    assert abs(sheet.shape[1] / 112 - (0.3 + 3 * 2.12 - 0.12)) < 0.02
    red, blue = viz.diverging_colors(np.array([1.0, -1.0]))
    for column, color in ((1, red), (2, blue)):
        for row in range(2):
            top, left = int(112 * (1.4 + row * 2.56)), int(112 * (1.1 + column * 2.12))
            np.testing.assert_array_equal(sheet[top, left], color)
    assert (sheet[0] == 255).all()


def test_every_map_has_a_scale_of_its_own(tmp_path):
    maps = {"one": np.array([1e-6, 1e6])[:, None, None, None] * np.ones((COUNT, SIDE, SIDE, 1))}
    sheet = pixels(viz.method_sheet(**arguments(maps=maps), path=tmp_path / "s.png"))
    places = [sheet[int(112 * (1.4 + row * 2.56)), int(112 * 3.2)] for row in range(2)]
    np.testing.assert_array_equal(places, viz.diverging_colors(np.ones(2)))


def test_overlays_show_the_picture(tmp_path):
    black = np.zeros((COUNT, SIDE, SIDE, 3), np.uint8)
    maps = {"nothing": np.zeros((COUNT, SIDE, SIDE, 1))}
    sheet = pixels(
        viz.method_sheet(**arguments(pictures=black, maps=maps), path=tmp_path / "s.png", opacity=0.4)
    )
    assert np.abs(sheet[int(112 * 1.4), int(112 * 3.2)].astype(int) - 102).max() < 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pictures": np.zeros((COUNT, SIDE, SIDE, 3))}, "before normalization"),
        ({"pictures": np.zeros((0, SIDE, SIDE, 3), np.uint8)}, "expected pictures of shape"),
        ({"maps": {"one": np.zeros((COUNT, 4, 4, 1))}}, r"shape \(2, 16, 16\) \+ \(C,\), got .* by 'one'"),
        ({"captions": [("a", "b")]}, "expected 2 captions, got 1"),
        ({"notes": {"one": ["a"]}}, "expected 2 notes of 'one', got 1"),
        ({"notes": {"three": ["a", "b"]}}, "expected notes of one, two, got three"),
        ({"opacity": 2.0}, r"expected opacity in \[0, 1\], got 2.0"),
        ({"path": "sheet.jpg"}, r"ends in \.png"),
    ],
)
def test_errors_say_what_to_do(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        viz.method_sheet(**{"path": tmp_path / "s.png", **arguments(), **changes})
    assert not list(tmp_path.iterdir())


def test_an_overlay_is_a_mixture():
    picture = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8)
    relevance = np.random.default_rng(1).normal(size=(2, 4, 5, 3))
    np.testing.assert_array_equal(viz.overlay(picture, relevance, scale=1.0, opacity=0), picture)
    heat = viz.heatmap(relevance, scale=1.0)
    np.testing.assert_array_equal(viz.overlay(picture, relevance, scale=1.0, opacity=1), heat)
    half = viz.overlay(picture, relevance, scale=1.0, opacity=0.5)
    assert np.abs(half - (picture / 2 + heat / 2)).max() <= 0.5 and half.dtype == np.uint8
    for wrong in (picture[..., :2], picture[:, :3]):
        with pytest.raises(ValueError, match="expected a picture of shape"):
            viz.overlay(wrong, relevance, scale=1.0)
    with pytest.raises(ValueError, match=r"expected opacity in \[0, 1\], got -1"):
        viz.overlay(picture, relevance, scale=1.0, opacity=-1)
