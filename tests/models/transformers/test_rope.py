"""Rotary positions: what is turned, and how scalings stretch angles."""

import math

import numpy as np
import pytest

from jxai.models.transformers.rope import RopeScaling, angular_frequencies, rotate, rotations


def test_products_depend_on_distances_alone():
    rng = np.random.default_rng(0)
    query, key = rng.normal(size=(2, 1, 1, 1, 8))
    cosines, sines = rotations(9, 8, theta=100.0)

    def product(i, j):
        q, k = (
            np.asarray(rotate(np.float32(x), np.float32(cosines[[at]]), np.float32(sines[[at]])))
            for x, at in ((query, i), (key, j))
        )
        return float((q * k).sum())

    assert product(5, 2) == pytest.approx(product(8, 5), rel=1e-4)
    assert product(0, 0) == pytest.approx(float((query * key).sum()), rel=1e-5)
    assert abs(product(5, 2) - product(5, 3)) > 1e-3


def test_scalings():
    plain = angular_frequencies(64, theta=1e4)
    assert plain[0] == 1 and plain[-1] == pytest.approx(1e4 ** (-62 / 64))
    np.testing.assert_allclose(
        angular_frequencies(64, theta=1e4, scaling=RopeScaling("linear", 4.0)), plain / 4
    )
    factors = tuple(np.linspace(1, 8, 32))
    found = angular_frequencies(64, theta=1e4, scaling=RopeScaling("factors", factors=factors))
    np.testing.assert_allclose(found, plain / factors)
    for kind in ("llama3", "yarn"):
        scaling = RopeScaling(kind, 8.0, original_max_position_embeddings=512)
        ratio = plain / angular_frequencies(64, theta=1e4, scaling=scaling)
        # Fast ones stay, slow ones are stretched by the factor, and nothing between leaves that range.
        assert ratio[0] == 1 and ratio[-1] == pytest.approx(8) and (np.diff(ratio) >= -1e-12).all()
        turns = 512 * plain / (2 * math.pi)
        assert (ratio[turns > 33] == 1).all() if kind == "yarn" else (ratio[turns > 4] == 1).all()
        assert ratio[turns < 0.99] == pytest.approx(8, rel=0.3)
    hot = rotations(1, 64, theta=1e4, scaling=RopeScaling("yarn", 8.0, original_max_position_embeddings=512))
    assert hot[0][0] == pytest.approx(0.1 * math.log(8) + 1)


def test_of_a_configuration():
    read = RopeScaling.from_json
    assert read(None, context=8) == RopeScaling() == read({"rope_type": "default"}, context=8)
    assert read({"type": "linear", "factor": 2.0}, context=8).factor == 2
    found = read({"rope_type": "yarn", "factor": 2.0, "mscale": 1.0, "mscale_all_dim": 0.5}, context=8)
    assert found.original_max_position_embeddings == 8
    assert found.attention_factor == pytest.approx((0.1 * math.log(2) + 1) / (0.05 * math.log(2) + 1))
    for wrong in ("linear", {"rope_type": "longrope"}, {"rope_type": "linear", "factor": 0}):
        with pytest.raises(ValueError, match="expected "):
            read(wrong, context=8)
