"""What a layer inside of a model counts for: its conductance and its influence along the path to x.

A model is given in two functions, below and above the layer, as `jxai.models.split` makes them. All other estimators
need no variant for layers: of the functions alone they are one already. `head` at `features(x)` explains a layer's
activations (layer Integrated Gradients, layer DeepLIFT), and `features` at x with a function of them as the target
explains a neuron.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from numpy.typing import ArrayLike

from jxai.attribution.gradients import Explain, Scores, gradient
from jxai.attribution.inputs import Inputs, as_inputs
from jxai.attribution.maps import Features
from jxai.attribution.paths import Method, straight_path
from jxai.batches.chunks import sum_over_roots
from jxai.batches.targets import Target
from jxai.checks import as_array, check_functions, finite, keep_nan, shown
from jxai.errors import InputError


def internal_influence(
    features: Features,
    head: Scores,
    x: Any,
    target: Target,
    *,
    baseline: Any = 0.0,
    num_steps: int = 50,
    method: Method = "right",
    explain: Explain = gradient,
    chunk_size: int | None = None,
    mesh: Mesh | None = None,
) -> jax.Array:
    """∫₀¹ ∂f_t/∂a at a = features(x₀ + α(x − x₀)) dα: the mean gradient of a layer along the path of inputs.

    Args:
        features: from inputs (N, ...) to a layer's activations (N, ...); `jxai.models.split` makes it and the head.
        head: from the activations to scores (N, K).
        x: inputs, (N, ...), floats; or a tree of arrays, as in `gradient`.
        target: (N,), integers in [0, K); or a function of the head's outputs, as in `gradient`.
        baseline: x₀ as in `integrated_gradients`.
        num_steps: as in `integrated_gradients`.
        method: the quadrature rule, as in `integrated_gradients`.
        explain: what takes the head's gradient's place.
        chunk_size: inputs in flight, as in `integrated_gradients`.
        mesh: devices over which they are spread, as in `integrated_gradients`.

    Returns:
        Of the activations' shape and dtype; sums are float32 at least.

    Raises:
        TypeError: `x` holds no floats, or `target` no integers.
        ValueError: `features` gives no activations, or as `integrated_gradients` says.

    References:
        Leino et al., *Influence-Directed Explanations for Deep Convolutional Networks*, 2018, section 2.
    """
    check_functions(head=head, explain=explain)
    layer = as_inputs(_checked(features), x, target, head=head)
    path = straight_path(layer, baseline, num_steps=num_steps, method=method)
    above = layer.above(head)

    def terms(images: jax.Array, roots: jax.Array) -> jax.Array:
        weights, _, at = path.points(images, roots)
        slopes = explain(above, layer.below(images)(at), layer.target[images]).astype(weights.dtype)
        return weights.reshape(-1, *[1] * (slopes.ndim - 1)) * slopes

    total = sum_over_roots(terms, layer.x, num_roots=path.num_roots, chunk_size=chunk_size, mesh=mesh)
    return finite("attributions", keep_nan(total.astype(_activations(layer).dtype), layer.x))


def conductance(
    features: Features,
    head: Scores,
    x: Any,
    target: Target,
    *,
    baseline: Any = 0.0,
    num_steps: int = 50,
    method: Method = "right",
    explain: Explain = gradient,
    chunk_size: int | None = None,
    mesh: Mesh | None = None,
) -> jax.Array:
    """∫₀¹ ∂f_t/∂a ⊙ ∂a/∂α dα along a = features(x₀ + α(x − x₀)): what flows through each unit of a layer.

    Its sum over a layer that all of the input's influence goes through tends to f_t(x) − f_t(x₀).

    Args:
        features: as in `internal_influence`.
        head: as in `internal_influence`.
        x: inputs, (N, ...), floats; or a tree of arrays, as in `gradient`.
        target: (N,), integers in [0, K); or a function of the head's outputs, as in `gradient`.
        baseline: x₀ as in `integrated_gradients`.
        num_steps: as in `integrated_gradients`.
        method: the quadrature rule, as in `integrated_gradients`.
        explain: what takes the head's gradient's place.
        chunk_size: inputs in flight, as in `integrated_gradients`.
        mesh: devices over which they are spread, as in `integrated_gradients`.

    Returns:
        Of the activations' shape and dtype; sums are float32 at least.

    Raises:
        TypeError: as `internal_influence`.
        ValueError: as `internal_influence`.

    References:
        Dhamdhere et al., *How Important Is a Neuron?*, 2018, equation 3.
    """
    check_functions(head=head, explain=explain)
    layer = as_inputs(_checked(features), x, target, head=head)
    path = straight_path(layer, baseline, num_steps=num_steps, method=method)
    above = layer.above(head)

    def terms(images: jax.Array, roots: jax.Array) -> jax.Array:
        weights, way, at = path.points(images, roots)
        activations, change = jax.jvp(layer.below(images), [at], [way.astype(at.dtype)])
        slopes = explain(above, activations, layer.target[images]).astype(weights.dtype)
        return weights.reshape(-1, *[1] * (slopes.ndim - 1)) * change.astype(weights.dtype) * slopes

    total = sum_over_roots(terms, layer.x, num_roots=path.num_roots, chunk_size=chunk_size, mesh=mesh)
    return finite("attributions", keep_nan(total.astype(_activations(layer).dtype), layer.x))


def neuron_conductance(
    features: Features,
    head: Scores,
    x: Any,
    target: Target,
    *,
    neurons: ArrayLike,
    baseline: Any = 0.0,
    num_steps: int = 50,
    method: Method = "right",
    explain: Explain = gradient,
    chunk_size: int | None = None,
    mesh: Mesh | None = None,
) -> jax.Array:
    """(x − x₀) ⊙ ∫₀¹ Σ_j n_j ∂f_t/∂a_j ∇a_j dα: what each input entry counts for by way of some units of a layer.

    Its sum over the input tends to the units' `conductance`.

    Args:
        features: as in `internal_influence`.
        head: as in `internal_influence`.
        x: inputs, (N, ...), floats; or a tree of arrays, as in `gradient`.
        target: (N,), integers in [0, K); or a function of the head's outputs, as in `gradient`.
        neurons: n, of a shape that broadcasts to the activations: ones for the units, zeros for the others.
        baseline: x₀ as in `integrated_gradients`.
        num_steps: as in `integrated_gradients`.
        method: the quadrature rule, as in `integrated_gradients`.
        explain: what takes the head's gradient's place.
        chunk_size: inputs in flight, as in `integrated_gradients`.
        mesh: devices over which they are spread, as in `integrated_gradients`.

    Returns:
        Of x's shape and dtype; sums are float32 at least.

    Raises:
        TypeError: as `internal_influence`.
        ValueError: as `internal_influence`; or `neurons` is of another shape, or not finite.

    References:
        Dhamdhere et al., *How Important Is a Neuron?*, 2018, equation 2.
    """
    check_functions(head=head, explain=explain)
    layer = as_inputs(_checked(features), x, target, head=head)
    path = straight_path(layer, baseline, num_steps=num_steps, method=method)
    shape = _activations(layer)
    given = as_array(neurons, shape.dtype)
    try:
        chosen = jnp.broadcast_to(given, shape.shape)
    except ValueError as error:
        raise InputError(
            f"expected neurons that broadcast to the activations {shape.shape}, got {given.shape}: give ones for the "
            "units, and zeros"
        ) from error
    finite("neurons", given)
    above = layer.above(head)

    def terms(images: jax.Array, roots: jax.Array) -> jax.Array:
        weights, way, at = path.points(images, roots)
        activations, pullback = jax.vjp(layer.below(images), at)
        slopes = explain(above, activations, layer.target[images])
        (found,) = pullback((chosen[images] * slopes).astype(activations.dtype))
        return weights * way * found.astype(weights.dtype)

    total = sum_over_roots(terms, layer.x, num_roots=path.num_roots, chunk_size=chunk_size, mesh=mesh)
    return layer.attributions(total)


def _activations(layer: Inputs) -> Any:
    """The shape and dtype of the activations."""
    return jax.eval_shape(layer.below(None), jax.ShapeDtypeStruct(layer.x.shape, layer.x.dtype))


def _checked(features: Features) -> Features:
    """Features that refuse to be anything but one array (N, ...) of floats."""
    check_functions(features=features)

    def below(*given: Any) -> jax.Array:
        number = len(jax.tree.leaves(given)[0])
        found = features(*given)
        shape, dtype = getattr(found, "shape", None), jnp.dtype(getattr(found, "dtype", object))
        if not shape or shape[0] != number or len(shape) < 2 or not jnp.issubdtype(dtype, jnp.floating):
            got = shown(found) if shape is None else f"{dtype} of shape {shape}"
            raise InputError(
                f"expected `features` to give activations ({number}, ...) of floats, got {got}: split the model at a "
                "layer that gives one array"
            )
        return found

    return below
