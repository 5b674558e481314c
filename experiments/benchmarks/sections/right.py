"""Right on the device: golden values, rules on explicit matrices, chunks and vmap, in both precisions.

The golden values are the tests' own, run by pytest in a process of its own (`golden_errors.py`).
"""

import functools
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.measure import draw, images
from experiments.benchmarks.sections import Parts, Row, row
from experiments.benchmarks.sections.frameworks import PRECISIONS, Precision, largest_error, use
from jxai import attribution, lrp, models
from jxai.lrp import Kind

_ROOT = Path(__file__).resolve().parents[3]
_TESTS = ("attribution", "metrics", "lrp", "fewshot")
_GOAL = "at most 1e-4"  # in float32; what is lost by default is measured, and no goal


def parts(dry: bool) -> Parts:
    """What takes seconds first; the golden values in float32 before those by the device's default."""
    precisions = PRECISIONS[:1] if dry else PRECISIONS
    side, count = (32, 2) if dry else (84, 8)
    found: Parts = {}
    kinds: dict[str, Callable[[Precision], Iterable[Row]]] = {
        "explicit matrices": explicit_matrices,
        "invariances": functools.partial(invariances, side=side, count=count),
    }
    pattern = "test_golden_smooth_taylor" if dry else None
    for folder in ("attribution",) if dry else _TESTS:
        kinds[f"golden values, {folder}"] = functools.partial(golden, folder=folder, pattern=pattern)
    for one in precisions:
        found |= {f"{name}, {one}": functools.partial(measure, one) for name, measure in kinds.items()}
    return found | {"by precision": functools.partial(by_precision, dry=dry)}


def _goal(precision: Precision) -> str | None:
    return _GOAL if precision == "float32" else None


# Rules against their papers' formulas on the explicit matrix, in float64 on the host.


def _shared(parts: np.ndarray, z: np.ndarray, relevance: np.ndarray, epsilon: float) -> np.ndarray:
    """Relevance in proportion to parts [image, output, input], whose sums with the bias are z."""
    return np.einsum("noi,no->ni", parts, relevance / (z + np.where(z < 0, -epsilon, epsilon)))


def _rules() -> dict[str, tuple[lrp.Rule, Callable]]:
    """Rules, and functions (parts, z, bias, relevance, matrix) of their formulas."""

    def of_sign(parts, bias, relevance, keep):
        kept = keep(parts, 0)
        return _shared(kept, kept.sum(-1) + keep(bias, 0), relevance, 1e-6)

    def epsilon(parts, z, bias, relevance, matrix):
        return _shared(parts, z, relevance, 0.25)

    def z_plus(parts, z, bias, relevance, matrix):
        return of_sign(parts, bias, relevance, np.maximum)

    def alpha_beta(parts, z, bias, relevance, matrix):
        signs = (of_sign(parts, bias, relevance, keep) for keep in (np.maximum, np.minimum))
        return 2 * next(signs) - next(signs)

    def gamma(parts, z, bias, relevance, matrix):
        def raised(keep):
            more, shift = parts + 0.25 * keep(parts, 0), bias + 0.25 * keep(bias, 0)
            return _shared(more, more.sum(-1) + shift, relevance * (keep(z, 0) != 0), 1e-6)

        return raised(np.maximum) + raised(np.minimum)

    def w_square(parts, z, bias, relevance, matrix):
        squares = np.broadcast_to(matrix**2, parts.shape)
        return _shared(squares, squares.sum(-1) + bias**2, relevance, 1e-6)

    return {
        "epsilon": (lrp.Epsilon(0.25), epsilon),
        "z-plus": (lrp.ZPlus(), z_plus),
        "alpha 2 beta 1": (lrp.AlphaBeta(2.0, 1.0), alpha_beta),
        "gamma": (lrp.Gamma(0.25), gamma),
        "w-square": (lrp.WSquare(), w_square),
    }


def _layers() -> dict[str, tuple[Callable, tuple[int, ...], tuple[int, ...]]]:
    """Functions of input and kernel, and the shapes of both."""

    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    return {"dense": (jnp.matmul, (96,), (96, 64)), "convolution": (convolve, (8, 8, 8), (3, 3, 8, 16))}


