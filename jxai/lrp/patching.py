"""Relevance patching: what patching an activation would do, estimated by LRP's coefficients."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jxai.checks import as_array, finite, shown
from jxai.errors import InputError, InputTypeError
from jxai.lrp.engine.explain import explain, is_float
from jxai.lrp.engine.run import Probes
from jxai.lrp.rules.composites import Composite, check_composite
from jxai.lrp.rules.presets import PLAIN_GRADIENTS


def relevance_patching(
    f: Callable[[Any], jax.Array],
    clean: Any,
    patched: Any,
    *,
    taps: Sequence[str],
    composite: Composite | None,
) -> dict[str, jax.Array]:
    """How much f(clean) would change if an activation were what it is for `patched` (RelP), estimated.

    (a(patched) - a(clean)) ⊙ c, with c LRP's coefficient R / a at `clean`: attribution patching, with the
    coefficient in the place of the gradient. It takes two forward passes and one backward pass (under `jit`), for all
    activations at once, where patching takes a forward pass for each; in a linear function it is exact.

    Example:
        >>> import jax.numpy as jnp
        >>> from jxai import lrp
        >>> f = lambda x: lrp.mark(jnp.tanh(x), "hidden") @ jnp.array([1.0, -1.0])
        >>> clean, patched = jnp.zeros((1, 2)), jnp.ones((1, 2))
        >>> found = lrp.relevance_patching(f, clean, patched, taps=["hidden"], composite=lrp.AttnLRP(epsilon=0.0))
        >>> [round(float(v), 3) for v in found["hidden"][0]]
        [0.762, -0.762]

    Args:
        f: function of an input to what is measured, such as a difference of logits: one number, or one an image.
        clean: the input that is explained: an array or a tree of arrays of floats.
        patched: the input whose activations would be put in, of the same shapes.
        taps: paths of modules, name scopes or marks whose outputs are the activations; see `vjp`'s `watch`.
        composite: the rules; None for plain gradients, which is attribution patching.

    Returns:
        By path, estimates of the activation's shape: those of a whole layer, a head or a position are their sums.

    Raises:
        TypeError: no function, no composite, no paths, or inputs that are no arrays of floats.
        ValueError: no taps, inputs of different shapes, f gives several arrays, no module has such a path, or as
            `vjp`.

    References:
        Jafari et al., *RelP: Faithful and Efficient Circuit Discovery via Relevance Patching*, 2025.
    """
    if composite is not None:
        check_composite(composite)
    if not callable(f):
        raise InputTypeError(f"expected a function of an input, got {shown(f)}")
    texts = isinstance(taps, Sequence) and not isinstance(taps, str)
    if not texts or not all(isinstance(path, str) for path in taps):
        raise InputTypeError(f"expected paths of modules as texts, got {shown(taps)}: see lrp.vjp")
    if not taps:
        raise InputError("expected taps, got none: name the modules whose outputs would be patched")
    clean, patched = jax.tree.map(as_array, clean), jax.tree.map(as_array, patched)
    if jax.tree.map(jnp.shape, clean) != jax.tree.map(jnp.shape, patched):
        raise InputError(
            f"expected inputs of one shape, got {jax.tree.map(jnp.shape, clean)} and "
            f"{jax.tree.map(jnp.shape, patched)}: two prompts need as many tokens"
        )
    for leaf in jax.tree.leaves((clean, patched)):
        if not is_float(leaf):
            raise InputTypeError(f"expected inputs of floats, got {leaf.dtype}: explain the embeddings")
    rules = PLAIN_GRADIENTS if composite is None else composite
    explained = explain(f, (clean,), rules, taps=[*dict.fromkeys(taps)])
    if len(jax.tree.leaves(explained.outputs)) != 1:
        raise InputError(
            f"expected one array from f, got {shown(explained.outputs)}: choose what is measured"
        )
    shapes = explained.plan.watched()
    zeros = {path: jnp.zeros(shapes[path]) for path in dict.fromkeys(taps)}

    def at(x: Any) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """Coefficients and activations at the taps."""
        floats = [
            leaf.astype(own.dtype) for leaf, own in zip(jax.tree.leaves(x), explained.leaves, strict=True)
        ]

        def outputs(taps: Any, values: Any) -> list[jax.Array]:
            return explained.run(floats, Probes(taps=taps, values=values))[0]

        found, pullback = jax.vjp(outputs, {path: (z, z) for path, z in zeros.items()}, zeros)
        coefficients, values = pullback([jnp.ones_like(y) for y in found])
        return {path: pair[1] for path, pair in coefficients.items()}, values

    (coefficients, before), (_, after) = at(clean), at(finite("inputs", patched))
    found = {path: (after[path] - before[path]) * coefficients[path] for path in zeros}
    return finite("estimates", found)
