"""A model in two pure functions, below and above the output of one of its modules."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from jxai.checks import check_count, shown
from jxai.errors import InputError, InputTypeError
from jxai.lrp.calls import intercepted, is_module
from jxai.lrp.engine.marks import mark_p, recorded, without_marks
from jxai.lrp.engine.scopes import Call, Site
from jxai.lrp.engine.trace import program_of

Features = Callable[[Any, jax.Array], jax.Array]
Head = Callable[[Any, jax.Array], Any]


def split(
    model: Any,
    path: str,
    *,
    variables: Any = None,
    image_shape: tuple[int, ...] = (224, 224, 3),
    **options: Any,
) -> tuple[Features, Head]:
    """Two functions whose composition is the model: from images to a module's output, and from there to scores.

        head(variables, features(variables, x)) = model.apply(variables, x, **options)

    Of any library: a Linen module, an NNX module, whose variables are `nnx.state(model)`, or a function of
    (variables, x), such as Haiku's `apply` without key; Equinox's modules take one image, so one maps them:
    `lambda arrays, x: jax.vmap(equinox.combine(arrays, rest))(x)`.

    Both trace the whole model, the second on images of zeros, and compute their part of it. It is checked, once and
    without computing anything, that the scores depend on the image through the module alone: no skip connection leads
    around it.

    The last map before the pooling, Grad-CAM's usual choice:

    | network | path | map at 224x224 |
    |---|---|---|
    | VGG16 | "relu12" | 14x14x512 |
    | ResNet18, ResNet34 in `Classifier` | "encoder" | 7x7x512 |
    | ResNet50, ResNet101, ResNet152 | "block15", "block32", "block49" | 7x7x2048 |
    | DenseNet121 | "activation_last" | 7x7x1024 |
    | SqueezeNet 1.1 | "fire7" | 13x13x512 |
    | EfficientNet-Lite0, B0 | "activation_last" | 7x7x1280 |

    Example:
        >>> from jxai.models import Classifier, Conv4
        >>> model, x = Classifier(Conv4(), 5), jnp.ones((1, 16, 16, 3))
        >>> variables = model.init(jax.random.key(0), x, train=False)
        >>> features, head = split(model, "encoder", image_shape=(16, 16, 3), train=False)
        >>> maps = jax.jit(features)(variables, x)
        >>> maps.shape, jax.jit(head)(variables, maps).shape
        ((1, 1, 1, 64), (1, 5))

    Args:
        model: takes images (N, *image_shape).
        path: of a module that returns one array with the images' leading axis, such as "block3" or "encoder/block3"
            ("block3#1" for one of several calls), or of an `lrp.mark`.
        variables: of a function: what it takes first, or the shapes of it. Modules know their own.
        image_shape: shape of one image. Maps have the shape that images of this one give.
        **options: passed on to the model at each call, such as train=False.

    Returns:
        features(variables, x): the module's output for images (N, *image_shape).
        head(variables, maps): what the model returns where the module's output is `maps`, for maps (N, ...).

    Raises:
        TypeError: no module or function, path or shape.
        ValueError: the model has no such module or calls it more than once, its output is no array, it is called
            inside of a loop or `nn.remat`, or what the model returns depends on the image through other modules too;
            or the model does not take such images. Later, where images or maps have another shape.
    """
    if not callable(model) or isinstance(model, type) or not isinstance(path, str):
        raise InputTypeError(
            f"expected a module of Flax, or a function of variables and images, and a path, got {shown(model)} and "
            f"{shown(path)}: give both"
        )
    if not isinstance(image_shape, Sequence) or isinstance(image_shape, str) or not image_shape:
        raise InputTypeError(f"expected image_shape as a sequence, got {shown(image_shape)}: take (H, W, C)")
    image_shape = tuple(check_count("image_shape", side) for side in image_shape)
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    try:
        apply, variables = _function(model, variables, images, options)
        traced = _Traced(apply, variables, images, path)
    except Exception as error:  # the model's own, of images that it does not expect
        raise InputError(
            f"expected a model of images {images.shape}, got {type(error).__name__} from it "
            f"({str(error)[:200]}): give `image_shape` and the options that it is called with"
        ) from error
    shape = jax.eval_shape(lambda v, x: traced.below(v, x), variables, images).shape[1:]
    # The images come after the variables.
    if _needed(traced.jaxpr.jaxpr, [True] * len(traced.jaxpr.jaxpr.outvars), traced.site())[1][-1]:
        raise InputError(
            f"expected a module that all of the image's influence goes through, got {path!r}: the scores also depend "
            "on the image around it (a skip connection, another branch); choose the module where the branches meet"
        )

    def features(variables: Any, x: jax.Array) -> jax.Array:
        _check_shape("x", x, image_shape)
        return _Traced(apply, variables, x, path).below(variables, x)

    def head(variables: Any, maps: jax.Array) -> Any:
        _check_shape("maps", maps, shape)
        zeros = jnp.zeros((maps.shape[0], *image_shape), images.dtype)
        return _Traced(apply, variables, zeros, path).above(variables, zeros, maps)

    return features, head


def _function(model: Any, variables: Any, images: Any, options: dict[str, Any]) -> tuple[Callable, Any]:
    """(function of variables and images, the shapes of the variables)."""
    if isinstance(model, nn.Module):
        if variables is None:
            variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, **options), images)
        return lambda variables, x: model.apply(variables, x, **options), variables
    if is_module(model, "flax.nnx"):
        from flax import nnx

        graph, state = nnx.split(model)
        return lambda state, x: nnx.merge(graph, state)(x, **options), state
    if variables is None:
        raise ValueError("a function came without `variables`")
    return lambda variables, x: model(variables, x, **options), variables


class _Traced:
    """A model traced for variables and images, and the place of a module in it."""

    def __init__(self, apply: Callable, variables: Any, x: Any, path: str):
        self.apply, self.arguments, self.path = apply, (variables, x), path
        self.records = []
        function = recorded(apply, self.records)
        self.jaxpr, self.shapes = jax.make_jaxpr(function, return_shape=True)(variables, x)

    def site(self) -> Site:
        """Where the module's output is; refuses no call, several, what is no array, and what is inside of loops."""
        path, calls = self.path, program_of(self.jaxpr, self.records).calls.values()
        given = [call for call in calls if call.outputs and call.site is not None and call.record.path]
        found = [call for call in given if path in (call.path, call.record.path)]
        if len(found) > 1:
            raise InputError(
                f"expected a module that is called once, got {path!r}, called {len(found)} times: choose another, or "
                f"one of {', '.join(call.path for call in found)}"
            )
        within = bool(path) and any(record.path == path for record in self.records)
        if within and not (found and self.reached(found[0])):
            raise InputError(
                f"expected a module in the model's own trace, got {path!r}, called inside of nn.scan, nn.remat or "
                "alike: choose one outside of what is transformed"
            )
        if not found:
            known = sorted({call.path for call in given})
            raise InputError(
                f"expected the path of a module that the model calls, got {path!r}: it calls {', '.join(known)}"
            )
        if len(found[0].outputs) > 1:
            raise InputError(
                f"expected a module that returns one array, got {self.kind()} from {path!r}: choose one inside"
            )
        return found[0].site or ()

    def reached(self, call: Call) -> bool:
        """Whether only jitted functions are around a call."""
        jaxpr = self.jaxpr.jaxpr
        for position in (call.site or ())[:-1]:
            inner = _jitted(jaxpr.eqns[position])
            if inner is None:
                return False
            jaxpr = inner.jaxpr
        return True

    def kind(self) -> str:
        """The name of the type that the module returns."""
        kinds = []

        def asking(call, function, args, kwargs):
            result = function(*args, **kwargs)
            if call.path == self.path:
                kinds.append(type(result).__name__)
            return result

        jax.eval_shape(intercepted(self.apply, asking), *self.arguments)
        return kinds[-1]

    def below(self, *arguments: Any) -> jax.Array:
        """The module's output."""
        return _run(self.jaxpr, jax.tree.leaves(arguments), self.site())[0]

    def above(self, variables: Any, x: Any, maps: jax.Array) -> Any:
        """What the model returns where the module's output is `maps`."""
        results = _run(self.jaxpr, jax.tree.leaves((variables, x)), self.site(), maps)
        return jax.tree.unflatten(jax.tree.structure(self.shapes), results)


