"""`lrp.vjp`: as `jax.vjp`, with relevance in the place of gradients."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jxai.batches.targets import Target, as_scores
from jxai.checks import as_array, check_choice, finite, shown
from jxai.errors import InputError, InputTypeError
from jxai.lrp.engine.explain import ARRAY, explain, is_float
from jxai.lrp.engine.run import Probes
from jxai.lrp.rules.composites import Composite, check_composite
from jxai.lrp.rules.ratio import to_ratio, to_relevance


def vjp(
    f: Callable,
    *primals: Any,
    composite: Composite,
    has_aux: bool = False,
    start: str | None = None,
    watch: Sequence[str] = (),
    masks: Mapping[str, Any] | None = None,
    check: bool = False,
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
        check: whether the pullback sees to it that relevance is lost nowhere without a cause: what the outputs start
            with is what arrives at the inputs and what operations absorb, and something arrives. It then raises
            where this is not so, with the operations that absorb most; under jit it gives NaN. It costs a sum an
            operation (`lrp.conservation` says of each where it went).

    Returns:
        (y, pullback), or (y, pullback, aux). The pullback is a pytree, as `jax.vjp`'s, and may leave a `jit`.
        `pullback(relevance)` takes a tree of y's shape and gives the
        tuple of the primals' relevances, of the primals' shapes and, where they are floats, dtypes; with `watch`
        it gives a pair of that and a dictionary of relevances by path, before masks. `pullback(relevance,
        ratios=True)` gives LRP's coefficients R / x in the place of relevances, of floats and of what is watched;
        they are what travels here, so that they are known where x is zero too.

    Raises:
        TypeError: a primal is no array, float16, in which ratios overflow, or of integers that meet no embedding; no
            composite, or no paths.
        ValueError: an operation has no rule, no module has such a path, the relevance handed to `pullback` is not
            of y's shape, a primal is empty, a primal or relevance is not finite (not seen under jit), or relevance is
            lost and `check` is asked for.

    References:
        Bach et al., *On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise Relevance
        Propagation*, 2015.
    """
    check_composite(composite)
    masks = _checked_paths(start, watch, masks)
    if (watch or masks) and not composite.relevance:
        raise InputError(
            f"expected a composite of relevance to watch or mask modules, got {composite.name}, under which "
            "gradients travel: leave watch and masks out"
        )
    if check and (masks or not composite.relevance):
        raise InputError(
            "expected to check what is conserved, got masks, which take relevance away, or a composite under which "
            "gradients travel: leave check out"
        )
    explained = explain(
        f, primals, composite, has_aux=has_aux, start=start, taps=[*dict.fromkeys([*watch, *masks])]
    )
    steps = explained.plan.metered() if check else []
    shapes = explained.plan.watched()
    taps = {path: (jnp.zeros(shapes[path]), jnp.zeros(shapes[path])) for path in watch}
    tokens = {i: jnp.ones(jnp.shape(x)) for i, x in enumerate(explained.leaves) if not is_float(x)}
    floats = [x for x in explained.leaves if is_float(x)]

    # An operation's scalars, whose cotangents are what it receives, hands on, and gives to bias and stabilizer.
    meters = jnp.zeros((len(steps), 4))

    def outputs(floats, taps, tokens, meters):
        given = {step: tuple(meters[i]) for i, step in enumerate(steps)}
        return explained.run(floats, Probes(taps=taps, masks=masks, meters=given), tokens)

    found, ratio_pullback, aux = jax.vjp(outputs, floats, taps, tokens, meters, has_aux=True)
    y = jax.tree.unflatten(jax.tree.structure(explained.outputs), found)
    leaves = jax.tree.leaves(tuple(primals))
    known = _Known(
        explained.structure,
        jax.tree.structure(explained.outputs),
        tuple(jnp.result_type(x) for x in leaves),
        composite.relevance,
        bool(watch),
        tuple(map(_name_of, steps)) if check else None,
        tuple(_name_of(step) for step in explained.plan.operations() if step.computes),
    )
    pullback = jax.tree_util.Partial(_pull_back, known, ratio_pullback, found, floats)
    if has_aux:
        arrays = iter(aux)
        return y, pullback, jax.tree.map(lambda x: next(arrays) if x is ARRAY else x, explained.auxiliary)
    return y, pullback


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Known:
    """What a pullback knows beside arrays.

    Attributes:
        primals: their tree.
        outputs: their tree.
        dtypes: of the primals' leaves.
        ratios: whether ratios travel, or gradients.
        watched: whether relevance inside is asked for.
        checked: what the operations are whose relevance is measured, or None.
        held: what those are whose results the composite holds constant.
    """

    primals: Any
    outputs: Any
    dtypes: tuple[Any, ...]
    ratios: bool
    watched: bool
    checked: tuple[str, ...] | None
    held: tuple[str, ...]


