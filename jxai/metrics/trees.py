"""Inputs of several arrays, as the tables that metrics take: all features of a row side by side."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jxai.batches.checks import as_finite
from jxai.checks import as_array, shown
from jxai.errors import InputError, InputTypeError


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """A tree of inputs as a table, and the function of such trees as one of tables.

    Attributes:
        values: the inputs, (N, D): leaf after leaf, each in reading order.
    """

    values: jax.Array
    _f: Callable[..., Any]
    _structure: Any
    _leaves: tuple[jax.ShapeDtypeStruct, ...]

    def f(self, values: jax.Array) -> Any:
        """The function's scores of any rows.

        Args:
            values: (n, D).

        Returns:
            What the function gives of their tree, (n, K).
        """
        return _called(self._f, self.tree(values))

    def method(self, method: Callable[..., Any]) -> Callable[..., jax.Array]:
        """A method that explains such trees as one that explains the table.

        Args:
            method: of (f, key, tree, target) to attributions, a tree of the inputs' structure.

        Returns:
            Of (f, key, values (n, D), target), f being this table's or another function of rows, to (n, D).
        """

        def explain(f: Callable[..., Any], key: jax.Array, values: jax.Array, target: jax.Array) -> jax.Array:
            spread = isinstance(self.tree(values), tuple)
            # As the caller's function is: what is between would be explained with it.
            of_tree = self._f if f == self.f else lambda *given: f(self.flat(given if spread else given[0]))
            return self.flat(method(of_tree, key, self.tree(values), target))

        return explain

    def tree(self, values: jax.Array) -> Any:
        """Rows as the tree that they are.

        Args:
            values: (n, D).

        Returns:
            The tree, its leaves (n, ...) of their own dtypes.
        """
        leaves, start = [], 0
        for leaf in self._leaves:
            size = _size(leaf)
            own = values[:, start : start + size].astype(leaf.dtype)
            leaves.append(own.reshape(len(values), *leaf.shape[1:]))
            start += size
        return jax.tree.unflatten(self._structure, leaves)

    def flat(self, tree: Any) -> jax.Array:
        """Attributions, or a baseline, as rows of the table.

        Args:
            tree: of the inputs' structure, its leaves of their shapes, with any number of rows, or numbers that fill
                them.

        Returns:
            (n, D), of the table's dtype.

        Raises:
            TypeError: another structure.
            ValueError: another shape, or values that are not finite (not seen under jit).
        """
        leaves, structure = jax.tree.flatten(tree)
        if structure != self._structure:
            raise InputTypeError(
                f"expected a tree as the inputs, {self._structure}, got {structure}: give every array its own"
            )
        rows, arrays = [], [*map(as_array, leaves)]
        number = next((len(given) for given in arrays if given.ndim), len(self.values))
        for given, leaf in zip(arrays, self._leaves, strict=True):
            shape = number, *leaf.shape[1:]
            if given.shape not in ((), shape):
                raise InputError(
                    f"expected arrays of the inputs' shapes, here {shape}, or numbers, got {given.shape}: "
                    "attributions keep their channels"
                )
            wide = given.astype(self.values.dtype)
            rows.append(jnp.broadcast_to(wide, shape).reshape(number, -1))
        return as_finite("values", jnp.concatenate(rows, axis=1))


def as_table(f: Callable[..., Any], x: Any) -> Table:
    """A function of several arrays as one of tables (N, D), which every metric of any features takes.

    All features count as one table's: what is removed, and in which order, goes over all arrays.

    Example:
        >>> x = {"pixels": jnp.ones((2, 4, 4, 3)), "age": jnp.ones((2, 1))}
        >>> table = as_table(lambda x: jnp.stack([x["pixels"].sum((1, 2, 3)), x["age"][:, 0]], axis=1), x)
        >>> table.values.shape
        (2, 49)
        >>> table.flat({"pixels": x["pixels"], "age": 0.0}).sum(axis=1)
        Array([48., 48.], dtype=float32)
        >>> table.f(table.values).shape
        (2, 2)

    Args:
        f: of the tree to scores (n, K), any number of rows; a tuple's entries are its arguments.
        x: the inputs: a tree of floats, (N, ...) each.

    Returns:
        The table: `values` and `f` for a metric, `flat` for attributions and baselines, `tree` for functions that
        explain again.

    Raises:
        TypeError: f is no function, there is no leaf, or one is no array of floats: integers have no part in a
            removal.
        ValueError: a leaf without rows or features, other numbers of rows, or values that are not finite (not seen
            under jit).
    """
    if not callable(f):
        raise InputTypeError(f"expected a function of the inputs as `f`, got {shown(f)}: give one")
    leaves, structure = jax.tree.flatten(x)
    if not leaves:
        raise InputTypeError(f"expected a tree of arrays (N, ...) as `x`, got {shown(x)}: give at least one")
    arrays = [as_finite("x", leaf) for leaf in leaves]
    for array in arrays:
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise InputTypeError(
                f"expected floats in every array of `x`, got {array.dtype}: close over integers, or give embeddings"
            )
        if len(array) != len(arrays[0]):
            raise InputError(
                f"expected arrays (N, ...) of one N, got {array.shape} and {arrays[0].shape}: one row an input"
            )
    dtype = jnp.result_type(*(array.dtype for array in arrays))
    values = jnp.concatenate([one.astype(dtype).reshape(len(one), -1) for one in arrays], axis=1)
    return Table(values, f, structure, tuple(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in arrays))


def _called(f: Callable[..., Any], tree: Any) -> Any:
    """A function of a tree; a tuple's entries are its arguments."""
    return f(*tree) if isinstance(tree, tuple) else f(tree)


def _size(leaf: jax.ShapeDtypeStruct) -> int:
    """Features of a row."""
    return leaf.size // leaf.shape[0]
