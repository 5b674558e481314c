"""Every method that explains a next token, by name: what `jxai explain-text` and the tables choose from."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jxai import attribution, lrp, text
from jxai.errors import InputError


@dataclasses.dataclass(frozen=True)
class TextMethod:
    """A way to explain a next token.

    Attributes:
        name: on the command line.
        label: in pictures and tables.
        explain: from (model, key, ids (N, T), target (N,), contrast (N,) or None, mask (N, T) or None) to relevance
            (N, T).
    """

    name: str
    label: str
    explain: Callable[..., jax.Array]


def text_methods(*, num_steps: int = 32, num_roots: int = 16) -> dict[str, TextMethod]:
    """The methods.

    Args:
        num_steps: of Integrated Gradients, whose baseline is the embedding of zeros.
        num_roots: of SmoothGrad.

    Returns:
        By name.
    """
    integrated = functools.partial(attribution.integrated_gradients, num_steps=num_steps, method="midpoint")
    found = {
        "attnlrp": ("AttnLRP", _by(lrp.AttnLRP())),
        "cp-lrp": ("CP-LRP", _by(lrp.CPLRP())),
        "input-x-gradient": ("gradient × input", _by(attribution.input_x_gradient)),
        "gradient": ("gradient, norm", _gradient_norm),
        "integrated-gradients": ("Integrated Gradients", _by(integrated)),
        "smooth-grad": ("SmoothGrad × input", _smooth(num_roots)),
        "occlusion": ("occlusion", _by(functools.partial(attribution.occlusion, window=1, stride=1))),
        "attention-rollout": ("attention rollout", _rollout),
        "random": ("random", _random),
    }
    return {name: TextMethod(name, *rest) for name, rest in found.items()}


def choose(names: Sequence[str], **settings: int) -> list[TextMethod]:
    """The methods of these names; `all` is every one.

    Args:
        names: of methods.
        **settings: of `text_methods`.

    Returns:
        The methods, in the order asked for.

    Raises:
        ValueError: an unknown name, or none.
    """
    known = text_methods(**settings)
    names = tuple(known) if "all" in names else tuple(dict.fromkeys(names))
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise InputError(f"expected methods among {', '.join(known)}, got {', '.join(unknown) or 'none'}")
    return [known[name] for name in names]


def _by(method: Any) -> Callable[..., jax.Array]:
    def explain(
        model: Any, key: jax.Array, ids: jax.Array, target: jax.Array, contrast: Any, mask: Any
    ) -> jax.Array:
        return text.explain(model, ids, target, contrast=contrast, mask=mask, method=method)

    return explain


def _gradient_norm(
    model: Any, key: jax.Array, ids: jax.Array, target: jax.Array, contrast: Any, mask: Any
) -> jax.Array:
    method = attribution.gradient
    found = text.explain(model, ids, target, contrast=contrast, mask=mask, method=method, channels=True)
    return jnp.sqrt((found**2).sum(axis=-1))


def _smooth(num_roots: int) -> Callable[..., jax.Array]:
    def explain(model: Any, key: jax.Array, *arguments: Any) -> jax.Array:
        def method(f: Any, x: jax.Array, target: jax.Array) -> jax.Array:
            return x * attribution.smooth_grad(f, key, x, target, num_roots=num_roots)

        return _by(method)(model, key, *arguments)

    return explain


def _rollout(
    model: Any, key: jax.Array, ids: jax.Array, target: jax.Array, contrast: Any, mask: Any
) -> jax.Array:
    """Of the last token that counts."""
    last = jnp.full(len(ids), ids.shape[1] - 1) if mask is None else mask.sum(axis=1) - 1
    shares = text.attention_rollout(text.attention(model, ids, mask=mask))
    return jnp.take_along_axis(shares, last[:, None, None], axis=1)[:, 0]


def _random(
    model: Any, key: jax.Array, ids: jax.Array, target: jax.Array, contrast: Any, mask: Any
) -> jax.Array:
    return jax.random.normal(key, ids.shape)
