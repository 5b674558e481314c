"""One network, trained plainly and by every loss on explanations, and what it then looks at.

The weight of each loss was chosen on seeds (100 and 101) and on pictures that no table has.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.shortcut.pictures import NUM_CLASSES
from jxai import attribution, guidance, lrp

RULES = lrp.EpsilonGammaBox(low=0.0, high=1.0)
_RATE, _BATCH = 1e-3, 30


class Features(nn.Module):
    """Convolutions of blocks of pixels: of pictures (N, 28, 28, 3) maps (N, 7, 7, 32), of (N, 64, 64, 3) 8 by 8.

    Blocks in the place of strides: XLA's CPU backend is slow at a strided convolution's derivatives.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The map."""
        for width, side in ((16, 2 if x.shape[1] < 32 else 4), (32, 2), (32, 1)):
            x = nn.relu(nn.Conv(width, (3, 3))(_blocks(x, side)))
        return x


def _blocks(x: jax.Array, side: int) -> jax.Array:
    """(N, H, W, C) as (N, H / side, W / side, side² C)."""
    num, height, width, channels = x.shape
    x = x.reshape(num, height // side, side, width // side, side, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(num, height // side, width // side, -1)


class Classes(nn.Module):
    """A dense layer: of a map scores of the classes."""

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        """The scores."""
        return nn.Dense(NUM_CLASSES)(z.reshape(len(z), -1))


class Arrays(NamedTuple):
    """What a network is trained on.

    Attributes:
        x: pictures with the shortcut, (N, H, W, 3).
        clean: without it.
        labels: (N,).
        where: the shortcut, (N, H, W).
    """

    x: jax.Array
    clean: jax.Array
    labels: jax.Array
    where: jax.Array


class Batch(NamedTuple):
    """What a loss may look at.

    Attributes:
        params: of the network, {"below", "above"}.
        x: pictures with the shortcut, (n, H, W, 3).
        labels: (n,).
        where: the shortcut, (n, H, W).
        clean: the pictures without it; only the teacher and the concept have seen such.
        key: of the step's noise.
        teacher: a network's parameters that was trained on pictures without the shortcut.
    """

    params: Any
    x: jax.Array
    labels: jax.Array
    where: jax.Array
    clean: jax.Array
    key: jax.Array
    teacher: Any


def below(params: Any, x: jax.Array) -> jax.Array:
    """The last map of pictures."""
    z: Any = Features().apply({"params": params["below"]}, x)
    return z


def above(params: Any, z: jax.Array) -> jax.Array:
    """Scores of a map."""
    found: Any = Classes().apply({"params": params["above"]}, z)
    return found


def scores(params: Any, x: jax.Array) -> jax.Array:
    """Scores of pictures, (n, 10)."""
    return above(params, below(params, x))


def relevance(params: Any, x: jax.Array, classes: jax.Array) -> jax.Array:
    """By LRP, of the pictures' shape."""
    return lrp.relevance(functools.partial(scores, params), x, classes, composite=RULES)


def _rrr(b: Batch) -> jax.Array:
    gradient = attribution.gradient(functools.partial(scores, b.params), b.x, guidance.sum_of_logs)
    return guidance.right_reasons(gradient, b.where)


def _isnet(b: Batch) -> jax.Array:
    return guidance.background(relevance(b.params, b.x, b.labels), ~b.where)


def _isnet_of_drawn_classes(b: Batch) -> jax.Array:
    classes = guidance.drawn_classes(b.key, b.labels, NUM_CLASSES)
    return guidance.background(relevance(b.params, b.x, classes), ~b.where)


def _gradient_and_relevance(b: Batch) -> jax.Array:
    return _rrr(b) + _isnet_of_drawn_classes(b)


def _integrated(b: Batch) -> jax.Array:
    found = attribution.integrated_gradients(
        functools.partial(scores, b.params), b.x, b.labels, num_steps=4, method="midpoint"
    )
    return guidance.background(found, ~b.where)


def _concept(b: Batch) -> jax.Array:
    z, plain = (jax.lax.stop_gradient(below(b.params, x)) for x in (b.x, b.clean))
    present = jnp.repeat(jnp.asarray([True, False]), len(z))
    concept = guidance.concept_vector(jnp.concatenate([z, plain]), present)
    signs = jax.random.rademacher(b.key, (len(z), NUM_CLASSES), jnp.float32)
    return guidance.concept_sensitivity(
        functools.partial(above, b.params), below(b.params, b.x), signs, jax.lax.stop_gradient(concept)
    )


def _teacher(b: Batch) -> jax.Array:
    taught = jax.lax.stop_gradient(relevance(b.teacher, b.x, b.labels))
    return guidance.disagreement(relevance(b.params, b.x, b.labels), taught)


def _consistent(b: Batch) -> jax.Array:
    return guidance.inconsistency(
        lambda x: relevance(b.params, x, b.labels), lambda z: jnp.roll(z[:, :, ::-1], 3, axis=1), b.x
    )


def _smooth(b: Batch) -> jax.Array:
    return guidance.roughness(relevance(b.params, b.x, b.labels).sum(axis=-1))


