"""`lrp.vjp`: as `jax.vjp`, with relevance in the place of gradients."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jxai.checks import as_array, finite, shown
from jxai.lrp.calls import normal
from jxai.lrp.engine.facts import Flags, Status
from jxai.lrp.engine.graph import Tokens, widen
from jxai.lrp.engine.places import Context
from jxai.lrp.engine.plan import Plan, make_plan
from jxai.lrp.engine.run import Probes, run
from jxai.lrp.engine.scopes import find
from jxai.lrp.engine.trace import trace
from jxai.lrp.rules.composites import Composite, check_composite
from jxai.lrp.rules.ratio import to_ratio, to_relevance


@dataclasses.dataclass(frozen=True)
class Explained:
    """A traced function with its plan.

    Attributes:
        plan: its steps.
        leaves: the primals' leaves, at least float32; integers stay.
        structure: of the primals.
        outputs: tree of the outputs' shapes.
        num_outputs: how many of the plan's outputs are not auxiliary.
        auxiliary: tree of the auxiliary outputs, `_ARRAY` in the place of arrays.
        composite: the rules.
    """

    plan: Plan
    leaves: list[Any]
    structure: Any
    outputs: Any
    num_outputs: int
    auxiliary: Any
    composite: Composite

    def run(
        self, floats: list[Any], probes: Probes, places: dict[int, Any] | None = None
    ) -> tuple[list[Any], list[Any]]:
        """(outputs, auxiliary outputs) as lists, for the primals' leaves of floats and the places of tokens."""
        given = iter(floats)
        arguments = [
            next(given)
            if _is_float(x)
            else Tokens(jnp.asarray(x), places[i] if places else jnp.zeros(jnp.shape(x)))
            for i, x in enumerate(self.leaves)
        ]
        results = run(self.plan, arguments, probes, gradients=not self.composite.relevance)
        return results[: self.num_outputs], results[self.num_outputs :]


def explain(
    f: Callable,
    primals: Sequence[Any],
    composite: Composite,
    *,
    has_aux: bool = False,
    start: str | None = None,
    taps: Sequence[str] = (),
) -> Explained:
    """Trace a function and give every operation its rule; for the arguments see `vjp`."""
    check_composite(composite)
    leaves, structure = jax.tree.flatten(tuple(primals))
    for leaf in leaves:
        _check_leaf(leaf)
    kept: list[Any] = []

    def traced(*primals):
        if not has_aux:
            return f(*primals), ()
        y, aux = f(*primals)
        arrays, rest = _split(aux)
        kept.append(rest)
        return y, arrays

    program, (outputs, _), records = trace(traced, primals)
    num_outputs = len(jax.tree.leaves(outputs))
    if start is not None:
        value = next(iter(find(program.calls.values(), start).outputs.values()))
        outputs, values = jax.ShapeDtypeStruct(value.shape, value.dtype), [value]
    else:
        values = program.outputs[:num_outputs]
    auxiliary = program.outputs[num_outputs:]
    program = dataclasses.replace(program, outputs=values, auxiliary=auxiliary).pruned()
    context = Context(composite, records, frozenset(taps))
    places = context.taps(program)
    flags = [Flags() if _is_float(x) else Flags(Status.HELD, token=True) for x in leaves]
    plan = make_plan(program, context, flags, places)
    if unmet := sorted(set(taps) - set(plan.watched())):
        for path in unmet:
            if not any(record.path == normal(path).partition("#")[0] for record in records):
                find(program.calls.values(), path)
        raise ValueError(
            f"expected to watch or mask modules on the way from the inputs to the outputs, got {', '.join(unmet)}, "
            "where no relevance passes: leave them out"
        )
    context.warn()
    if any(not _is_float(x) for x in leaves) and not any(step.tokens for step in plan.operations()):
        x = next(x for x in leaves if not _is_float(x))
        raise TypeError(
            f"expected integers to be looked up in a table, as nn.Embed does, got {jnp.result_type(x)} of shape "
            f"{jnp.shape(x)} in no embedding: convert the input to floats, or close over it"
        )
    rest = kept[0] if has_aux else None
    # Shapes alone do where nothing is run.
    leaves = [x if isinstance(x, jax.ShapeDtypeStruct) else widen(x) for x in leaves]
    return Explained(plan, leaves, structure, outputs, len(values), rest, composite)


