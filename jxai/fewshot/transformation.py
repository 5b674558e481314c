"""Feature-wise transformation: an encoder's normalized features scaled and shifted at random in training.

Tseng et al., *Cross-Domain Few-Shot Classification via Learned Feature-Wise Transformation*, 2020: features of
unseen domains are distributed otherwise, and noise on features of the seen ones prepares for it.
"""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jxai.checks import check_count, check_key, check_number, shown
from jxai.errors import InputError, InputTypeError

SCALE, SHIFT = "scale", "shift"


def init_transformation(
    encoder: nn.Module,
    *,
    image_size: int,
    paths: Sequence[str] | None = None,
    scale: float = 0.3,
    shift: float = 0.5,
) -> dict[str, dict[str, jax.Array]]:
    """How strongly each channel is disturbed, before anything is learned.

    Args:
        encoder: module from images (N, H, W, 3) to features, called with `train`. It is traced, not run.
        image_size: side of the images in pixels.
        paths: patterns (`*` for anything) of paths of modules, whose results are transformed. By default batch norms
            with names such as "bn2": as released the last one of every block and that of its shortcut, every one of
            an encoder without blocks.
        scale: the released start of γ.
        shift: the released start of β.

    Returns:
        {path: {"scale": γ (C,), "shift": β (C,)}} by path of the module; for the formula see `Transformed`.

    Raises:
        TypeError: no module, or patterns that are no texts.
        ValueError: a number that is not finite, or a pattern matches no module with an array as its result.
    """
    if not isinstance(encoder, nn.Module):
        raise InputTypeError(f"expected a Linen module, got {shown(encoder)}: make one")
    check_count("image_size", image_size)
    check_number("scale", scale)
    check_number("shift", shift)
    channels: dict[str, int] = {}

    def record(next_fun, args, kwargs, context):
        y = next_fun(*args, **kwargs)
        if context.method_name == "__call__" and isinstance(y, jax.Array):
            channels["/".join(context.module.path)] = y.shape[-1]
        return y

    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    with nn.intercept_methods(record):
        jax.eval_shape(lambda x: encoder.init(jax.random.key(0), x, train=False), images)
    chosen = _released(channels) if paths is None else _matching(channels, paths)
    return {
        path: {SCALE: jnp.full(channels[path], scale), SHIFT: jnp.full(channels[path], shift)}
        for path in chosen
    }


def check_transformation(transformation: Any) -> None:
    """Refuse what is no transformation, of the form that `init_transformation` gives."""
    if not isinstance(transformation, Mapping) or not all(
        isinstance(strength, Mapping) and set(strength) == {SCALE, SHIFT}
        for strength in transformation.values()
    ):
        raise InputTypeError(
            f"expected a transformation as init_transformation gives it, got {shown(transformation)}: call it, or "
            "give {} for none"
        )


class Transformed(nn.Module):
    """An encoder whose features are transformed in training: y ← (1 + n₁·s(γ))·y + n₂·s(β).

    s is a softplus of sharpness k, log(1 + exp(k·x)) / k: at the program's 100, noise starts with deviations of 0.3
    and 0.5; at the paper's 1, of 0.85 and 0.97.

    n₁, n₂ ~ N(0, 1) are one draw a channel, the same for all images of a call: for one episode. Variables are the
    encoder's own.

    Attributes:
        encoder: the module, called with `train`.
        key: `jax.random.key` of the draws.
        transformation: as `init_transformation` gives it; {} disturbs nothing.
        sharpness: k.
    """

    encoder: nn.Module
    key: jax.Array
    transformation: Any
    sharpness: float = 100.0

    def setup(self):
        """Have the encoder's variables stand where they stand without this module."""
        nn.share_scope(self, self.encoder)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Features of images; where `train` is false, the encoder's as they are.

        Args:
            x: normalized images, (N, H, W, C).
            train: whether features are transformed and batch norms use the batch's statistics.

        Returns:
            Features, (N, ...).
        """
        check_key(self.key)
        check_transformation(self.transformation)
        check_number("sharpness", self.sharpness, above=0)
        paths = sorted(self.transformation) if train else []

        def transform(next_fun, args, kwargs, context):
            y, path = next_fun(*args, **kwargs), "/".join(context.module.path)
            if context.method_name != "__call__" or path not in paths:
                return y
            strength = jax.tree.map(
                lambda raw: jax.nn.softplus(self.sharpness * raw) / self.sharpness, self.transformation[path]
            )
            key = jax.random.fold_in(self.key, paths.index(path))
            scale, shift = jax.random.normal(key, (2, y.shape[-1]), y.dtype)
            return (1 + scale * strength[SCALE]) * y + shift * strength[SHIFT]

        with nn.intercept_methods(transform):
            return self.encoder(x, train=train)  # pyright: ignore[reportCallIssue]


def _released(channels: dict[str, int]) -> list[str]:
    """The last batch norm of every block, by its number, and its shortcut's; without blocks, every one."""
    numbered = {
        path: int(path.rpartition("bn")[2]) for path in channels if re.fullmatch(r"(.*/)?bn\d+", path)
    }
    if not numbered:
        raise InputError(
            f"expected batch norms with names such as bn2 in the encoder, got modules {', '.join(channels)}: "
            "give `paths`"
        )
    last = {path.rpartition("/")[0]: path for path in sorted(numbered, key=lambda path: numbered[path])}
    shortcuts = [path for path in channels if path.endswith("/bn_shortcut")]
    of_blocks = [path for block, path in last.items() if block]
    return [*of_blocks, *shortcuts] if of_blocks else list(numbered)


def _matching(channels: dict[str, int], patterns: Sequence[str]) -> list[str]:
    if not isinstance(patterns, Sequence) or not all(isinstance(pattern, str) for pattern in patterns):
        raise InputTypeError(f"expected `paths` as a sequence of texts, got {shown(patterns)}: list them")
    for pattern in patterns:
        if not any(fnmatchcase(path, pattern) for path in channels):
            raise InputError(
                f"expected `paths` of modules of the encoder, got {pattern!r}, which matches none of "
                f"{', '.join(sorted(channels))}: take one of these, with * for anything"
            )
    return [path for path in channels if any(fnmatchcase(path, pattern) for pattern in patterns)]
