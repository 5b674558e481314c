"""Magika's network: what it reads of a file, and how its steps are cut. Values: test_packaged.py."""

import jax
import numpy as np
import pytest

from jxai import models


def test_bytes_of_a_file_without_white_space_around_it():
    found = models.byte_features(b"\n ab c \t", num_bytes=12)[0]
    np.testing.assert_array_equal(found, [*b"ab c \t", *b"\n ab c"])
    found = models.byte_features(b"abc", num_bytes=10)[0]
    np.testing.assert_array_equal(found, [*b"abc", 256, 256, 256, 256, *b"abc"])
    long = bytes(range(1, 256)) * 40
    found = models.byte_features(long)[0]
    np.testing.assert_array_equal(found[:1024], list(long[:1024]))
    np.testing.assert_array_equal(found[1024:], list(long[-1024:]))
    # White space beyond the block that is read at each end hides what is behind it.
    assert (models.byte_features(b" " * 5000) == 256).all()
    assert (models.byte_features(b"x" + b" " * 5000)[0][1024:] == 256).all()


def test_a_step_is_four_bytes_and_a_score_sees_all_of_them(draw_variables):
    module = models.Magika(num_classes=3, num_bytes=32, width=2, conv_width=4, conv_size=5)
    ids = np.random.default_rng(0).integers(0, 257, (2, 32)).astype(np.int32)
    variables = draw_variables(module, ids)
    shapes = jax.tree.map(np.shape, variables["params"])
    assert shapes["conv"]["kernel"] == (5, 8, 4) and shapes["norm1"]["scale"] == (8,)
    assert shapes["embedding"]["embedding"] == (257, 2) and shapes["head"]["kernel"] == (4, 3)
    x = module.apply(variables, ids, method="embed")

    def scores(x):
        return module.apply(variables, module.apply(variables, x, method="encode"), method="classify")

    assert scores(x).shape == (2, 3)
    np.testing.assert_allclose(module.apply(variables, ids), scores(x), rtol=1e-5)
    with pytest.raises(ValueError, match="expected 32 bytes, got 16: take byte_features"):
        module.apply(variables, ids[:, :16])
    with pytest.raises(ValueError, match="expected no mask, got an array"):
        module.apply(variables, x, np.ones((2, 32), bool), method="encode")
