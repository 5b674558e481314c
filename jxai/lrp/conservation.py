"""Where relevance goes: for every module and image, what comes in, what goes out, what is absorbed by what."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jxai.checks import as_array, finite, shown
from jxai.errors import InputError, InputTypeError
from jxai.lrp.engine.explain import explain
from jxai.lrp.engine.run import Probes
from jxai.lrp.engine.steps import Step
from jxai.lrp.html_table import html_table
from jxai.lrp.rules.base import Constant, Gradient
from jxai.lrp.rules.composites import Composite, check_composite
from jxai.lrp.rules.linear import LinearRule
from jxai.lrp.rules.operation import Kind
from jxai.lrp.rules.ratio import to_ratio, to_relevance


@flax.struct.dataclass
class Conservation:
    """Relevance at every operation, a row an operation in the function's order, a column an image.

    Incoming, outgoing, and what layers' biases and stabilizers absorb are measured; what is missing then is given
    to the one cause that the operation's rule leaves: `incoming = outgoing + bias + stabilizer + zeros + rule`.

    Attributes:
        incoming: relevance that an operation's results receive from above, (operations, N).
        outgoing: relevance that it hands on to its inputs.
        bias: absorbed by biases and other constants that are added.
        stabilizer: absorbed by the stabilizers of denominators.
        zeros: lost where a denominator or an input is exactly zero.
        rule: not conserved by the rule itself: values held constant, and softmax.
        start: relevance that the function's outputs start with, (N,).
        end: relevance of the inputs, (N,).
        paths: the operations' modules.
        operations: what they are.
    """

    incoming: jax.Array
    outgoing: jax.Array
    bias: jax.Array
    stabilizer: jax.Array
    zeros: jax.Array
    rule: jax.Array
    start: jax.Array
    end: jax.Array
    paths: tuple[str, ...] = flax.struct.field(pytree_node=False)
    operations: tuple[str, ...] = flax.struct.field(pytree_node=False)

    def __str__(self) -> str:
        """Sums over the images."""
        labels, columns, total = self._table()
        width = max(map(len, labels), default=0)
        lines = [" " * width + "".join(f"{name:>13}" for name in columns)]
        for label, *values in zip(labels, *columns.values(), strict=True):
            lines.append(label.ljust(width) + "".join(f"{value:>13}" for value in values))
        return "\n".join([*lines, total])

    def _repr_html_(self) -> str:
        labels, columns, total = self._table()
        rows = list(zip(labels, *columns.values(), strict=True))
        return html_table(["operation", *columns], rows, left=1, below=total)

    def _table(self) -> tuple[list[str], dict[str, list[str]], str]:
        """Labels of the operations, columns of sums over the images by name, and the line below them."""
        labels = [f"{path} {what}".strip() for path, what in zip(self.paths, self.operations, strict=True)]
        names = ("incoming", "outgoing", "bias", "stabilizer", "zeros", "rule")
        sums = {name: np.asarray(getattr(self, name)).sum(axis=1) for name in names}
        columns = {name: [f"{value:.5g}" for value in values] for name, values in sums.items()}
        return (
            labels,
            columns,
            f"start {float(jnp.sum(self.start)):.6g}, end {float(jnp.sum(self.end)):.6g}",
        )


def conservation(
    f: Callable,
    x: jax.Array,
    *,
    composite: Composite,
    start: Callable[[jax.Array], jax.Array] | None = None,
) -> Conservation:
    """Follow relevance through a function, image by image; works under jit.

    The function takes each image by itself: one that couples them (a graph's nodes, statistics of the batch) is
    refused, and under jit gives NaN.

    Example:
        >>> import jax.numpy as jnp
        >>> from jxai import lrp
        >>> f = lambda x: x @ jnp.array([[1.0], [2.0]]) + 3.0
        >>> found = lrp.conservation(f, jnp.ones((1, 2)), composite=lrp.EpsilonPlus())
        >>> found.incoming.tolist(), round(float(found.bias[0, 0]), 3)
        ([[6.0]], 3.0)

    Args:
        f: function of a batch (N, ...) to an array (N, ...).
        x: the batch.
        composite: the rules; not one under which gradients travel.
        start: of one image's outputs (1, ...) to the relevance they start with, of their shape or one number for
            each; by default the outputs themselves.

    Returns:
        What was found, a pytree of arrays.

    Raises:
        ValueError: an operation has no rule, gradients travel under the composite, the function gives several
            arrays, `start` another shape, or `x` is no batch or not finite.
        TypeError: `x` holds integers, no composite, or `start` is no function.
    """
    check_composite(composite)
    x = finite("images", as_array(x))
    if x.ndim < 2 or not x.size:
        raise InputError(f"expected a batch (N, ...), got {x.shape}: add the axis of images")
    if not composite.relevance:
        raise InputError(
            f"expected a composite of relevance, got {composite.name}, under which gradients travel"
        )
    if start is not None and not callable(start):
        raise InputTypeError(
            f"expected `start` as a function of the outputs, got {shown(start)}: see lrp.vjp"
        )
    labels: dict[str, tuple[str, ...]] = {}

    def of_image(image: jax.Array) -> dict[str, jax.Array]:
        explained = explain(f, (image[None],), composite)
        if not jnp.issubdtype(image.dtype, jnp.floating):
            raise InputTypeError(
                f"expected images of floats, got {image.dtype}: follow the embeddings' rows instead"
            )
        steps = explained.plan.metered()
        labels["paths"] = tuple(step.operation.path if step.operation else "" for step in steps)
        labels["operations"] = tuple(map(str, steps))
        floats = explained.leaves
        # A scalar an operation and quantity, whose cotangent is what is asked for.
        zeros = jnp.zeros((len(steps), 4), floats[0].dtype)

        def outputs(floats: list[Any], meters: jax.Array) -> list[Any]:
            given = {step: tuple(meters[i]) for i, step in enumerate(steps)}
            return explained.run(floats, Probes(meters=given))[0]

        found, pullback = jax.vjp(outputs, floats, zeros)
        if len(found) != 1:
            raise InputError(f"expected one array from the function, got {len(found)}: choose one output")
        (y,) = found
        relevance = as_array(y if start is None else start(y), y.dtype)
        if relevance.shape not in ((), y.shape):
            raise InputError(
                f"expected `start` to give relevance of the outputs' shape {y.shape}, or a number, got "
                f"{relevance.shape}"
            )
        relevance = jnp.broadcast_to(relevance, y.shape)
        ratios, meters = pullback([to_ratio(relevance, y)])
        end = sum(jnp.sum(to_relevance(c, v)) for c, v in zip(ratios, floats, strict=True))
        return {"outputs": y[0], "start": jnp.sum(relevance), "end": end} | _sort(steps, meters)

    found = jax.vmap(of_image)(x)
    found = _of_rows_alone(f, x, found)
    columns = {k: jnp.moveaxis(v, 0, -1) for k, v in finite("relevance", found).items()}
    return Conservation(**columns, **labels)  # type: ignore[arg-type]


def _of_rows_alone(f: Callable, x: jax.Array, found: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """What was found, where each image's outputs are those that the function gives it among the others; else NaN."""
    whole, alone = f(x), found.pop("outputs")
    if jnp.shape(whole) != alone.shape:
        raise InputError(
            f"expected a function of a batch (N, ...) to one result an image, got {jnp.shape(whole)} for {len(x)} "
            f"images and {alone.shape[1:]} for one: add an axis of images, f(x[0])[None]"
        )
    difference = jnp.abs(whole.astype(alone.dtype) - alone)
    scale = jnp.max(jnp.abs(alone), initial=0.0)
    coupled = jnp.any(difference > 1e-2 * scale)
    if not isinstance(coupled, Tracer) and bool(coupled):
        raise InputError(
            "expected a function that takes each image by itself, got one whose results differ among others, as of a "
            "graph's nodes or statistics of the batch: add an axis of images, "
            "lrp.conservation(lambda x: f(x[0])[None], x[None], ...)"
        )
    return {name: jnp.where(coupled, jnp.nan, value) for name, value in found.items()}


def _sort(steps: list[Step], meters: jax.Array) -> dict[str, jax.Array]:
    """Give what is not handed on to what absorbed it."""
    outgoing, incoming, bias, stabilizer = meters.T
    rest = incoming - outgoing - bias - stabilizer
    where = [_absorbs(step) for step in steps]

    def of(name: str) -> jax.Array:
        return jnp.where(np.array([one == name for one in where], bool), rest, 0)

    return {
        "incoming": incoming,
        "outgoing": outgoing,
        "bias": bias + of("bias"),
        "stabilizer": stabilizer + of("stabilizer"),
        "zeros": of("zeros"),
        "rule": of("rule"),
    }


def _absorbs(step: Step) -> str:
    """What takes the relevance that a step neither hands on nor counts itself."""
    kind = step.operation.kind if step.operation else None
    if isinstance(step.rule, LinearRule):
        return "zeros"
    constants = kind is Kind.MOVE and bool(step.constants)
    if (kind in (Kind.SHIFT, Kind.NORMALIZATION) or constants) and isinstance(step.rule, Gradient):
        return "bias"
    if isinstance(step.rule, Constant) or kind is Kind.SOFTMAX:
        return "rule"
    if kind in (Kind.SUM, Kind.MEAN):
        return "stabilizer"
    return "zeros" if isinstance(step.rule, Gradient) else "rule"
