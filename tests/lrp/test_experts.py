"""Mixtures of experts: routers and experts however they are written, against one formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from formulas import assert_close, normal
from jxai import lrp

pytestmark = pytest.mark.usefixtures("x64")

T, C, E, K = 5, 6, 4, 2
X, RELEVANCE = normal(T, C), normal(T, C, seed=1)
ROUTER, KERNELS = normal(C, E, seed=2), normal(E, C, C, seed=3)
softmax = jax.nn.softmax


def over_sum(v, least=0.0):
    return v / (v.sum(-1, keepdims=True) + least)


def chosen(p, least=0.0):
    weights, which = lax.top_k(p, K)
    return over_sum(weights, least), which


def sorted_out(x):
    p = softmax(x @ ROUTER)
    which = jnp.argsort(-p, axis=-1)[:, :K]
    return over_sum(jnp.take_along_axis(p, which, -1)), which


def masked(x, hold=lambda x: x):
    scores = x @ ROUTER
    least = hold(lax.top_k(scores, K)[0][:, -1:])
    return softmax(jnp.where(scores >= least, scores, -jnp.inf)), None


def zeroed(x):
    p = softmax(x @ ROUTER)
    return over_sum(jnp.where(p >= lax.top_k(p, K)[0][:, -1:], p, 0)), None


# Of x to (weights, which experts), or to the weights of all experts.
ROUTERS = {
    "softmax of top-k": lambda x: (softmax(lax.top_k(x @ ROUTER, K)[0]), lax.top_k(x @ ROUTER, K)[1]),
    "top-k of softmax": lambda x: chosen(softmax(x @ ROUTER)),
    "with an epsilon": lambda x: chosen(softmax(x @ ROUTER), 1e-20),
    "argsort": sorted_out,
    "masked by -inf": masked,
    "masked, threshold held": lambda x: masked(x, lax.stop_gradient),
    "zeros for others": zeroed,
}


def of_all(weights, which):
    if which is None:
        return weights
    return jnp.zeros((T, E), weights.dtype).at[jnp.arange(T)[:, None], which].set(weights)


def one_hot(weights, which):
    return jnp.einsum("tk,tke->te", weights, jax.nn.one_hot(which, E, dtype=weights.dtype))


def ragged(x, weights, which):
    flat = which.reshape(-1)
    order = jnp.argsort(flat)
    y = lax.ragged_dot(jnp.repeat(x, K, 0)[order], jnp.asarray(KERNELS), jnp.bincount(flat, length=E))
    y = jnp.zeros_like(y).at[order].set(y)
    return (weights[..., None] * y.reshape(T, K, -1)).sum(1)


def ragged_segments(x, weights, which):
    flat = which.reshape(-1)
    order = jnp.argsort(flat)
    y = lax.ragged_dot(x[order // K], jnp.asarray(KERNELS), jnp.bincount(flat, length=E))
    return jax.ops.segment_sum(y * weights.reshape(-1)[order][:, None], order // K, num_segments=T)


def dispatched(x, weights, which):
    inputs = jnp.einsum("te,tc->etc", jax.nn.one_hot(which, E).sum(1), x)
    return jnp.einsum("te,etd->td", of_all(weights, which), jnp.einsum("etc,ecd->etd", inputs, KERNELS))


def scanned(x, weights, which):
    def step(total, expert):
        kernel, weight = expert
        return total + weight[:, None] * (x @ kernel), None

    return lax.scan(step, jnp.zeros_like(x), (jnp.asarray(KERNELS), of_all(weights, which).T))[0]


EXPERTS = {
    "all of them": lambda x, *w: jnp.einsum("te,tec->tc", of_all(*w), jnp.einsum("tc,ecd->ted", x, KERNELS)),
    "one-hot": lambda x, *w: jnp.einsum("te,tec->tc", one_hot(*w), jnp.einsum("tc,ecd->ted", x, KERNELS)),
    "a loop": lambda x, *w: sum(of_all(*w)[:, e : e + 1] * (x @ KERNELS[e]) for e in range(E)),
    "gathered": lambda x, w, i: jnp.einsum(
        "tk,tkd->td", w, jnp.einsum("tc,tkcd->tkd", x, jnp.asarray(KERNELS)[i])
    ),
    "ragged": ragged,
    "ragged, segments": ragged_segments,
    "dispatched": dispatched,
    "scanned": scanned,
}


def by_hand(constant):
    """Relevance of x: each expert's share in proportion, half of it to its weight unless that is constant."""
    scores = X @ ROUTER
    found = np.zeros_like(X)
    for t, which in enumerate(np.argsort(-scores, -1)[:, :K]):
        u = scores[t, which]
        weights = np.exp(u - u.max()) / np.exp(u - u.max()).sum()
        outputs = np.stack([X[t] @ KERNELS[e] for e in which])
        shares = weights[:, None] * outputs * (RELEVANCE[t] / (weights @ outputs))
        of_experts = shares if constant else shares / 2
        for k, e in enumerate(which):
            found[t] += X[t] * (KERNELS[e] @ (of_experts[k] / outputs[k]))
        if not constant:
            of_weights = shares.sum(1) / 2
            of_scores = u * (of_weights - weights * of_weights.sum())
            found[t] += X[t] * (ROUTER[:, which] @ (of_scores / u))
    return found


