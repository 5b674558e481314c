"""What can be asked of AttnLRP and CP-LRP on transformers: biases, ε, γ, starts; and where relevance goes in them."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from formulas import assert_close
from jxai import lrp

sys.path.append(str(Path(__file__).resolve().parents[1] / "models"))
from lxt_archives import load

pytestmark = pytest.mark.usefixtures("x64")


@pytest.fixture(scope="module")
def gpt2(golden):
    with jax.enable_x64(True):
        return load(golden / "lxt_gpt2.npz", scan=True)


@pytest.mark.parametrize(
    "composite",
    [
        pytest.param(lrp.AttnLRP(), id="AttnLRP", marks=pytest.mark.slow),
        pytest.param(lrp.CPLRP(epsilon=0.01, bias=False), id="CPLRP, no biases"),
    ],
)
def test_what_biases_and_stabilizers_absorb_is_metered_in_loops_too(gpt2, composite):
    @jax.jit
    def follow(variables, x):
        f = lambda x: gpt2.scores(variables, x)  # noqa: E731
        return lrp.conservation(f, x, composite=composite)

    found = follow(gpt2.variables, gpt2.x)
    causes = {
        name: np.asarray(getattr(found, name)).sum() for name in ("bias", "stabilizer", "zeros", "rule")
    }
    assert_close(found.start.sum() - found.end.sum(), sum(causes.values()), 1e-6)
    inside = [
        i
        for i, path in enumerate(found.paths)
        if path.startswith("layers/") and found.operations[i] == "dense"
    ]
    assert len(inside) == (4 if isinstance(composite, lrp.CPLRP) else 6)  # queries and keys only compute
    of_biases = np.asarray(found.bias)[inside]
    assert of_biases.all() if composite.bias else not of_biases.any()
    # Shifts of norms and positions absorb their share either way; what softmaxes take is CP-LRP's alone to avoid.
    assert causes["bias"] != 0 and causes["stabilizer"] != 0
    assert (abs(causes["rule"]) < 1e-10) == isinstance(composite, lrp.CPLRP)


def test_without_biases_dense_layers_hand_on_all():
    w, b, x = np.eye(3) + 0.1, np.ones(3), np.array([[1.0, 2.0, 3.0]])
    for preset in (lrp.AttnLRP, lrp.CPLRP):
        for gamma in (0.0, 0.25):
            y, pullback = lrp.vjp(lambda x: x @ w + b, x, composite=preset(gamma, epsilon=0.0, bias=False))
            assert_close(pullback(y)[0].sum(), y.sum())
            y, pullback = lrp.vjp(lambda x: x @ w + b, x, composite=preset(gamma, epsilon=0.0))
            assert pullback(y)[0].sum() < y.sum() - 1


def test_convolutions_may_have_a_gamma_of_their_own():
    rules = dict(lrp.CPLRP(gamma=0.05, convolution_gamma=0.25).rules)
    assert rules[lrp.Kind.CONVOLUTION] == lrp.Gamma(0.25)
    assert rules[lrp.Kind.DENSE] == lrp.Gamma(0.05)
    rules = dict(lrp.AttnLRP(0.1, convolution_gamma=0.0).rules)
    assert rules[lrp.Kind.CONVOLUTION] == lrp.Epsilon() and rules[lrp.Kind.DENSE] == lrp.Gamma(0.1)


def test_contrasts_and_starts_at_any_token_are_starts_of_the_pullback(gpt2):
    """One pullback explains a token against another, any token of the sequence, and a sum of log-probabilities."""

    @jax.jit
    def explain(variables, x):
        def scores(x):
            hidden = gpt2.module.apply(variables, x, method="encode")
            return gpt2.module.apply(variables, hidden, method="unembed")

        y, pullback = lrp.vjp(scores, x, composite=lrp.AttnLRP(epsilon=0.0))
        zeros = jnp.zeros_like(y)
        first, second = zeros.at[0, -1, 3].set(y[0, -1, 3]), zeros.at[0, -1, 5].set(y[0, -1, 5])
        early = zeros.at[0, 2, 3].set(y[0, 2, 3])
        starts = jnp.stack([first, second, first - second, early, early + first])
        return jax.vmap(lambda start: pullback(start)[0])(starts)

    first, second, contrast, early, both = explain(gpt2.variables, gpt2.x)
    assert_close(contrast, first - second)
    assert_close(both, early + first)
    # A token does not see those behind it.
    assert not np.any(np.asarray(early)[0, 3:]) and np.all(np.asarray(early)[0, :3])