def vjp(
    f: Callable,
    *primals: Any,
    composite: Composite,
    has_aux: bool = False,
    start: str | None = None,
    watch: Sequence[str] = (),
    masks: Mapping[str, Any] | None = None,
) -> tuple:
    """Evaluate `f` and get the function that takes relevance of its outputs to relevance of its inputs.

    Works under `jit`, `vmap`, `grad` and `pmap`; all classes of one forward pass come from `jax.vmap(pullback)`.
    Every operation of `f` has a rule of the composite, or hands on relevance as `lrp.coverage` shows, or is refused.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp
        >>> from jxai import lrp
        >>> model = nn.Dense(2, use_bias=False)
        >>> x = jnp.array([[1.0, 2.0]])
        >>> variables = model.init(jax.random.key(0), x)
        >>> y, pullback = lrp.vjp(lambda x: model.apply(variables, x), x, composite=lrp.EpsilonPlus())
        >>> (relevance,) = pullback(y)

    Args:
        f: function of the primals to an array or a tree of arrays. It may close over variables and call any
            number of modules of Linen, NNX, Equinox, Haiku or Keras and functions of JAX.
        *primals: arrays or trees of arrays of floats (bfloat16 is computed in float32), or of integers that are
            looked up in an embedding.
        composite: the rules.
        has_aux: whether `f` returns a pair whose second part is handed through.
        start: path of a module, such as "encoder/block3", a name scope or an `lrp.mark`: its output is explained
            in the place of f's. Of what is called several times, one call: "conv#1".
        watch: paths at whose outputs relevance is wanted too. What is watched stays an activation of its
            own: a batch norm that is watched is not merged into the layer after it.
        masks: by path, what relevance is multiplied by at its output: an array that broadcasts to it,
            such as a one for a channel and zeros for the others (concept relevance; Achtibat et al. 2023).

    Returns:
        (y, pullback), or (y, pullback, aux). `pullback(relevance)` takes a tree of y's shape and gives the
        tuple of the primals' relevances, of the primals' shapes and, where they are floats, dtypes; with `watch`
        it gives a pair of that and a dictionary of relevances by path, before masks.

    Raises:
        TypeError: a primal is no array, float16, in which ratios overflow, or of integers that meet no embedding; no
            composite, or no paths.
        ValueError: an operation has no rule, no module has such a path, the relevance handed to `pullback` is not
            of y's shape, a primal is empty, or a primal or relevance is not finite (not seen under jit).

    References:
        Bach et al., *On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise Relevance
        Propagation*, 2015.
    """
    check_composite(composite)
    masks = _checked_paths(start, watch, masks)
    if (watch or masks) and not composite.relevance:
        raise ValueError(
            f"expected a composite of relevance to watch or mask modules, got {composite.name}, under which "
            "gradients travel: leave watch and masks out"
        )
    explained = explain(
        f, primals, composite, has_aux=has_aux, start=start, taps=[*dict.fromkeys([*watch, *masks])]
    )
    shapes = explained.plan.watched()
    taps = {path: jnp.zeros(shapes[path]) for path in watch}
    tokens = {i: jnp.zeros(jnp.shape(x)) for i, x in enumerate(explained.leaves) if not _is_float(x)}
    floats = [x for x in explained.leaves if _is_float(x)]

    def outputs(floats, taps, tokens):
        return explained.run(floats, Probes(taps=taps, masks=masks), tokens)

    found, ratio_pullback, aux = jax.vjp(outputs, floats, taps, tokens, has_aux=True)
    y = jax.tree.unflatten(jax.tree.structure(explained.outputs), found)
    ratios = composite.relevance

    def pullback(relevance):
        _check_same_shapes(relevance, y)
        given = [
            finite("relevance of the outputs", as_array(r, z.dtype))
            for r, z in zip(jax.tree.leaves(relevance), found, strict=True)
        ]
        given = [to_ratio(r, z) for r, z in zip(given, found, strict=True)] if ratios else given
        of_floats, watched, of_tokens = ratio_pullback(given)
        if ratios:
            of_floats = [to_relevance(c, x) for c, x in zip(of_floats, floats, strict=True)]
        rest = iter(of_floats)
        leaves = [
            next(rest).astype(jnp.result_type(p)) if _is_float(p) else of_tokens[i]
            for i, p in enumerate(jax.tree.leaves(tuple(primals)))
        ]
        relevances = finite("relevance", jax.tree.unflatten(explained.structure, leaves))
        return (relevances, watched) if watch else relevances

    if has_aux:
        arrays = iter(aux)
        return y, pullback, jax.tree.map(lambda x: next(arrays) if x is _ARRAY else x, explained.auxiliary)
    return y, pullback


