"""Tensors by name into the variables of a transformer, whose layers may be one stacked loop."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.typing import DTypeLike

from jxai.checks import printable
from jxai.errors import InputError
from jxai.models.weights import WeightsReport, fill_variables, tensor_names

_NAMES_SHOWN = 3
_LOOP = "layers"


def fill_transformer(
    module: nn.Module,
    tensors: Mapping[str, np.ndarray],
    *,
    modules: Mapping[str, str],
    example: jax.ShapeDtypeStruct,
    number: int,
    dtype: DTypeLike | None = None,
    source: str = "the file",
) -> tuple[dict[str, Any], WeightsReport]:
    """The variables of a transformer, the whole of it or nothing.

    Args:
        module: with `scan`.
        tensors: by the file's names.
        modules: path of each module, its layers named as if they were unrolled, to the name before ".weight".
        example: shape of what the module is called with.
        number: of layers.
        dtype: of the variables; by default each tensor's own, and float32 for float16, in which relevance overflows.
        source: what the tensors are of, for errors.

    Returns:
        The variables, and what became of every tensor; of a loop's parameters, the layer stands in brackets.

    Raises:
        ValueError: a variable has no tensor, or one of another shape.
        TypeError: a tensor holds no floats.
    """
    looped = dataclasses.replace(module, scan=True)  # pyright: ignore[reportCallIssue]
    shapes = jax.eval_shape(looped.init, jax.random.key(0), example)
    looped_shapes: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(shapes)
    wanted: dict[tuple[str, ...], Any] = {}
    for keys, shape in looped_shapes.items():
        if _LOOP in keys:
            at = keys.index(_LOOP)
            one = jax.ShapeDtypeStruct(shape.shape[1:], shape.dtype)
            wanted |= {(*keys[:at], f"layer{index}", *keys[at + 1 :]): one for index in range(number)}
        else:
            wanted[keys] = shape
    names = tensor_names(traverse_util.unflatten_dict(wanted), modules=modules)
    missing = [name for name, tensor in names.items() if tensor not in tensors]
    if missing:
        # A variable that no name is known for is a fault of the tables, and told by itself.
        listed = ", ".join(printable(names[name] or name, 100) for name in missing[:_NAMES_SHOWN])
        raise InputError(
            f"expected a tensor for every variable of {type(module).__name__}, got none for {len(missing)} in "
            f"{source} ({listed}{', ...' if len(missing) > _NAMES_SHOWN else ''}): check that all shards are there "
            "and that the configuration is this model's"
        )
    for keys, shape in wanted.items():
        found = tensors[names["/".join(keys)]].dtype if dtype is None else dtype  # pyright: ignore[reportArgumentType]
        known = jnp.issubdtype(found, jnp.floating) and found != np.float16
        wanted[keys] = jax.ShapeDtypeStruct(shape.shape, found if known else np.float32)
    variables, report = fill_variables(traverse_util.unflatten_dict(wanted), tensors, modules=modules)
    if not module.scan:  # pyright: ignore[reportAttributeAccessIssue]
        return variables, report
    mapped = tuple((_stacked_name(variable), tensor) for variable, tensor in report.mapped)
    return _stacked(variables, looped_shapes), dataclasses.replace(report, mapped=mapped)


def _stacked(variables: dict[str, Any], shapes: dict[tuple[str, ...], Any]) -> dict[str, Any]:
    """Variables of layers on their own as a loop has them."""
    flat = traverse_util.flatten_dict(variables)
    found = {}
    for keys, shape in shapes.items():
        if _LOOP not in keys:
            found[keys] = flat.pop(keys)
            continue
        at = keys.index(_LOOP)
        layers = ((*keys[:at], f"layer{index}", *keys[at + 1 :]) for index in range(shape.shape[0]))
        found[keys] = jnp.asarray(np.stack([np.asarray(flat.pop(one)) for one in layers]))
    return traverse_util.unflatten_dict(found)


def _stacked_name(name: str) -> str:
    """Of "params/layer3/mlp/up/kernel", "params/layers/mlp/up/kernel[3]"."""
    found = re.fullmatch(r"(.*/)layer(\d+)/(.*)", name)
    return f"{found[1]}{_LOOP}/{found[3]}[{found[2]}]" if found else name
