"""What losses on heat maps cost beside the plain loss: seconds of a gradient, also PyTorch's, and bytes held.

    pip install torch && pip install --no-deps zennit && pip install click       # without them: JAX alone
    python -m experiments.benchmarks.guidance --json runs/benchmarks/guidance.json

ResNet18's mean loss by its parameters, batch norms evaluated: the plain loss; RRR's, the squared gradient of
Σ log p in a corner; and ISNet's background of EpsilonPlus' relevance, by `torch.autograd` and zennit there; both
explain the forward pass that gives the plain loss. The same weights and images, taking turns in one process. Bytes
are what XLA plans, as it is, rematerialized and in parts.
"""

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from experiments.benchmarks.measure import alternate, images, peak, report, result
from experiments.benchmarks.networks import Network, resnet18
from jxai import guidance, lrp

CORNER = 8  # pixels of its side

KINDS = ("plain", "right reasons", "background")


@dataclasses.dataclass(frozen=True)
class Options:
    """What is measured."""

    images: int = 8
    """In a batch."""
    side: int = 128
    """Of an image."""
    part: int = 2
    """Images of a part; it divides the batch."""
    repeats: int = 5
    """Turns; the shortest counts."""
    json: Path | None = None
    """Where the results go as JSON."""


def ours(network: Network, x: jax.Array, labels: jax.Array, part: int) -> Callable[[Any, str], jax.Array]:
    """The losses of (variables, kind)."""
    corner = jnp.zeros(x.shape[:3], bool).at[:, :CORNER, :CORNER].set(True)

    def loss(params: Any, kind: str) -> jax.Array:
        f = network.scores({**network.variables, "params": params})

        def plain(scores: jax.Array, labels: jax.Array) -> jax.Array:
            return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()

        def background(given: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
            x, labels, corner = given
            scores, pullback = lrp.vjp(f, x, composite=lrp.EpsilonPlus())
            (relevance,) = pullback(jax.nn.one_hot(labels, scores.shape[1]) * scores)
            return plain(scores, labels) + guidance.background(relevance, ~corner).mean()

        batch = x, labels, corner
        match kind:
            case "plain":
                return plain(f(x), labels)
            case "right reasons":
                scores, pullback = jax.vjp(f, x)
                (gradients,) = pullback(jax.grad(lambda scores: guidance.sum_of_logs(scores).sum())(scores))
                return plain(scores, labels) + guidance.right_reasons(gradients, corner).mean()
            case "background":
                return background(batch)
            case "background, in jax.checkpoint":
                return jax.checkpoint(background)(batch)
            case _:
                parts = jax.tree.map(lambda one: one.reshape(-1, part, *one.shape[1:]), batch)
                return jax.lax.map(jax.checkpoint(background), parts).mean()

    return loss


def main(options: Options) -> None:
    """Measure and report."""
    network = resnet18(options.side)
    x, labels = images(options.images, options.side), np.arange(options.images) % 10
    loss = ours(network, jnp.asarray(x), jnp.asarray(labels), options.part)
    params = network.variables["params"]
    in_parts = f"background, in parts of {options.part}"
    programs = {
        kind: jax.jit(jax.value_and_grad(lambda p, kind=kind: loss(p, kind)))
        for kind in (*KINDS, "background, in jax.checkpoint", in_parts)
    }
    held = {kind: peak(program, params) for kind, program in programs.items()}
    calls: dict[str, Callable[[], Any]] = {
        f"jxai, {kind}": lambda kind=kind: programs[kind](params) for kind in KINDS
    }
    results = []
    if importlib.util.find_spec("torch") is None:
        print("PyTorch is not installed: its side is left out")
    else:
        from experiments.benchmarks import torch_guidance

        rivals = torch_guidance.calls(network.variables, x, labels, corner=CORNER)
        calls |= {f"PyTorch, {kind}": call for kind, call in rivals.items()}
        for kind, call in rivals.items():
            one, other = float(call()[0]), float(programs[kind](params)[0])
            results.append(result(f"{kind}: losses differ by", abs(one - other) / abs(other), "of ours"))
    spent = alternate(calls, options.repeats)
    results += [result(f"{name}: seconds", value, "s") for name, value in spent.items()]
    for side in ("jxai", "PyTorch"):
        results += [
            result(
                f"{side}, {kind}: over its plain loss",
                spent[f"{side}, {kind}"] / spent[f"{side}, plain"],
                "x",
            )
            for kind in KINDS[1:]
            if f"{side}, {kind}" in spent
        ]
    results += [
        result(
            f"{kind}: PyTorch's time over ours", spent[f"PyTorch, {kind}"] / spent[f"jxai, {kind}"], "x", goal
        )
        for kind, goal in zip(KINDS, (None, "at least 2", "at least 2"), strict=True)
        if f"PyTorch, {kind}" in spent
    ]
    results += [result(f"{kind}: bytes held", count, "bytes") for kind, count in held.items()]
    results += [
        result(f"{kind}: bytes over the plain loss", count / held["plain"], "x")
        for kind, count in held.items()
        if kind != "plain"
    ]
    report(results, options.json)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
