"""What every estimator is given, as what it computes with: one array whose rows it may take in any order and number.

An array stays as it is. Of a tree of arrays (N, ...) all floats lie side by side in one array (N, D), so that an
estimator gives a tree what it gives the array; a tuple is f's arguments. Leaves of integers and booleans go along
with their rows as they are, but for token ids: these are what f looks up by them (`lookups`). In the tree that comes
back ids have what their embeddings' channels sum to, and other integers zeros.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jxai.attribution.lookups import Lookups
from jxai.batches.checks import (
    as_baseline,
    as_baselines,
    check_finite,
    check_references,
    is_tree,
    plain,
)
from jxai.batches.targets import Reading, Target, as_reading, check_target
from jxai.checks import as_array, check_functions, finite, keep_nan, shown
from jxai.compiled import run_compiled
from jxai.errors import InputError, InputTypeError


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Inputs of a function, and what is explained of it.

    Attributes:
        x: what is perturbed, (N, ...) floats: the array, or the floats of a tree, (N, D).
        target: each row's class, (N,).
        below: of images (c,), or None for all, to the function of their rows (c, ...): f, or what is below the head.
        read: from what that gives to scores (c, K), and of how many rows.
        tree: how the tree lies in x; None of an array.
    """

    x: jax.Array
    target: jax.Array
    below: Callable[[jax.Array | None], Callable[[jax.Array], Any]]
    read: Reading | None
    tree: "_Tree | None"

    def f(self, images: jax.Array | None = None) -> Callable[[jax.Array], jax.Array]:
        """The function from rows of these images (c, ...) to scores (c, K)."""
        function, read = self.below(images), self.read
        return function if read is None else lambda z: read(function(z), len(z))

    def above(self, head: Callable[[jax.Array], Any]) -> Callable[[jax.Array], jax.Array]:
        """The head from activations of any rows to scores."""
        read = self.read
        return head if read is None else lambda z: read(head(z), len(z))

    def explained(self, explain: Callable, at: jax.Array, images: jax.Array) -> jax.Array:
        """An explanation of rows in the place of these images, (c, ...)."""
        check_functions(explain=explain)
        return explain(self.f(images), at, self.target[images])

    def score(self, at: jax.Array, images: jax.Array | None = None) -> jax.Array:
        """Scores of rows in the place of these images, (c,)."""
        target = self.target if images is None else self.target[images]
        return jnp.take_along_axis(self.f(images)(at), target[:, None], axis=1)[:, 0]

    def attributions(self, found: jax.Array, *given: jax.Array) -> Any:
        """What is given back, of x's structure; NaN where the inputs are."""
        found = keep_nan(found.astype(self.x.dtype), self.x, *given)
        return finite("attributions", found if self.tree is None else self.tree.unpacked(found))

    def baseline(self, baseline: Any) -> jax.Array:
        """One baseline for every image, of x's shape and dtype."""
        if self.tree is None:
            return as_baseline(baseline, self.x)
        several = self.baselines(baseline)
        if len(several) > 1:
            raise InputError(f"expected one baseline, got {len(several)}: leave out their leading axis")
        return several[0]

    def baselines(self, baseline: Any) -> jax.Array:
        """One or several, (B, *x.shape)."""
        if self.tree is None or np.ndim(plain(baseline)) == 0:
            return as_baselines(baseline, self.x)
        return self.tree.several(baseline)

    def references(self, references: Any) -> jax.Array:
        """Other inputs of the data's distribution, (B, ...) of x's sizes."""
        if self.tree is None:
            references = as_array(references)
            check_references(references, self.x)
            return references
        return self.tree.references(references)

    def roots(self, roots: Any) -> jax.Array:
        """Points of each image, (R, *x.shape)."""
        if self.tree is not None:
            return self.tree.several(roots, name="roots")
        roots = as_array(roots)
        if roots.shape[1:] != self.x.shape:
            raise InputError(
                f"expected roots of shape (R, *{self.x.shape}), got {roots.shape}: give each image its own"
            )
        return roots


