"""PyTorch's weight files without PyTorch: the zip format and, older, a stream of pickles.

A pickle may name any function and call it. `pickle_reader` carries out its program without that: it knows the names
that tensors are made of, passes over what training programs put beside them, and refuses every other name, so that
reading a file runs nothing that the file brings.
"""

import dataclasses
import io
import math
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import jax.numpy as jnp
import numpy as np

from jxai.checks import printable
from jxai.errors import InputError
from jxai.models.pickle_reader import INERT, Named, RefusedError, described, dictionary, read_pickle

# What torch.save calls the arrays of bytes that tensors are views of.
_DTYPES = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": jnp.dtype(jnp.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
    "ComplexFloatStorage": np.dtype(np.complex64),
    "ComplexDoubleStorage": np.dtype(np.complex128),
}
# Types that PyTorch has no storages for: it writes bytes, and the tensor says the type.
_UNTYPED = ("torch.storage.UntypedStorage", "torch.UntypedStorage")
_LATER_DTYPES = {
    "torch.uint16": np.dtype(np.uint16),
    "torch.uint32": np.dtype(np.uint32),
    "torch.uint64": np.dtype(np.uint64),
    "torch.float8_e4m3fn": jnp.dtype(jnp.float8_e4m3fn),
    "torch.float8_e5m2": jnp.dtype(jnp.float8_e5m2),
}
_STREAM_MAGIC = 0x1950A86A20F9469CFC6C
_STREAM_PROTOCOL = 1001
_ZIP_MAGIC = b"PK\x03\x04"

# What training programs keep beside the weights: options, dates, random states, metrics. None of it is made.
_BESIDE: dict[str, str] = {
    "argparse": "Namespace",
    "types": "SimpleNamespace",
    "collections": "Counter defaultdict deque",
    "builtins": "set frozenset slice complex bytearray dict list int float bool str tuple object",
    "copyreg": "_reconstructor",
    "_codecs": "encode",
    "datetime": "datetime date time timedelta timezone",
    "pathlib": "Path PosixPath WindowsPath PurePosixPath",
    "pathlib._local": "PosixPath WindowsPath",
    "torch": "Size device Tensor float32 float64 float16 bfloat16 complex64 complex128 uint8 int8 int16 int32 int64 "
    "bool strided",
    "torch.torch_version": "TorchVersion",
    "torch.nn.parameter": "Parameter",
    "torch.serialization": "_get_layout",
    "numpy": "ndarray dtype",
    "numpy.core.multiarray": "scalar _reconstruct",
    "numpy._core.multiarray": "scalar _reconstruct",
}
_OF_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # and of the pickles that it could read
_BESIDE_OF = ("pytorch_lightning.", "lightning.", "lightning_fabric.", "omegaconf.", "numpy.dtypes.")

# A few entries may stand for many (torch.Tensor.expand), but not for more than memory holds.
_MOST_REPEATED = 2**24
# All names together; in a nest of dictionaries the longer ones hold the shorter.
_MOST_LETTERS = 2**26


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """Read what `torch.save` wrote, of either format.

    Args:
        path: the file; it holds dictionaries, nested or not, with tensors in them.

    Returns:
        Tensors by name, the names of nested dictionaries joined by dots; read-only arrays. What stands beside the
        tensors (an epoch, a learning rate, options) is left out.

    Raises:
        ValueError: the file is damaged, is no PyTorch file, or names anything that neither tensors nor the options of
            a training need.
    """
    with path.open("rb") as file:
        is_zip = file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC
        file.seek(0)
        try:
            content, storages = _read_zip(file) if is_zip else _read_stream(_Bounded(file))
            return _flatten(content, storages)
        except RefusedError as error:
            raise InputError(f"expected a file of tensors alone, got {printable(path)} {error}") from error
        # A damaged pickle fails in many ways: EOFError, KeyError, TypeError, UnicodeDecodeError and others.
        except Exception as error:
            said = f"{type(error).__name__}: {printable(error)}"
            raise InputError(
                f"expected a file that torch.save wrote, got {printable(path)} ({said}): download or save it again"
            ) from error


