"""Where a traced operation stands in the model: calls of Flax modules leave their marks in the jaxpr.

A call of a Linen module puts its number into the name stack of every operation inside, and identities named after
it around its first argument and its results. Nothing else about the model changes.
"""

import contextlib
import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.core import Tracer


@dataclasses.dataclass(frozen=True, eq=False)
class ModuleCall:
    """One call of a Linen module.

    Attributes:
        module: the bound module.
        path: where it stands in the model, such as "encoder/block3/conv1".
    """

    module: nn.Module
    path: str


@contextlib.contextmanager
def recording(records: list[ModuleCall]) -> Iterator[None]:
    """Within this context, module calls of the current thread are marked, and appended to `records`.

    Args:
        records: filled as modules are called; a mark's number is an index into it.

    Yields:
        Nothing.
    """

    def interceptor(next_fun, args, kwargs, context):
        module, method = context.module, context.method_name
        if method == "setup":
            return next_fun(*args, **kwargs)
        index = len(records)
        records.append(ModuleCall(module, "/".join(module.path)))
        with jax.named_scope(f"jxai:{index}"):
            if method != "__call__":
                return next_fun(*args, **kwargs)
            bound = inspect.signature(context.orig_method).bind(*args, **kwargs)
            first = next(iter(bound.arguments), None)
            # Arguments of other kinds, such as *args, keep no mark; a rule for the whole module finds its input
            # by the flow of values then.
            if first is not None and bound.signature.parameters[first].kind in (
                inspect.Parameter.POSITIONAL_ONLY,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                inspect.Parameter.KEYWORD_ONLY,
            ):
                bound.arguments[first] = _marked(bound.arguments[first], index, "in")
                args, kwargs = bound.args, bound.kwargs
            return _marked(next_fun(*args, **kwargs), index, "out")

    with nn.intercept_methods(interceptor):
        yield


def _marked(tree: Any, index: int, side: str) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    return structure.unflatten(
        [
            checkpoint_name(leaf, f"jxai:{index}:{side}:{k}") if isinstance(leaf, Tracer) else leaf
            for k, leaf in enumerate(leaves)
        ]
    )


FIXED = "jxai:fixed"


def fixed(x: jax.Array) -> jax.Array:
    """x, said to be no weights: a contraction with it is a fixed map of the input and no layer.

    A layer's kernel is what depends on an array that the function closes over, or on an outer argument; what constant
    expressions give (resizing, one-hot masks, Fourier bases written out in the function) is none. This is for fixed
    matrices that were made outside: an adjacency, a filter bank, a basis.

    Example:
        >>> import jax.numpy as jnp
        >>> from jxai import lrp
        >>> adjacency = jnp.array([[0.5, 0.5], [0.0, 1.0]])
        >>> f = lambda nodes: lrp.fixed(adjacency) @ nodes
        >>> print(lrp.coverage(f, jnp.ones((2, 3)), composite=lrp.EpsilonPlus()).rows[0].operation.kind)
        Kind.FIXED

    Args:
        x: an array.

    Returns:
        The same.
    """
    return checkpoint_name(jnp.asarray(x), FIXED)
