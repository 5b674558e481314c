"""Learning curves."""

import numpy as np
import pytest
from PIL import Image

from jxai import viz
from jxai.viz.curves import _curve, _mean, _styles

RUN = [{"step": 0, "loss": 3.0}, {"step": 10, "loss": 1.0, "accuracy": 0.5}, {"step": 20, "loss": 2.0}]


def test_a_png_with_a_color_a_group(tmp_path):
    path = viz.learning_curves(
        {"plain": [RUN, RUN], "guided": [RUN]}, path=tmp_path / "new" / "c.png", title="$1_a"
    )
    with Image.open(path) as image:
        assert image.format == "PNG" and image.width > image.height
        pixels = {tuple(map(int, pixel)) for pixel in np.asarray(image.convert("RGB")).reshape(-1, 3)}
    assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)} <= pixels


def test_what_is_compared_shares_a_color():
    styles = _styles(["a", "a-guided", "b", "c"], {"a-guided": "a", "c": "b"})
    assert styles["a-guided"] == styles["a"] | {"linestyle": "--"}
    assert styles["c"]["color"] == styles["b"]["color"] != styles["a"]["color"]


def test_lines_without_the_metric_are_left_out():
    np.testing.assert_array_equal(_curve(RUN, "step", "accuracy", 0), [[10, 0.5]])


def test_smoothing_is_a_mean_over_near_values():
    np.testing.assert_array_equal(_curve(RUN, "step", "loss", 0), [[0, 3], [10, 1], [20, 2]])
    np.testing.assert_array_equal(_curve(RUN[::-1], "step", "loss", 10), [[0, 2], [10, 2], [20, 1.5]])
    np.testing.assert_array_equal(_curve(RUN, "step", "loss", 9), _curve(RUN, "step", "loss", 0))


def test_mean_of_runs_covers_what_all_cover():
    curves = [np.array([[0.0, 0.0], [10.0, 10.0]]), np.array([[5.0, 1.0], [20.0, 1.0]])]
    np.testing.assert_array_equal(_mean(curves), [[5, 3], [10, 5.5]])


@pytest.mark.parametrize(
    ("runs", "options", "message"),
    [
        ({}, {}, "expected metrics and runs"),
        ({"plain": []}, {}, "expected metrics and runs"),
        ({"plain": [RUN]}, {"metrics": ()}, "expected metrics and runs"),
        ({"plain": [RUN]}, {"metrics": ("loos",)}, "among accuracy, loss, step, got 'loos'"),
        ({"plain": [RUN]}, {"pairs": {"guided": "plain"}}, "pairs among the groups plain, got 'guided'"),
        ({"plain": [RUN]}, {"smoothing": -1}, "smoothing of at least 0"),
    ],
)
def test_errors_say_what_to_do(tmp_path, runs, options, message):
    with pytest.raises(ValueError, match=message):
        viz.learning_curves(runs, path=tmp_path / "c.png", **options)
    assert not list(tmp_path.iterdir())