@dataclasses.dataclass(frozen=True)
class _Storage:
    """An array of bytes that the file keeps elsewhere."""

    key: str
    dtype: np.dtype
    size: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A view of a storage, as the pickle describes it."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype

    def array(self, storages: Mapping[str, np.ndarray]) -> np.ndarray:
        storage = storages[self.storage.key].view(self.dtype)
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        if 0 not in self.shape and last >= storage.size:
            raise RefusedError(
                f"with a tensor of shape {self.shape} in a storage of {storage.size} values: download it again"
            )
        if math.prod(self.shape) > max(storage.size, _MOST_REPEATED):
            raise RefusedError(
                f"with a tensor of shape {self.shape} that repeats {storage.size} values: save it whole"
            )
        strides = [step * storage.itemsize for step in self.strides]
        start = storage[self.offset :]
        return np.lib.stride_tricks.as_strided(start, self.shape, strides, writeable=False)


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *others: Any) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise RefusedError("with a tensor of no storage: save it again")
    numbers = (offset, *_sizes(shape), *_sizes(strides))
    if len(shape) != len(strides) or any(type(n) is not int or not 0 <= n < 2**63 for n in numbers):
        of_shape, of_strides = (", ".join(map(described, part[:8])) for part in (shape, strides))
        raise RefusedError(f"with a tensor of shape ({of_shape}), strides ({of_strides}): download it again")
    return _Tensor(storage, offset, tuple(shape), tuple(strides), storage.dtype)


def _rebuild_untyped(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, *others: Any
) -> _Tensor:
    name = dtype.name if isinstance(dtype, Named) else ""
    if name not in _LATER_DTYPES:
        raise RefusedError(f"with a tensor of the type {described(dtype)}: convert it to float32")
    return dataclasses.replace(_rebuild_tensor(storage, offset, shape, strides), dtype=_LATER_DTYPES[name])


def _rebuild_parameter(tensor: Any, *_: Any) -> Any:
    return tensor


def _rebuild_of_type(function: Any, kind: Any, arguments: Any, *_: Any) -> Any:
    if not isinstance(function, Named) or function.call is None or not isinstance(arguments, tuple):
        raise RefusedError("with a tensor of an unknown kind: save model.state_dict() alone")
    return function.call(*arguments)


def _sizes(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, tuple | list) or len(value) > 64:  # NumPy's most axes
        raise RefusedError(f"with a tensor whose shape or strides are {described(value)}: download it again")
    return tuple(value)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": lambda items=(), /: dictionary(_pairs(items)),
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": _rebuild_untyped,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
    "torch._tensor._rebuild_from_type_v2": _rebuild_of_type,
}


def _pairs(items: Any) -> Any:
    """What an ordered dictionary of Python 2 was made of."""
    if isinstance(items, dict):
        return items.items()
    if not isinstance(items, tuple | list):
        raise RefusedError("with a dictionary of something else than pairs: download it again")
    return items


def _find(name: str) -> Any:
    if name in _FUNCTIONS:
        return Named(name, _FUNCTIONS[name])
    module, _, last = name.rpartition(".")
    module = _OF_PYTHON_2.get(module, module)
    if (module in ("torch", "torch.cuda") and last in _DTYPES) or name in _UNTYPED or name in _LATER_DTYPES:
        return Named(name)
    if last in _BESIDE.get(module, "").split() or name.startswith(_BESIDE_OF):
        return INERT
    raise RefusedError(
        f"with the name {printable(repr(name), 200)} in its pickle, which may run code: "
        "save model.state_dict() alone, of usual types"
    )


def _load(file: Any) -> tuple[Any, dict[str, _Storage]]:
    """The content of the pickle that the file stands at, and the storages that it refers to."""
    storages: dict[str, _Storage] = {}

    def refer(pid: Any) -> _Storage:
        if not isinstance(pid, tuple):
            raise RefusedError(f"with a reference to {described(pid)}: save model.state_dict() alone")
        kind, of_type, key, _, size, *view = pid
        if kind != "storage":
            raise RefusedError(f"with a reference to {described(kind)}: save model.state_dict() alone")
        if any(part is not None for part in view):
            raise RefusedError("with storages inside storages, of PyTorch 0.3 or older: save it again")
        if not (isinstance(of_type, Named) and isinstance(key, str) and type(size) is int and size >= 0):
            raise RefusedError("with a storage of an unknown kind: save it again")
        dtype = np.dtype(np.uint8) if of_type.name in _UNTYPED else _DTYPES[of_type.name.rpartition(".")[2]]
        return storages.setdefault(key, _Storage(key, dtype, size))

    return read_pickle(file, find=_find, refer=refer), storages