def as_inputs(f: Callable, x: Any, target: Target, *, head: Callable | None = None) -> Inputs:
    """What is given, checked once.

    Args:
        f: from inputs to scores, as in `gradient`; or with `head` what is below it.
        x: an array (N, ...) of floats, or a tree of arrays; a tuple is f's arguments.
        target: as in `gradient`.
        head: from what f gives to scores.

    Raises:
        TypeError: f is no function, `x` holds no floats, and no token ids that f looks up, or `target` no integers.
        ValueError: as `gradient`.
    """
    check_functions(f=f, head=f if head is None else head)
    above = head if head is not None else lambda below: below
    if not is_tree(x):
        given = as_array(x)
        if (
            not jnp.issubdtype(given.dtype, jnp.integer)
            or not given.ndim
            or not given.size
            or head is not None
        ):
            check_finite("x", given)
            check_target(target, len(given))
            outputs = jax.eval_shape(lambda x: above(f(x)), jax.ShapeDtypeStruct(given.shape, given.dtype))
            read, classes = as_reading(outputs, len(given), target, given.shape)
            return Inputs(given, classes, lambda images: f, read, None)
        x = given  # ids, or wrong
    tree = _Tree(f, x)
    check_target(target, tree.number)
    outputs = jax.eval_shape(lambda *given: above(f(*given)), *tree.arguments)
    read, classes = as_reading(outputs, tree.number, target)
    return Inputs(tree.x, classes, tree.function, read, tree)


def as_images(x: Any, kind: str = "images of shape (N, H, W, C)") -> jax.Array:
    """One array, of an estimator of pictures or the like; refuses trees."""
    if is_tree(x):
        raise InputError(
            f"expected one array of {kind}, got a tree of {len(jax.tree.leaves(x))}: close over what is "
            "not explained, or take an estimator of any features, such as feature_ablation"
        )
    return as_array(x)


