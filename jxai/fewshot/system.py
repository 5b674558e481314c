"""A few-shot system: an encoder and a head, their variables side by side."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

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
    """
    keys = jax.random.split(key, len(PARTS))
    images = jnp.zeros((2, image_size, image_size, 3))
    of_encoder = encoder.init(keys[0], images, train=False)
    features = jnp.asarray(encoder.apply(of_encoder, images, train=False))
    of_head = head.init(keys[1], features, jnp.arange(2), features, 2)
    return {
        kind: {"encoder": of_encoder.get(kind, {}), "head": of_head.get(kind, {})}
        for kind in ("params", "batch_stats")
    }


def part(variables: Any, name: str) -> dict[str, Any]:
    """The variables of one part, as its `apply` takes them.

    Args:
        variables: as `init_variables` makes them.
        name: "encoder" or "head".

    Returns:
        {"params", "batch_stats"} of that part; what is empty is left out.
    """
    return {kind: tree[name] for kind, tree in variables.items() if tree.get(name)}
