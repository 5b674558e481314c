"""One function however it is written: every recognizer over its spellings, against one formula in float64.

A reference is input times gradient of a twin, in which `lax.stop_gradient` says what relevance takes as constant.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from formulas import LRP_0, assert_close, normal
from jxai import lrp

pytestmark = pytest.mark.usefixtures("x64")

SEGMENTS, ROWS = np.array([0, 1, 1, 0]), np.arange(4)
X, W, V = normal(4, 6, seed=1), normal(6, 6, seed=2), normal(6, 3, seed=3)
held = lax.stop_gradient
total = functools.partial(jnp.sum, axis=-1, keepdims=True)
mean = functools.partial(jnp.mean, axis=-1, keepdims=True)
largest = functools.partial(jnp.max, axis=-1, keepdims=True)


def passed(f):
    """A function of each entry that hands its relevance on."""
    return lambda z: z * held(f(z) / z)


def half(x):
    """x, of which half of the gradient is handed on: a factor of a product."""
    return x / 2 + held(x / 2)


def over(a, b):
    """a / b, b held."""
    return a / held(b)


def relevance(f, x, composite=LRP_0):
    y, pullback = lrp.vjp(f, x, composite=composite)
    return y, pullback(jnp.cos(1 + jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape) * y)[0]


def by_gradient(f, x):
    y, pullback = jax.vjp(f, x)
    return y, x * pullback(jnp.cos(1 + jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))[0]


def scaled_by_exp(z):
    e = jnp.exp(z)
    return e * (1 / total(e))


def normalized(z, e, **options):
    return e / total(e, **options)


def online(z):
    """Two blocks, each with a maximum and a sum of its own, as flash attention has it."""
    parts = z[:, :3], z[:, 3:]
    maxima = [held(largest(part)) for part in parts]
    top = jnp.maximum(*maxima)
    exps = [jnp.exp(part - m) * jnp.exp(m - top) for part, m in zip(parts, maxima, strict=True)]
    return jnp.concatenate(exps, -1) / sum(map(total, exps))


FIRST = np.arange(6) < 4
SOFTMAX = {
    "jax.nn.softmax": jax.nn.softmax,
    "exp(log_softmax)": lambda z: jnp.exp(jax.nn.log_softmax(z)),
    "exp(z - logsumexp)": lambda z: jnp.exp(z - jax.nn.logsumexp(z, -1, keepdims=True)),
    "exp(z - log sum exp)": lambda z: jnp.exp(z - jnp.log(total(jnp.exp(z)))),
    "e * (1 / sum)": scaled_by_exp,
    "e * reciprocal(sum)": lambda z: jnp.exp(z) * lax.reciprocal(total(jnp.exp(z))),
    "e * sum^-1": lambda z: jnp.exp(z) * total(jnp.exp(z)) ** -1,
    "e / sum, written twice": lambda z: jnp.exp(z) / total(jnp.exp(z)),
    "e / sum, one e": lambda z: normalized(z, jnp.exp(z)),
    "where everything": lambda z: jax.nn.softmax(z, where=jnp.ones(z.shape, bool)),
    "maximum varies": lambda z: normalized(z, jnp.exp(z - largest(z))),
    "maximum held": lambda z: normalized(z, jnp.exp(z - held(largest(z)))),
    "one maximum of all": lambda z: normalized(z, jnp.exp(z - z.max())),
    "maximum by sort": lambda z: normalized(z, jnp.exp(z - jnp.sort(z, -1)[:, -1:])),
    "maximum by top_k": lambda z: normalized(z, jnp.exp(z - lax.top_k(z, 1)[0])),
    "sum by ones": lambda z: jnp.exp(z) / (jnp.exp(z) @ jnp.ones((6, 1))),
    "sum by einsum": lambda z: jnp.exp(z) / jnp.einsum("ni->n", jnp.exp(z))[:, None],
    "sum as 6 mean": lambda z: jnp.exp(z) / (6 * mean(jnp.exp(z))),
    "constant taken off": lambda z: normalized(z, jnp.exp(z - 3.0)),
    "exp2": lambda z: normalized(z, jnp.exp2(z * np.log2(np.e))),
    "exp2, largest taken off": lambda z: normalized(z, jnp.exp2((z - largest(z)) * np.log2(np.e))),
    "vmap": jax.vmap(jax.nn.softmax),
    "jit": jax.jit(jax.nn.softmax),
    "checkpoint": jax.checkpoint(jax.nn.softmax),
    "transposed": lambda z: jax.nn.softmax(z.T, axis=0).T,
    "reshaped": lambda z: jax.nn.softmax(z.reshape(2, 2, 6)).reshape(4, 6),
    "two softmax of blocks": online,
    "expm1 and 1": lambda z: normalized(z, jnp.expm1(z) + 1),
    "power of e": lambda z: normalized(z, jnp.power(np.e, z)),
}


def fast_variance(x):
    return mean(x**2) - mean(x) ** 2


def centerd(x):
    return x - mean(x)


def keras(x, variance=lambda x: x.var(-1, keepdims=True)):
    inverse = lax.rsqrt(variance(x) + 1e-5)
    return x * inverse + -mean(x) * inverse


def by_einsum(x):
    c = x - jnp.einsum("ni->n", x)[:, None] / 6
    return c * lax.rsqrt(jnp.einsum("ni,ni->n", c, c)[:, None] / 6 + 1e-5)


def with_centring_matrix(x):
    c = x @ (jnp.eye(6) - jnp.ones((6, 6)) / 6)
    return c / jnp.sqrt(mean(c * c) + 1e-5)


LAYER_NORM = {
    "Linen": lambda x: nn.LayerNorm(epsilon=1e-5, use_bias=False, use_scale=False).apply({}, x),
    "Linen, slow variance": lambda x: nn.LayerNorm(
        epsilon=1e-5, use_bias=False, use_scale=False, use_fast_variance=False
    ).apply({}, x),
    "centerd / sqrt": lambda x: centerd(x) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5),
    "centerd * rsqrt": lambda x: centerd(x) * lax.rsqrt(mean(centerd(x) ** 2) + 1e-5),
    "fast variance": lambda x: centerd(x) * lax.rsqrt(fast_variance(x) + 1e-5),
    "fast variance, not negative": lambda x: centerd(x) * lax.rsqrt(jnp.maximum(0, fast_variance(x)) + 1e-5),
    "Keras": keras,
    "Keras, fast variance": functools.partial(keras, variance=fast_variance),
    "PyTorch's formula": lambda x: centerd(x) / (mean(centerd(x) ** 2) + 1e-5) ** 0.5,
    "power": lambda x: centerd(x) * (mean(centerd(x) ** 2) + 1e-5) ** -0.5,
    "jax.nn.standardize": lambda x: jax.nn.standardize(x, epsilon=1e-5),
    "einsum": by_einsum,
    "centring by a matrix": with_centring_matrix,
    "dot": jax.vmap(lambda x: (x - x.mean()) / jnp.sqrt(jnp.dot(x - x.mean(), x - x.mean()) / 6 + 1e-5)),
    "difference of quotients": lambda x: (lambda s: x / s - mean(x) / s)(
        jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)
    ),
    "Keras, times a scale": lambda x: (lambda inverse: x * inverse - mean(x) * inverse)(
        lax.rsqrt(x.var(-1, keepdims=True) + 1e-5) * jnp.ones(6)
    ),
    "GroupNorm of one group": lambda x: nn.GroupNorm(
        num_groups=1, epsilon=1e-5, use_bias=False, use_scale=False
    ).apply({}, x),
}
RMS_NORM = {
    "Linen": lambda x: nn.RMSNorm(epsilon=1e-5, use_scale=False).apply({}, x),
    "rsqrt": lambda x: x * lax.rsqrt(mean(x**2) + 1e-5),
    "sqrt": lambda x: x / jnp.sqrt(mean(jnp.square(x)) + 1e-5),
    "power": lambda x: x * (mean(x * x) + 1e-5) ** -0.5,
    "power of a half": lambda x: x / jnp.power(mean(x * x) + 1e-5, 0.5),
    "1 / sqrt": lambda x: x * (1 / jnp.sqrt(mean(x * x) + 1e-5)),
    "einsum": lambda x: x * lax.rsqrt(jnp.einsum("ni,ni->n", x, x)[:, None] / 6 + 1e-5),
    "dot": jax.vmap(lambda x: x / jnp.sqrt(jnp.dot(x, x) / 6 + 1e-5)),
    "exp of -log / 2": lambda x: x * jnp.exp(-0.5 * jnp.log(mean(x * x) + 1e-5)),
    "absolute values": lambda x: x / jnp.sqrt(mean(jnp.abs(x) ** 2) + 1e-5),
}
UNIT = {
    "linalg.norm": lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True),
    "sqrt of sum": lambda x: x / jnp.sqrt(total(x * x)),
    "rsqrt of sum": lambda x: x * lax.rsqrt(total(x * x)),
    "with a largest of 1e-6": lambda x: x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-6),
    "by a vmap": jax.vmap(lambda x: x / jnp.linalg.norm(x)),
    "by dot": jax.vmap(lambda x: x / jnp.sqrt(x @ x)),
    "by the largest first": lambda x: (lambda y: y / jnp.linalg.norm(y, axis=-1, keepdims=True))(
        x / held(jnp.abs(x).max(-1, keepdims=True))
    ),
}
GELU = {
    "jax.nn.gelu": lambda z: jax.nn.gelu(z, approximate=False),
    "z * (1 + erf) / 2": lambda z: z * (1 + lax.erf(z / np.sqrt(2))) / 2,
    "0.5 * z * (1 + erf)": lambda z: 0.5 * z * (1 + lax.erf(z / np.sqrt(2))),
    "z * norm.cdf": lambda z: z * jax.scipy.stats.norm.cdf(z),
    "erfc": lambda z: 0.5 * z * lax.erfc(-z / np.sqrt(2)),
    "jit": jax.jit(lambda z: jax.nn.gelu(z, approximate=False)),
    "z / 2 + z * erf / 2": lambda z: z / 2 + z * lax.erf(z * np.sqrt(0.5)) / 2,
}
SILU = {
    "jax.nn.silu": jax.nn.silu,
    "jax.nn.swish": jax.nn.swish,
    "z * sigmoid": lambda z: z * jax.nn.sigmoid(z),
    "z / (1 + exp)": lambda z: z / (1 + jnp.exp(-z)),
    "tanh": lambda z: z * (0.5 * jnp.tanh(z / 2) + 0.5),
    "z exp / (exp + 1)": lambda z: z * jnp.exp(z) / (jnp.exp(z) + 1),
    "checkpoint": jax.checkpoint(jax.nn.silu),
    "exp(log_sigmoid)": lambda z: z * jnp.exp(jax.nn.log_sigmoid(z)),
}
RELU = {
    "jax.nn.relu": jax.nn.relu,
    "maximum": lambda z: jnp.maximum(z, 0),
    "where": lambda z: jnp.where(z > 0, z, 0),
    "z * (z > 0)": lambda z: z * (z > 0),
    "clip": lambda z: jnp.clip(z, 0),
    "(z + |z|) / 2": lambda z: (z + jnp.abs(z)) / 2,
    "-min(-z, 0)": lambda z: -jnp.minimum(-z, 0),
}
SHIFTED = {
    "hard_sigmoid": (jax.nn.hard_sigmoid, lambda z: jnp.clip(z + 3, 0, 6) / 6),
    "sigmoid(z + 1)": (lambda z: jax.nn.sigmoid(z + 1), lambda z: 1 / (1 + jnp.exp(-(z + 1)))),
    "softplus(z - 2)": (lambda z: jax.nn.softplus(z - 2), lambda z: jnp.log1p(jnp.exp(z - 2))),
    "tanh(1 + 2 z)": (lambda z: jnp.tanh(1 + 2 * z), lambda z: jnp.tanh(2 * (z + 0.5))),
    "hard_swish": (jax.nn.hard_swish, lambda z: z * jnp.clip(z + 3, 0, 6) / 6),
    "exp(z + 1)": (lambda z: jnp.exp(z + 1), lambda z: jnp.exp(z) * np.e),
}
L1 = {
    "sum": lambda h: (lambda e: e / total(e))(jax.nn.relu(h) + 1),
    "written twice": lambda h: (jax.nn.relu(h) + 1) / total(jax.nn.relu(h) + 1),
    "times 1 / sum": lambda h: (lambda e: e * (1 / total(e)))(jax.nn.relu(h) + 1),
    "linalg.norm": lambda h: (lambda e: e / jnp.linalg.norm(e, 1, -1, keepdims=True))(jax.nn.relu(h) + 1),
    "absolute values": lambda h: (lambda e: e / total(jnp.abs(e)))(jax.nn.relu(h) + 1),
    "with 1e-9": lambda h: (lambda e: e / (total(e) + 1e-9))(jax.nn.relu(h) + 1),
    "einsum": lambda h: (lambda e: e / jnp.einsum("ni->n", e)[:, None])(jax.nn.relu(h) + 1),
}
GRN = {
    "ConvNeXt V2": lambda h: (lambda g: h * (g / mean(g)))(jnp.linalg.norm(h, axis=0, keepdims=True)),
    "h g / mean": lambda h: (lambda g: h * g / mean(g))(jnp.linalg.norm(h, axis=0, keepdims=True)),
    "sqrt of sum": lambda h: (lambda g: h * (g / mean(g)))(jnp.sqrt((h * h).sum(0, keepdims=True))),
    "with 1e-6": lambda h: (lambda g: h * (g / (mean(g) + 1e-9)))(jnp.linalg.norm(h, axis=0, keepdims=True)),
    "times 1 / mean": lambda h: (lambda g: h * (g * (1 / mean(g))))(
        jnp.linalg.norm(h, axis=0, keepdims=True)
    ),
}


def edges(h, e=jnp.exp):
    e = e(h)
    return e / jax.ops.segment_sum(e, SEGMENTS, 2)[SEGMENTS]


def by_groups(h):
    """The reference: a softmax over the rows of each segment."""
    parts = [jax.nn.softmax(h[k == SEGMENTS], axis=0) for k in (0, 1)]
    return jnp.concatenate(parts)[np.argsort(np.argsort(SEGMENTS, kind="stable"), kind="stable")]


EDGE_SOFTMAX = {
    "exp": edges,
    "largest of each segment": lambda h: edges(
        h, lambda h: jnp.exp(h - jax.ops.segment_max(h, SEGMENTS, 2)[SEGMENTS])
    ),
    "largest of each, held": lambda h: edges(
        h, lambda h: jnp.exp(h - held(jax.ops.segment_max(h, SEGMENTS, 2)[SEGMENTS]))
    ),
    "largest of all": lambda h: edges(h, lambda h: jnp.exp(h - h.max())),
    "at[].add": lambda h: (lambda e: e / jnp.zeros((2, 6)).at[SEGMENTS].add(e)[SEGMENTS])(jnp.exp(h)),
    "by a matrix": lambda h: (lambda e, m: e / (m @ (m.T @ e)))(
        jnp.exp(h), jax.nn.one_hot(SEGMENTS, 2, dtype=h.dtype)
    ),
    "by groups": by_groups,
}
TOP_K = {
    "Mixtral": lambda h: (lambda v: v / total(v))(lax.top_k(jax.nn.softmax(h), 2)[0]),
    "softmax of top-k": lambda h: jax.nn.softmax(lax.top_k(h, 2)[0]),
    "times 1 / sum": lambda h: (lambda v: v * (1 / total(v)))(lax.top_k(jax.nn.softmax(h), 2)[0]),
    "with 1e-9": lambda h: (lambda v: v / (total(v) + 1e-12))(lax.top_k(jax.nn.softmax(h), 2)[0]),
    "by sort": lambda h: (lambda v: v / total(v))(jnp.sort(jax.nn.softmax(h), -1)[:, :-3:-1]),
}


def quantized(x, scale):
    return jnp.round(x / scale).astype(jnp.int8).astype(x.dtype)


def scale_of(x):
    return largest(jnp.abs(x)) / 127


QUANTIZED = {
    "int8": lambda x: (quantized(x, scale_of(x)) @ W) * scale_of(x),
    "scale before the layer": lambda x: (quantized(x, scale_of(x)) * scale_of(x)) @ W,
    "rounded alone": lambda x: (jnp.round(x / scale_of(x)) @ W) * scale_of(x),
    "clipped": lambda x: (jnp.clip(jnp.round(x / scale_of(x)), -127, 127) @ W) * scale_of(x),
    "times 1 / scale": lambda x: (jnp.round(x * (1 / scale_of(x))) @ W) * scale_of(x),
    "scale held": lambda x: (quantized(x, held(scale_of(x))) @ W) * held(scale_of(x)),
    "127 / largest": lambda x: (lambda k: (jnp.round(x * k) @ W) / k)(127 / largest(jnp.abs(x))),
}

LSE = {
    "jax.nn.logsumexp": lambda z: jax.nn.logsumexp(z, -1, keepdims=True),
    "log sum exp": lambda z: jnp.log(total(jnp.exp(z))),
    "maximum varies": lambda z: largest(z) + jnp.log(total(jnp.exp(z - largest(z)))),
    "maximum held": lambda z: (lambda m: m + jnp.log(total(jnp.exp(z - m))))(held(largest(z))),
    "reduced": lambda z: jnp.logaddexp.reduce(z, axis=-1, keepdims=True),
    "scipy": lambda z: jax.scipy.special.logsumexp(z, axis=-1, keepdims=True),
    "where everything": lambda z: jax.nn.logsumexp(z, -1, keepdims=True, where=jnp.ones(z.shape, bool)),
}


def behind(f, tail=V):
    return lambda x: f(x @ W) @ tail


def wrapped(forms, tail=V):
    return {name: behind(form, tail) for name, form in forms.items()}


def inverse_deviation(x):
    return lax.rsqrt(x.var(-1, keepdims=True) + 1e-5)


def inverse_root(x):
    return lax.rsqrt(mean(x * x) + 1e-5)


# name -> (twin as a function of x, spellings of the function)
FAMILIES = {
    "softmax": (behind(jax.nn.softmax), wrapped(SOFTMAX)),
    "softmax with epsilon": (
        behind(jax.nn.softmax),
        wrapped(
            {
                "e / (sum + 1e-12)": lambda z: (lambda e: e / (total(e) + 1e-12))(jnp.exp(z)),
                "e / max(sum, 1e-12)": lambda z: (lambda e: e / jnp.maximum(total(e), 1e-12))(jnp.exp(z)),
                "(e + 0) / sum": lambda z: (lambda e: (e + 0.0) / total(e))(jnp.exp(z)),
                "where not zero": lambda z: (lambda e: e / jnp.where(total(e) == 0, 1, total(e)))(jnp.exp(z)),
                "e * (1 / (sum + 1e-12))": lambda z: (lambda e: e * (1 / (total(e) + 1e-12)))(jnp.exp(z)),
            }
        ),
    ),
    "softmax of some": (
        behind(lambda z: jnp.pad(jax.nn.softmax(z[:, :4]), ((0, 0), (0, 2)))),
        wrapped(
            {
                "where=": lambda z: jax.nn.softmax(z, where=FIRST),
                "-1e30": lambda z: jax.nn.softmax(jnp.where(FIRST, z, -1e30)),
                "-inf": lambda z: jax.nn.softmax(jnp.where(FIRST, z, -jnp.inf)),
                "bias": lambda z: jax.nn.softmax(z + jnp.where(FIRST, 0, -1e30)),
                "masked e": lambda z: (lambda e: e / total(e))(jnp.exp(z) * FIRST),
                "e where": lambda z: (lambda e: e / total(e))(jnp.where(FIRST, jnp.exp(z), 0)),
                "slice and pad": lambda z: jnp.pad(jax.nn.softmax(z[:, :4]), ((0, 0), (0, 2))),
            }
        ),
    ),
    "flash": (
        behind(jax.nn.softmax),
        {
            "(e @ v) / sum": lambda x: (lambda e: (e @ V) / total(e))(jnp.exp(x @ W)),
            "(e @ v) * (1 / sum)": lambda x: (lambda e: (e @ V) * (1 / total(e)))(jnp.exp(x @ W)),
            "largest taken off": lambda x: (lambda e: (e @ V) / total(e))(jnp.exp(x @ W - largest(x @ W))),
            "einsum": lambda x: (lambda e: jnp.einsum("ni,ij->nj", e, V) / total(e))(jnp.exp(x @ W)),
            "v with a column of ones": lambda x: (lambda o: o[:, :3] / o[:, 3:])(
                jnp.exp(x @ W) @ jnp.concatenate([V, np.ones((6, 1))], 1)
            ),
            "e / sum before": lambda x: (lambda e: (e / total(e)) @ V)(jnp.exp(x @ W)),
        },
    ),
    "logsumexp": (
        behind(
            lambda z: total(held(jax.nn.softmax(z) * jax.nn.logsumexp(z, -1, keepdims=True) / z) * z), V[:1]
        ),
        wrapped(LSE, V[:1]),
    ),
    "LayerNorm": (behind(lambda x: centerd(x) * held(inverse_deviation(x))), wrapped(LAYER_NORM)),
    "RMSNorm": (behind(lambda x: x * held(inverse_root(x))), wrapped(RMS_NORM)),
    "unit length": (behind(lambda x: over(x, jnp.sqrt(total(x * x)))), wrapped(UNIT)),
    "GELU": (behind(passed(GELU["jax.nn.gelu"])), wrapped(GELU)),
    "SiLU": (behind(passed(jax.nn.silu)), wrapped(SILU)),
    "ReLU": (behind(jax.nn.relu), wrapped(RELU)),
    **{
        name: (
            behind(passed(forms[0])),
            wrapped(
                {
                    "once": forms[0],
                    "otherwise": forms[1],
                    "used twice": lambda z, f=forms[0]: f(z) + 0 * jnp.tanh(z),
                    "jit": jax.jit(forms[0]),
                    "vmap": jax.vmap(forms[0]),
                }
            ),
        )
        for name, forms in SHIFTED.items()
    },
    "L1": (
        behind(lambda h: over(passed(lambda h: jax.nn.relu(h) + 1)(h), total(jax.nn.relu(h) + 1))),
        wrapped(L1),
    ),
    "GRN": (
        behind(
            lambda h: (lambda g: h * held(g / mean(g)))(jnp.linalg.norm(h, axis=0, keepdims=True)),
        ),
        wrapped(GRN),
    ),
    "edge softmax": (behind(by_groups), wrapped(EDGE_SOFTMAX)),
    "top-k": (behind(lambda h: jax.nn.softmax(lax.top_k(h, 2)[0]), V[:2]), wrapped(TOP_K, V[:2])),
    "softmax of an activation": (
        behind(lambda z: jax.nn.softmax(passed(lambda z: 5 * jnp.tanh(z / 5))(z))),
        wrapped({name: lambda z, f=f: f(5 * jnp.tanh(z / 5)) for name, f in SOFTMAX.items()}),
    ),
    "quantization": (
        lambda x: passed(lambda x: jnp.round(x / scale_of(x)) * scale_of(x))(x) @ W,
        QUANTIZED,
    ),
}
# What may be refused, by name; never explained as anything else.
MAY_BE_REFUSED = {
    ("softmax", "two softmax of blocks"),
    ("softmax", "expm1 and 1"),
    ("softmax of some", "masked e"),
    ("softmax of an activation", "two softmax of blocks"),
    ("softmax of an activation", "expm1 and 1"),
    ("flash", "v with a column of ones"),
    ("edge softmax", "by a matrix"),
}


def cases():
    for family, (_, forms) in FAMILIES.items():
        apart = {name for name in forms if (family, name) in MAY_BE_REFUSED}
        names = tuple(name for name in forms if name not in apart)
        # Five or less in the quick tests, spread over the list; the others in the slow ones.
        some = names[:: -(-len(names) // 5)]
        yield pytest.param(family, some, id=family)
        if rest := tuple(name for name in names if name not in some):
            yield pytest.param(family, rest, id=f"{family}, the others", marks=pytest.mark.slow)


@pytest.mark.parametrize(("family", "names"), list(cases()))
def test_spellings(family, names):
    twin, forms = FAMILIES[family]
    expected = jax.jit(lambda x: by_gradient(twin, x))(X)
    ours = jax.jit(lambda x: {name: relevance(forms[name], x) for name in names})(X)
    for name, found in ours.items():
        assert_close(found, expected, rtol=1e-8, name=name)


@pytest.mark.parametrize(("family", "name"), sorted(MAY_BE_REFUSED))
def test_what_is_not_recognized_is_refused_by_name(family, name):
    twin, forms = FAMILIES[family]
    try:
        ours = relevance(forms[name], X)
    except ValueError as error:
        assert "expected a rule for every operation, got none for other (div)" in str(error)
    else:
        assert_close(ours, by_gradient(twin, X), rtol=1e-8)


HELD = tuple(name for name in list(SOFTMAX)[::3] if ("softmax", name) not in MAY_BE_REFUSED)


def test_cp_lrp_holds_every_softmax_that_weighs():
    composite = lrp.CPLRP()
    forms = FAMILIES["softmax"][1] | FAMILIES["softmax with epsilon"][1]
    names = [*HELD, *FAMILIES["softmax with epsilon"][1]]

    def weighed(n):
        # What the weights multiply stands in the other rows of x.
        def f(x):
            weights = forms[n](x[:4])
            return weights * x[4:].reshape(-1)[: weights.size].reshape(weights.shape)

        return f

    x = np.concatenate([X, normal(*X.shape, seed=4)])
    for name, (_, ours) in jax.jit(lambda x: {n: relevance(weighed(n), x, composite) for n in names})(
        x
    ).items():
        assert not np.asarray(ours)[:4].any(), name
        assert np.asarray(ours)[4:].any(), name
