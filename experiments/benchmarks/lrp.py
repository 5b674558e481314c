"""LRP against zennit: the same ResNet18 and VGG16, the same images, in one process, taking turns.

    pip install torch && pip install --no-deps zennit && pip install click
    python -m experiments.benchmarks.lrp --json results.json

For each composite: seconds of both, each one's ratio to its own framework's gradient with respect to the image; of
the compiled program the peak memory (weights, images and what it needs in between), the operations and the bytes read
and written, over those of the gradient. docs/rules.md says how many convolutions are the least.
The relevance is compared at a small image size first, where float32 leaves no ReLU undecided. About six minutes on
two cores.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.benchmarks.measure import HIGH, LOW, alternate, draw, images, peak, report, result, work
from jxai import lrp, models

COMPOSITES: dict[str, tuple[lrp.Composite, float]] = {
    "EpsilonPlus": (lrp.EpsilonPlus(norm=True), 1.8),
    "EpsilonAlpha2Beta1": (lrp.EpsilonAlpha2Beta1(norm=True), 2.5),
    "EpsilonGammaBox": (lrp.EpsilonGammaBox(LOW, HIGH, norm=True), 2.5),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Sizes; the defaults are those of the README's table."""

    resnet_batch: int = 8
    vgg_batch: int = 4
    side: int = 224
    repeats: int = 5
    memory_batches: tuple[int, ...] = (8, 32)
    """Batch sizes of ResNet18 for which memory is reported."""
    json: Path | None = None
    """Where the results go as JSON."""


def ours(model: Any, composite: lrp.Composite | None) -> Callable:
    """Relevance, or without a composite the gradient, of the targets' scores."""

    def explain(variables, x, target):
        def f(x):
            return model.apply(variables, x, train=False)

        if composite is not None:
            return lrp.relevance(f, x, target, composite=composite)
        return jax.vjp(f, x)[1](jax.nn.one_hot(target, 1000))[0]

    return jax.jit(explain)


def rivals(load: Callable, variables: Any, x: np.ndarray, target: np.ndarray) -> dict[str, Callable]:
    """PyTorch's gradient ("gradient") and zennit's relevance by the names of `COMPOSITES`, (N, C, H, W).

    Args:
        load: from the variables to the network in PyTorch.
        variables: of the network in JAX.
        x: images, (N, H, W, C).
        target: (N,).

    Returns:
        Functions that come back when the device is done.
    """
    import torch  # pyright: ignore[reportMissingImports]

    from experiments.benchmarks import torch_device, torch_models

    device = torch_device.name()
    theirs = load(variables).to(device)
    tensor, classes = torch_models.to_torch(x).to(device), torch.from_numpy(target).to(device)

    def zennit(composite: Any) -> Callable:
        bounds = {"low": LOW, "high": HIGH} if composite == "EpsilonGammaBox" else {}
        return lambda: torch_models.zennit_relevance(theirs, composite, tensor, classes, **bounds)

    calls = {"gradient": lambda: torch_models.torch_gradient(theirs, tensor, classes)}
    calls |= {composite: zennit(composite) for composite in COMPOSITES}
    return {name: torch_device.finished(call) for name, call in calls.items()}


def network(name: str) -> tuple[Any, Callable]:
    """ResNet18 or VGG16, and what makes it in PyTorch of its variables."""
    from experiments.benchmarks import torch_models

    if name == "ResNet18":
        return models.Classifier(models.ResNet18(), num_classes=1000), torch_models.resnet18
    return models.VGG16(dropout_rate=0.0), lambda variables: torch_models.vgg16(variables["params"])


def compare(name: str, batch: int, options: Options) -> list[dict[str, Any]]:
    """One network: seconds, ratios, memory and work."""
    model, load = network(name)
    variables = draw(model, options.side)
    x, target = images(batch, options.side), np.arange(batch)
    theirs, gradient = rivals(load, variables, x, target), ours(model, None)
    functions = {
        "jax gradient": lambda: gradient(variables, x, target),
        "torch gradient": theirs["gradient"],
    }
    explainers = {composite: ours(model, rules) for composite, (rules, _) in COMPOSITES.items()}
    for composite, explain in explainers.items():
        functions[f"jxai {composite}"] = lambda explain=explain: explain(variables, x, target)
        functions[f"zennit {composite}"] = theirs[composite]
    seconds = alternate(functions, options.repeats)
    base = peak(gradient, variables, x, target)
    operations, traffic = work(gradient, variables, x, target)
    results = [result(f"{name} {key}", value, "s") for key, value in seconds.items()]
    for composite, explain in explainers.items():
        ratio = seconds[f"jxai {composite}"] / seconds["jax gradient"]
        rival = seconds[f"zennit {composite}"]
        label = f"{name} {composite}"
        goal = f"at most {COMPOSITES[composite][1]}"
        own_operations, own_traffic = work(explain, variables, x, target)
        results += [
            result(f"{label}: times jax's gradient", ratio, "x", goal),
            result(f"{label}: zennit's times torch's", rival / seconds["torch gradient"], "x"),
            result(f"{label}: faster than zennit", rival / seconds[f"jxai {composite}"], "x", "more than 1"),
            result(
                f"{label}: memory of gradient", peak(explain, variables, x, target) / base, "x", "at most 1.5"
            ),
            result(f"{label}: operations of gradient", own_operations / operations, "x"),
            result(f"{label}: bytes of gradient", own_traffic / traffic, "x"),
        ]
    return results


def agreement(options: Options) -> list[dict[str, Any]]:
    """The largest difference of both libraries' relevance of ResNet18 at 64x64, over the largest relevance."""
    from experiments.benchmarks import torch_models

    model, load = network("ResNet18")
    variables, x, target = draw(model, 64), images(2, 64), np.arange(2)
    theirs, results = rivals(load, variables, x, target), []
    for name, (rules, _) in COMPOSITES.items():
        reference = torch_models.to_numpy(theirs[name]())
        found = np.asarray(ours(model, rules)(variables, x, target))
        error = np.abs(found - reference).max() / np.abs(reference).max()
        results.append(result(f"ResNet18 at 64 {name}: difference", float(error), ""))
    return results


def memory(options: Options) -> list[dict[str, Any]]:
    """Peak memory over the gradient's for ResNet18, by batch."""
    model = models.Classifier(models.ResNet18(), num_classes=1000)
    variables = draw(model, options.side)
    results = []
    for batch in options.memory_batches:
        x, target = images(batch, options.side), np.arange(batch)
        base = peak(ours(model, None), variables, x, target)
        for composite, (rules, _) in COMPOSITES.items():
            ratio = peak(ours(model, rules), variables, x, target) / base
            results.append(result(f"ResNet18, batch {batch}, {composite}: memory", ratio, "x", "at most 1.5"))
    return results


def main(options: Options) -> None:
    """Compare, print, write."""
    results = agreement(options)
    results += compare("ResNet18", options.resnet_batch, options)
    results += compare("VGG16", options.vgg_batch, options)
    report(results + memory(options), options.json)


if __name__ == "__main__":
    import tyro  # gpu.py takes this file's parts where there is no tyro

    main(tyro.cli(Options, description=__doc__))
