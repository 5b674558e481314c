"""A few-shot system: an encoder and a head, their variables side by side."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jxai.checks import check_choice, check_count, check_key, shown
from jxai.errors import InputTypeError
from jxai.fewshot.episode import Episode
from jxai.fewshot.heads.head import Head

PARTS = ("encoder", "head")


def init_variables(encoder: nn.Module, head: Head, key: jax.Array, *, image_size: int) -> dict[str, Any]:
    """Draw the variables of an encoder and of the head behind it.

    Args:
        encoder: module from images (N, H, W, 3) to features, called with `train`.
        head: the head.
        key: `jax.random.key`.
        image_size: side of the images in pixels.

    Returns:
        {"params": {"encoder", "head"}, "batch_stats": {"encoder", "head"}}.

    Raises:
        TypeError: no module, head or random key.
        ValueError: the images are too small.
    """
    check_modules(encoder, head)
    check_key(key)
    check_count("image_size", image_size)
    keys = jax.random.split(key, len(PARTS))
    images = jnp.zeros((2, image_size, image_size, 3), jnp.float32)
    of_encoder = encoder.init(keys[0], images, train=False)
    features = jnp.asarray(encoder.apply(of_encoder, images, train=False))
    of_head = head.init(keys[1], Episode(features, jnp.arange(2), features, way=2))
    return {
        kind: {"encoder": of_encoder.get(kind, {}), "head": of_head.get(kind, {})}
        for kind in ("params", "batch_stats")
    }


def check_modules(encoder: Any, head: Any) -> None:
    """Refuse what are no encoder and head.

    Args:
        encoder: a Linen module.
        head: a head.

    Raises:
        TypeError: one of them is not.
    """
    if not isinstance(encoder, nn.Module) or not isinstance(head, Head):
        raise InputTypeError(
            f"expected a Linen module and a Head, got {shown(encoder)} and {shown(head)}: make them"
        )


def part(variables: Any, name: str) -> dict[str, Any]:
    """The variables of one part, as its `apply` takes them.

    Args:
        variables: as `init_variables` makes them.
        name: "encoder" or "head".

    Returns:
        {"params", "batch_stats"} of that part; what is empty is left out.

    Raises:
        TypeError: no variables.
        ValueError: no part of that name.
    """
    check_choice("a part", name, PARTS)
    if not isinstance(variables, Mapping) or not all(
        isinstance(tree, Mapping) for tree in variables.values()
    ):
        raise InputTypeError(
            f"expected variables by kind and part, got {shown(variables)}: see init_variables"
        )
    return {kind: tree[name] for kind, tree in variables.items() if tree.get(name)}
