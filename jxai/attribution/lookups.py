"""Token ids inside of a function: where they are looked up in an embedding, and the function of what is found there.

An id has no gradient; what is explained is its row of a table. A lookup is a gather of a constant float table by
ids, or by what only moves, shifts or bounds them (`E[ids]`, `jnp.take`, `nn.Embed`; under `vmap`, of slices, behind a
class token). Beside each value that is such ids travels its share: zeros and ones that say which ids its entries are.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jxai.errors import InputError
from jxai.jaxprs import CALLS, evaluated

# What moves, shifts or bounds entries of integers: the first with one operand of ids, the second among constants.
_MOVES = frozenset(
    ("reshape", "transpose", "broadcast_in_dim", "squeeze", "expand_dims", "slice", "rev", "copy")
)
_BOUNDS = frozenset(("add", "sub", "max", "min", "clamp", "rem"))
_SAME = frozenset(("convert_element_type", "stop_gradient", "optimization_barrier", "reduce_precision"))
_LOOPS = frozenset(("scan", "while", "cond"))


class _Varied(NamedTuple):
    """A value that depends on the inputs: there, and of ids the share of each leaf's ids in its entries."""

    value: Any
    shares: dict[int, jax.Array] | None = None


class Lookups:
    """A function of inputs, with what its lookups of their ids find.

    Args:
        f: the function, of any number of arguments, trees of arrays (c, ...).
    """

    def __init__(self, f: Callable[..., Any]):
        self.f = f

    def found(self, arguments: tuple) -> tuple[list[jax.Array], list[frozenset[int]]]:
        """What lookups find, in their order, (c, ...) each, and whose ids they look up: places among the leaves."""
        run = _Run(_ones)
        run(self.f, arguments)
        return run.found, run.sources

    def shares(self, arguments: tuple, given: dict[int, jax.Array]) -> list[jax.Array]:
        """What is given for the ids of each leaf, where lookups find these ids; a linear function of it."""
        run = _Run(lambda i, ids: given.get(i, jnp.zeros(jnp.shape(ids))))
        run(self.f, arguments)
        return run.shares

    def __call__(self, arguments: tuple, found: Sequence[jax.Array]) -> Any:
        """f where its lookups of inputs' ids give `found`; those of constants give what they gave."""
        return _Run(_ones, found)(self.f, arguments)


def _ones(_: int, ids: Any) -> jax.Array:
    return jnp.ones(jnp.shape(ids))


class _Run:
    """One evaluation of a function's equations; collects what lookups find, and replaces it where that is given."""

    def __init__(self, share: Callable[[int, Any], jax.Array], given: Sequence[jax.Array] | None = None):
        self.share, self.given = share, given
        self.found: list[jax.Array] = []
        self.shares: list[jax.Array] = []
        self.sources: list[frozenset[int]] = []

    def __call__(self, f: Callable[..., Any], arguments: tuple) -> Any:
        closed, shapes = jax.make_jaxpr(lambda *given: f(*given), return_shape=True)(*arguments)
        leaves = [
            _Varied(
                leaf, {i: self.share(i, leaf)} if jnp.issubdtype(jnp.result_type(leaf), jnp.integer) else None
            )
            for i, leaf in enumerate(jax.tree.leaves(arguments))
        ]
        results = [
            one.value if isinstance(one, _Varied) else one for one in evaluated(closed, leaves, self.apply)
        ]
        return jax.tree.unflatten(jax.tree.structure(shapes), results)

    def apply(self, equation: Any, operands: list[Any]) -> list[Any]:
        name, params = equation.primitive.name, equation.params
        varied = [isinstance(one, _Varied) for one in operands]
        shares = [one.shares if isinstance(one, _Varied) else None for one in operands]
        ids = [one is not None for one in shares]
        # A function with a derivative of its own keeps it, but where ids are looked up in it.
        if name in CALLS and (any(ids) or (any(varied) and not name.startswith("custom_"))):
            return evaluated(params[CALLS[name]], operands, self.apply)
        if name in _LOOPS and any(ids):
            raise InputError(
                f"expected token ids that are looked up outside of loops, got some in a {name}: look them up before "
                "it, or give f embeddings and explain these"
            )

        def evaluate(*given: Any) -> list[Any]:
            results = equation.primitive.bind(*given, **equation.primitive.get_bind_params(params))
            return list(results) if equation.primitive.multiple_results else [results]

        plain = [one.value if isinstance(one, _Varied) else one for one in operands]
        results = evaluate(*plain)
        if not any(varied):
            return results
        if not any(ids):
            return [_Varied(one) for one in results]
        if name == "gather" and not varied[0] and (of_ids := shares[1]) and _is_float(results[0]):
            return [_Varied(self.looked_up(results[0], of_ids, params["dimension_numbers"]))]
        if not jnp.issubdtype(results[0].dtype, jnp.integer):
            return [_Varied(one) for one in results]
        return [_Varied(results[0], _moved(name, plain, shares, results[0].shape, evaluate))]

    def looked_up(self, own: jax.Array, shares: dict[int, jax.Array], numbers: Any) -> jax.Array:
        """What a lookup gives: what is given for it, but where its ids are constants."""
        axes = [axis for axis in range(own.ndim) if axis not in numbers.offset_dims]

        def spread(share: jax.Array) -> jax.Array:
            return jax.lax.broadcast_in_dim(share[..., 0], own.shape, axes)

        share = functools.reduce(jnp.add, map(spread, shares.values()))
        number = len(self.found)
        self.found.append(own)
        self.shares.append(share)
        self.sources.append(frozenset(shares))
        return own if self.given is None else jnp.where(share > 0, self.given[number].astype(own.dtype), own)


def _is_float(value: Any) -> bool:
    return jnp.issubdtype(value.dtype, jnp.floating)


def _moved(
    name: str,
    operands: list[Any],
    shares: list[dict[int, jax.Array] | None],
    shape: tuple[int, ...],
    evaluate: Callable[..., list[Any]],
) -> dict[int, jax.Array] | None:
    """The shares of ids in a result of integers, or None where it is no ids any more."""
    ids = [one is not None for one in shares]
    leaves = sorted({leaf for one in shares if one for leaf in one})
    first = ids.index(True)

    def moved(leaf: int) -> jax.Array | None:
        own = [None if one is None else one.get(leaf) for one in shares]
        floats = [
            jnp.zeros(jnp.shape(x)) if one is None else one for one, x in zip(own, operands, strict=True)
        ]
        if name in _SAME:
            return floats[0]
        if name in _BOUNDS:
            return floats[first] if sum(ids) == 1 and floats[first].shape == shape else None
        if (name in _MOVES and sum(ids) == 1) or name == "concatenate":
            return evaluate(*floats)[0]
        if name in ("select_n", "dynamic_slice", "gather") and not (
            ids[0] if name == "select_n" else any(ids[1:])
        ):
            kept = [operands[0], *floats[1:]] if name == "select_n" else [floats[0], *operands[1:]]
            return evaluate(*kept)[0]
        if name == "pad" and not ids[1]:
            return evaluate(floats[0], jnp.zeros(()))[0]
        return None

    found = {leaf: one for leaf in leaves if (one := moved(leaf)) is not None}
    return found if len(found) == len(leaves) else None