def _pull_back(
    known: _Known,
    ratio_pullback: Any,
    found: list[jax.Array],
    floats: list[jax.Array],
    relevance: Any,
    *,
    ratios: bool = False,
) -> Any:
    """Relevance of the primals, and of what is watched, from that of the outputs; see `vjp`."""
    check_choice("ratios", ratios, (True, False))
    _check_same_shapes(relevance, jax.tree.unflatten(known.outputs, found))
    given = [
        finite("relevance of the outputs", as_array(r, z.dtype))
        for r, z in zip(jax.tree.leaves(relevance), found, strict=True)
    ]
    given = [to_ratio(r, z) for r, z in zip(given, found, strict=True)] if known.ratios else given
    coefficients, watched, of_tokens, meters = ratio_pullback(given)
    watched = {path: pair[ratios] for path, pair in watched.items()}
    of_floats = coefficients
    if known.ratios:
        of_floats = [to_relevance(c, x) for c, x in zip(coefficients, floats, strict=True)]
    if known.checked is not None:
        starts = [to_relevance(c, z) for c, z in zip(given, found, strict=True)]
        kept = _is_conserved(starts, [*of_floats, *of_tokens.values()], meters, known)
        coefficients, of_floats = (
            [jnp.where(kept, r, jnp.nan) for r in of] for of in (coefficients, of_floats)
        )
        of_tokens = {i: jnp.where(kept, r, jnp.nan) for i, r in of_tokens.items()}
    rest = iter(coefficients if ratios else of_floats)
    leaves = [
        next(rest).astype(dtype) if jnp.issubdtype(dtype, jnp.floating) else of_tokens[i]
        for i, dtype in enumerate(known.dtypes)
    ]
    relevances = finite("relevance", jax.tree.unflatten(known.primals, leaves))
    return (relevances, watched) if known.watched else relevances


# What rounding may take from sums of float32 that cancel.
_TOLERANCE = 1e-2


def _is_conserved(
    starts: list[jax.Array], arrived: list[jax.Array], meters: jax.Array, known: _Known
) -> jax.Array:
    """Whether start = end + absorbed, and something arrives; raises where it is not and values are known."""
    start, end = (sum(jnp.sum(r) for r in relevances) for relevances in (starts, arrived))
    outgoing, incoming = meters[:, 0], meters[:, 1]
    absorbed = incoming - outgoing
    missing = start - end - absorbed.sum()
    scale = sum(jnp.abs(r).sum() for r in starts)
    scale = scale + jnp.abs(absorbed).sum() + jnp.abs(incoming).max(initial=0.0)
    begins, arrives = (
        jnp.stack([jnp.any(r != 0) for r in relevances]).any() for relevances in (starts, arrived)
    )
    kept = (jnp.abs(missing) <= _TOLERANCE * scale) & (arrives | ~begins)
    if isinstance(kept, Tracer) or bool(kept):
        return kept
    names = known.checked or ()
    most = np.argsort(-np.abs(np.asarray(absorbed)))[:3]
    told = ", ".join(f"{names[i]} absorbs {absorbed[i]:.3g}" for i in most if absorbed[i])
    raise InputError(
        f"expected relevance {start:.6g} to arrive at the inputs or to be absorbed by operations, got {end:.6g} "
        f"there and {missing:.3g} lost without a cause{told and f' ({told})'}{_of_held(known.held)}: see lrp.coverage"
    )


