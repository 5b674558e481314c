"""Attention probabilities of a model, and rollout of them: what relevance is compared with.

Probabilities are the values in scopes "attention/weights", as `jax.named_scope` names them; see `jxai.text.layers`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.typing import ArrayLike

from jxai.batches.checks import as_finite
from jxai.checks import check_number, finite, keep_nan, values
from jxai.compiled import run_compiled
from jxai.errors import InputError
from jxai.jaxprs import opened, scan_operands
from jxai.text.inputs import as_ids, as_mask

_PLACE = "attention/weights"


def attention(model: Any, ids: ArrayLike, *, mask: ArrayLike | None = None) -> jax.Array:
    """Attention probabilities of every layer and head.

    Args:
        model: as in `explain`, whose probabilities are computed within scopes "attention/weights", by a scan or not.
        ids: the tokens, (N, T) integers.
        mask: which tokens count, (N, T) booleans; by default all.

    Returns:
        (N, L, H, T, T): from the query's position, last but one, to the key's.

    Raises:
        TypeError: tokens are no integers, or the mask no booleans.
        ValueError: shapes do not fit, or the model has no such scopes.
    """
    ids = as_ids(ids)
    mask = as_mask(mask, ids)
    found = _captured(lambda x: model.encode(x, mask), model.embed(ids))
    stacked = [array if array.ndim == 5 else array[None] for array in found]
    if not stacked or any(array.ndim != 5 for array in stacked):
        raise InputError(
            f"expected a model with probabilities (N, H, T, T) in scopes {_PLACE!r}, got "
            f"{[array.shape for array in found]}: name them by jax.named_scope"
        )
    return finite("attention", jnp.moveaxis(jnp.concatenate(stacked), 0, 1))


def attention_rollout(attention: ArrayLike, *, residual: float = 0.5) -> jax.Array:
    """How much of each token reaches each position through attention and residual connections alone.

    Π over layers of (residual · I + (1 − residual) · mean over heads), the first layer last. It knows nothing of
    values, MLPs or the score: a rival for relevance, the same for every target.

    Args:
        attention: probabilities, (N, L, H, T, T), as `attention` gives them.
        residual: share of the residual connection, in [0, 1]; the paper's is one half.

    Returns:
        (N, T, T), float32: a position's shares of all tokens, which add up to 1.

    Raises:
        TypeError: no array of real numbers.
        ValueError: another shape, values that are not finite, rows that do not add up to 1, or a share not in [0, 1].

    References:
        Abnar and Zuidema, *Quantifying Attention Flow in Transformers*, 2020.
    """
    attention = as_finite("attention", attention).astype(jnp.float32)
    if attention.ndim != 5 or attention.shape[-1] != attention.shape[-2]:
        raise InputError(
            f"expected attention of shape (N, L, H, T, T), got {attention.shape}: see text.attention"
        )
    check_number("residual", residual, least=0, most=1)
    known = values(attention)
    if known is not None and (known.min() < -1e-3 or abs(known.sum(axis=-1) - 1).max() > 1e-2):
        raise InputError(
            "expected attention whose rows add up to 1, got others: give probabilities, not logits"
        )
    same = jnp.eye(attention.shape[-1])
    mixed = residual * same[None, None] + (1 - residual) * attention.mean(axis=2)

    def above(reached: jax.Array, layer: jax.Array) -> tuple[jax.Array, None]:
        return jnp.matmul(layer, reached, precision="highest"), None

    start = jnp.broadcast_to(same[None], mixed[:, 0].shape)
    rolled = run_compiled(lambda: jax.lax.scan(above, start, jnp.moveaxis(mixed, 1, 0))[0])
    return finite("shares", keep_nan(rolled, attention))


def _captured(f: Callable[[jax.Array], Any], x: jax.Array) -> list[jax.Array]:
    """What is computed last in each scope of the place, in the order of the program; in a loop, stacked."""
    closed = jax.make_jaxpr(f)(x)
    return run_compiled(lambda x: [*_evaluate(closed, [x], "")[1].values()], x)


def _evaluate(closed: Any, arguments: Sequence[Any], outer: str) -> tuple[list[Any], dict[str, Any]]:
    """Results of a jaxpr, and the values by their scope's path."""
    jaxpr, constants = opened(closed)
    known = dict(zip(jaxpr.constvars, constants, strict=True))
    known.update(zip(jaxpr.invars, arguments, strict=True))
    seen: dict[str, Any] = {}

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else known[atom]

    for equation in jaxpr.eqns:
        path = _path(outer, equation)
        operands = [read(atom) for atom in equation.invars]
        with equation.ctx.manager:
            results = _results(equation, operands, path, seen)
        known.update(zip(equation.outvars, results, strict=True))
        if _is_place(path):
            seen[path] = results[0]
    return [read(atom) for atom in jaxpr.outvars], seen


def _results(equation: Any, operands: list[Any], path: str, seen: dict[str, Any]) -> list[Any]:
    inner = next((equation.params[name] for name in ("jaxpr", "call_jaxpr") if name in equation.params), None)
    if inner is not None and not _is_place(path) and _has_place(inner, path):
        if equation.primitive.name != "scan":
            results, found = _evaluate(inner, operands, path)
            seen.update(found)
            return results
        params = equation.params
        start, count = scan_operands(params)

        def body(carry: list[Any], xs: list[Any]) -> tuple[list[Any], Any]:
            results, found = _evaluate(inner, [*operands[:start], *carry, *xs], path)
            return results[:count], (results[count:], found)

        carry, (ys, found) = jax.lax.scan(
            body,
            operands[start : start + count],
            operands[start + count :],
            length=params["length"],
            reverse=params["reverse"],
        )
        seen.update(found)
        return [*carry, *ys]
    parameters = equation.primitive.get_bind_params(equation.params)
    results = equation.primitive.bind(*operands, **parameters)
    return results if equation.primitive.multiple_results else [results]


def _path(outer: str, equation: Any) -> str:
    own = str(equation.source_info.name_stack)
    return "/".join(filter(None, (outer, own)))


def _is_place(path: str) -> bool:
    return f"/{path}".endswith(f"/{_PLACE}")


def _has_place(closed: Any, outer: str) -> bool:
    jaxpr, _ = opened(closed)
    for equation in jaxpr.eqns:
        path = _path(outer, equation)
        inner = [equation.params[name] for name in ("jaxpr", "call_jaxpr") if name in equation.params]
        if _is_place(path) or any(_has_place(one, path) for one in inner):
            return True
    return False
