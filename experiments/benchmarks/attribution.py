"""Attribution: the estimators over the cost of their gradients, and against captum and PyTorch, in one process.

    pip install torch && pip install --no-deps captum && pip install matplotlib packaging tqdm
    python -m experiments.benchmarks.attribution --json results.json

Five sections; `--sections` chooses among them.

cost      seconds of each estimator over those of as many gradients (forward passes, relevances) in plain batches
captum    Integrated Gradients, SmoothGrad and SmoothTaylor in images a second; how far the first's values are apart
curve     the perturbation curve of one image against the same loop in PyTorch
adaptive  the search for the noise scale over 20 images against one image at a time
memory    what SmoothTaylor's compiled program holds, by inputs in flight and by number of roots

captum and the loop run on CUDA where PyTorch has it, JAX on its default device. Both multiply in float32;
`--tensor-float` allows TensorFloat-32 to both. On a GPU give more images (`--images 16`), the sizes of `--adaptive.*`
that a CPU cannot afford, and keep the memory that JAX reserves below half (the script sets
XLA_PYTHON_CLIENT_MEM_FRACTION if nobody did).
"""

import dataclasses
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.measure import HIGH, LOW, alternate, images, peak, report, result
from experiments.benchmarks.networks import CLASSES, Network, compiled, efficientnet, resnet18
from experiments.benchmarks.noise_search import SearchSizes, noise_search
from jxai import attribution, lrp, metrics
from jxai.batches.chunks import rows_in_flight

Section = Literal["cost", "captum", "curve", "adaptive", "memory"]
Result = dict[str, Any]

NOISE_SCALE = 0.15  # of SmoothGrad
TAYLOR_NOISE = 0.5  # of SmoothTaylor, in the units of the images
KEY = 3
EXACT, DRAWN = 1.05, 1.10  # goals of the estimators without and with noise
AS_FAST = "at least 0.9 on a CPU, 1.3 on a GPU"


@dataclasses.dataclass(frozen=True)
class Options:
    """Sizes; the defaults are for a CPU."""

    sections: tuple[Section, ...] = ("cost", "captum", "curve", "adaptive", "memory")
    images: int = 2
    side: int = 224
    repeats: int = 3
    num_steps: int = 50
    """Gradients an image, of all estimators but SmoothTaylor."""
    taylor_roots: int = 150
    """Gradients an image of SmoothTaylor."""
    stride: int = 8
    """Pixels between occlusion's windows."""
    window: int = 15
    """Side of the windows of occlusion and of the perturbation curve."""
    regions: int = 30
    """Windows of the perturbation curve."""
    draws: int = 50
    """Draws of noise a window."""
    adaptive: SearchSizes = SearchSizes()
    memory_chunks: tuple[int, ...] = (4, 16, 32)
    """Inputs in flight for which SmoothTaylor's memory is reported."""
    memory_roots: tuple[int, ...] = (50, 150, 300)
    """Roots for which it is reported, with 10 inputs in flight."""
    tensor_float: bool = False
    """Allow TensorFloat-32 to both frameworks."""
    json: Path | None = None
    """Where the results go as JSON."""


class Estimator(NamedTuple):
    """An explanation (f, key, x, target), and what it costs."""

    explain: Callable
    evaluations: int
    """How many of them an image takes."""
    unit: str
    """What the evaluations are."""
    goal: float


def relevance(f: Callable, x: jax.Array, target: jax.Array) -> jax.Array:
    """LRP in the gradient's place."""
    return lrp.relevance(f, x, target, composite=lrp.EpsilonPlus(norm=True))


def target_score(f: Callable, x: jax.Array, target: jax.Array) -> jax.Array:
    """A forward pass."""
    return jnp.take_along_axis(f(x), target[:, None], axis=1)


UNITS: dict[str, Callable] = {
    "gradients": attribution.gradient,
    "relevances": relevance,
    "forward passes": target_score,
}