def relevance(f: Callable, x: jax.Array, target: jax.Array, *, composite: Composite) -> jax.Array:
    """Relevance of `x` for one class an image, started at that class's own score.

    Args:
        f: function of a batch (N, ...) to scores (N, K).
        x: the batch.
        target: one class index an image, (N,), integers in [0, K).
        composite: the rules.

    Returns:
        Relevance, of x's shape.

    Raises:
        ValueError: `target` is not of shape (N,), or holds an index outside [0, K), or as `vjp` (values are not seen
            under jit).
        TypeError: `target` does not hold integers, or as `vjp`.
    """
    target = as_array(target)
    scores, pullback = vjp(f, x, composite=composite)
    if not isinstance(scores, jax.Array):
        raise ValueError(
            f"expected one array of scores (N, K), got {type(scores).__name__}: choose one output"
        )
    if scores.ndim != 2 or target.shape != scores.shape[:1]:
        raise ValueError(
            f"expected scores (N, K) and `target` of shape (N,), got {scores.shape} and {target.shape}: "
            "give one class index an image"
        )
    if not jnp.issubdtype(target.dtype, jnp.integer):
        raise TypeError(f"expected `target` of integers, got {target.dtype}: give class indices")
    # By NumPy: inside of a trace, operations on a known array are traced too.
    known = np.zeros(0) if isinstance(target, Tracer) else np.asarray(target)
    if known.size and not 0 <= known.min() <= known.max() < scores.shape[1]:
        raise ValueError(
            f"expected `target` in [0, {scores.shape[1]}), got values from {known.min()} to {known.max()}"
        )
    return pullback(jax.nn.one_hot(target, scores.shape[1], dtype=scores.dtype) * scores)[0]


_ARRAY = object()


def _split(tree: Any) -> tuple[list[Any], Any]:
    """(arrays among the leaves, the tree with `_ARRAY` in their place)."""
    leaves, structure = jax.tree.flatten(tree)
    arrays = [isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves]
    rest = structure.unflatten(
        [_ARRAY if is_array else leaf for leaf, is_array in zip(leaves, arrays, strict=True)]
    )
    return [leaf for leaf, is_array in zip(leaves, arrays, strict=True) if is_array], rest


def _checked_paths(start: Any, watch: Any, masks: Any) -> dict[str, Any]:
    """The masks, as arrays."""
    masks = {} if masks is None else masks
    texts = isinstance(watch, Sequence) and not isinstance(watch, str) and isinstance(masks, Mapping)
    if not texts or not all(isinstance(path, str) for path in (start or "", *watch, *masks)):
        raise TypeError(
            f"expected paths of modules as texts, got start {shown(start)}, watch {shown(watch)} and masks "
            f"{shown(masks)}: see lrp.vjp"
        )
    return {path: finite("masks", as_array(mask)) for path, mask in masks.items()}


def _is_float(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.floating)


def _check_leaf(x: Any) -> None:
    dtype = jnp.result_type(x if isinstance(x, jax.ShapeDtypeStruct) else as_array(x))
    if dtype == np.float16 or not (jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)):
        raise TypeError(
            f"expected primals of float32, float64 or bfloat16, or integers for an embedding, got {dtype}: "
            "convert them to float32, or close over them"
        )
    if 0 in (shape := jnp.shape(x)):
        raise ValueError(
            f"expected primals with values, got an array of shape {shape}: give one image at least"
        )
    if not isinstance(x, jax.ShapeDtypeStruct):
        finite("primals", as_array(x))


def _check_same_shapes(relevance: Any, y: Any) -> None:
    given = jax.tree.map(lambda r: as_array(r).shape, relevance)
    expected = jax.tree.map(jnp.shape, y)
    if given != expected:
        raise ValueError(f"expected relevance of the outputs' shapes {expected}, got {given}")
