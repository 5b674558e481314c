"""The straight path from a baseline to x, and quadrature along it."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jxai.attribution.inputs import Inputs
from jxai.checks import check_choice, check_count

Method = Literal["right", "trapezoid", "midpoint", "gauss-legendre"]


class Path(NamedTuple):
    """Where an integral along the path is evaluated.

    Attributes:
        num_roots: points an image, of all baselines.
        points: of (images, roots), integers (c,), to weights (c, 1, ...), which sum to 1 over an image's roots, the
            way x − x₀ (c, ...), both float32 at least, and the points (c, ...) of x's dtype.
    """

    num_roots: int
    points: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array, jax.Array]]


def straight_path(inputs: Inputs, baseline: Any, *, num_steps: int, method: Method) -> Path:
    """The path x₀ + α(x − x₀), of one baseline or as the mean over several.

    Args:
        inputs: as they are given, checked.
        baseline: x₀ as in `integrated_gradients`.
        num_steps: M as in `integrated_gradients`.
        method: the quadrature rule.

    Returns:
        The path.

    Raises:
        ValueError: as `integrated_gradients` says of these.
    """
    check_count("num_steps", num_steps)
    check_choice("method", method, get_args(Method))
    positions, shares = _quadrature(method, num_steps)
    x, baselines = inputs.x, inputs.baselines(baseline)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    alphas, weights = jnp.asarray(positions, wide), jnp.asarray(shares, wide)

    def points(images: jax.Array, roots: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        which, step = roots // len(alphas), roots % len(alphas)
        start = baselines[which, images]
        way = x[images].astype(wide) - start
        at = (start + _rows(alphas[step], way) * way).astype(x.dtype)
        return _rows(weights[step], way) / len(baselines), way, at

    return Path(len(baselines) * len(alphas), points)


def _quadrature(method: Method, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions and weights on [0, 1], float64."""
    even = np.full(num_steps, 1 / num_steps)
    match method:
        case "right":
            return np.arange(1, num_steps + 1) / num_steps, even
        case "midpoint":
            return (np.arange(num_steps) + 0.5) / num_steps, even
        case "trapezoid":
            halves = np.array([0.5, *[1] * (num_steps - 1), 0.5]) / num_steps
            return np.linspace(0, 1, num_steps + 1), halves
        case _:
            nodes, weights = np.polynomial.legendre.leggauss(num_steps)
            return (nodes + 1) / 2, weights / 2


def _rows(values: jax.Array, like: jax.Array) -> jax.Array:
    """One number a row, to multiply arrays (c, ...)."""
    return values.reshape(-1, *[1] * (like.ndim - 1))
