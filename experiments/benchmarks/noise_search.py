"""The search for the noise scale: all images in one program against one image at a time."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments.benchmarks.measure import HIGH, LOW, alternate, images, result
from experiments.benchmarks.networks import Network, compiled
from jxai import attribution, metrics


@dataclasses.dataclass(frozen=True)
class SearchSizes:
    """Sizes of the search; the defaults are for a CPU."""

    images: int = 20
    side: int = 96
    """Of more than 64: the last maps of 64 are smaller than their kernels, which XLA's CPU convolutions dislike."""
    roots: int = 10
    """Roots of SmoothTaylor."""
    iterations: int = 5
    window: int = 15
    regions: int = 3
    """Windows of the perturbation curve."""
    draws: int = 4
    """Draws of noise a window."""
    repeats: int = 1


def search(objective: Callable[[float], float], start: float, *, iterations: int) -> list[float]:
    """`attribution.adaptive_noise` of one image as a Python loop.

    Args:
        objective: of a noise scale, to be minimized.
        start: the first scale.
        iterations: rounds of one or two evaluations.

    Returns:
        The scales in the order evaluated.
    """
    step, stops, max_stops, decay = 0.1, 0, 3, 0.9
    scale, value, tried = start, objective(start), [start]
    for _ in range(iterations):
        up = abs(scale + step)
        tried.append(up)
        if (found := objective(up)) <= value:
            scale, value, stops = up, found, 0
            continue
        scale = abs(scale - step)
        tried.append(scale)
        before, value = value, objective(scale)
        if value <= before:
            stops = 0
        elif stops >= max_stops:
            break
        else:
            stops, step = stops + 1, decay * step
    return tried


def objectives(sizes: SearchSizes) -> dict[str, Callable]:
    """Functions (f, key, x, target, noise scale) of both published objectives, by name."""

    def heatmap(f, key, x, target, scale):
        found = attribution.smooth_taylor(f, key, x, target, noise_scale=scale, num_roots=sizes.roots)
        return found.sum(axis=-1)

    def variation(f, key, x, target, scale):
        return metrics.autvc(metrics.multiscale_total_variation(heatmap(f, key, x, target, scale)))

    def perturbation(f, key, x, target, scale):
        found = metrics.perturbation_curve(
            f,
            key,
            x,
            heatmap(f, key, x, target, scale),
            target,
            low=LOW,
            high=HIGH,
            window=sizes.window,
            num_regions=sizes.regions,
            num_draws=sizes.draws,
        )
        return metrics.aupc(found)

    return {"AUTVC": variation, "AUPC": perturbation}


def together(objective: Callable, sizes: SearchSizes) -> Callable:
    """The search of all images at once, from (f, key, x, target) to what `attribution.adaptive_noise` returns."""

    def run(f, key, x, target):
        return attribution.adaptive_noise(
            lambda key, x, scale: objective(f, key, x, target, scale), key, x, max_iterations=sizes.iterations
        )

    return run


def noise_search(sizes: SearchSizes, network: Network) -> list[dict[str, Any]]:
    """Seconds of both, and their evaluations, which differ as their draws do."""
    results = []
    for name, objective in objectives(sizes).items():
        results += _compare(name, objective, sizes, network)
    return results


def _compare(name: str, objective: Callable, sizes: SearchSizes, network: Network) -> list[dict[str, Any]]:
    key, target = jax.random.key(0), np.arange(sizes.images)
    x = images(sizes.images, sizes.side)

    whole, single = compiled(network, together(objective, sizes)), compiled(network, objective)

    def alone(index: int) -> list[float]:
        own, label = x[index : index + 1], target[index : index + 1]
        return search(
            lambda scale: float(single(key, own, label, np.array([scale], np.float32))[0]),
            float(np.abs(own).mean()),
            iterations=sizes.iterations,
        )

    kept: dict[str, Any] = {}

    def one_program() -> None:
        kept["whole"] = jax.block_until_ready(whole(key, x, target))

    def image_by_image() -> None:
        kept["alone"] = [alone(index) for index in range(sizes.images)]

    seconds = alternate({"one program": one_program, "image by image": image_by_image}, sizes.repeats)
    taken = np.asarray(kept["whole"].num_evaluations)
    label = f"adaptive noise, {name}, {sizes.images} images at {sizes.side}"
    ratio = seconds["image by image"] / seconds["one program"]
    return [
        *(result(f"{label}: {rival}", value, "s") for rival, value in seconds.items()),
        result(f"{label}: faster than image by image", ratio, "x", "more than 1"),
        result(f"{label}: evaluations, one program", int(taken.sum()), ""),
        result(f"{label}: computed for them", int(sizes.images * taken.max()), ""),
        result(f"{label}: evaluations, image by image", sum(map(len, kept["alone"])), ""),
    ]