def _run(
    jaxpr: ClosedJaxpr, arguments: Sequence[Any], site: Site, maps: jax.Array | None = None
) -> list[Any]:
    """Up to the operation at a site, and what it takes; or all, with `maps` in the place of what it gives."""
    opened = jaxpr.jaxpr
    values = dict(zip([*opened.constvars, *opened.invars], [*jaxpr.consts, *arguments], strict=True))
    kept = None if maps is None else _needed(opened, [True] * len(opened.outvars), site)[0]

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for position, eqn in enumerate(opened.eqns):
        if site[:1] == (position,) and len(site) > 1:
            inner = _jitted(eqn)
            assert inner is not None  # `_Traced.reached`
            results = _run(inner, [read(atom) for atom in eqn.invars], site[1:], maps)
            if maps is None:
                return results
        elif site == (position,):
            if maps is None:
                return [read(eqn.invars[0])]
            results = [maps]
        elif kept is not None and position not in kept:
            continue
        elif eqn.primitive is mark_p:
            results = [
                read(eqn.invars[0])
            ]  # another trace, such as LRP's, would take it for a module of its own
        else:
            results = eqn.primitive.bind(
                *(read(atom) for atom in eqn.invars),
                **eqn.primitive.get_bind_params(without_marks(eqn.params)),
            )
            results = results if eqn.primitive.multiple_results else [results]
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in opened.outvars]


def _needed(jaxpr: Jaxpr, outputs: Sequence[bool], site: Site) -> tuple[set[int], list[bool]]:
    """The operations and inputs that the outputs may depend on, if what the operation at a site gives is known.

    An operation's outputs depend on all its inputs, if it is no call.
    """
    live = {
        v for v, needed in zip(jaxpr.outvars, outputs, strict=True) if needed and not isinstance(v, Literal)
    }
    kept = set()
    for position, eqn in reversed(list(enumerate(jaxpr.eqns))):
        needed = [variable in live for variable in eqn.outvars]
        if not any(needed) or site == (position,):
            continue
        inner = _jitted(eqn)
        reads = [True] * len(eqn.invars)
        if inner is not None:
            reads = _needed(inner.jaxpr, needed, site[1:] if site[:1] == (position,) else ())[1]
        live |= {v for v, read in zip(eqn.invars, reads, strict=True) if read and not isinstance(v, Literal)}
        kept.add(position)
    return kept, [variable in live for variable in jaxpr.invars]


def _jitted(eqn: Any) -> ClosedJaxpr | None:
    """What a jitted function is, if that is what an operation calls."""
    return eqn.params["jaxpr"] if eqn.primitive.name in ("jit", "pjit") else None


def _check_shape(name: str, array: jax.Array, shape: tuple[int, ...]) -> None:
    if array.shape[1:] != shape:
        raise InputError(
            f"expected {name} of shape (N, {', '.join(map(str, shape))}), got {array.shape}: split the model "
            "with the `image_shape` of your images"
        )
