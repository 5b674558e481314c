"""PyTorch's weight files without PyTorch: the zip format and, older, a stream of pickles.

A pickle may name any function and call it. The reader here knows the names that tensors are made of, gives back its
own stand-ins for them, and refuses every other name, so that reading a file runs nothing that the file brings.
"""

import collections
import dataclasses
import io
import pickle
import pickletools
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import jax.numpy as jnp
import numpy as np

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
_STREAM_MAGIC = 0x1950A86A20F9469CFC6C
_STREAM_PROTOCOL = 1001
_ZIP_MAGIC = b"PK\x03\x04"

# Places that pickles may keep values in. One far off has the reader fill all memory up to it.
_MOST_PLACES = 2**20


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """Read what `torch.save` wrote, of either format.

    Args:
        path: the file; it holds dictionaries, nested or not, with tensors in them.

    Returns:
        Tensors by name, the names of nested dictionaries joined by dots; read-only arrays. What stands beside the
        tensors (an epoch, a learning rate) is left out.

    Raises:
        ValueError: the file is damaged, is no PyTorch file, or names anything that tensors do not need.
    """
    with path.open("rb") as file:
        is_zip = file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC
        file.seek(0)
        try:
            content, storages = _read_zip(file) if is_zip else _read_stream(file)
            return _flatten(content, storages)
        except _RefusedError as error:
            raise ValueError(f"expected a file of tensors alone, got {path} {error}") from error
        # A damaged pickle fails in many ways: EOFError, KeyError, TypeError, UnicodeDecodeError and others.
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(
                f"expected a file that torch.save wrote, got {path} ({reason}): download or save it again"
            ) from error


class _RefusedError(Exception):
    """What a file holds is nothing that this reader takes; the message goes on after the file's name."""


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

    def array(self, storages: Mapping[str, np.ndarray]) -> np.ndarray:
        storage = storages[self.storage.key]
        numbers = (self.offset, *self.shape, *self.strides)
        if len(self.shape) != len(self.strides) or any(type(n) is not int or n < 0 for n in numbers):
            raise _RefusedError(
                f"with a tensor of shape {self.shape}, strides {self.strides}: download it again"
            )
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        if 0 not in self.shape and last >= storage.size:
            raise _RefusedError(
                f"with a tensor of shape {self.shape} in a storage of {storage.size} values: download it again"
            )
        strides = [step * storage.itemsize for step in self.strides]
        start = storage[self.offset :]
        return np.lib.stride_tricks.as_strided(start, self.shape, strides, writeable=False)


class _Unpickler(pickle.Unpickler):
    """Gives stand-ins for the names that tensors are made of, and refuses all others.

    A stand-in is new or cannot change: whatever a pickle does to it, no other file and no code sees.
    """

    def __init__(self, file: Any):
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        name = f"{module_name}.{global_name}"
        if name == "collections.OrderedDict":
            return collections.OrderedDict
        if name == "torch._utils._rebuild_tensor_v2":
            return _Function(_rebuild_tensor)
        if name == "torch._utils._rebuild_parameter":
            return _Function(_rebuild_parameter)
        if module_name in ("torch", "torch.cuda") and global_name in _DTYPES:
            return global_name
        raise _RefusedError(
            f"with the name {name!r} in its pickle, which may run code: save model.state_dict() alone, of usual types"
        )

    def persistent_load(self, pid: Any, /) -> _Storage:
        kind, type_name, key, _, size, *view = pid
        if kind != "storage":
            raise _RefusedError(f"with a reference to {kind!r}: save model.state_dict() alone")
        if any(part is not None for part in view):
            raise _RefusedError("with storages inside storages, of PyTorch 0.3 or older: save it again")
        return self.storages.setdefault(key, _Storage(key, _DTYPES[type_name], size))


def _load(file: Any) -> tuple[Any, dict[str, _Storage]]:
    """The content of the pickle that the file stands at, and the storages that it refers to."""
    start = file.tell()
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and (argument or 0) >= _MOST_PLACES:
            raise _RefusedError(f"with a value in place {argument} of its pickle: download it again")
    file.seek(start)
    unpickler = _Unpickler(file)
    return unpickler.load(), unpickler.storages


class _Function:
    """A function that a pickle may call but not change."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)


def _rebuild_tensor(storage: _Storage, offset: int, shape: tuple, strides: tuple, *_: Any) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise _RefusedError("with a tensor of no storage: save it again")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor: _Tensor, *_: Any) -> _Tensor:
    return tensor


def _read_zip(file: BinaryIO) -> tuple[Any, dict[str, np.ndarray]]:
    """The pickle's content, and its storages by key, each from a record of its own."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        (pickled,) = (name for name in names if name.endswith("/data.pkl"))
        folder = pickled.removesuffix("data.pkl")
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise _RefusedError("with compressed records, which PyTorch does not write: save it again")
        order = f"{folder}byteorder"
        _check_byte_order(order not in names or archive.read(order) == b"little")
        content, described = _load(io.BytesIO(archive.read(pickled)))
        storages = {
            key: _storage_of(archive.read(f"{folder}data/{key}"), storage)
            for key, storage in described.items()
        }
    return content, storages


def _read_stream(file: BinaryIO) -> tuple[Any, dict[str, np.ndarray]]:
    """The content of the fourth of five pickles; the fifth lists the keys of the storages that lie behind it."""
    if _load(file)[0] != _STREAM_MAGIC:
        raise _RefusedError("that does not begin as PyTorch's files do: download it again")
    if (protocol := _load(file)[0]) != _STREAM_PROTOCOL:
        raise _RefusedError(f"of protocol {protocol}, not {_STREAM_PROTOCOL}: save it again")
    _check_byte_order(_load(file)[0]["little_endian"] is True)
    content, described = _load(file)
    storages = {}
    for key in _load(file)[0]:
        storage = described[key]
        size = int.from_bytes(file.read(8), "little")
        if size != storage.size:
            raise _RefusedError(f"with {size} values in a storage of {storage.size}: download it again")
        storages[key] = _storage_of(file.read(size * storage.dtype.itemsize), storage)
    return content, storages


def _storage_of(data: bytes, storage: _Storage) -> np.ndarray:
    if len(data) != storage.size * storage.dtype.itemsize:
        raise _RefusedError(
            f"with {len(data)} bytes for {storage.size} values of {storage.dtype}: download it again"
        )
    return np.frombuffer(data, storage.dtype)


def _check_byte_order(little: bool) -> None:
    if not little:
        raise _RefusedError("of a machine with the other byte order: save it again on a usual one")


def _flatten(content: Any, storages: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Tensors by names joined with dots."""
    found: dict[str, np.ndarray] = {}
    seen: set[int] = set()

    def visit(node: Any, name: str) -> None:
        if isinstance(node, _Tensor):
            if name in found:
                raise _RefusedError(f"with two tensors called {name!r}: rename one")
            found[name] = node.array(storages)
        elif isinstance(node, dict):
            if id(node) in seen:  # a cycle, or a tree that grows without end
                raise _RefusedError(f"with one dictionary in two places, once at {name!r}: save it again")
            seen.add(id(node))
            for key, child in node.items():
                visit(child, f"{name}.{key}" if name else str(key))

    if not isinstance(content, dict):
        raise _RefusedError(f"with a {type(content).__name__}: save a dictionary such as model.state_dict()")
    visit(content, "")
    return found
