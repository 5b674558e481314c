"""In the place of a function nothing else, and in that of a count no array: one error that names the argument."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from hypothesis import strategies as st
from strategies import SIZES, in_each_run

from jxai import attribution, metrics


def cases_of(package):
    """The registry of the file beside this one; other folders have files of these names."""
    spec = importlib.util.spec_from_file_location(
        f"hostile_{package}", Path(__file__).with_name(f"test_{package}.py")
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.CASES


PACKAGES = {package: cases_of(package) for package in ("attribution", "guidance", "metrics")}
FUNCTIONS = {"discretize", "explain", "f", "features", "head", "objective", "represent", "transform"}
COUNTS = {"group_size", "num_draws", "num_regions", "num_samples", "num_steps", "num_tokens", "window"}
# Of the cases that call the public function itself, those with such an argument.
NAMES = [
    (package, name)
    for package, cases in PACKAGES.items()
    for name, case in cases.items()
    if case.call is getattr(importlib.import_module(f"jxai.{package}"), name, None)
    and (FUNCTIONS | COUNTS) & set(case.arguments)
]


@pytest.mark.parametrize(("package", "name"), NAMES)
def test_arguments_of_another_kind_are_refused_by_name(package, name):
    case = PACKAGES[package][name]
    refused = []

    @in_each_run(1, data=st.data())
    def run(data):
        given = {name: data.draw(argument.good(SIZES[0])) for name, argument in case.arguments.items()}
        wrong = {argument: 3 for argument in FUNCTIONS} | {argument: jnp.asarray(2) for argument in COUNTS}
        for argument in sorted(set(wrong) & set(given)):
            with pytest.raises((TypeError, ValueError)) as error:
                case.call(**{**given, argument: wrong[argument]})
            refused.append((argument, str(error.value)))

    for argument, message in refused:
        assert message.startswith("expected") and ", got " in message, (argument, message)
        assert argument in message.split(", got ")[0] or "function" in message, (argument, message)
    assert refused


X, TARGET = jnp.ones((1, 4, 4, 1)), jnp.zeros(1, int)


def mean(x):
    return x.mean((1, 2))


@pytest.mark.parametrize(
    ("argument", "number", "call"),
    [
        ("factor", 1.5, lambda n: metrics.gaussian_pyramid(X[..., 0], factor=n, smallest=2)),
        ("sigma", 0.5, lambda n: metrics.blur_baseline(sigma=n)(X[0], None, None)),
        ("sigma", 0.5, lambda n: attribution.blurred_baseline(X, sigma=n)),
        ("max_sigma", 0.5, lambda n: attribution.blur_ig(mean, X, TARGET, max_sigma=n, num_steps=1)),
        ("fraction", 0.5, lambda n: attribution.guided_ig(mean, X, TARGET, fraction=n, num_steps=1)),
    ],
)
def test_numbers_that_shapes_hang_on_are_known(argument, number, call):
    with pytest.raises(TypeError, match=f"^expected {argument} as a known number, got a traced one"):
        jax.jit(call)(number)
    same = jax.tree.map(jnp.array_equal, call(number), call(jnp.asarray(number)))
    assert all(jax.tree.leaves(same))
