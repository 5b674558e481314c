"""What the metrics of tokens are given, checked; see `jxai.metrics.tokens`."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jxai.batches.checks import as_baseline, as_finite
from jxai.batches.chunks import map_chunks, rows_in_flight
from jxai.checks import as_array, check_count, check_number, finite, keep_nan, values
from jxai.errors import InputError, InputTypeError
from jxai.metrics.inputs import as_batch, probabilities, target_scores
from jxai.metrics.pixels import removal_ranks

# From embeddings, and with `removed` which tokens are there.
TokenScores = Callable[..., jax.Array]


def probabilities_of(f: TokenScores) -> TokenScores:
    """The softmax of scores that may also depend on which tokens are there."""
    return lambda x, *present: probabilities(lambda z: f(z, *present))(x)


class TokenInputs:
    """What the metrics are given, checked, and the scores of what they make of it."""

    def __init__(
        self,
        f: TokenScores,
        x: jax.Array,
        relevance: jax.Array,
        target: jax.Array,
        baseline: ArrayLike,
        removed: bool,
        mask: ArrayLike | None,
        *,
        probability: bool = False,
    ):
        x = as_array(x)
        if x.ndim != 3:
            raise InputError(
                f"expected embeddings `x` of shape (N, T, C), got {x.shape}: embed the tokens first"
            )
        self.mask = jnp.ones(x.shape[:2], bool) if mask is None else as_array(mask)
        if self.mask.dtype != bool:
            raise InputTypeError(f"expected `mask` of booleans, got {self.mask.dtype}: compare it with 1")
        if self.mask.shape != x.shape[:2]:
            raise InputError(f"expected `mask` of shape {x.shape[:2]}, got {self.mask.shape}: one a token")
        if (known := values(self.mask)) is not None and x.size and not known.any(axis=1).all():
            raise InputError("expected `mask` with a token a sequence, got a sequence without: leave it out")
        # Only shapes are asked for: as many tokens are there as before.
        self.x, self.target = as_batch(x, target, f=(lambda z: f(z, self.mask)) if removed else f)
        self.relevance = as_finite("relevance", relevance).astype(jnp.float32)
        if self.relevance.shape != x.shape[:2]:
            raise InputError(
                f"expected `relevance` of shape {x.shape[:2]}, got {self.relevance.shape}: one value a token, summed "
                "over channels"
            )
        self.f, self.removed = (probabilities_of(f) if probability else f), removed
        self.baseline = as_baseline(baseline, self.x)
        self.length = self.mask.sum(axis=1, keepdims=True)
        # Padding has the last places.
        self.ranks = removal_ranks(jnp.where(self.mask, self.relevance, -jnp.inf))

    def first(self, num_tokens: int | None) -> jax.Array:
        """Numbers of tokens from 0 on, (1, S + 1)."""
        most = self.x.shape[1]
        if num_tokens is not None and check_count("num_tokens", num_tokens) > most:
            raise InputError(f"expected num_tokens of at most {most}, got {num_tokens}: leave it out for all")
        return jnp.arange((num_tokens or most) + 1)[None]

    def counts(self, shares: Sequence[float]) -> jax.Array:
        """Numbers of tokens, (N, 1 + S), the first 0."""
        try:
            shares = [*shares]
        except TypeError:
            shares = []
        if not shares:
            raise InputError("expected shares of the tokens, got none: give such as (0.1, 0.5)")
        for share in shares:
            check_number("shares", share, above=0, most=1)
        exact = jnp.asarray([[0.0, *shares]], jnp.float32) * self.length.astype(jnp.float32)
        return jnp.ceil(exact - 1e-4).astype(jnp.int32)  # 0.2 · 5 is one token in float32 too

    def at_most(self, counts: jax.Array) -> jax.Array:
        """Numbers of tokens that go, (N, P, 1): all, or all but one."""
        return jnp.minimum(counts, self.length - int(self.removed))[:, :, None]

    def at_least(self, counts: jax.Array) -> jax.Array:
        """Numbers of tokens that stay, (N, P, 1)."""
        return jnp.maximum(jnp.minimum(counts, self.length), int(self.removed))[:, :, None]

    def scores(self, stays: jax.Array, chunk_size: int | None) -> jax.Array:
        """The target's scores where only some tokens, (N, P, T), are there: (N, P)."""
        num_rows, num_points = stays.shape[:2]

        def rows(rows: jax.Array) -> jax.Array:
            n = rows // num_points
            here = stays[n, rows % num_points] | ~self.mask[n]
            if not self.removed:
                mixed = jnp.where(here[..., None], self.x[n], self.baseline[n])
                return target_scores(self.f, mixed, n, self.target)
            here &= self.mask[n]
            order = jnp.argsort(~here, axis=1, stable=True)
            moved = jnp.take_along_axis(self.x[n], order[..., None], axis=1)
            present = jnp.arange(here.shape[1])[None] < here.sum(axis=1, keepdims=True)
            return target_scores(lambda z: self.f(z, present), moved, n, self.target)

        found = map_chunks(rows, num_rows * num_points, rows_in_flight(self.x, chunk_size))
        return self.told(finite("scores", found).reshape(num_rows, num_points))

    def told(self, result: jax.Array) -> jax.Array:
        """The result, NaN where something given is not finite."""
        return keep_nan(result, self.relevance, self.x, self.baseline)
