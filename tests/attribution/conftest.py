"""What the tests of attribution share: two networks, and the module `estimators` beside this file."""

import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

sys.path.append(str(Path(__file__).resolve().parent))


class Network(NamedTuple):
    """A network with inputs, and what an archive says of them."""

    f: object
    x: jax.Array
    target: jax.Array
    reference: dict


def convolve(x, kernel, stride, padding):
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), ((padding, padding),) * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@pytest.fixture(scope="session")
def released(golden):
    """The network of `smooth_taylor.npz` with its photograph."""
    with np.load(golden / "smooth_taylor.npz") as archive:
        reference = dict(archive)

    def f(x):
        x = jax.nn.relu(convolve(x, reference["conv1_kernel"], 2, 2) + reference["conv1_bias"])
        x = jax.nn.relu(convolve(x, reference["conv2_kernel"], 2, 1) + reference["conv2_bias"])
        return x.mean(axis=(1, 2)) @ reference["fc_kernel"] + reference["fc_bias"]

    image = jnp.asarray(reference["image"])[None]
    return Network(f, image, jnp.asarray(reference["target"]).reshape(-1), reference)


@pytest.fixture(scope="session")
def small():
    """Three images of 9x8x2 under a convolution, ReLU, a square, and a dense layer."""
    random = np.random.default_rng(0)
    kernel, dense = (jnp.asarray(random.normal(size=shape), jnp.float32) for shape in ((3, 3, 2, 4), (4, 3)))
    x = jnp.asarray(random.normal(size=(3, 9, 8, 2)), jnp.float32)

    def f(x):
        y = jax.nn.relu(convolve(x, kernel.astype(x.dtype), 2, 1))
        return (y**2).mean(axis=(1, 2)) @ dense.astype(x.dtype)

    return Network(f, x, jnp.array([2, 0, 1]), {})