def explicit_matrices(precision: Precision) -> Iterable[Row]:
    """The largest error of each rule on a dense layer and a convolution."""
    rules = _rules()
    for name, (layer, shape, kernel_shape) in _layers().items():
        random, size = np.random.default_rng(0), int(np.prod(shape))
        kernel, x = (random.normal(size=of).astype(np.float32) for of in (kernel_shape, (4, *shape)))
        bias = random.normal(size=kernel_shape[-1]).astype(np.float32)
        use("float32")  # the matrix is exact: each of its entries is one of the kernel's
        matrix = np.asarray(layer(jnp.eye(size).reshape(size, *shape), kernel), np.float64)
        outputs = matrix.shape[1:]
        matrix, shift = matrix.reshape(size, -1).T, np.broadcast_to(bias, outputs).ravel().astype(np.float64)
        parts = matrix * x.reshape(len(x), 1, size).astype(np.float64)
        z = parts.sum(-1) + shift
        # Away from zeros of z, where a quotient says nothing.
        relevance = np.where(np.abs(z) < 0.5, 0, random.normal(size=z.shape)).astype(np.float32)
        use(precision)

        @jax.jit
        def explain(x, relevance, layer=layer, kernel=kernel, bias=bias):
            found = {}
            for of, (rule, _) in rules.items():
                composite = lrp.Composite(((Kind.CONVOLUTION, rule), (Kind.DENSE, rule)))
                found[of] = lrp.vjp(lambda x: layer(x, kernel) + bias, x, composite=composite)[1](relevance)[
                    0
                ]
            return found

        found = explain(x, relevance.reshape(len(x), *outputs))
        for of, (_, formula) in rules.items():
            expected = formula(parts, z, shift, relevance.astype(np.float64), matrix).reshape(x.shape)
            error = largest_error(found[of], expected)
            yield row(f"{of} on the matrix of a {name}", error, goal=_goal(precision), precision=precision)


# The same numbers, however they are divided.


