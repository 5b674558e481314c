"""`metrics.evaluate` of five methods by ten metrics on twenty images, against the same with Quantus, on one device.

    pip install quantus torch captum "numpy<2.4"           # Quantus 0.6 needs this, and Python below 3.12
    python -m experiments.benchmarks.quantus --json results.json

ResNet18 at 224 with drawn weights, in JAX and, with the same weights, in PyTorch. Each side explains the images by
its own means (Quantus' side by captum) and scores each method by each metric; options are about the same:

deletion of pixels, regions and groups   to a constant, the same number of steps, scores in logits; what asks for
                                         the same inputs shares them in JAX (`jxai.metrics.shared`)
faithfulness correlation                 the same number of sets of the same size
sensitivity, Lipschitz                   the same number of moved copies, of explanations by the same methods

The seconds are those of the whole: explanations, compilation in JAX, every metric. A second call of `evaluate` in the
same process, which compiles nothing, is reported beside it, and one more of each computation alone, less that of the
explanations and sparseness, which costs nothing: metric by metric. Without Quantus its side is left out.
"""

import dataclasses
import functools
import importlib
import importlib.util
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.benchmarks.measure import images, report, result
from experiments.benchmarks.networks import resnet18
from jxai import attribution, metrics
from jxai.metrics.case import Case, parts
from jxai.metrics.judging import grouped
from jxai.metrics.shared import regional, removal, robustness

KEY = 3


@dataclasses.dataclass(frozen=True)
class Options:
    """Sizes; the defaults are those of the goal."""

    images: int = 20
    side: int = 224
    methods: tuple[str, ...] = (
        "gradient",
        "input_x_gradient",
        "integrated_gradients",
        "smooth_grad",
        "occlusion",
    )
    metrics: tuple[str, ...] = (
        "pixel_flipping",
        "region_perturbation",
        "selectivity",
        "monotonicity",
        "faithfulness_correlation",
        "faithfulness_estimate",
        "maximum_sensitivity",
        "local_lipschitz_estimate",
        "sparseness",
        "complexity",
    )
    num_steps: int = 16
    """Steps of integrated gradients, copies of SmoothGrad, groups of pixels (Quantus wants them of one size)."""
    num_samples: int = 2
    """Moved copies of sensitivity and Lipschitz."""
    num_sets: int = 20
    """Of faithfulness correlation."""
    patch: int = 32
    """Side of squares, of occlusion and of regions, in pixels."""
    batch_size: int = 8
    json: Path | None = None
    """Where the results go as JSON."""


def our_methods(options: Options) -> dict[str, Callable[..., Any]]:
    """Methods of `evaluate`, by name."""
    steps, patch = options.num_steps, options.patch
    return {
        "gradient": attribution.gradient,
        "input_x_gradient": attribution.input_x_gradient,
        "integrated_gradients": functools.partial(attribution.integrated_gradients, num_steps=steps),
        "smooth_grad": lambda f, key, x, target: attribution.smooth_grad(
            f, key, x, target, num_roots=steps, noise_scale=0.1
        ),
        "occlusion": functools.partial(attribution.occlusion, window=patch, stride=patch),
    }


