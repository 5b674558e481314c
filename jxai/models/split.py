"""A model in two pure functions, below and above the output of one of its modules."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, Literal, get_opaque_trace_state

from jxai.checks import check_count, shown

Features = Callable[[Any, jax.Array], jax.Array]
Head = Callable[[Any, jax.Array], Any]


def split(
    model: nn.Module, path: str, *, image_shape: tuple[int, ...] = (224, 224, 3), **options: Any
) -> tuple[Features, Head]:
    """Two functions whose composition is the model: from images to a module's output, and from there to scores.

        head(variables, features(variables, x)) = model.apply(variables, x, **options)

    Both replay the whole model, the second on images of zeros whose maps are replaced. Under `jax.jit` what does not
    matter to the result is not computed; elsewhere it costs time. It is checked, once and without computing
    anything, that the scores depend on the image through the module alone: no skip connection leads around it.

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
        path: of a module that is called once and returns one array with the images' leading axis, such as "block3"
            or "encoder/block3".
        image_shape: shape of one image. Maps have the shape that images of this one give.
        **options: passed on to the model at each call, such as train=False.

    Returns:
        features(variables, x): the module's output for images (N, *image_shape).
        head(variables, maps): what the model returns where the module's output is `maps`, for maps (N, ...).

    Raises:
        TypeError: no module, path or shape.
        ValueError: the model has no such module or calls it more than once, its output is no array, it is called
            inside of `nn.scan` or `nn.remat`, or what the model returns depends on the image through other modules
            too; or the model cannot be initialised by such images. Later, where images or maps have another shape.
    """
    if not isinstance(model, nn.Module) or not isinstance(path, str):
        raise TypeError(
            f"expected a Linen module and a path, got {shown(model)} and {shown(path)}: give both"
        )
    if not isinstance(image_shape, Sequence) or isinstance(image_shape, str) or not image_shape:
        raise TypeError(f"expected image_shape as a sequence, got {shown(image_shape)}: take (H, W, C)")
    place, image_shape = (
        tuple(path.split("/")),
        tuple(check_count("image_shape", side) for side in image_shape),
    )
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    try:
        variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, **options), images)
    except Exception as error:  # the model's own, of images that it does not expect
        raise ValueError(
            f"expected a model of images {images.shape}, got {type(error).__name__} from it "
            f"({str(error)[:200]}): give `image_shape` and the options that it is called with"
        ) from error

    def replayed(variables: Any, x: jax.Array, maps: jax.Array) -> Any:
        def replace(next_fun, args, kwargs, context):
            if (context.module.path, context.method_name) == (place, "__call__"):
                return maps
            return next_fun(*args, **kwargs)

        with nn.intercept_methods(replace):
            return model.apply(variables, x, **options)

    def captured(variables: Any, x: jax.Array) -> jax.Array:
        outputs, paths, own_trace = [], [], get_opaque_trace_state(convention="flax")

        def capture(next_fun, args, kwargs, context):
            output = next_fun(*args, **kwargs)
            if context.method_name == "__call__":
                paths.append("/".join(context.module.path))
                if context.module.path == place:
                    if get_opaque_trace_state(convention="flax") != own_trace:
                        raise ValueError(
                            f"expected a module in the model's own trace, got {path!r}, called inside of nn.scan, "
                            "nn.remat or alike: choose one outside of what is transformed"
                        )
                    outputs.append(output)
            return output

        with nn.intercept_methods(capture):
            model.apply(variables, x, **options)
        return _only(outputs, path, paths)

    shape = jax.eval_shape(captured, variables, images)
    _check_nothing_leads_around(replayed, (variables, images, shape), path)

    def features(variables: Any, x: jax.Array) -> jax.Array:
        _check_shape("x", x, image_shape)
        return captured(variables, x)

    def head(variables: Any, maps: jax.Array) -> Any:
        _check_shape("maps", maps, shape.shape[1:])
        return replayed(variables, jnp.zeros((maps.shape[0], *image_shape), images.dtype), maps)

    return features, head


def _only(outputs: Sequence[Any], path: str, paths: Sequence[str]) -> jax.Array:
    """The module's output; refuses none, several, and what is no array."""
    if not outputs:
        raise ValueError(
            f"expected the path of a module that the model calls, got {path!r}: it calls "
            + ", ".join(sorted(set(paths) - {""}))
        )
    if len(outputs) > 1:
        raise ValueError(
            f"expected a module that is called once, got {path!r}, called {len(outputs)} times: choose another"
        )
    if not isinstance(outputs[0], jax.Array):
        raise ValueError(
            f"expected a module that returns one array, got {type(outputs[0]).__name__} from {path!r}: "
            "choose one inside"
        )
    return outputs[0]


def _check_shape(name: str, array: jax.Array, shape: tuple[int, ...]) -> None:
    if array.shape[1:] != shape:
        raise ValueError(
            f"expected {name} of shape (N, {', '.join(map(str, shape))}), got {array.shape}: split the model "
            "with the `image_shape` of your images"
        )


def _check_nothing_leads_around(replayed: Callable[..., Any], arguments: tuple[Any, ...], path: str) -> None:
    """Refuse a result that depends on the images, which are zeros, where the module's output is given."""
    jaxpr = jax.make_jaxpr(replayed)(*arguments).jaxpr
    image = len(jax.tree.leaves(arguments[0]))  # stands after the variables'
    if _needed(jaxpr, [True] * len(jaxpr.outvars))[image]:
        raise ValueError(
            f"expected a module that all of the image's influence goes through, got {path!r}: the scores also depend "
            "on the image around it (a skip connection, another branch); choose the module where the branches meet"
        )


def _needed(jaxpr: Jaxpr, outputs: Sequence[bool]) -> list[bool]:
    """Which inputs the outputs may depend on; an equation's outputs depend on all its inputs, if it is no call."""
    live = {
        v for v, needed in zip(jaxpr.outvars, outputs, strict=True) if needed and not isinstance(v, Literal)
    }
    for equation in reversed(jaxpr.eqns):
        needed_outputs = [variable in live for variable in equation.outvars]
        if not any(needed_outputs):
            continue
        inner = equation.params.get("jaxpr") if equation.primitive.name == "jit" else None
        reads = _needed(inner.jaxpr, needed_outputs) if inner is not None else [True] * len(equation.invars)
        pairs = zip(equation.invars, reads, strict=True)
        live |= {v for v, read in pairs if read and not isinstance(v, Literal)}
    return [variable in live for variable in jaxpr.invars]