def invariances(precision: Precision, *, side: int, count: int) -> Iterable[Row]:
    """Estimators by chunks of one size and another, and batches as vmap of single images, on four convolutions."""
    use(precision)
    model = models.Classifier(models.encoder("conv4", image_size=side), num_classes=100)
    variables, key = draw(model, side), jax.random.key(0)
    x, target = jnp.asarray(images(2, side)), jnp.arange(2)

    def f(variables, x):
        return model.apply(variables, x, train=False)

    estimators: dict[str, Callable[..., jax.Array]] = {
        "Integrated Gradients of LRP": lambda f, chunk: attribution.integrated_gradients(
            f, x, target, num_steps=count, explain=_relevance, chunk_size=chunk
        ),
        "SmoothTaylor": lambda f, chunk: attribution.smooth_taylor(
            f, key, x, target, num_roots=count, chunk_size=chunk
        ),
    }
    for name, estimator in estimators.items():
        whole, divided = (
            jax.jit(lambda v, estimator=estimator, chunk=chunk: estimator(functools.partial(f, v), chunk))(
                variables
            )
            for chunk in (2 * count, 1 + count // 3)
        )
        label = f"{name} in chunks of {1 + count // 3}, from {2 * count} at once"
        # A gradient jumps where a ReLU rounds to the other side.
        yield row(label, largest_error(divided, whole), goal=_goal(precision), precision=precision)

    @jax.jit
    def both(variables, x):
        explain = functools.partial(_relevance, functools.partial(f, variables))
        single = jax.vmap(lambda x, target: explain(x[None], target[None])[0])
        return explain(x, target), single(x, target)

    together, apart = both(variables, x)
    label = "EpsilonPlus, vmap of single images, from a batch"
    yield row(label, largest_error(apart, together), goal=_goal(precision), precision=precision)


def _relevance(f: Callable, x: jax.Array, target: jax.Array) -> jax.Array:
    return lrp.relevance(f, x, target, composite=lrp.EpsilonPlus())


# Golden values.


def golden(precision: Precision, *, folder: str, pattern: str | None) -> Iterator[Row]:
    """The largest error of each archive by the bound that the tests in a folder hold it to."""
    if importlib.util.find_spec("pytest") is None:
        raise ModuleNotFoundError("pytest", name="pytest")
    archives = [path.stem for path in (_ROOT / "tests" / "golden").glob("*.npz")]
    worst: dict[tuple[str, float], float] = {}
    failures: dict[str, str] = {}
    for line in _tests(precision, folder, pattern):
        archive = max((name for name in archives if name in line["test"]), key=len, default=line["test"])
        if line["failure"] is not None:
            failures[line["test"].split("::")[-1]] = line["failure"]
        for error, bound in line["errors"]:
            worst[archive, bound] = max(error, worst.get((archive, bound), 0.0))
    for (archive, bound), error in sorted(worst.items()):
        goal = f"at most {bound:g}" if precision == "float32" else None
        yield row(f"golden {archive}, where tests allow {bound:g}", error, goal=goal, precision=precision)
    if failures:  # not a bound that is missed: something that a later run may not meet
        raise RuntimeError("; ".join(f"{test}: {said}" for test, said in failures.items()))


def _tests(precision: Precision, folder: str, pattern: str | None) -> list[dict[str, Any]]:
    """What `golden_errors` wrote of the golden tests."""
    files = [str(path) for path in sorted((_ROOT / "tests" / folder).glob("test_*golden.py"))]
    options = [
        "-q",
        "-p",
        "experiments.benchmarks.golden_errors",
        "-p",
        "no:cacheprovider",
        "-W",
        "ignore",
        "--override-ini",
    ]
    options += ["filterwarnings=", "-m", "golden and not slow"]
    options += ["-k", pattern] if pattern else []
    workers = min(6, (os.cpu_count() or 1) // 2) if folder == "fewshot" else 1  # the others are few
    if workers > 1 and importlib.util.find_spec("xdist") is not None:
        options += ["-n", str(workers)]  # programs are compiled side by side
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, "errors.jsonl")
        environment = os.environ | {
            "JXAI_GOLDEN_ERRORS": str(path),
            "PYTHONPATH": os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")]),
            # Empty, JAX chooses as here; without it tests/conftest.py chooses the CPU.
            "JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", ""),
            "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        }
        if precision == "float32":
            environment["JAX_DEFAULT_MATMUL_PRECISION"] = "highest"
        command = [sys.executable, "-m", "pytest", *options, *files]
        done = subprocess.run(
            command, cwd=_ROOT, env=environment, capture_output=True, text=True, check=False
        )
        if not path.exists():
            raise RuntimeError(f"expected golden tests to run, got: {(done.stdout + done.stderr)[-300:]}")
        return [json.loads(line) for line in path.read_text().splitlines()]


# What precision explanations need, measured where docs/precision.md emulates it.


def by_precision(*, dry: bool) -> Iterable[Row]:
    """Explanations and guided gradients in both precisions, against float64."""
    from experiments import precision as emulated

    encoder, side = (models.Conv4(), 32) if dry else (models.ResNet18(), 112)
    model = models.Classifier(encoder, num_classes=100)
    variables, x = draw(model, side), images(4, side) / 2
    network = type(encoder).__name__
    rows = emulated.network_rows(network, model, variables, x, num_roots=8, num_steps=10)
    rows += [] if dry else emulated.head_rows(64)
    # In the order of what they tell; each is compiled three times.
    wanted = [(network, "EpsilonPlus"), ("relation head", "gradient, guided"), (network, "gradient")]
    wanted += [("graph head", "weights"), ("relation head", "gradient, plain"), (network, "SmoothTaylor")]
    by_name = {(one.subject, one.label): one for one in rows}
    for one in [by_name[name] for name in (wanted[2:3] if dry else wanted)]:
        reference = emulated.evaluate(one, emulated.Arithmetic("float64", dtype=jnp.float64))
        for name in PRECISIONS:
            use(name)
            errors = emulated.errors(emulated.evaluate(one, emulated.ARITHMETICS["float32"]), reference)
            means = {measure: float(np.mean(values)) for measure, values in errors.items()}
            label = f"{one.subject}, {one.label}: 1 - cosine with float64's"
            yield row(label, means["1 - cosine"], precision=name, data=means)
            kept = f"{one.subject}, {one.label}: top 5 % that stay"
            yield row(kept, 100 * means["top kept"], "%", precision=name)
