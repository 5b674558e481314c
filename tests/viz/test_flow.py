"""The flow of relevance."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jxai import lrp, viz


@pytest.fixture(scope="module")
def found():
    kernel = np.array([[1.0, 2.0], [3.0, 1.0]], np.float32)

    def f(x):
        return jnp.maximum(x @ kernel + 1, 0) @ kernel + 1

    explain = jax.jit(lambda x: lrp.conservation(f, x, composite=lrp.EpsilonPlus(epsilon=0.5)))
    return explain(np.ones((2, 2), np.float32))


def colors(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return {tuple(map(int, pixel)) for pixel in np.asarray(image.convert("RGB")).reshape(-1, 3)}


def test_a_png_with_a_color_a_cause(tmp_path, found):
    path = viz.relevance_flow(found, path=tmp_path / "new" / "flow.png", title="$1_a")
    assert path == tmp_path / "new" / "flow.png"
    drawn = colors(path)
    assert {
        (0xD5, 0x5E, 0x00),
        (0x00, 0x72, 0xB2),
        (0x00, 0x9E, 0x73),
    } <= drawn  # bias, stabilizer, what is left
    assert (0xCC, 0x79, 0xA7) not in drawn  # no rule absorbs


def test_operations_that_absorb_nothing_are_left_out(tmp_path, found):
    none = {name: jnp.zeros_like(found.bias) for name in ("bias", "stabilizer", "zeros", "rule")}
    drawn = colors(viz.relevance_flow(dataclasses.replace(found, **none), path=tmp_path / "flow.png"))
    assert (0xD5, 0x5E, 0x00) not in drawn


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"paths": (), "operations": ()}, "got 0 operations"),
        ({"start": np.zeros(2)}, "2 operations and 0.0: start at scores that are not 0"),
        ({"start": np.array([1.0, -1.0])}, "relevance that does not start at 0"),
    ],
)
def test_what_has_no_unit_is_refused(tmp_path, found, changes, message):
    if "paths" not in changes:
        message = message.replace("2 operations", f"{len(found.paths)} operations")
    with pytest.raises(ValueError, match=message):
        viz.relevance_flow(dataclasses.replace(found, **changes), path=tmp_path / "flow.png")
    assert not list(tmp_path.iterdir())