class _Bounded:
    """A file that does not take memory for bytes that it does not have."""

    def __init__(self, file: BinaryIO):
        self._file, self._size = file, os.fstat(file.fileno()).st_size
        self.readline, self.tell = file.readline, file.tell

    def read(self, count: int) -> bytes:
        return self._file.read(min(count, self._size - self._file.tell()))


def _read_zip(file: BinaryIO) -> tuple[Any, dict[str, np.ndarray]]:
    """The pickle's content, and its storages by key, each from a record of its own."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if len(set(names)) < len(names):
            raise RefusedError("with two records of one name: download it again")
        if any(name.split("/")[1:2] == ["code"] for name in names):
            raise RefusedError("of TorchScript, which is a program: save model.state_dict()")
        (pickled,) = (name for name in names if name.endswith("/data.pkl"))
        folder = pickled.removesuffix("data.pkl")
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise RefusedError("with compressed records, which PyTorch does not write: save it again")
        # Records that overlap would give more bytes than the file has.
        if sum(info.file_size for info in archive.infolist()) > os.fstat(file.fileno()).st_size:
            raise RefusedError("with records larger than the file: download it again")
        order = f"{folder}byteorder"
        _check_byte_order(order not in names or archive.read(order) == b"little")
        content, found = _load(io.BytesIO(archive.read(pickled)))
        storages = {
            key: _storage_of(archive.read(f"{folder}data/{key}"), storage) for key, storage in found.items()
        }
    return content, storages


def _read_stream(file: _Bounded) -> tuple[Any, dict[str, np.ndarray]]:
    """The content of the fourth of five pickles; the fifth lists the keys of the storages that lie behind it."""
    if _load(file)[0] != _STREAM_MAGIC:
        raise RefusedError("that does not begin as PyTorch's files do: download it again")
    if (protocol := _load(file)[0]) != _STREAM_PROTOCOL:
        raise RefusedError(f"of protocol {described(protocol)}, not {_STREAM_PROTOCOL}: save it again")
    _check_byte_order(_load(file)[0]["little_endian"] is True)
    content, found = _load(file)
    storages = {}
    keys = _load(file)[0]
    if not isinstance(keys, list) or any(not isinstance(key, str) for key in keys):
        raise RefusedError("with a damaged list of storages: download it again")
    for key in keys:
        storage = found[key]
        size = int.from_bytes(file.read(8), "little")
        if size != storage.size:
            raise RefusedError(f"with {size} values in a storage of {storage.size}: download it again")
        storages[key] = _storage_of(file.read(size * storage.dtype.itemsize), storage)
    return content, storages


def _storage_of(data: bytes, storage: _Storage) -> np.ndarray:
    if len(data) != storage.size * storage.dtype.itemsize:
        raise RefusedError(
            f"with {len(data)} bytes for {storage.size} values of {storage.dtype}: download it again"
        )
    return np.frombuffer(data, storage.dtype)


def _check_byte_order(little: bool) -> None:
    if not little:
        raise RefusedError("of a machine with the other byte order: save it again on a usual one")


def _flatten(content: Any, storages: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Tensors by names joined with dots."""
    found: dict[str, np.ndarray] = {}
    if not isinstance(content, dict):
        raise RefusedError(f"with {described(content)}: save a dictionary such as model.state_dict()")
    seen = {id(content)}
    waiting = [(content, "")]
    letters = 0
    while waiting:
        node, above = waiting.pop()
        children = []
        for key, child in node.items():
            if not isinstance(child, _Tensor | dict):
                continue
            name = f"{above}.{key}" if above else str(key)
            letters += len(name)
            if letters > _MOST_LETTERS:
                raise RefusedError("with names that are too long: save model.state_dict() alone")
            if isinstance(child, dict):
                if id(child) in seen:  # a cycle, or a tree that grows without end
                    said = described(name)
                    raise RefusedError(f"with one dictionary in two places, once at {said}: save it again")
                seen.add(id(child))
                children.append((child, name))
            elif name in found:
                raise RefusedError(f"with two tensors called {described(name)}: rename one")
            else:
                found[name] = child.array(storages)
        waiting += reversed(children)
    return found
