"""Weights from files into Linen variables: reading without PyTorch, layouts, and a report of what went where."""

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from jxai.checks import as_path, printable, shown
from jxai.errors import InputError, InputTypeError
from jxai.models.torch_file import read_torch
from jxai.npz import read_npz

_SAFETENSORS_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": jnp.dtype(jnp.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U64": np.dtype(np.uint64),
    "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
    "C64": np.dtype(np.complex64),
    "F8_E4M3": jnp.dtype(jnp.float8_e4m3fn),
    "F8_E5M2": jnp.dtype(jnp.float8_e5m2),
}
_MOST_HEADER = 2**24  # of a hundred thousand tensors; JSON takes 30 times as much memory

# Names that torch.save's files get.
_TORCH = (".pth", ".pt", ".bin", ".ckpt", ".pth.tar", ".pt.tar")

# PyTorch's names for Linen's.
_LEAVES = {
    "kernel": "weight",
    "bias": "bias",
    "scale": "weight",
    "embedding": "weight",
    "mean": "running_mean",
    "var": "running_var",
}


@dataclasses.dataclass(frozen=True)
class WeightsReport:
    """What became of every tensor and every variable.

    Attributes:
        mapped: (variable, tensor) by name, such as ("params/conv1/kernel", "conv1.weight").
        missing: variables that no tensor was found for; they are as they were, or as the model starts.
        left_over: tensors that no variable took.
    """

    mapped: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]
    left_over: tuple[str, ...]

    def __str__(self) -> str:
        """Counts, then a line each."""
        heads = [f"{len(self.mapped)} mapped, {len(self.missing)} missing, {len(self.left_over)} left over"]
        heads += [f"mapped     {variable} <- {tensor}" for variable, tensor in self.mapped]
        heads += [f"missing    {name}" for name in self.missing]
        heads += [f"left over  {name}" for name in self.left_over]
        return "\n".join(heads)


