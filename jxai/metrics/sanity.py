"""Three more tests of model randomization's kind: with noise averaged out, by complexity alone, by another class."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jxai.batches.checks import check_finite
from jxai.batches.chunks import map_chunks, rows_in_flight
from jxai.batches.draws import normal_draws, row_keys
from jxai.checks import as_array, check_count, check_functions, check_number, finite, keep_nan, values
from jxai.compiled import run_compiled
from jxai.errors import InputError
from jxai.metrics.inputs import as_batch, as_heatmap
from jxai.metrics.randomization import (
    ModelRandomization,
    heatmap_shape,
    model_randomization,
    paired_leaves,
)
from jxai.metrics.similarity import structural_similarity
from jxai.ops.convolution import with_fast_convolutions


def smooth_model_randomization(
    explain: Callable[[Any, jax.Array], jax.Array],
    key: jax.Array,
    x: jax.Array,
    variables: Any,
    randomized: Any,
    *,
    layers: Sequence[str] | None = None,
    cascading: bool = True,
    noise_scale: float = 0.1,
    num_samples: int = 50,
) -> ModelRandomization:
    """Likeness of smoothed heatmaps before and after layers lose their parameters. Lower is better.

    `model_randomization` of ē(x) = 1/S Σ_s e(x + ε_s), so that an explanation's own noise does not pass for a
    reaction to random parameters. All layers see the same ε_s.

    Args:
        explain: from variables and inputs (N, ...) to heatmaps (N, H, W); traceable, as under `jax.jit`.
        key: a random key; the noise of a sample depends on (key, input's place, sample's place) alone.
        x: inputs, (N, ...).
        variables: the model's, as in `model_randomization`.
        randomized: a tree like it with random parameters.
        layers: names in the order of randomization, as in `model_randomization`. The paper's goes from the bottom up.
        cascading: whether layers randomized before stay so, or each is randomized alone.
        noise_scale: standard deviation of ε, a share of each input's own range, above 0.
        num_samples: S, at least 1.

    Returns:
        Rank correlations and structural similarities, each (N, number of layers).

    Raises:
        TypeError: as `model_randomization`, or if `x` holds no floats.
        ValueError: as `model_randomization`; if values are not finite, a count below 1 or `noise_scale` not above 0.

    References:
        Sanity Checks Revisited: An Exploration to Repair the Model Parameter Randomisation Test, Hedström et al.,
        2023.
    """
    check_functions(explain=explain)
    x = as_array(x)
    check_finite("x", x)
    check_number("noise_scale", noise_scale, above=0)
    check_count("num_samples", num_samples)
    axes = tuple(range(1, x.ndim))
    scale = noise_scale * (x.max(axis=axes, keepdims=True) - x.min(axis=axes, keepdims=True))
    places = jnp.arange(len(x))

    def smoothed(variables: Any) -> jax.Array:
        one = with_fast_convolutions(lambda inputs: as_heatmap(explain(variables, inputs)))

        def add(total: jax.Array, sample: jax.Array) -> tuple[jax.Array, None]:
            draws = normal_draws(key, places, jnp.broadcast_to(sample, places.shape), x.shape[1:])
            return total + one((x + scale * draws).astype(x.dtype)) / num_samples, None

        shape = heatmap_shape(lambda inputs: explain(variables, inputs), x)
        return jax.lax.scan(add, jnp.zeros(shape, jnp.float32), jnp.arange(num_samples))[0]

    found = model_randomization(smoothed, variables, randomized, layers=layers, cascading=cascading)
    return jax.tree.map(lambda likeness: keep_nan(likeness, x), found)


def efficient_model_randomization(
    explain: Callable[[Any], jax.Array],
    variables: Any,
    randomized: Any,
    *,
    num_bins: int = 100,
) -> jax.Array:
    """Relative rise of an explanation's complexity when all parameters are random. Higher is better.

    (ξ(ê) − ξ(e)) / ξ(e), ξ the entropy −Σ p ln p of the histogram of a heatmap's values, in equal bins from its least
    to its largest one: a random network's explanation should be noise.

    Args:
        explain: from variables to heatmaps (N, H, W) of the same images; traceable, as under `jax.jit`.
        variables: the model's, a tree of arrays.
        randomized: a tree like it with random parameters, as in `model_randomization`.
        num_bins: bins of the histograms, at least 2; Quantus has 100.

    Returns:
        (N,), float32, above −1; infinite where ξ(e) alone is 0, as of a constant heatmap, and 0 where both are.

    Raises:
        TypeError: if a leaf is no array.
        ValueError: if the trees differ, `explain` gives no heatmaps (N, H, W), values are not finite or `num_bins` is
            below 2.

    References:
        Sanity Checks Revisited: An Exploration to Repair the Model Parameter Randomisation Test, Hedström et al.,
        2023.
    """
    check_count("num_bins", num_bins, least=2)
    check_functions(explain=explain)
    explain = with_fast_convolutions(explain)
    layers, leaves, others, structure = paired_leaves(variables, randomized)
    random = [
        leaf if layer is None else other for layer, leaf, other in zip(layers, leaves, others, strict=True)
    ]
    heatmap_shape(explain, variables)

    def complexity(step: jax.Array) -> jax.Array:
        mixed = [jnp.where(step == 0, leaf, other) for leaf, other in zip(leaves, random, strict=True)]
        return histogram_entropy(as_heatmap(explain(jax.tree.unflatten(structure, mixed))), num_bins)

    both = run_compiled(lambda: jax.lax.map(complexity, jnp.arange(2)))
    return relative_rise(*finite("complexities", both))


def random_logit(
    explain: Callable[[jax.Array, jax.Array], jax.Array],
    key: jax.Array,
    x: jax.Array,
    target: jax.Array,
    *,
    num_classes: int,
    chunk_size: int | None = None,
) -> jax.Array:
    """Likeness of the heatmaps of the target's score and of another class's, drawn at random. Lower is better.

    SSIM(|e(x, t)|, |e(x, t')|), t' uniform among the other classes: `structural_similarity`.

    Args:
        explain: from inputs (n, ...) and classes (n,) to heatmaps (n, H, W); each input on its own.
        key: a random key; the class of an input depends on (key, input's place) alone.
        x: inputs, (N, ...).
        target: the classes explained, (N,) integers in [0, num_classes).
        num_classes: K, at least 2.
        chunk_size: inputs explained at once; by default about 2.4 million elements on a CPU, 40 million elsewhere.

    Returns:
        (N,) in [-1, 1], float32.

    Raises:
        TypeError: if `target` holds no integers, or `x` no floats.
        ValueError: if shapes do not fit, values are not finite, a target is out of range, `num_classes` below 2 or
            `explain` gives no heatmaps.

    References:
        When Explanations Lie: Why Many Modified BP Attributions Fail, Sixt et al., 2020.
    """
    x, target = as_batch(x, target)
    check_count("num_classes", num_classes, least=2)
    known = values(target)
    if known is not None and not 0 <= known.min() <= known.max() < num_classes:
        raise InputError(
            f"expected `target` in [0, {num_classes}), got values from {known.min()} to {known.max()}: "
            "give indices of the scores"
        )
    check_functions(explain=explain)
    explain = with_fast_convolutions(explain)
    if heatmap_shape(explain, x, target)[0] != len(x):
        raise InputError(f"expected `explain` to give {len(x)} heatmaps, got others: one an input")

    def likeness(images: jax.Array) -> jax.Array:
        keys = row_keys(key, images, jnp.zeros_like(images))
        step = jax.vmap(lambda one: jax.random.randint(one, (), 1, num_classes))(keys)
        classes = jnp.stack([target[images], (target[images] + step) % num_classes])
        own, other = jax.lax.map(lambda one: as_heatmap(explain(x[images], one)), classes)
        return structural_similarity(own, other)

    found = map_chunks(likeness, len(x), rows_in_flight(x, chunk_size))
    return keep_nan(finite("likenesses", found), x)


def relative_rise(before: jax.Array, after: jax.Array) -> jax.Array:
    """(after − before) / before; 0 where both are the same."""
    return jnp.where(after == before, 0, (after - before) / before)


def histogram_entropy(heatmap: jax.Array, num_bins: int) -> jax.Array:
    """Entropies of histograms, (N,), in nats."""
    flat = heatmap.reshape(len(heatmap), -1)
    low, high = flat.min(axis=1, keepdims=True), flat.max(axis=1, keepdims=True)
    spread = jnp.where(high > low, high - low, 1)
    bins = jnp.clip(((flat - low) / spread * num_bins).astype(jnp.int32), 0, num_bins - 1)
    counts = jax.vmap(lambda one: jnp.zeros(num_bins, jnp.float32).at[one].add(1.0))(bins)
    return keep_nan(jax.scipy.special.entr(counts / flat.shape[1]).sum(axis=1), heatmap)
