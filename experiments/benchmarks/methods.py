"""What every method costs: processor time a picture, over the gradient's, on EfficientNet-Lite0 at 224.

    python -m experiments.benchmarks.methods --json results.json

The methods of `jxai explain`, with the numbers of roots, steps and masks that `jxai judge` has, and the presets of
`jxai.lrp` that the command does not have; of drawn pictures, of the class predicted, compiled beforehand. Processor
time of all cores, which other programs change less than seconds; of two runs the shorter one.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tyro

from experiments.benchmarks.measure import images, report, result
from experiments.benchmarks.networks import efficientnet
from jxai import lrp, models
from jxai.cli.explaining.inputs import EFFICIENTNET_LITE0
from jxai.cli.explaining.methods import Classifier, methods
from jxai.cli.judging.judge import Options as Judging


@dataclasses.dataclass(frozen=True)
class Options:
    """What is measured."""

    images: int = 2
    """Pictures explained at a time."""
    repeats: int = 2
    only: tuple[str, ...] = ()
    """Methods; by default all."""
    json: Path | None = None
    """Where the results go as JSON."""


def main(options: Options) -> None:
    """Measure and report."""
    network = efficientnet(224)
    maps, rest = models.split(network.model, "activation_last", train=False)
    classifier = Classifier(network.variables, lambda variables, x: network.scores(variables)(x), maps, rest)
    x = jnp.asarray(EFFICIENTNET_LITE0((images(options.images, 224) * 255).clip(0, 255).astype("uint8")))
    scores = jax.jit(lambda classifier, x: classifier(x))(classifier, x)
    target, key = jnp.argmax(scores, axis=1), jax.random.key(0)
    explains: dict[str, Callable[..., Any]] = {
        name: one.explain for name, one in methods(Judging().settings, references=x).items()
    }
    for name, composite in (("AttnLRP", lrp.AttnLRP()), ("CPLRP", lrp.CPLRP()), ("sun2020", lrp.sun2020)):
        explains[name] = lambda f, key, x, target, composite=composite: lrp.relevance(
            f, x, target, composite=composite
        )
    chosen = {
        name: one for name, one in explains.items() if name in ("gradient", *(options.only or explains))
    }
    spent: dict[str, float] = {}
    for name, explain in chosen.items():
        program = jax.jit(explain).lower(classifier, key, x, target).compile()
        times = []
        for _ in range(options.repeats):
            start = time.process_time()
            jax.block_until_ready(program(classifier, key, x, target))
            times.append(time.process_time() - start)
        spent[name] = min(times)
        print(f"{name}: {spent[name] / spent['gradient']:.1f} gradients", flush=True)
    seconds = result("gradient, processor time a picture", spent["gradient"] / options.images, "s")
    ratios = [result(name, one / spent["gradient"], "gradients") for name, one in spent.items()]
    report([seconds, *ratios], options.json)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
