"""Weights from files into Linen variables: reading without PyTorch, layouts, and a report of what went where."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from jxai.checks import as_path, shown
from jxai.models.torch_file import read_torch

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
}

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
        missing: variables that no tensor was found for; they are as they were.
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
        path: an archive of NumPy (.npz), a .safetensors file, or one of PyTorch (.pth, .pt, .bin; zip or older). Of
            the last, nested dictionaries get names joined by dots, and what is no tensor is left out.

    Returns:
        Arrays by name, as the file has them; they may be read-only.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: no path.
        ValueError: the name ends otherwise, the file is damaged, or it holds more than arrays.
    """
    path = as_path("a file of weights", path)
    if not os.path.isfile(path):  # False too where a path cannot be
        raise FileNotFoundError(f"expected a file of weights, got {str(path)[:200]}: there is none")
    match path.suffix.lower():
        case ".npz":
            return _read_npz(path)
        case ".safetensors":
            return _read_safetensors(path)
        case ".pth" | ".pt" | ".bin":
            return read_torch(path)
    raise ValueError(
        f"expected a file that ends in .npz, .safetensors, .pth, .pt or .bin, got {path.name}: rename or convert it"
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
            raise TypeError(f"expected {name} by name, got {shown(given)}: give a dictionary")
    flat: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(dict(variables))
    paths = {"/".join(keys[1:-1]) for keys in flat}
    if unknown := sorted(set(modules) - paths):
        raise ValueError(
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
        raise ValueError(
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
        raise TypeError(
            f"expected arrays for {name} and in {tensor_name}, got {shown(variable)} and {shown(tensor)}"
        )
    if jnp.issubdtype(variable.dtype, jnp.floating) and not jnp.issubdtype(tensor.dtype, jnp.floating):
        raise TypeError(f"expected floats for {name}, got {tensor.dtype} in {tensor_name}: check `modules`")
    is_kernel = name.endswith("/kernel") and tensor.ndim >= 2
    turned = np.moveaxis(tensor, (0, 1), (-1, -2)) if is_kernel else tensor
    if turned.shape != variable.shape:
        raise ValueError(
            f"expected a tensor of shape {variable.shape} for {name}, got {turned.shape} from {tensor_name} "
            f"{tensor.shape}: check the model's sizes and `modules`"
        )
    return jnp.asarray(np.ascontiguousarray(turned), variable.dtype)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        # Opened here: NumPy leaves the file of a damaged archive open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return dict(archive)
    # A damaged archive fails as BadZipFile, ValueError, EOFError, KeyError or zlib.error.
    except Exception as error:
        raise ValueError(
            f"expected an archive of arrays, got {path} ({error}): save it again without objects"
        ) from error


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The format: length of the header (8 bytes), header (JSON: dtype, shape and bytes of each tensor), the bytes."""
    data = path.read_bytes()
    try:
        start = 8 + int.from_bytes(data[:8], "little")
        if len(data) < 8 or start > len(data):
            raise ValueError(f"its header ends at byte {start} of {len(data)}")
        header = json.loads(data[8:start])
        header.pop("__metadata__", None)
        return {name: _safetensor(data, start, **entry) for name, entry in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"expected a safetensors file, got {path} ({type(error).__name__}: {error}): download or save it again"
        ) from error


def _safetensor(
    data: bytes, header_end: int, *, dtype: str, shape: list[int], data_offsets: list[int]
) -> np.ndarray:
    first, last = (header_end + offset for offset in data_offsets)
    if not header_end <= first <= last <= len(data):
        raise ValueError(f"a tensor lies from byte {first} to {last} of {len(data)}")
    return np.frombuffer(data[first:last], _SAFETENSORS_DTYPES[dtype]).reshape(shape)