def _name_of(step: Any) -> str:
    """What an operation is called in a message."""
    return f"{step.operation.path} {step}".strip()


def _of_held(held: tuple[str, ...]) -> str:
    return f"; the composite holds {', '.join(held[:3])} constant" if held else ""


def relevance(f: Callable, x: jax.Array, target: Target, *, composite: Composite) -> jax.Array:
    """Relevance of `x` for one class an image, started at that class's own score.

    Args:
        f: function of a batch (N, ...) to scores (N, K); or to any outputs, if `target` is a function of them.
        x: the batch.
        target: one class index an image, (N,), integers in [0, K); or, as in `attribution.gradient`, a function of
            f's outputs to one number an image, alone or in a tuple with the arrays it takes beside them
            (`attribution.contrast`), whose operations have their rules as f's have.
        composite: the rules.

    Returns:
        Relevance, of x's shape.

    Raises:
        ValueError: `target` is not of shape (N,), or holds an index outside [0, K), or as `vjp` (values are not seen
            under jit).
        TypeError: `target` does not hold integers, or as `vjp`.
    """
    if callable(target) or isinstance(target, tuple):
        f, target = as_scores(f, as_array(x), target)
    target = as_array(target)
    scores, pullback = vjp(f, x, composite=composite)
    if not isinstance(scores, jax.Array):
        raise InputError(
            f"expected one array of scores (N, K), got {type(scores).__name__}: choose one output"
        )
    if scores.ndim != 2 or target.shape != scores.shape[:1]:
        raise InputError(
            f"expected scores (N, K) and `target` of shape (N,), got {scores.shape} and {target.shape}: "
            "give one class index an image"
        )
    if not jnp.issubdtype(target.dtype, jnp.integer):
        raise InputTypeError(f"expected `target` of integers, got {target.dtype}: give class indices")
    # By NumPy: inside of a trace, operations on a known array are traced too.
    known = np.zeros(0) if isinstance(target, Tracer) else np.asarray(target)
    if known.size and not 0 <= known.min() <= known.max() < scores.shape[1]:
        raise InputError(
            f"expected `target` in [0, {scores.shape[1]}), got values from {known.min()} to {known.max()}"
        )
    return pullback(jax.nn.one_hot(target, scores.shape[1], dtype=scores.dtype) * scores)[0]


def _checked_paths(start: Any, watch: Any, masks: Any) -> dict[str, Any]:
    """The masks, as arrays."""
    masks = {} if masks is None else masks
    texts = isinstance(watch, Sequence) and not isinstance(watch, str) and isinstance(masks, Mapping)
    if not texts or not all(isinstance(path, str) for path in (start or "", *watch, *masks)):
        raise InputTypeError(
            f"expected paths of modules as texts, got start {shown(start)}, watch {shown(watch)} and masks "
            f"{shown(masks)}: see lrp.vjp"
        )
    arrays = {path: finite("masks", as_array(mask)) for path, mask in masks.items()}
    for path, mask in arrays.items():
        if jnp.iscomplexobj(mask):
            raise InputTypeError(
                f"expected masks of real numbers, got {mask.dtype} for {path!r}: see lrp.vjp"
            )
    return arrays


def _check_same_shapes(relevance: Any, y: Any) -> None:
    given = jax.tree.map(lambda r: as_array(r).shape, relevance)
    expected = jax.tree.map(jnp.shape, y)
    if given != expected:
        raise InputError(f"expected relevance of the outputs' shapes {expected}, got {given}")
