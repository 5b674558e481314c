"""Rotary positions: the angles of every position, and the turn of queries and keys by them.

See *RoFormer: Enhanced Transformer with Rotary Position Embedding* by Su et al., 2021. The first half of a head's
channels is turned with the second, as Hugging Face's weights have it.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jxai.checks import check_choice, check_number, shown
from jxai.errors import InputError

KINDS = ("default", "linear", "llama3", "yarn", "factors")


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """How the angles of rotary positions are stretched over contexts longer than those of the first training.

    Attributes:
        kind: "default" (not at all), "linear" (all angles), "llama3" (slow ones, with a ramp), "yarn" (slow ones,
            with another ramp, and hotter softmaxes), "factors" (each by its own).
        factor: what the context grew by.
        low_freq_factor: of "llama3": turns in the original context below which an angle is stretched by all of it.
        high_freq_factor: of "llama3": turns above which it is left as it is.
        beta_fast: of "yarn": turns above which an angle is left as it is.
        beta_slow: of "yarn": turns below which it is stretched by all of the factor.
        attention_factor: of "yarn": what cosines and sines are multiplied by; 0 for the paper's 0.1 ln(factor) + 1.
        original_max_position_embeddings: tokens of the original context, of "llama3" and "yarn".
        factors: of "factors": what each angle is divided by, half as many as a head has channels.
    """

    kind: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float = 0.0
    original_max_position_embeddings: int = 0
    factors: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_choice("the scaling of RoPE", self.kind, KINDS)
        check_number("attention_factor", self.attention_factor, least=0)
        for name in ("factor", "low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow"):
            check_number(name, getattr(self, name), above=0)
        if not isinstance(self.factors, tuple):
            raise InputError(f"expected factors as a tuple, got {shown(self.factors)}: list them")
        if self.kind in ("llama3", "yarn"):
            check_number("original_max_position_embeddings", self.original_max_position_embeddings, least=1)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any] | None, *, context: int) -> "RopeScaling":
        """Of what a config.json has as `rope_scaling` or `rope_parameters`.

        Args:
            entry: that object, or None.
            context: the model's `max_position_embeddings`, where the entry does not say the original one.

        Returns:
            The scaling.

        Raises:
            InputError: it is of a kind that is not known here.
        """
        if entry is None:
            return cls()
        if not isinstance(entry, Mapping):
            raise InputError(f"expected rope_scaling as an object, got {shown(entry)}: check config.json")
        kind = entry.get("rope_type", entry.get("type", "default"))
        if not isinstance(kind, str) or kind not in KINDS[:-1]:
            raise InputError(
                f"expected a rope_scaling of {', '.join(KINDS[:-1])}, got {shown(kind)}: such positions are not "
                "computed here; add them to jxai/models/transformers/rope.py"
            )
        if kind == "default":
            return cls()
        known = {field.name for field in dataclasses.fields(cls)} - {"kind", "factors"}
        given = {name: value for name, value in entry.items() if name in known and value is not None}
        given.setdefault("original_max_position_embeddings", context)
        if entry.get("mscale") is not None and entry.get("mscale_all_dim") is not None:
            factor = given.get("factor", 1.0)
            for name in ("mscale", "mscale_all_dim"):
                check_number(name, entry[name], above=0)
            check_number("factor", factor, above=0)
            hotter = [0.1 * entry[name] * math.log(factor) + 1 for name in ("mscale", "mscale_all_dim")]
            given.setdefault("attention_factor", hotter[0] / hotter[1])
        return cls(kind, **given)


def angular_frequencies(head_dim: int, *, theta: float, scaling: RopeScaling = RopeScaling()) -> np.ndarray:
    """Radians that each pair of channels turns by from one position to the next, float64.

    Args:
        head_dim: channels of a head, an even number.
        theta: the base; the slowest pair turns by about 1 / theta.
        scaling: how they are stretched.

    Returns:
        (head_dim / 2,), fastest first.

    References:
        Peng et al., *YaRN*, 2023.
    """
    frequency = theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    if scaling.kind == "factors":
        return frequency / np.asarray(scaling.factors, np.float64)
    if scaling.kind == "default":
        return frequency
    if scaling.kind == "linear":
        return frequency / scaling.factor
    context = scaling.original_max_position_embeddings
    if scaling.kind == "llama3":
        turns = context * frequency / (2 * math.pi)
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        kept = np.clip((turns - low) / (high - low), 0, 1)
    else:
        # The place among the channels of the pair that turns so often in the original context.
        first, last = (
            head_dim * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(theta))
            for turns in (scaling.beta_fast, scaling.beta_slow)
        )
        first, last = max(math.floor(first), 0), min(math.ceil(last), head_dim - 1)
        ramp = (np.arange(head_dim // 2) - first) / max(last - first, 1e-3)
        kept = 1 - np.clip(ramp, 0, 1)
    return frequency * kept + frequency / scaling.factor * (1 - kept)


def rotations(
    positions: Any, head_dim: int, *, theta: float, scaling: RopeScaling = RopeScaling()
) -> tuple[Any, Any]:
    """Cosines and sines, (T, head_dim) each: of the first T positions, float64 of NumPy, or of given ones, (T,)."""
    xp: Any = jnp if isinstance(positions, jax.Array) else np
    positions = np.arange(positions) if isinstance(positions, int) else positions
    angles = positions[:, None] * angular_frequencies(head_dim, theta=theta, scaling=scaling)
    angles = xp.concatenate([angles, angles], axis=1)
    hotter = 1.0
    if scaling.kind == "yarn":
        hotter = scaling.attention_factor or (0.1 * math.log(scaling.factor) + 1 if scaling.factor > 1 else 1)
    return xp.cos(angles) * hotter, xp.sin(angles) * hotter


def rotate(x: jax.Array, cosines: jax.Array, sines: jax.Array) -> jax.Array:
    """Heads turned by their positions.

    Args:
        x: (N, T, heads, D).
        cosines: (T, D).
        sines: (T, D).

    Returns:
        (N, T, heads, D).
    """
    first, second = jnp.split(x, 2, axis=-1)
    turned = jnp.concatenate([-second, first], axis=-1)
    cosines, sines = (table[None, :, None].astype(x.dtype) for table in (cosines, sines))
    return x * cosines + turned * sines
