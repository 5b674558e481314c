"""Relevance that is lost without a cause, or altogether, is said: `check`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from formulas import normal, of_layers
from jxai import lrp

X, W = normal(2, 4).astype(np.float32), normal(4, 3, seed=1).astype(np.float32)


HELD = lrp.Composite(((lrp.Kind.SOFTMAX, lrp.Constant()),)) | lrp.AttnLRP()
of_nothing = pytest.mark.filterwarnings("ignore:expected relevance to reach the inputs, got none")


def softmax(x):
    return jax.nn.softmax(x @ W)


def test_outputs_that_are_all_held_are_said():
    for explained in (
        lambda: lrp.vjp(softmax, X, composite=HELD),
        lambda: lrp.coverage(softmax, X, composite=HELD),
        lambda: jax.jit(lambda x: lrp.vjp(lambda x: softmax(x) @ W.T, x, composite=HELD)[0])(X),
    ):
        with pytest.warns(UserWarning, match="got none: .* holds constant .*softmax .*such as logits"):
            explained()


def test_outputs_of_which_some_pass_are_not():
    lrp.vjp(lambda x: (softmax(x), x @ W), X, composite=HELD)
    lrp.vjp(lambda x: jax.lax.stop_gradient(x @ W), X, composite=HELD)


@of_nothing
def test_nothing_to_lose_is_no_loss():
    y, pullback = lrp.vjp(softmax, X, composite=HELD, check=True)
    assert not np.any(pullback(jnp.zeros_like(y))[0])


@of_nothing
def test_what_is_held_stands_in_coverage():
    (row,) = lrp.coverage(softmax, X, composite=HELD).rows
    assert row.operation.kind is lrp.Kind.SOFTMAX
    assert row.rule == lrp.Constant()


@of_nothing
def test_what_is_lost_without_a_cause_is_refused_and_nan_under_jit():
    y, pullback = lrp.vjp(softmax, X, composite=HELD, check=True)
    with pytest.raises(ValueError, match=r" 2 lost without a cause; the composite holds softmax .* constant"):
        pullback(y)
    assert np.isnan(jax.jit(lambda y: pullback(y)[0])(y)).all()


@of_nothing
def test_what_absorbs_everything_is_named():
    constant = of_layers(lrp.Epsilon(1e-2), (lrp.Kind.ACTIVATION, lrp.Constant()))

    def f(x):
        with jax.named_scope("bend"):
            return jnp.tanh(x @ W)

    y, pullback = lrp.vjp(lambda x: f(x) @ W.T, X, composite=constant, check=True)
    with pytest.raises(ValueError, match="the composite holds bend activation tanh constant"):
        pullback(y)


def test_check_is_of_relevance_that_nothing_takes_away():
    f = lambda x: lrp.mark(x, "here") * 2.0  # noqa: E731
    with pytest.raises(ValueError, match="leave check out"):
        lrp.vjp(f, X, composite=lrp.EpsilonPlus(), masks={"here": 0.0}, check=True)
    with pytest.raises(ValueError, match="leave check out"):
        lrp.vjp(f, X, composite=lrp.GuidedBackprop(), check=True)
