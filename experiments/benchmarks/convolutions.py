"""Which convolutions XLA's CPU compiler runs far below the machine's speed, and at which in the form of jxai.ops.

    python -m experiments.benchmarks.convolutions --json runs/benchmarks/convolutions.json

y = conv(x, k) of 3 x 3 windows on eight pictures, at the sizes of ResNet18's stages for pictures of 64 and 128
pixels: the value; its gradients by x and by k; and what guidance adds, the gradient by k of the gradient by x. It has
as many operations as the gradient by k, and equals it with other operands: Σ u · ∂(g · conv(x, k))/∂x =
Σ g · conv(u, k). `lax` is slow where the kernel of the operation is larger than its maps, which are exchanged
then (`jxai.ops.convolution` says why); jxai's are written so that they are not. Operations on zeros around the maps
are counted. Two minutes.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.benchmarks.measure import report, result, seconds
from jxai.ops.convolution import convolution

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_FORMS = {"lax": jax.lax.conv_general_dilated, "jxai": convolution}


@dataclasses.dataclass(frozen=True)
class Options:
    """What is measured."""

    sides: tuple[int, ...] = (16, 8, 4, 2)
    """Of the maps that enter."""
    channels: tuple[int, ...] = (128, 256, 512, 512)
    """Of these maps and of those that leave."""
    images: int = 8
    repeats: int = 5
    json: Path | None = None
    """Where the results go as JSON."""


def kinds(form: Callable, stride: int) -> dict[str, Callable[[jax.Array, jax.Array, jax.Array], Any]]:
    """What is measured, of (x or u, k, g)."""

    def conv(x: jax.Array, k: jax.Array) -> jax.Array:
        return form(x, k, (stride,) * 2, "SAME", dimension_numbers=_LAYOUT)

    def by_x(x: jax.Array, k: jax.Array, g: jax.Array) -> jax.Array:
        return jax.vjp(lambda x: conv(x, k), x)[1](g)[0]

    def by_k(x: jax.Array, k: jax.Array, g: jax.Array) -> jax.Array:
        return jax.vjp(lambda k: conv(x, k), k)[1](g)[0]

    return {
        "value": lambda x, k, g: conv(x, k),
        "gradient by x": by_x,
        "gradient by k": by_k,
        "gradient by k of the one by x": lambda x, k, g: jax.vjp(lambda k: by_x(x, k, g), k)[1](x)[0],
    }


def main(options: Options) -> None:
    """Measure and report."""
    random = np.random.default_rng(0)
    results = []
    for side, channels in zip(options.sides, options.channels, strict=True):
        for stride in (1, 2):
            x = jnp.asarray(random.normal(size=(options.images, side, side, channels)), jnp.float32)
            k = jnp.asarray(random.normal(size=(3, 3, channels, channels)), jnp.float32)
            out = -(-side // stride)
            g = jnp.asarray(random.normal(size=(options.images, out, out, channels)), jnp.float32)
            operations = 2 * g.size * 9 * channels
            measured = {name: kinds(form, stride) for name, form in _FORMS.items()}
            for kind in measured["lax"]:
                for name, functions in measured.items():
                    spent = seconds(jax.jit(functions[kind]), x, k, g, repeats=options.repeats)
                    label = f"{side} x {side} x {channels}, stride {stride}: {kind}, {name}"
                    results.append(result(label, operations / spent / 1e9, "GFLOP/s"))
    report(results, options.json)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