class _Tree:
    """How a tree's leaves lie in an array (N, D): the floats, and behind them what lookups of ids find.

    Args:
        f: the function of the tree.
        x: the tree; one array where its integers are ids.
    """

    def __init__(self, f: Callable, x: Any):
        paths, self.structure = jax.tree_util.tree_flatten_with_path(x, is_leaf=lambda one: one is None)
        names = [f"x{jax.tree_util.keystr(path)}" for path, _ in paths]
        if not paths:
            raise InputError("expected a tree of arrays (N, ...), got an empty one: give at least one array")
        for name, (_, leaf) in zip(names, paths, strict=True):
            if leaf is None:
                raise InputTypeError(f"expected arrays as leaves of `x`, got None at {name}: leave it out")
        self.names, self.leaves = names, [as_array(leaf) for _, leaf in paths]
        for name, leaf in zip(names, self.leaves, strict=True):
            if not leaf.ndim or not leaf.size or leaf.shape[:1] != self.leaves[0].shape[:1]:
                raise InputError(
                    f"expected leaves of `x` of one batch (N, ...), got {leaf.shape} at {name} and "
                    f"{self.leaves[0].shape} at {names[0]}: close over what has no axis of inputs"
                )
            if jnp.issubdtype(leaf.dtype, jnp.inexact):  # complex numbers are refused there
                check_finite(name, leaf if leaf.ndim > 1 else leaf[:, None])
        self.number, self.spread = len(self.leaves[0]), type(x) is tuple
        self.floats = [i for i, leaf in enumerate(self.leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)]
        self.integers = [i for i in range(len(self.leaves)) if i not in self.floats]
        self.lookups = Lookups(f)
        self.found, self.sources = self._found(self.leaves) if self.integers else ([], [])
        if not self.floats and not self.found:
            got = ", ".join(f"{leaf.dtype} at {name}" for name, leaf in zip(names, self.leaves, strict=True))
            if len(names) == 1:
                got = str(self.leaves[0].dtype)
            raise InputTypeError(
                f"expected `x` of floats, got {got}: convert and normalize images; token ids are explained "
                "where `f` looks them up in an embedding (E[ids], jnp.take, nn.Embed)"
            )
        self._check_rows()
        self.pieces = [*(self.leaves[i] for i in self.floats), *self.found]
        self.dtype = jnp.result_type(*self.pieces)
        self.x = self._packed(self.pieces)

    def _check_rows(self) -> None:
        """Refuse what is looked up for all inputs together, or has them along another axis than the first."""
        shapes = [value.shape for value in self.found]
        if any(shape.count(self.number) > 1 for shape in shapes):
            # Which axis is the inputs' shows where there is one more of them.
            more = [jax.ShapeDtypeStruct((self.number + 1, *one.shape[1:]), one.dtype) for one in self.leaves]
            found = jax.eval_shape(lambda *given: self.lookups.found(given)[0], *self._arguments(more))
            shapes = [(one.shape[0] - 1, *one.shape[1:]) for one in found]
        for shape in shapes:
            if shape[0] != self.number:
                raise InputError(
                    f"expected embeddings (N, ...) of N = {self.number} where `f` looks token ids up, got {shape}: "
                    "keep the axis of inputs in front"
                )

    @property
    def arguments(self) -> tuple:
        return self._arguments(self.leaves)

    def _arguments(self, leaves: list[Any]) -> tuple:
        tree = jax.tree.unflatten(self.structure, leaves)
        return tree if self.spread else (tree,)

    def _found(self, leaves: list[jax.Array]) -> tuple[list[jax.Array], list[frozenset[int]]]:
        """What is looked up in such inputs, by a program that computes nothing else."""
        sources: list[frozenset[int]] = []

        def found() -> list[jax.Array]:
            values, sources[:] = self.lookups.found(self._arguments(leaves))
            return values

        return run_compiled(found), sources

    def _packed(self, pieces: list[jax.Array]) -> jax.Array:
        return jnp.concatenate([one.reshape(len(one), -1).astype(self.dtype) for one in pieces], axis=1)

    def _parts(self, flat: jax.Array) -> list[jax.Array]:
        """The pieces of rows, (c, ...) each, in their dtypes."""
        sizes = [one[0].size for one in self.pieces]
        parts = jnp.split(flat, np.cumsum(sizes)[:-1], axis=1)
        return [
            part.reshape(len(flat), *one.shape[1:]).astype(one.dtype)
            for part, one in zip(parts, self.pieces, strict=True)
        ]

    def function(self, images: jax.Array | None) -> Callable[[jax.Array], Any]:
        """f of rows (c, D) in the place of these images."""

        def of_rows(flat: jax.Array) -> Any:
            parts, leaves = self._parts(flat), list(self.leaves)
            count = self.number if images is None else len(images)
            if self.integers and len(flat) != count:
                raise InputError(
                    f"expected `explain` to take the {count} rows that it is given where `x` holds integers, got "
                    f"{len(flat)}: integers go along with their rows"
                )
            for i in self.integers:
                leaves[i] = leaves[i] if images is None else leaves[i][images]
            for i, part in zip(self.floats, parts, strict=False):
                leaves[i] = part
            if not self.found:
                return self.lookups.f(*self._arguments(leaves))
            return self.lookups(self._arguments(leaves), parts[len(self.floats) :])

        return of_rows

    def unpacked(self, flat: jax.Array) -> Any:
        """A tree of x's structure of what entries have: of ids the sum over what they are looked up as."""
        parts = self._parts(flat)
        leaves = {i: part.astype(self.leaves[i].dtype) for i, part in zip(self.floats, parts, strict=False)}
        wide = jnp.promote_types(self.dtype, jnp.float32)
        zeros = {i: jnp.zeros(self.leaves[i].shape, jnp.float32) for i in self.integers}
        if self.found:
            ids = {i: zeros[i] for i in frozenset().union(*self.sources)}
            values = [part.astype(jnp.float32) for part in parts[len(self.floats) :]]
            arguments = self.arguments

            def summed() -> dict[int, jax.Array]:
                # NaN times 0 is NaN: a row with one is NaN all over anyway.
                return jax.vjp(lambda given: self.lookups.shares(arguments, given), ids)[1](values)[0]

            zeros |= run_compiled(summed)
        leaves |= {i: one.astype(wide) for i, one in zeros.items()}
        return jax.tree.unflatten(self.structure, [leaves[i] for i in range(len(self.leaves))])

    def _leaves_like(self, name: str, tree: Any) -> list[Any]:
        try:
            leaves = self.structure.flatten_up_to(tree)
        except (ValueError, TypeError) as error:
            got = shown(tree) if hasattr(tree, "shape") else jax.tree.structure(tree)
            raise InputError(
                f"expected {name} as a number or a tree of x's structure {self.structure}, got {got}: give a leaf "
                "for each of x's"
            ) from error
        return [one if one is None else as_array(one) for one in leaves]

    def several(self, tree: Any, name: str = "baseline") -> jax.Array:
        """One or several inputs for each image, (B, N, D): leaves that broadcast to x's, or (B, *shape)."""
        given = self._leaves_like(name, tree)
        pieces, ids = [], {}
        for i in self.floats:
            pieces.append(as_baselines(0.0 if given[i] is None else given[i], self.leaves[i]))
        for i in frozenset().union(*self.sources):
            if given[i] is not None and jnp.issubdtype(given[i].dtype, jnp.integer):
                ids[i] = _broadcast_ids(given[i], self.leaves[i])
        counts = {len(one) for one in (*pieces, *ids.values())} - {1}
        count = counts.pop() if counts else 1
        if counts:
            raise InputError(
                f"expected as many of {name} in each leaf, got {count} and {counts.pop()}: give one number"
            )
        looked_up = (
            [
                self._found(
                    [
                        jnp.asarray(ids[i][b % len(ids[i])]) if i in ids else leaf
                        for i, leaf in enumerate(self.leaves)
                    ]
                )[0]
                for b in range(count)
            ]
            if ids
            else []
        )
        for k, (source, own) in enumerate(zip(self.sources, self.found, strict=True)):
            if source & ids.keys():
                pieces.append(jnp.stack([one[k] for one in looked_up]))
            else:
                value = given[min(source)]
                pieces.append(as_baselines(0.0 if value is None else value, own))
        rows = [
            jnp.broadcast_to(one, (count, *one.shape[1:])).reshape(count * self.number, *one.shape[2:])
            for one in pieces
        ]
        return self._packed(rows).reshape(count, *self.x.shape)

    def references(self, tree: Any) -> jax.Array:
        """Rows (B, D) of another batch."""
        given = self._leaves_like("references", tree)
        for name, own, other in zip(self.names, self.leaves, given, strict=True):
            kinds = [jnp.issubdtype(getattr(one, "dtype", object), jnp.floating) for one in (own, other)]
            if (
                other is None
                or kinds[0] != kinds[1]
                or not other.ndim
                or other.shape[1:] != own.shape[1:]
                or len(other) != len(given[0])
            ):
                raise InputError(
                    f"expected references (B, *{own.shape[1:]}) of {own.dtype} at {name}, got {shown(other)}: give "
                    "one batch of x's structure"
                )
            if kinds[0]:
                check_finite("references", other if other.ndim > 1 else other[:, None])
        found = self._found(given)[0] if self.found else []
        return self._packed([*(given[i] for i in self.floats), *found])

    def features(self, mask: Any) -> list[Any]:
        """Of a feature mask: what was given for each leaf, and the leaf; what is not explained is left out."""
        explained = {*self.floats, *frozenset().union(*self.sources)}
        given = [None] * len(self.leaves) if mask is None else self._leaves_like("feature_mask", mask)
        return [(given[i], leaf) for i, leaf in enumerate(self.leaves) if i in explained]

    def labels(self, of_leaves: list[np.ndarray]) -> jax.Array:
        """The features of entries, (N, D), of those of the leaves of `features`; -1 of constants looked up."""
        explained = sorted({*self.floats, *frozenset().union(*self.sources)})
        whole = {
            i: jnp.broadcast_to(jnp.asarray(one, jnp.int32), self.leaves[i].shape)
            for i, one in zip(explained, of_leaves, strict=True)
        }
        rows = [whole[i].reshape(self.number, -1) for i in self.floats]
        if self.found:
            given = {i: one.astype(jnp.float32) + 1 for i, one in whole.items() if i not in self.floats}
            shares = run_compiled(lambda: self.lookups.shares(self.arguments, given))
            rows += [one.reshape(self.number, -1).astype(jnp.int32) - 1 for one in shares]
        return jnp.concatenate(rows, axis=1)


def _broadcast_ids(given: jax.Array, ids: jax.Array) -> jax.Array:
    """Tokens in the place of ids, (B, *ids.shape), their dtype."""
    shape = given.shape if given.ndim > ids.ndim else ids.shape
    try:
        if shape[-ids.ndim :] != ids.shape:
            raise ValueError
        whole = jnp.broadcast_to(given, shape).astype(ids.dtype)
    except ValueError as error:
        raise InputError(
            f"expected tokens that broadcast to ids {ids.shape}, got {given.shape}: give one, or (B, *{ids.shape})"
        ) from error
    return whole if given.ndim > ids.ndim else whole[None]
