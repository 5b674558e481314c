"""Attribution: the estimators against captum's, the perturbation curve and the search for the noise against loops."""

import functools
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from experiments.benchmarks import attribution as benchmark
from experiments.benchmarks.attribution import Options
from experiments.benchmarks.measure import HIGH, LOW, alternate, images
from experiments.benchmarks.networks import compiled, resnet18
from experiments.benchmarks.noise_search import SearchSizes, objectives, search, together
from experiments.benchmarks.sections import Parts, Row, row
from experiments.benchmarks.sections.frameworks import PRECISIONS, Precision, Program, apart, use

_SEARCH = SearchSizes(images=16, side=224, roots=50, iterations=5, regions=10, draws=20, repeats=1)
_TINY_SEARCH = SearchSizes(images=1, side=32, roots=2, iterations=1, regions=2, draws=2, repeats=1)
_CURVES = 8  # images of which ours draws curves at once


def parts(dry: bool) -> Parts:
    """Estimators, then the loops; the search in PyTorch, the longest, last."""
    options, sizes = Options(images=16, repeats=3, adaptive=_SEARCH), {"count": _CURVES}
    if dry:
        tiny: dict[str, Any] = {"num_steps": 2, "taylor_roots": 2, "window": 5, "regions": 2, "draws": 2}
        options, sizes = Options(images=1, side=32, repeats=1, adaptive=_TINY_SEARCH, **tiny), {"count": 1}
    names = [
        f"Integrated Gradients, right, {options.num_steps}",
        f"SmoothGrad, {options.num_steps}",
        f"SmoothTaylor, {options.taylor_roots}",
    ]
    if dry:
        del names[1]  # the same code
    found: Parts = {
        f"{name}, {precision}": functools.partial(estimator, name, precision, options)
        for precision in (PRECISIONS[:1] if dry else PRECISIONS[::-1])  # as people run them, first
        for name in names
    }
    found["perturbation curve"] = functools.partial(curve, options, **sizes)
    found["adaptive noise"] = functools.partial(adaptive, options.adaptive)
    return found


def estimator(name: str, precision: Precision, options: Options) -> Iterable[Row]:
    """Seconds an image of an estimator and of captum's, as many inputs in flight in both."""
    use(precision)
    network = resnet18(options.side)
    x, target, key = benchmark.inputs(options.images, options.side)
    theirs = benchmark.captum_calls(options, benchmark.rival(network, x))[name]
    explain = benchmark.estimators(options)[name].explain
    ours = Program(
        lambda variables, *arrays: explain(network.scores(variables), *arrays),
        network.variables,
        key,
        x,
        target,
    )
    times = alternate({"jxai": ours, "captum": theirs}, options.repeats)
    each = {rival: value / options.images for rival, value in times.items()}
    label = f"ResNet18 at {options.side}, {options.images} images, {name}"
    rival = ("captum", each["captum"])
    yield row(label, each["jxai"], "s an image", rival=rival, goal="at least 1.3", precision=precision)
    yield row(f"{label}: compiled in", ours.compile_seconds, "s", precision=precision)
    if ours.bytes is not None:
        yield row(f"{label}: memory", ours.bytes / 1e9, "GB", precision=precision)
    if name.startswith("Integrated"):
        from experiments.benchmarks import torch_models

        found, reference = np.asarray(ours()), torch_models.to_numpy(theirs())
        yield row(
            f"{label}: 1 - cosine with captum's",
            apart(found, reference),
            goal="at most 0.01",
            precision=precision,
        )


def curve(options: Options, *, count: int) -> Iterable[Row]:
    """Seconds an image of the perturbation curve, one image and several at once, against PyTorch's of one image."""
    precision, network = use("float32"), resnet18(options.side)
    label = f"perturbation curve, {options.regions} x {options.draws}"
    one, many = benchmark.curves(options, network), benchmark.curves(options, network, count)
    functions = {"one": one["jxai"], "torch": one["torch"]} | ({"many": many["jxai"]} if count > 1 else {})
    times = alternate(functions, options.repeats)
    # Thousands of forward passes of one image each: once, after a first round.
    loop = alternate({"loop": one["torch, one draw at a time"]}, 1)["loop"]
    batch = ("torch, a region's draws in a batch", times["torch"])
    draws = ("torch, one draw at a time", loop)
    each = {"one image": times["one"]}
    if count > 1:
        each[f"{count} images"] = times["many"] / count
    for images_at_once, value in each.items():
        own, unit = f"{label}, {images_at_once}", "s an image"
        yield row(own, value, unit, rival=draws, goal="at least 10", precision=precision)
        yield row(own, value, unit, rival=batch, goal="at least 1.3", precision=precision)


def adaptive(sizes: SearchSizes) -> Iterable[Row]:
    """Seconds of the search for the noise scale by AUPC: all images in one program, and image by image in PyTorch."""
    import torch  # pyright: ignore[reportMissingImports]

    from experiments.benchmarks import torch_device, torch_models, torch_perturbation

    precision = use("float32")
    network = resnet18(sizes.side)
    x, target, key = images(sizes.images, sizes.side), np.arange(sizes.images), jax.random.key(0)
    device = torch_device.name()
    model = torch_models.resnet18(network.variables).to(device).requires_grad_(False)
    whole = compiled(network, together(objectives(sizes)["AUPC"], sizes))
    evaluations: dict[str, int] = {}

    def ours() -> None:
        found = jax.block_until_ready(whole(key, x, target))
        evaluations["jxai"] = int(np.asarray(found.num_evaluations).sum())

    def objective(image: torch.Tensor, label: int, scale: float) -> float:
        of_class = torch.tensor([label], device=device)
        heatmap = torch_models.captum_smooth_taylor(
            model, image, of_class, deviation=scale, num_roots=sizes.roots, batch=sizes.roots
        ).sum(1)[0]
        curve = torch_perturbation.perturbation_curve(
            model,
            image,
            heatmap,
            label,
            low=LOW,
            high=HIGH,
            window=sizes.window,
            num_regions=sizes.regions,
            num_draws=sizes.draws,
            batch=sizes.draws,
        )
        return float(torch.trapezoid(curve))

    def theirs() -> None:
        evaluations["torch"] = 0
        for label, one in enumerate(x):
            image = torch_models.to_torch(one[None]).to(device)
            tried = search(
                functools.partial(objective, image, label),
                float(np.abs(one).mean()),
                iterations=sizes.iterations,
            )
            evaluations["torch"] += len(tried)

    times = alternate({"jxai": ours, "torch": theirs}, sizes.repeats)
    label = f"adaptive noise by AUPC, {sizes.images} images at {sizes.side}, an evaluation"
    each = {name: times[name] / evaluations[name] for name in times}
    rival = ("torch, image by image", each["torch"])
    yield row(label, each["jxai"], "s", rival=rival, precision=precision, data=evaluations)
