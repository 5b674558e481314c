"""What planning costs: tracing and compiling LRP beside the gradient, of deep networks and by a chain's length.

    python -m experiments.benchmarks.planning --json runs/benchmarks/planning.json

Processor time, so that other work on the machine is left out; of tracing the least of several counts. Three minutes.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import tyro

from experiments.benchmarks.measure import report, result
from jxai import lrp, models


@dataclasses.dataclass(frozen=True)
class Options:
    """What is measured."""

    depth: int = 24
    """Layers of the transformer."""
    chain: int = 32
    """Residual layers of the longer chain; the shorter has half as many."""
    resnet: bool = True
    """ResNet152 too."""
    repeats: int = 2
    """Of tracing."""
    json: Path | None = None
    """Where the results go as JSON."""


class Transformer(nn.Module):
    """Attention and a GELU network behind layer norms, `depth` times."""

    depth: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Scores (N, 5) of tokens (N, T, C)."""
        for _ in range(self.depth):
            h = nn.LayerNorm()(x)
            x = x + nn.MultiHeadDotProductAttention(4)(h, h)
            h = nn.gelu(nn.Dense(4 * x.shape[-1])(nn.LayerNorm()(x)))
            x = x + nn.Dense(x.shape[-1])(h)
        return nn.Dense(5)(x.mean(1))


class Chain(nn.Module):
    """Dense layers with a shortcut each."""

    depth: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Features of x's shape."""
        for _ in range(self.depth):
            x = x + nn.relu(nn.Dense(x.shape[-1])(x))
        return x


def seconds(
    model: Any, x: jax.Array, composite: lrp.Composite, repeats: int
) -> dict[str, tuple[float, float]]:
    """Of LRP and of the gradient: processor seconds to trace, to compile."""
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
    variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    f = lambda x: model.apply(variables, x, train=False)  # noqa: E731

    def explain(x: jax.Array) -> jax.Array:
        y, pullback = lrp.vjp(f, x, composite=composite)
        return pullback(y)[0]

    def gradient(x: jax.Array) -> jax.Array:
        return jax.grad(lambda x: (f(x) ** 2).sum())(x)

    found: dict[str, tuple[float, float]] = {}
    for name, function in {"lrp": explain, "gradient": gradient}.items():
        traced, program = fresh_trace(function, x)
        for _ in range(repeats - 1):
            traced = min(traced, fresh_trace(function, x)[0])
        found[name] = traced, timed(program.lower().compile)[0]
    return found


def fresh_trace(function: Callable, x: jax.Array) -> tuple[float, Any]:
    """Processor seconds of tracing with nothing kept of earlier traces, and what was traced."""
    jax.clear_caches()
    return timed(jax.jit(function).trace, x)


def timed(function: Callable, *arguments: Any) -> tuple[float, Any]:
    """Processor seconds of a call, and its result."""
    start = time.process_time()
    found = function(*arguments)
    return time.process_time() - start, found


def main(options: Options) -> None:
    """Measure and report."""
    tokens = jnp.ones((1, 16, 64))
    cases: dict[str, tuple[Any, jax.Array, lrp.Composite]] = {
        f"transformer of {options.depth} layers, AttnLRP": (Transformer(options.depth), tokens, lrp.AttnLRP())
    }
    if options.resnet:
        images = jnp.ones((1, 64, 64, 3))
        cases["ResNet152, EpsilonPlus"] = models.ResNet152(num_classes=10), images, lrp.EpsilonPlus()
    results: list[dict[str, Any]] = []
    for name, case in cases.items():
        found = seconds(*case, options.repeats)
        for i, (what, goal) in enumerate({"traced": "at most 3", "compiled": "at most 2.5"}.items()):
            ours, theirs = found["lrp"][i], found["gradient"][i]
            results += [
                result(f"{name}: {what} in", ours, "s"),
                result(f"{name}: gradient {what} in", theirs, "s"),
            ]
            results.append(result(f"{name}: {what}, over the gradient", ours / theirs, "x", goal))
    lengths = options.chain // 2, options.chain
    for length in lengths:
        found = seconds(Chain(length), jnp.ones((2, 16)), lrp.EpsilonPlus(norm=True), options.repeats)
        for i, what in enumerate(("traced", "compiled")):
            label = f"chain of {length} residual sums: {what}, over the gradient"
            results.append(result(label, found["lrp"][i] / found["gradient"][i], "x"))
    report(results, options.json)


if __name__ == "__main__":
    main(tyro.cli(Options))