CASES = [("top-k of softmax", experts) for experts in EXPERTS] + [
    (router, "all of them") for router in ROUTERS if router != "top-k of softmax"
]
QUICK = {("top-k of softmax", "ragged"), ("top-k of softmax", "one-hot"), ("masked by -inf", "all of them")}


@pytest.mark.parametrize(
    ("router", "experts"),
    [
        pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow, id=", ".join(case))
        for case in CASES
    ],
)
def test_mixtures_of_experts(router, experts):
    def f(x):
        return EXPERTS[experts](x, *ROUTERS[router](x))

    @jax.jit
    def both(x):
        return [
            lrp.vjp(f, x, composite=composite(epsilon=0.0))[1](jnp.asarray(RELEVANCE))[0]
            for composite in (lrp.AttnLRP, lrp.CPLRP)
        ]

    for ours, constant in zip(both(X), (False, True), strict=True):
        assert_close(ours, by_hand(constant), 1e-8)


def test_the_places_of_a_top_k_stay_integers():
    f = lambda x: jnp.asarray(KERNELS[0])[lax.top_k(x, 2)[1]] * lax.top_k(x, 2)[0][..., None]  # noqa: E731
    y, pullback = lrp.vjp(f, X, composite=lrp.AttnLRP())
    assert_close(pullback(y)[0].sum(), y.sum())


# Rotary positions by complex numbers are the rotations that they are.

PHASES = np.exp(1j * np.arange(T)[:, None] / 10 ** (np.arange(3) / 3))


def joined(z):
    return jnp.concatenate([z.real, z.imag], -1)


def by_reals(x):
    a, b, c, s = x[:, :3], x[:, 3:], PHASES.real, PHASES.imag
    return jnp.concatenate([a * c - b * s, a * s + b * c], -1)


ROTATIONS = {
    "complex": lambda x: joined(lax.complex(x[:, :3], x[:, 3:]) * PHASES),
    "1j": lambda x: joined((x[:, :3] + 1j * x[:, 3:]) * PHASES),
    "cos and sin": lambda x: joined(lax.complex(x[:, :3], x[:, 3:]) * (PHASES.real + 1j * PHASES.imag)),
    "stacked": lambda x: jnp.stack([(z := lax.complex(x[:, :3], x[:, 3:]) * PHASES).real, z.imag], 1).reshape(
        T, -1
    ),
    "polar": lambda x: joined((x[:, :3] + 1j * x[:, 3:]) * jnp.exp(1j * jnp.angle(PHASES))),
}


def attended(turn, complex_scores=False):
    def f(x):
        query, key = turn(x @ ROUTER @ ROUTER.T), turn(x @ KERNELS[0])
        if complex_scores:
            query, key = (lax.complex(z[:, :3], z[:, 3:]) for z in (query, key))
            scores = (query @ key.conj().T).real
        else:
            scores = query @ key.T
        return softmax(scores) @ x

    return f


@pytest.mark.parametrize("composite", [lrp.AttnLRP(epsilon=0.0)], ids=["AttnLRP"])
def test_complex_rotations_are_rotations(composite):
    @jax.jit
    def all_of_them(x):
        forms = {name: attended(turn) for name, turn in ROTATIONS.items()}
        forms |= {"complex scores": attended(by_reals, True), "": attended(by_reals)}
        return {n: lrp.vjp(f, x, composite=composite)[1](jnp.asarray(RELEVANCE))[0] for n, f in forms.items()}

    found = all_of_them(X)
    for name, ours in found.items():
        assert_close(ours, found[""], 1e-8, name=name)
