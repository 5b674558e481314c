"""Shared by the tests of the classifiers: shapes without allocation, variables without compilation."""

import functools
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

# What some tests of this folder share is the module `torchvision_files` beside this file. Last in the list.
sys.path.append(str(Path(__file__).resolve().parent))


@functools.cache
def _shapes(module: nn.Module, side: int) -> tuple[Any, dict[str, Any]]:
    images = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    return jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x, train=False), images)


def _draw(module: nn.Module, x: np.ndarray, *, noise: float = 0.1, **options: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)

    def leaf(path: tuple[Any, ...], shape: jax.ShapeDtypeStruct) -> np.ndarray:
        name, drawn = path[-1].key, rng.normal(size=shape.shape).astype(np.float32)
        if name == "kernel":
            return drawn / np.float32(np.sqrt(math.prod(shape.shape[:-1])))
        return np.float32(noise) * drawn + np.float32(name in ("scale", "var"))

    shapes = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, **options), x)
    return jax.tree_util.tree_map_with_path(leaf, shapes)


@pytest.fixture(scope="session")
def evaluate_shapes() -> Callable[..., tuple[Any, dict[str, Any]]]:
    """(scores, variables) of a module for two images of a side, as shapes."""
    return _shapes


@pytest.fixture(scope="session")
def count_parameters() -> Callable[[nn.Module], int]:
    """Number of parameters at 224x224, the running statistics left out."""

    def count(module: nn.Module) -> int:
        _, variables = _shapes(module, 224)
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))

    return count


@pytest.fixture(scope="session")
def draw_variables() -> Callable[..., dict[str, Any]]:
    """Random variables of a module, drawn by NumPy: XLA takes seconds to compile Flax's initializers.

    All but kernels are 0 or 1, as initialized, plus `noise`.
    """
    return _draw


@pytest.fixture(scope="session")
def run_both_modes() -> Callable[..., tuple[Any, ...]]:
    """(variables, scores, scores of training, what training changed) of three random images of a side."""

    def run(module: nn.Module, side: int) -> tuple[Any, ...]:
        x = np.random.default_rng(1).normal(1, 1, (3, side, side, 3)).astype(np.float32)
        variables = _draw(module, x, train=False)

        @jax.jit
        def both(variables: dict[str, Any], x: jax.Array) -> tuple[Any, ...]:
            rngs = {"dropout": jax.random.key(2)}
            trained, changed = module.apply(variables, x, train=True, rngs=rngs, mutable=["batch_stats"])
            return module.apply(variables, x, train=False), trained, changed

        return variables, *both(variables, x)

    return run