def estimators(options: Options) -> dict[str, Estimator]:
    """What the first section measures."""
    count, side = options.num_steps, options.side
    references = jnp.asarray(images(8, side))
    ends = len(range(0, side - options.window + 1, options.stride))
    windows = (ends + bool((side - options.window) % options.stride)) ** 2

    def integrated(f, _, x, target, **more):
        return attribution.integrated_gradients(f, x, target, num_steps=count, **more)

    def smooth_grad(f, key, x, target, **more):
        return attribution.smooth_grad(f, key, x, target, noise_scale=NOISE_SCALE, num_roots=count, **more)

    def smooth_taylor(f, key, x, target):
        return attribution.smooth_taylor(
            f, key, x, target, noise_scale=TAYLOR_NOISE, num_roots=options.taylor_roots
        )

    def expected(f, key, x, target):
        return attribution.expected_gradients(f, key, x, target, references=references, num_samples=count)

    def occlusion(f, _, x, target):
        return attribution.occlusion(f, x, target, window=options.window, stride=options.stride)

    gauss = functools.partial(integrated, method="gauss-legendre")
    of_relevance = functools.partial(integrated, explain=relevance)
    variance = functools.partial(smooth_grad, statistic="variance")
    return {
        f"Integrated Gradients, right, {count}": Estimator(integrated, count, "gradients", EXACT),
        f"Integrated Gradients, Gauss-Legendre, {count}": Estimator(gauss, count, "gradients", EXACT),
        f"Integrated Gradients of LRP, {count}": Estimator(of_relevance, count, "relevances", EXACT),
        f"SmoothGrad, {count}": Estimator(smooth_grad, count, "gradients", DRAWN),
        f"VarGrad, {count} + 1": Estimator(variance, count + 1, "gradients", DRAWN),
        f"SmoothTaylor, {options.taylor_roots}": Estimator(
            smooth_taylor, options.taylor_roots, "gradients", DRAWN
        ),
        f"expected gradients, {count}": Estimator(expected, count, "gradients", DRAWN),
        f"occlusion, {windows} + 1": Estimator(occlusion, windows + 1, "forward passes", EXACT),
    }