def our_metrics(options: Options) -> dict[str, Callable[..., Any]]:
    """Metrics of `evaluate`, by name."""
    pixels = options.side**2
    group = -(-pixels // options.num_steps)

    def path(c: Case) -> Any:
        return removal(c.f, c.x, c.heatmap, c.target, num_steps=options.num_steps)

    def squares(c: Case) -> Any:
        return regional(c.f, c.x, c.heatmap, c.target, patch_size=options.patch)

    def box(c: Case) -> Any:
        moves: Any = {"radius": 0.02, "num_samples": options.num_samples}
        return robustness(c.f, c.explain, c.key, c.x, c.target, explained=c.attributions, **moves)

    return {
        **parts(path, "pixel_flipping", "monotonicity"),
        **parts(squares, "region_perturbation", "selectivity"),
        "faithfulness_correlation": lambda c: metrics.faithfulness_correlation(
            c.f, c.key, c.x, c.heatmap, c.target, num_samples=options.num_sets, subset_size=pixels // 10
        ),
        "faithfulness_estimate": lambda c: metrics.faithfulness_estimate(
            c.f, c.x, c.heatmap, c.target, group_size=group
        ),
        **parts(box, "maximum_sensitivity", "local_lipschitz_estimate"),
        "sparseness": lambda c: metrics.sparseness(c.heatmap),
        "complexity": lambda c: metrics.complexity(c.heatmap),
    }


def their_explain(options: Options) -> Callable[..., np.ndarray]:
    """A function that Quantus calls: of (model, inputs, targets, method=...) to heat maps (N, 1, H, W)."""
    import torch  # pyright: ignore[reportMissingImports]

    attr: Any = importlib.import_module("captum.attr")
    steps, patch = options.num_steps, options.patch

    def explain(model: Any, inputs: Any, targets: Any, method: str = "", **_: Any) -> np.ndarray:
        x = torch.as_tensor(np.asarray(inputs), dtype=torch.float32).requires_grad_()
        target = torch.as_tensor(np.asarray(targets), dtype=torch.int64)
        match method:
            case "gradient":
                found = attr.Saliency(model).attribute(x, target=target, abs=False)
            case "input_x_gradient":
                found = attr.InputXGradient(model).attribute(x, target=target)
            case "integrated_gradients":
                found = attr.IntegratedGradients(model).attribute(x, target=target, n_steps=steps)
            case "smooth_grad":
                noisy = attr.NoiseTunnel(attr.Saliency(model))
                spread = 0.1 * float(x.detach().max() - x.detach().min())
                found = noisy.attribute(x, target=target, nt_samples=steps, stdevs=spread, abs=False)
            case _:
                window = (3, patch, patch)
                found = attr.Occlusion(model).attribute(
                    x, target=target, sliding_window_shapes=window, strides=window
                )
        return found.detach().sum(dim=1, keepdim=True).numpy()

    return explain


def their_metrics(options: Options) -> dict[str, Any]:
    """Metrics of Quantus, by our names."""
    quantus: Any = importlib.import_module("quantus")

    common = {"disable_warnings": True, "display_progressbar": False, "normalise": False, "abs": False}
    pixels = options.side**2
    group = -(-pixels // options.num_steps)
    constant = {"perturb_baseline": 0.0}
    regions = (-(-options.side // options.patch)) ** 2
    made = {
        "pixel_flipping": lambda: quantus.PixelFlipping(
            features_in_step=group, return_auc_per_sample=True, **constant, **common
        ),
        "region_perturbation": lambda: quantus.RegionPerturbation(
            patch_size=options.patch, regions_evaluation=min(100, regions), **constant, **common
        ),
        "selectivity": lambda: quantus.Selectivity(patch_size=options.patch, **constant, **common),
        "monotonicity": lambda: quantus.Monotonicity(features_in_step=group, **constant, **common),
        "faithfulness_correlation": lambda: quantus.FaithfulnessCorrelation(
            nr_runs=options.num_sets, subset_size=pixels // 10, return_aggregate=False, **constant, **common
        ),
        "faithfulness_estimate": lambda: quantus.FaithfulnessEstimate(
            features_in_step=group, **constant, **common
        ),
        "maximum_sensitivity": lambda: quantus.MaxSensitivity(
            nr_samples=options.num_samples, lower_bound=0.02, **common
        ),
        "local_lipschitz_estimate": lambda: quantus.LocalLipschitzEstimate(
            nr_samples=options.num_samples, **common
        ),
        "sparseness": lambda: quantus.Sparseness(**{**common, "abs": True}),
        "complexity": lambda: quantus.Complexity(**{**common, "abs": True}),
    }
    return {name: made[name]() for name in options.metrics}


def ours(options: Options, network: Any, x: np.ndarray, target: np.ndarray) -> float:
    """Seconds of `evaluate`."""
    methods, columns = our_methods(options), our_metrics(options)
    start = time.perf_counter()
    metrics.evaluate(
        network.scores(network.variables),
        jax.random.key(KEY),
        x,
        target,
        methods={name: methods[name] for name in options.methods},
        metrics={name: columns[name] for name in options.metrics},
        control=False,
        batch_size=options.batch_size,
        progress=False,
    )
    return time.perf_counter() - start


def by_computation(
    options: Options, network: Any, x: np.ndarray, target: np.ndarray
) -> dict[tuple[str, ...], float]:
    """Seconds of what gives some of the metrics, over all methods, by their names; of explaining, by none."""
    columns = our_metrics(options)
    cheap = ("sparseness", "complexity")
    found: dict[tuple[str, ...], float] = {
        (): ours(dataclasses.replace(options, metrics=cheap[:1]), network, x, target)
    }
    for group in grouped({name: columns[name] for name in options.metrics if name not in cheap}):
        names = tuple(group.parts)
        whole = ours(dataclasses.replace(options, metrics=names), network, x, target)
        found[names] = whole - found[()]
    return found


def theirs(options: Options, network: Any, x: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """Seconds of explaining, and of each metric over all methods, of Quantus and captum."""
    from experiments.benchmarks import torch_models

    model: Any = torch_models.resnet18(network.variables)
    explain, columns = their_explain(options), their_metrics(options)
    channels_first = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    spent = dict.fromkeys(("explanations", *columns), 0.0)

    def in_batches(method: str) -> np.ndarray:
        size = options.batch_size
        starts = range(0, len(x), size)
        return np.concatenate(
            [
                explain(model, channels_first[i : i + size], target[i : i + size], method=method)
                for i in starts
            ]
        )

    for method in options.methods:
        start = time.perf_counter()
        heatmaps = in_batches(method)
        spent["explanations"] += time.perf_counter() - start
        for name, metric in columns.items():
            start = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                metric(
                    model=model,
                    x_batch=channels_first,
                    y_batch=target,
                    a_batch=heatmaps,
                    explain_func=explain,
                    explain_func_kwargs={"method": method},
                    softmax=False,
                    channel_first=True,
                    device="cpu",
                    batch_size=options.batch_size,
                )
            spent[name] += time.perf_counter() - start
            print(f"  Quantus: {method} by {name}: {time.perf_counter() - start:.1f} s", flush=True)
    return spent


def main(options: Options) -> None:
    """Measure and report."""
    network = resnet18(options.side)
    x = images(options.images, options.side)
    scores = jax.jit(network.scores(network.variables))
    target = np.concatenate([np.asarray(jnp.argmax(scores(one[None]), axis=1)) for one in x])
    first, again = (ours(options, network, x, target) for _ in range(2))
    results = [
        result("evaluate, with compilation", first, "s"),
        result("evaluate, a second time", again, "s"),
    ]
    each = by_computation(options, network, x, target)
    results += [result(f"evaluate, {', '.join(of) or 'explanations'}", one, "s") for of, one in each.items()]
    if importlib.util.find_spec("quantus") is None:
        print("Quantus is not installed: its side is left out")
    else:
        spent = theirs(options, network, x, target)
        total = sum(spent.values())
        results += [result(f"Quantus, {name}", seconds, "s") for name, seconds in spent.items()]
        results += [
            result(
                f"Quantus over evaluate, {', '.join(of) or 'explanations'}",
                sum(spent[name] for name in of or ("explanations",)) / one,
                "times",
            )
            for of, one in each.items()
        ]
        results += [
            result("Quantus in all", total, "s"),
            result("Quantus over evaluate with compilation", total / first, "times", "at least 10"),
            result("Quantus over evaluate", total / again, "times"),
        ]
    report(results, options.json)


if __name__ == "__main__":
    main(tyro.cli(Options))
