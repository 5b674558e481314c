"""What a loss on LRP's heat maps holds in memory beside the plain loss, as it is, rematerialized and in parts.

    python -m experiments.benchmarks.guidance --json runs/benchmarks/guidance.json

Bytes are what XLA plans for the gradient of ResNet10's mean loss, by its parameters; nothing is run. A minute.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import tyro

from experiments.benchmarks.measure import peak, report, result
from jxai import guidance, lrp, models


@dataclasses.dataclass(frozen=True)
class Options:
    """What is measured."""

    images: int = 8
    """In a batch."""
    side: int = 64
    """Of an image."""
    part: int = 2
    """Images of a part; it divides the batch."""
    json: Path | None = None
    """Where the results go as JSON."""


def main(options: Options) -> None:
    """Measure and report."""
    shape = (options.images, options.side, options.side, 3)
    x, labels = jnp.ones(shape), jnp.arange(options.images) % 10
    shortcut = jnp.zeros(shape[:3], bool).at[:, :8, :8].set(True)
    model = models.Classifier(models.ResNet10(), 10)
    variables: Any = model.init(jax.random.key(0), x, train=False)

    def loss(params: Any, kind: str) -> jax.Array:
        def f(x: jax.Array) -> Any:
            return model.apply({**variables, "params": params}, x, train=False)

        def background(given: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
            x, labels, shortcut = given
            relevance = lrp.relevance(f, x, labels, composite=lrp.EpsilonPlus())
            return guidance.background(relevance, ~shortcut).mean()

        plain = optax.softmax_cross_entropy_with_integer_labels(f(x), labels).mean()
        batch = x, labels, shortcut
        match kind:
            case "plain":
                return plain
            case "guided":
                return plain + background(batch)
            case "guided, in jax.checkpoint":
                return plain + jax.checkpoint(background)(batch)
            case _:
                parts = jax.tree.map(lambda one: one.reshape(-1, options.part, *one.shape[1:]), batch)
                return plain + jax.lax.map(jax.checkpoint(background), parts).mean()

    kinds = ("plain", "guided", "guided, in jax.checkpoint", f"guided, in parts of {options.part}")
    held = {
        kind: peak(jax.jit(jax.grad(lambda p, kind=kind: loss(p, kind))), variables["params"])
        for kind in kinds
    }
    results = [result(f"{kind}: bytes held", held[kind], "bytes") for kind in kinds]
    results += [result(f"{kind}: over the plain loss", held[kind] / held["plain"], "x") for kind in kinds[1:]]
    report(results, options.json)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
