"""PyTorch's files: both formats read back, nothing run, damage named."""

import collections
import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

from jxai.models.torch_file import _DTYPES
from jxai.models.weights import read_weights

# Pickles as torch.save writes them, without torch: a `Name` becomes the reference to a global, a `Reference` a
# persistent id, a `Call` the call of a global.


class Name:
    def __init__(self, module, name):
        self.module, self.name = module, name


class Call:
    def __init__(self, function, *args):
        self.function, self.args = function, args


class Reference:
    def __init__(self, pid):
        self.pid = pid


class Pickler(pickle._Pickler):  # the one in Python: its `save` can be overridden
    def persistent_id(self, obj):
        return obj.pid if isinstance(obj, Reference) else None

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Name):
            self.write(f"c{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Call):
            self.save(obj.function)
            self.save(obj.args)
            self.write(pickle.REDUCE)
        else:
            super().save(obj, save_persistent_id)


def pickled(obj):
    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump(obj)
    return buffer.getvalue()


STORAGES = {dtype: name for name, dtype in _DTYPES.items()}


def tensor(key, array, *, shape=None, strides=None, offset=0, size=None, view=()):
    """torch's description of a tensor whose storage has a key."""
    steps = np.cumprod([1, *array.shape[:0:-1]])[::-1].tolist() if array.ndim else []
    storage = Reference(
        (
            "storage",
            Name("torch", STORAGES[array.dtype]),
            key,
            "cpu",
            array.size if size is None else size,
            *view,
        )
    )
    shape = array.shape if shape is None else shape
    strides = tuple(steps) if strides is None else strides
    hooks = collections.OrderedDict()
    return Call(Name("torch._utils", "_rebuild_tensor_v2"), storage, offset, shape, strides, False, hooks)


def parameter(described):
    return Call(Name("torch._utils", "_rebuild_parameter"), described, True, collections.OrderedDict())


def write_zip(path, obj, storages, *, records=(), compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled(obj))
        for key, array in storages.items():
            archive.writestr(f"archive/data/{key}", array.tobytes())
        for name, data in dict(records).items():
            archive.writestr(f"archive/{name}", data)
    return path


def write_stream(path, obj, storages, *, magic=0x1950A86A20F9469CFC6C, protocol=1001, little=True):
    with path.open("wb") as file:
        for part in (magic, protocol, {"little_endian": little}, obj, list(storages)):
            file.write(pickled(part))
        for array in storages.values():
            file.write(struct.pack("<q", array.size) + array.tobytes())
    return path


WRITERS = pytest.mark.parametrize(
    ("write", "view"), [(write_zip, ()), (write_stream, (None,))], ids=["zip", "stream"]
)
FLOATS = np.arange(24, dtype=np.float32).reshape(2, 3, 4) / 7


@WRITERS
@pytest.mark.parametrize("dtype", _DTYPES.values(), ids=str)
def test_torch_files_of_every_type(tmp_path, write, view, dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    path = write(tmp_path / "w.pth", {"w": tensor("0", array, view=view)}, {"0": array})
    (got,) = read_weights(path).values()
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, array)


@WRITERS
def test_torch_files_of_any_tree_and_view(tmp_path, write, view):
    content = {
        "epoch": 3,
        "names": ["a", "b"],
        "state_dict": collections.OrderedDict(
            {
                "turned": tensor("a", FLOATS, shape=(4, 2), strides=(1, 12), offset=4, view=view),
                "scalar": tensor("a", FLOATS, shape=(), strides=(), offset=23, view=view),
                "empty": tensor("a", FLOATS, shape=(0, 3), strides=(3, 1), view=view),
                "parameter": parameter(tensor("b", FLOATS[0], view=view)),
            }
        ),
    }
    content["state_dict"]["spread"] = tensor("a", FLOATS, shape=(2, 2), strides=(0, 1), view=view)
    got = read_weights(write(tmp_path / "w.pt", content, {"a": FLOATS, "b": FLOATS[0]}))
    want = {
        "turned": FLOATS[:, 1].T,
        "scalar": FLOATS[1, 2, 3],
        "empty": np.zeros((0, 3)),
        "parameter": FLOATS[0],
        "spread": [FLOATS[0, 0, :2]] * 2,
    }
    assert set(got) == {f"state_dict.{name}" for name in want}
    for name, array in want.items():
        np.testing.assert_array_equal(
            got[f"state_dict.{name}"], array, strict=name != "spread" and name != "empty"
        )


def test_metadata_that_pytorch_hangs_on_the_dictionary_is_passed_over(tmp_path):
    class Dictionary(collections.OrderedDict):
        def __reduce__(self):
            return collections.OrderedDict, (), {"_metadata": {"": {"version": 1}}}, None, iter(self.items())

    content = Dictionary(w=tensor("0", FLOATS))
    np.testing.assert_array_equal(
        read_weights(write_zip(tmp_path / "w.pth", content, {"0": FLOATS}))["w"], FLOATS
    )


class Marker:
    """Pickled as a call that makes a folder when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@WRITERS
@pytest.mark.parametrize("where", ["instead", "beside", "inside"])
def test_nothing_in_a_pickle_is_run(tmp_path, write, view, where):
    marker, harmless = Marker(tmp_path / "ran"), tensor("0", FLOATS, view=view)
    pickle.loads(pickle.dumps(marker))
    (tmp_path / "ran").rmdir()  # so it does run where it is loaded as usual
    bad = {"instead": marker, "beside": {"w": harmless, "x": marker}, "inside": {"w": [[{"y": marker}]]}}[
        where
    ]
    path = write(tmp_path / "w.pth", bad, {"0": FLOATS})
    with pytest.raises(
        ValueError, match=r"got .*w\.pth with the name 'posix\.mkdir' .* save model\.state_dict\(\)"
    ):
        read_weights(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("part", range(5))
def test_nothing_in_any_pickle_of_the_stream_is_run(tmp_path, part):
    parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {}, []]
    parts[part] = Marker(tmp_path / "ran")
    (tmp_path / "w.pth").write_bytes(b"".join(map(pickled, parts)))
    with pytest.raises(ValueError, match=r"'posix\.mkdir'"):
        read_weights(tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "name",
    [
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("torch", "load"),
        ("torch", "FloatStorage.from_file"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("collections", "OrderedDict.fromkeys"),
        ("numpy", "load"),
        ("jxai.models.torch_file", "read_torch"),
    ],
)
@pytest.mark.parametrize("opcode", ["GLOBAL", "STACK_GLOBAL"])
def test_names_are_refused(tmp_path, name, opcode):
    texts = [struct.pack("<BI", ord("X"), len(part)) + part.encode() for part in name]
    data = b"\x80\x04" + b"".join(texts) + b"\x93."
    if opcode == "GLOBAL":
        data = pickled(Name(*name))
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("archive/data.pkl", data)
    with pytest.raises(ValueError, match=f"with the name '{name[0]}.{name[1]}'"):
        read_weights(tmp_path / "w.pth")


def test_a_pickle_cannot_change_what_it_may_name(tmp_path):
    """BUILD sets attributes: of a type of NumPy or a function of ours it would outlive the file."""
    for name in [*(("torch", name) for name in _DTYPES), ("torch._utils", "_rebuild_tensor_v2")]:
        for state in (
            {"__defaults__": (1,), "_function": 1},
            (None, {"_function": 1}),
            (3, ">", None, None, None, -1, -1, 0),
        ):
            buffer = pickled(Name(*name))[:-1] + pickled(state)[2:-1] + pickle.BUILD + pickle.STOP
            with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
                archive.writestr("archive/data.pkl", buffer)
            with pytest.raises(ValueError, match="expected"):
                read_weights(tmp_path / "w.pth")
    for name, dtype in _DTYPES.items():
        test_torch_files_of_every_type(tmp_path, write_zip, (), dtype)
        assert dtype.byteorder in "=|", name


def cycle():
    tree = {"w": tensor("0", FLOATS)}
    tree["self"] = tree
    return tree


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([tensor("0", FLOATS)], "with a list: save a dictionary"),
        ({"w": tensor("0", FLOATS, shape=(2, 3, 5))}, r"shape \(2, 3, 5\) in a storage of 24 values"),
        ({"w": tensor("0", FLOATS, offset=-1)}, "shape .*, strides .*: download it again"),
        (
            {"w": tensor("0", FLOATS, strides=(-1, 1, 1), offset=20)},
            "shape .*, strides .*: download it again",
        ),
        ({"w": tensor("0", FLOATS, strides=(1,))}, "shape .*, strides .*: download it again"),
        ({"w": tensor("0", FLOATS, strides=("a", 1, 1))}, "shape .*, strides .*: download it again"),
        ({"w": tensor("0", FLOATS, size=23)}, "96 bytes for 23 values of float32"),
        ({"w": tensor("0", FLOATS, size=2**60)}, "96 bytes for"),
        ({"w": tensor("1", FLOATS)}, "KeyError"),
        ({"w": tensor("0", FLOATS, view=(("0", 0, 4),))}, "storages inside storages"),
        ({"w": Reference(("module", 1, 2, 3, 4))}, "a reference to 'module'"),
        ({"a": {"b": tensor("0", FLOATS)}, "a.b": tensor("0", FLOATS)}, "two tensors called 'a.b'"),
        (cycle(), "one dictionary in two places, once at 'self'"),
    ],
)
def test_damaged_torch_files(tmp_path, content, message):
    path = write_zip(tmp_path / "w.pth", content, {"0": FLOATS})
    with pytest.raises(ValueError, match=f"^expected .*w\\.pth .*{message}"):
        read_weights(path)


def test_damaged_records_and_streams(tmp_path):
    content, storages, path = {"w": tensor("0", FLOATS, view=(None,))}, {"0": FLOATS}, tmp_path / "w.pth"
    write_zip(path, {"w": tensor("0", FLOATS)}, storages, records={"byteorder": "big"})
    with pytest.raises(ValueError, match="the other byte order"):
        read_weights(path)
    write_zip(path, {"w": tensor("0", FLOATS)}, storages, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="compressed"):
        read_weights(path)
    for options, message in (
        ({"magic": 5}, "does not begin"),
        ({"protocol": 1}, "of protocol 1"),
        ({"little": False}, "the other byte order"),
    ):
        write_stream(path, content, storages, **options)
        with pytest.raises(ValueError, match=message):
            read_weights(path)
    for data in (b"", b"no weights", b"PK\x03\x04", pickled({"w": 1})):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"expected a file .*w\.pth"):
            read_weights(path)
    whole = write_stream(path, content, storages).read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"expected a file .*w\.pth"):
            read_weights(path)
