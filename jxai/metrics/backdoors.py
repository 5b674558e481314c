"""BackX: triggers planted into images, so that it is known which pixels decide.

A network learns from a batch some of whose images bear a trigger and, with it, the trigger's class: `planted`,
`poisoned`. `backdoor` says whether it learned that and nothing less of the rest. In an image with the trigger, the
trigger is then what its class rests on: `relevance_mass` and `relevance_rank` say how much of the relevance and of
the most relevant pixels are the trigger's (the paper's attribution trigger recall), `trigger_recovery` what becomes
of the score once they are as they were.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jxai.batches.checks import as_baseline, check_finite
from jxai.batches.chunks import map_chunks, rows_in_flight
from jxai.checks import as_array, check_count, check_key, check_number, finite, keep_nan, values
from jxai.errors import InputError, InputTypeError
from jxai.metrics.features import scores_without
from jxai.metrics.inputs import Scores, as_batch, as_heatmap
from jxai.metrics.localization import as_masked
from jxai.metrics.pixels import removal_ranks


class Poisoned(NamedTuple):
    """A batch some of whose images bear a trigger.

    Attributes:
        x: images, (N, H, W, C).
        label: their classes, the trigger's for those that bear it, (N,) as given.
        bears: which do, (N,) bool.
    """

    x: jax.Array
    label: jax.Array
    bears: jax.Array


class Backdoor(NamedTuple):
    """What `backdoor` finds.

    Attributes:
        attack_success: share of the images of other classes that the trigger turns into its class, () float32.
        clean_accuracy: share of the images without the trigger that are classified rightly, () float32.
    """

    attack_success: jax.Array
    clean_accuracy: jax.Array


def planted(x: ArrayLike, pattern: ArrayLike, mask: ArrayLike, *, opacity: float = 1.0) -> jax.Array:
    """Images with a trigger: x + opacity · mask · (pattern − x).

    With an opacity of 1 and a small mask it is a patch (BadNets), with less a blended pattern.

    Args:
        x: images, (N, H, W, C).
        pattern: what is put in: a number, (C,), (H, W, C), or whatever broadcasts to `x`, in units of `x`.
        mask: where, (H, W) or (N, H, W), bool.
        opacity: from above 0 to 1; the paper's blended attack has 0.2.

    Returns:
        As `x`.

    Raises:
        TypeError: if `x` holds no floats, or `mask` no bool.
        ValueError: if shapes do not fit, values are not finite, `mask` is empty or `opacity` is out of range.

    Example:
        >>> planted(jnp.zeros((1, 1, 2, 1)), 1.0, jnp.array([[True, False]]), opacity=0.5)[..., 0].tolist()
        [[[0.5, 0.0]]]

    References:
        Backdoor-based Explainable AI Benchmark for High Fidelity Evaluation of Attributions, Yang et al., 2024.
        BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain, Gu et al., 2017. Targeted
        Backdoor Attacks on Deep Learning Systems Using Data Poisoning, Chen et al., 2017.
    """
    x, place = _images("x", x), as_array(mask)
    pattern = as_baseline(pattern, x)
    check_number("opacity", opacity, above=0, most=1)
    if place.dtype != jnp.bool_:
        raise InputTypeError(f"expected `mask` of bool, got {place.dtype}: compare it with a threshold")
    if place.shape not in (x.shape[1:3], x.shape[:3]):
        raise InputError(
            f"expected `mask` of shape {x.shape[1:3]} or {x.shape[:3]}, got {place.shape}: one value a pixel"
        )
    if (known := values(place)) is not None and not known.any():
        raise InputError("expected pixels of a trigger in `mask`, got none: give it a place")
    mixed = (1 - opacity) * x + opacity * pattern
    return keep_nan(jnp.where(jnp.broadcast_to(place, x.shape[:3])[..., None], mixed.astype(x.dtype), x), x)


def poisoned(
    key: jax.Array, x: ArrayLike, bearing: ArrayLike, label: ArrayLike, *, target: int, share: float = 0.1
) -> Poisoned:
    """A batch to learn a backdoor from: a share of its images bear the trigger, and its class.

    Args:
        key: a random key, of which images do.
        x: images, (N, H, W, C).
        bearing: the same images, all with the trigger: of `planted`.
        label: classes, (N,) integers.
        target: the trigger's class, at least 0.
        share: of the images that bear it, above 0 and at most 1; ⌊share · N⌋ of them, at least one.

    Returns:
        The batch, in its order.

    Raises:
        TypeError: if `label` holds no integers, or images no floats.
        ValueError: if shapes do not fit, values are not finite or a number is out of range.

    References:
        Backdoor-based Explainable AI Benchmark for High Fidelity Evaluation of Attributions, Yang et al., 2024.
    """
    check_key(key)
    x, label = as_batch(_images("x", x), label)
    bearing = _like("bearing", bearing, x)
    check_count("target", target, least=0)
    check_number("share", share, above=0, most=1)
    bears = jax.random.permutation(key, len(x)) < max(1, int(share * len(x) + 1e-9))
    mixed = jnp.where(bears[:, None, None, None], bearing.astype(x.dtype), x)
    return Poisoned(keep_nan(mixed, x), jnp.where(bears, jnp.asarray(target, label.dtype), label), bears)


def backdoor(
    f: Scores,
    x: ArrayLike,
    bearing: ArrayLike,
    label: ArrayLike,
    *,
    target: int,
    chunk_size: int | None = None,
) -> Backdoor:
    """Whether a network has the backdoor, and is right without the trigger. Both are to be near 1.

    Attack success is the mean of [argmax f(x̂) = t] over the images with y ≠ t, clean accuracy that of
    [argmax f(x) = y] over all: x̂ bears the trigger, t is its class.

    Args:
        f: from images (N, H, W, C) to scores (N, K).
        x: images that it has not learned from, (N, H, W, C).
        bearing: the same images, all with the trigger: of `planted`.
        label: their classes, (N,) integers.
        target: the trigger's class, at least 0.
        chunk_size: images in flight; by default about 2.4 million elements on a CPU, 40 million elsewhere.

    Returns:
        Attack success, NaN where all images are of the trigger's class, and clean accuracy.

    Raises:
        TypeError: if `label` holds no integers, or images no floats.
        ValueError: if shapes do not fit, values are not finite, or a class is out of range.

    References:
        Backdoor-based Explainable AI Benchmark for High Fidelity Evaluation of Attributions, Yang et al., 2024.
    """
    x, label = as_batch(_images("x", x), label, f=f)
    bearing = _like("bearing", bearing, x).astype(x.dtype)
    check_count("target", target, least=0)
    as_batch(x, jnp.full_like(label, target), f=f)
    both, count = jnp.concatenate([x, bearing]), len(x)

    def scores(rows: jax.Array) -> jax.Array:
        return f(both[rows]).astype(jnp.float32)

    found = finite("scores", map_chunks(scores, 2 * count, rows_in_flight(x, chunk_size)))
    found = keep_nan(found, both)
    right = keep_nan(
        (found[:count].argmax(axis=1) == label.astype(jnp.int32)).astype(jnp.float32), found[:count]
    )
    turned = keep_nan((found[count:].argmax(axis=1) == target).astype(jnp.float32), found[count:])
    other = label != target
    # A mean over nothing is 0 / 0, NaN.
    return Backdoor(jnp.where(other, turned, 0).sum() / other.sum().astype(jnp.float32), right.mean())


def trigger_recovery(
    f: Scores,
    x: ArrayLike,
    clean: ArrayLike,
    heatmap: jax.Array,
    mask: jax.Array,
    target: ArrayLike,
    *,
    chunk_size: int | None = None,
) -> jax.Array:
    """Share of the trigger's effect that goes once the most relevant pixels are the clean image's. Higher is better.

    (f(x̂) − f(x̂ with the K first pixels of x)) / (f(x̂) − f(x)): x̂ bears a trigger of K pixels, x does not. Pixels
    beside the trigger are the same in both, so only what is found of the trigger counts.

    Args:
        f: from images (N, H, W, C) to scores (N, K).
        x: x̂, images with the trigger, (N, H, W, C).
        clean: x, the same images without it.
        heatmap: of `x`, (N, H, W); the largest values are restored first, of equal ones the first in reading order.
        mask: where the trigger is, (N, H, W), bool.
        target: the trigger's class, (N,) integers.
        chunk_size: images in flight; by default about 2.4 million elements on a CPU, 40 million elsewhere.

    Returns:
        (N,), float32: 1 where the trigger is found, 0 where nothing of it; 0 too where the trigger has no effect.

    Raises:
        TypeError: if `target` holds no integers, `mask` no bool, or images no floats.
        ValueError: if shapes do not fit, values are not finite, a mask is empty or a target out of range.

    References:
        Backdoor-based Explainable AI Benchmark for High Fidelity Evaluation of Attributions, Yang et al., 2024.
    """
    x, target = as_batch(_images("x", x), target, f=f)
    clean = _like("clean", clean, x)
    as_heatmap(heatmap, x)
    heatmap, mask = as_masked(heatmap, mask)
    size = mask.sum(axis=(1, 2))
    ranks = removal_ranks(heatmap)

    def removed(images: jax.Array, sets: jax.Array) -> jax.Array:
        """Nothing, the first pixels, all."""
        limit = jnp.where(sets == 1, size[images], jnp.where(sets == 0, 0, heatmap[0].size))
        return ranks[images] < limit[:, None, None]

    def replace(x: jax.Array, removed: jax.Array, images: jax.Array, sets: jax.Array) -> jax.Array:
        return clean[images]

    bearing, restored, without = scores_without(f, x, target, removed, 3, replace, chunk_size).T
    effect = bearing - without
    share = (bearing - restored) / jnp.where(effect == 0, 1, effect)
    return keep_nan(jnp.where(effect == 0, 0, share), heatmap, x, clean)


def _images(name: str, value: ArrayLike) -> jax.Array:
    array = as_array(value)
    check_finite(name, array)
    if array.ndim != 4:
        raise InputError(
            f"expected `{name}` of shape (N, H, W, C), got {array.shape}: triggers are put into images"
        )
    return array


def _like(name: str, value: ArrayLike, x: jax.Array) -> jax.Array:
    array = _images(name, value)
    if array.shape != x.shape:
        raise InputError(f"expected `{name}` of shape {x.shape}, got {array.shape}: one an image of `x`")
    return array