def inputs(count: int, side: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Images, their classes and a key, on JAX's device."""
    return jnp.asarray(images(count, side)), jnp.arange(count) % CLASSES, jax.random.key(KEY)


def cost(options: Options, network: Network) -> list[Result]:
    """Each estimator's time over that of as many of its evaluations in plain batches."""
    x, target, key = inputs(options.images, options.side)
    # As many evaluations as Integrated Gradients takes, so that both are measured over a like time.
    wanted = options.images * options.num_steps
    batch = min(rows_in_flight(x, None), wanted)
    calls = -(-wanted // batch)
    many, classes, _ = inputs(batch, options.side)

    def unit(function: Callable) -> Callable:
        one = compiled(network, function)
        return lambda: [one(many, classes) for _ in range(calls)]

    chosen = estimators(options)
    functions = {name: unit(function) for name, function in UNITS.items()}
    for name, estimator in chosen.items():
        functions[name] = functools.partial(compiled(network, estimator.explain), key, x, target)
    seconds = alternate(functions, options.repeats)
    single = {name: seconds[name] / (calls * batch) for name in UNITS}
    results = [result(f"{network.name} {name}, batch {batch}", single[name], "s each") for name in UNITS]
    for name, (_, count, of, goal) in chosen.items():
        ratio = seconds[name] / (options.images * count * single[of])
        results += [
            result(f"{network.name} {name}", seconds[name], "s"),
            result(f"{network.name} {name}: times its {of}", ratio, "x", f"at most {goal}"),
        ]
    return results


class Rival(NamedTuple):
    """The same network and images in PyTorch, on CUDA where there is one."""

    model: Any
    x: Any
    target: Any


def rival(network: Network, x: jax.Array) -> Rival:
    """ResNet18 and images as PyTorch takes them; image n is explained for class n."""
    import torch  # pyright: ignore[reportMissingImports]

    from experiments.benchmarks import torch_device, torch_models

    device = torch_device.name()
    model = torch_models.resnet18(network.variables).to(device).requires_grad_(False)
    return Rival(model, torch_models.to_torch(x).to(device), torch.arange(len(x), device=device))


def agreement(options: Options, network: Network, side: int) -> Result:
    """The largest difference of both libraries' Integrated Gradients over the largest value."""
    from experiments.benchmarks import torch_models

    x, target, key = inputs(options.images, side)
    count, batch = options.num_steps, rows_in_flight(x, None)
    explain = estimators(options)[f"Integrated Gradients, right, {count}"].explain
    found = np.asarray(compiled(network, explain)(key, x, target))
    reference = torch_models.to_numpy(
        torch_models.captum_integrated_gradients(*rival(network, x), num_steps=count, batch=batch)
    )
    difference = float(np.abs(found - reference).max() / np.abs(reference).max())
    return result(f"Integrated Gradients at {side}: difference from captum's", difference, "")


def captum_calls(options: Options, theirs: Rival) -> dict[str, Callable]:
    """Estimators of captum by their names in `estimators`, with as many inputs in flight as ours."""
    from experiments.benchmarks import torch_device, torch_models

    x, _, _ = inputs(1, options.side)
    count, batch = options.num_steps, rows_in_flight(x, None)

    def integrated() -> Any:
        return torch_models.captum_integrated_gradients(*theirs, num_steps=count, batch=batch)

    def smooth_grad() -> Any:
        # captum takes one deviation for all images, whose ranges are the same here.
        deviation = NOISE_SCALE * (HIGH - LOW)
        return torch_models.captum_smooth_grad(*theirs, deviation=deviation, num_roots=count, batch=batch)

    def smooth_taylor() -> Any:
        return torch_models.captum_smooth_taylor(
            *theirs, deviation=TAYLOR_NOISE, num_roots=options.taylor_roots, batch=batch
        )

    calls = {
        f"Integrated Gradients, right, {count}": integrated,
        f"SmoothGrad, {count}": smooth_grad,
        f"SmoothTaylor, {options.taylor_roots}": smooth_taylor,
    }
    return {name: torch_device.finished(call) for name, call in calls.items()}


def captum(options: Options, network: Network) -> list[Result]:
    """How far both libraries are apart, and images a second of the estimators that captum has the parts of."""
    x, target, key = inputs(options.images, options.side)
    calls = captum_calls(options, rival(network, x))
    chosen, functions = estimators(options), {}
    for name, call in calls.items():
        ours = compiled(network, chosen[name].explain)
        functions[f"{name}: jxai"] = functools.partial(ours, key, x, target)
        functions[f"{name}: captum"] = call
    # A ReLU at 0 may round either way in large images; in small ones float32 leaves none undecided.
    results = [agreement(options, network, side) for side in (64, options.side)]
    seconds = alternate(functions, options.repeats)
    results += [result(name, options.images / value, "images/s") for name, value in seconds.items()]
    for name in calls:
        ratio = seconds[f"{name}: captum"] / seconds[f"{name}: jxai"]
        results.append(result(f"{name}: captum's time over jxai's", ratio, "x", AS_FAST))
    return results


def curves(options: Options, network: Network, count: int = 1) -> dict[str, Callable]:
    """Perturbation curves, (images, regions + 1): ours of so many images, and PyTorch's of the first of them.

    Args:
        options: sizes.
        network: ResNet18.
        count: how many images ours has.

    Returns:
        Functions: "jxai"; "torch", all draws of a region in one batch; "torch, one draw at a time".
    """
    import torch  # pyright: ignore[reportMissingImports]

    from experiments.benchmarks import torch_device, torch_perturbation

    x, target, key = inputs(count, options.side)
    heatmap = jax.random.normal(key, x.shape[:3])
    sizes: dict[str, Any] = {
        "window": options.window,
        "num_regions": options.regions,
        "num_draws": options.draws,
    }
    sizes |= {"low": LOW, "high": HIGH}
    model, first, _ = rival(network, x[:1])
    ranking = torch.from_numpy(np.array(heatmap[0])).to(first.device)
    ours = compiled(
        network,
        lambda f, key, x, heatmap, target: metrics.perturbation_curve(f, key, x, heatmap, target, **sizes),
    )

    def theirs(batch: int) -> Any:
        return torch_perturbation.perturbation_curve(model, first, ranking, 0, batch=batch, **sizes)[None]

    return {
        "jxai": lambda: ours(key, x, heatmap, target),
        "torch": torch_device.finished(lambda: theirs(options.draws)),
        "torch, one draw at a time": torch_device.finished(lambda: theirs(1)),
    }


def curve(options: Options, network: Network) -> list[Result]:
    """Seconds of one image's perturbation curve, and how far both curves are apart (their draws differ)."""
    functions = curves(options, network)
    del functions["torch, one draw at a time"]
    found, reference = np.asarray(functions["jxai"]()), functions["torch"]().cpu().numpy()
    seconds = alternate(functions, options.repeats)
    name = f"perturbation curve, {options.regions} x {options.draws}"
    results = [result(f"{name}: {rival}", value, "s") for rival, value in seconds.items()]
    return [
        *results,
        result(f"{name}: torch's time over jxai's", seconds["torch"] / seconds["jxai"], "x", AS_FAST),
        result(f"{name}: difference of means", float(abs(found.mean() - reference.mean())), ""),
    ]


def memory(options: Options, network: Network) -> list[Result]:
    """Megabytes of SmoothTaylor's program: by inputs in flight, over the gradient's of as many; by roots."""
    x, target, key = inputs(1, options.side)

    def held(function: Callable, *arrays: Any) -> float:
        program = compiled(network, function)
        return peak(program.func, *program.args, *arrays)

    def taylor(roots: int, chunk: int) -> float:
        def explain(f, key, x, target):
            return attribution.smooth_taylor(f, key, x, target, num_roots=roots, chunk_size=chunk)

        return held(explain, key, x, target)

    results = []
    for chunk in options.memory_chunks:
        base = held(attribution.gradient, *inputs(chunk, options.side)[:2])
        found = taylor(options.taylor_roots, chunk)
        label = f"SmoothTaylor, {options.taylor_roots} roots, {chunk} in flight"
        results += [
            result(f"{label}: memory", found / 1e6, "MB"),
            result(f"{label}: memory of gradient", found / base, "x", "at most 1.25"),
        ]
    flat = [taylor(roots, 10) for roots in options.memory_roots]
    for roots, value in zip(options.memory_roots, flat, strict=True):
        results.append(result(f"SmoothTaylor, {roots} roots, 10 in flight: memory", value / 1e6, "MB"))
    return [
        *results,
        result("SmoothTaylor: most memory over least, by roots", max(flat) / min(flat), "x", "at most 1.01"),
    ]


def main(options: Options) -> None:
    """Measure the chosen sections, print, write."""
    # Both frameworks keep what they have taken of a GPU's memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.45")
    jax.config.update("jax_default_matmul_precision", "tensorfloat32" if options.tensor_float else "highest")
    if {"captum", "curve"} & set(options.sections):
        from experiments.benchmarks import torch_device

        torch_device.use(tensor_float=options.tensor_float)
    resnet, results = resnet18(options.side), []
    for section in options.sections:
        match section:
            case "cost":
                results += cost(options, resnet) + cost(options, efficientnet(options.side))
            case "captum":
                results += captum(options, resnet)
            case "curve":
                results += curve(options, resnet)
            case "adaptive":
                results += noise_search(options.adaptive, resnet)
            case "memory":
                results += memory(options, resnet)
    report(results, options.json, precision="TensorFloat-32" if options.tensor_float else "float32")


if __name__ == "__main__":
    import tyro  # gpu.py takes this file's parts where there is no tyro

    main(tyro.cli(Options, description=__doc__))