def _sparse(b: Batch) -> jax.Array:
    return guidance.density(relevance(b.params, b.x, b.labels).sum(axis=-1))


def _weighted(b: Batch) -> jax.Array:
    head = functools.partial(above, b.params)
    found = guidance.weighted_scores(
        head, lambda z: lrp.relevance(head, z, b.labels, composite=RULES), below(b.params, b.x)
    )
    return optax.softmax_cross_entropy_with_integer_labels(found, b.labels)


LOSSES: dict[str, tuple[str, float, Callable[[Batch], jax.Array] | None]] = {
    "plain": ("plain", 0.0, None),
    "rrr": ("right for the right reasons (gradient)", 10.0, _rrr),
    "isnet": ("ISNet's background (LRP of the label)", 30.0, _isnet),
    "isnet-drawn": ("ISNet's background (LRP of a drawn class)", 100.0, _isnet_of_drawn_classes),
    "rrr-isnet": (
        "right for the right reasons, and ISNet's background of a drawn class",
        10.0,
        _gradient_and_relevance,
    ),
    "isnet-ig": ("ISNet's background (Integrated Gradients)", 30.0, _integrated),
    "rr-clarc": ("RR-ClArC (concept's direction)", 10.0, _concept),
    "teacher": ("a teacher's heat maps (LRP)", 3.0, _teacher),
    "weighted": ("features weighted by relevance", 1.0, _weighted),
    "consistent": ("consistency under flips and shifts", 1.0, _consistent),
    "smooth": ("smoothness", 0.3, _smooth),
    "sparse": ("sparsity", 1.0, _sparse),
}
"""By name: what it is, its weight, the loss. The last four do not know where the shortcut is."""


def init(key: jax.Array, side: int) -> Any:
    """Initial parameters of a network of pictures of a side."""
    first, second = jax.random.split(key)
    x = jnp.zeros((1, side, side, 3))
    params = {"below": Features().init(first, x)["params"]}
    return params | {"above": Classes().init(second, below(params, x))["params"]}


OPTIMIZER = optax.adam(_RATE)


@functools.partial(jax.jit, static_argnames="name")
def step(
    name: str, weight: float, key: jax.Array, params: Any, opt_state: Any, pictures: Arrays, teacher: Any
) -> tuple[Any, Any]:
    """One update.

    Args:
        name: one of `LOSSES`.
        weight: of the loss on explanations.
        key: of the batch and the noise.
        params: of the network.
        opt_state: the optimizer's.
        pictures: all, of which thirty are drawn.
        teacher: parameters.

    Returns:
        (parameters, the optimizer's state).
    """
    rows = jax.random.choice(key, len(pictures.x), (_BATCH,), replace=False)
    x, clean, labels, where = (array[rows] for array in pictures)

    def loss(params: Any) -> jax.Array:
        value = optax.softmax_cross_entropy_with_integer_labels(scores(params, x), labels).mean()
        extra = LOSSES[name][2]
        if extra is None:
            return value
        return value + weight * extra(Batch(params, x, labels, where, clean, key, teacher)).mean()

    updates, opt_state = OPTIMIZER.update(jax.grad(loss)(params), opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def trained(
    name: str, weight: float, key: jax.Array, pictures: Arrays, teacher: Any, *, num_steps: int
) -> Any:
    """Parameters after all steps.

    Steps are called one by one: inside `lax.scan` XLA's CPU backend leaves the gradients of convolutions' kernels to
    a naive program, some forty times slower.

    Args:
        name: one of `LOSSES`.
        weight: of the loss on explanations.
        key: of initial values, batches and noise.
        pictures: as in `step`.
        teacher: parameters.
        num_steps: updates.

    Returns:
        The parameters.
    """
    params = init(jax.random.fold_in(key, 0), pictures.x.shape[1])
    opt_state = OPTIMIZER.init(params)
    for number in range(1, num_steps + 1):
        own = jax.random.fold_in(key, number)
        params, opt_state = step(name, weight, own, params, opt_state, pictures, teacher)
    return params


@jax.jit
def judged(params: Any, clean: Any, x: Any, misled: Any, labels: Any, where: Any) -> dict[str, jax.Array]:
    """How a network does without the shortcut and with another class's, and what share of |relevance| lies on it.

    Args:
        params: of the network.
        clean: pictures without the shortcut, (N, H, W, 3).
        x: with their own class's.
        misled: with another class's.
        labels: (N,).
        where: the shortcut.

    Returns:
        Means over pictures: "without", "own", "misled" accuracies, and "share".
    """
    found = {
        name: (scores(params, images).argmax(axis=-1) == labels).mean()
        for name, images in {"without": clean, "own": x, "misled": misled}.items()
    }
    magnitude = jnp.abs(relevance(params, x, labels)).sum(axis=-1)
    share = (magnitude * where).sum(axis=(1, 2)) / magnitude.sum(axis=(1, 2))
    return found | {"share": jnp.nanmean(share)}


def others(labels: np.ndarray) -> np.ndarray:
    """Another class than each picture's own."""
    return (labels + 1 + np.arange(len(labels)) % 9) % 10