def read_weights(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read a file of weights; nothing that the file brings is run.

    Args:
        path: an archive of NumPy (.npz), a .safetensors file, or one of PyTorch (.pth, .pt, .bin, .ckpt, .pth.tar;
            zip or older). Of the last, nested dictionaries get names joined by dots, and what is no tensor is left
            out.

    Returns:
        Arrays by name, as the file has them; they may be read-only.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: no path.
        ValueError: the name ends otherwise, the file is damaged, or it holds more than arrays.
    """
    path = as_path("a file of weights", path)
    if not os.path.isfile(path):  # False too where a path cannot be
        raise FileNotFoundError(f"expected a file of weights, got {printable(path, 200)}: there is none")
    name = path.name.lower()
    if name.endswith(".npz"):
        return _read_archive(path)
    if name.endswith(".safetensors"):
        return _read_safetensors(path)
    if name.endswith(_TORCH):
        return read_torch(path)
    raise InputError(
        f"expected a file that ends in .npz, .safetensors, {', '.join(_TORCH[:-1])} or {_TORCH[-1]}, "
        f"got {printable(path.name)}: rename or convert it"
    )


def fill_variables(
    variables: Mapping[str, Any], tensors: Mapping[str, np.ndarray], *, modules: Mapping[str, str]
) -> tuple[dict[str, Any], WeightsReport]:
    """Put PyTorch's tensors in the place of a Linen model's variables.

    Kernels (out, in, ...) become (..., in, out): OIHW to HWIO, also of depthwise convolutions, and (out, in) to
    (in, out). Of norms, weight, bias, running_mean and running_var become scale, bias, mean and var. A dense layer
    that reads a flattened map needs its rows reordered beforehand: PyTorch flattens (C, H, W), Flax (H, W, C).

    Example:
        >>> from flax import linen as nn
        >>> shapes = jax.eval_shape(nn.Dense(2).init, jax.random.key(0), jnp.ones((1, 3)))
        >>> tensors = {"fc.weight": np.ones((2, 3)), "fc.bias": np.zeros(2), "fc.note": np.zeros(1)}
        >>> variables, report = fill_variables(shapes, tensors, modules={"": "fc"})
        >>> variables["params"]["kernel"].shape, report.left_over
        ((3, 2), ('fc.note',))

    Args:
        variables: the model's, or their shapes as `jax.eval_shape` of its `init` gives them. Where there is no
            tensor for it, an array stays as it is; a shape is an error.
        tensors: by name, as `read_weights` gives them.
        modules: path of a Linen module, such as "block0/conv1" (the model itself is ""), to the name that PyTorch's
            tensors have before ".weight" and so on.

    Returns:
        The variables, in the types that they had, and what became of every tensor.

    Raises:
        ValueError: a tensor has another shape than its variable, a variable that is only a shape has no tensor, or
            `modules` names a module that the model does not have.
        TypeError: a tensor for a variable of floats holds no floats, or something is no array or dictionary.
    """
    for name, given in (("variables", variables), ("tensors", tensors), ("modules", modules)):
        if not isinstance(given, Mapping):
            raise InputTypeError(f"expected {name} by name, got {shown(given)}: give a dictionary")
    flat: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(dict(variables))
    paths = {"/".join(keys[1:-1]) for keys in flat}
    if unknown := sorted(set(modules) - paths):
        raise InputError(
            f"expected modules of the model, got {', '.join(unknown)}: they are among {', '.join(sorted(paths))}"
        )
    filled: dict[tuple[str, ...], Any] = {}
    mapped, missing = [], []
    wanted = tensor_names(variables, modules=modules)
    for keys, variable in flat.items():
        name = "/".join(keys)
        tensor_name = wanted[name]
        if tensor_name is None or tensor_name not in tensors:
            missing.append(name)
            filled[keys] = variable
        else:
            filled[keys] = _converted(name, variable, tensor_name, tensors[tensor_name])
            mapped.append((name, tensor_name))
    empty = [name for name in missing if isinstance(filled[tuple(name.split("/"))], jax.ShapeDtypeStruct)]
    if empty:
        raise InputError(
            f"expected a tensor for every variable, got none for {', '.join(empty)}: name its module in `modules`, "
            "or give arrays instead of shapes to keep them"
        )
    left_over = sorted(set(tensors) - {tensor for _, tensor in mapped})
    report = WeightsReport(tuple(mapped), tuple(missing), tuple(left_over))
    return traverse_util.unflatten_dict(filled), report


def tensor_names(variables: Mapping[str, Any], *, modules: Mapping[str, str]) -> dict[str, str | None]:
    """The tensor that `fill_variables` looks for, for every variable.

    Args:
        variables: as in `fill_variables`.
        modules: as in `fill_variables`.

    Returns:
        Name of the variable, such as "params/conv1/kernel", to the tensor's, or None where `modules` lacks the
            module.
    """
    names: dict[str, str | None] = {}
    for keys in traverse_util.flatten_dict(dict(variables)):
        prefix, leaf = modules.get("/".join(keys[1:-1])), _LEAVES.get(keys[-1], keys[-1])
        named = f"{prefix}.{leaf}" if prefix else leaf
        names["/".join(keys)] = None if prefix is None else named
    return names


def _converted(name: str, variable: Any, tensor_name: str, tensor: np.ndarray) -> jax.Array:
    """The tensor in the layout and the type of the variable."""
    if not all(hasattr(array, "dtype") for array in (variable, tensor)):
        raise InputTypeError(
            f"expected arrays for {name} and in {tensor_name}, got {shown(variable)} and {shown(tensor)}"
        )
    if jnp.issubdtype(variable.dtype, jnp.floating) and not jnp.issubdtype(tensor.dtype, jnp.floating):
        raise InputTypeError(
            f"expected floats for {name}, got {tensor.dtype} in {tensor_name}: check `modules`"
        )
    is_kernel = name.endswith("/kernel") and tensor.ndim >= 2
    turned = np.moveaxis(tensor, (0, 1), (-1, -2)) if is_kernel else tensor
    if turned.shape != variable.shape:
        raise InputError(
            f"expected a tensor of shape {variable.shape} for {name}, got {turned.shape} from {tensor_name} "
            f"{tensor.shape}: check the model's sizes and `modules`"
        )
    return jnp.asarray(np.ascontiguousarray(turned), variable.dtype)


def _read_archive(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file:
            return read_npz(file)
    except ValueError as error:
        raise InputError(
            f"expected an archive of arrays, got {printable(path)} ({printable(error)}): "
            "save it again without objects"
        ) from error


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The format: length of the header (8 bytes), header (JSON: dtype, shape and bytes of each tensor), the bytes."""
    try:
        with path.open("rb") as file:
            total = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if total < 8 or 8 + length > total or length > _MOST_HEADER:
                raise ValueError(
                    f"its header ends at byte {8 + length} of {total}, or is longer than it may be"
                )
            text = file.read(length).decode()
            if not text.startswith("{"):
                raise ValueError("its header is no object")
            header = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
            places = _places(header, total - 8 - length)
            data = memoryview(file.read())
        return {
            name: np.frombuffer(data[first:last], dtype).reshape(shape)
            for name, (dtype, shape, first, last) in places.items()
        }
    # RecursionError: JSON nested too deep.
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, MemoryError) as error:
        raise InputError(
            f"expected a safetensors file, got {printable(path)} ({type(error).__name__}: {printable(error)}): "
            "download or save it again"
        ) from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands in its header twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"its header holds {name}")


def _places(header: dict[str, Any], size: int) -> dict[str, tuple[np.dtype, tuple[int, ...], int, int]]:
    """Type, shape, first byte and end of each tensor: one after another they are all of the file's bytes."""
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata are no texts by name")
    places = {}
    for name, entry in header.items():
        if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
            raise ValueError(f"{shown(name)} is not described by dtype, shape and data_offsets")
        kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        for numbers in (shape, offsets):
            if not isinstance(numbers, list) or any(
                type(n) is not int or not 0 <= n < 2**63 for n in numbers
            ):
                raise ValueError(f"{shown(name)} has a shape or offsets that are no lists of counts")
        if not isinstance(kind, str) or kind not in _SAFETENSORS_DTYPES:
            raise ValueError(f"{shown(name)} is of the type {shown(kind)}, which is not known here")
        dtype = _SAFETENSORS_DTYPES[kind]
        if len(offsets) != 2 or math.prod(shape) * dtype.itemsize != offsets[1] - offsets[0]:
            raise ValueError(f"the bytes of {shown(name)} are not as many as its shape takes")
        places[name] = (dtype, tuple(shape), *offsets)
    end = 0
    for name, (*_, first, last) in sorted(places.items(), key=lambda place: place[1][2:]):
        if first != end:
            raise ValueError(f"{shown(name)} begins at byte {first}, and what is before it ends at {end}")
        end = last
    if end != size:
        raise ValueError(f"its tensors end at byte {end} of {size}")
    return places
