"""Pickles that are made to hang, to fill memory or to end the interpreter; what PyTorch writes is read."""

import io
import struct
import time
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest

from jxai.models import pickle_reader, read_weights
from jxai.models.pickle_reader import RefusedError, read_pickle

pytestmark = pytest.mark.timeout(120)


def text(word):
    return b"X" + struct.pack("<I", len(word)) + word.encode()


NEST = b")" + b"2\x86" * 45  # t = (t, t), 45 times: 2**45 leaves
DEEP = b")" + b"\x85" * 200_000  # t = (t,)
DEEP_LIST = b"]" + b"]2a" * 1000
ITSELF = b"]2a"
STRANGE = {"nested": NEST, "deep": DEEP, "deep list": DEEP_LIST, "in itself": ITSELF}
FLOATS = b"ctorch\nFloatStorage\n"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n("


def storage(kind=None, of_type=FLOATS, key=None, size=b"K\x03", view=b""):
    parts = (kind or text("storage"), of_type, key or text("0"), text("cpu"), size, view)
    return b"(" + b"".join(parts) + b"tQ"


def tensor(held=None, offset=b"K\0", shape=b"K\x03\x85", strides=b"K\x01\x85", rest=b"\x89}"):
    return TENSOR + (held or storage()) + offset + shape + strides + rest + b"tR"


def torch_file(tmp_path, program, *, stream=False):
    path = tmp_path / "w.pth"
    if stream:
        path.write_bytes(program)
        return path
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x04" + program + b".")
        archive.writestr("a/data/0", np.arange(3, dtype=np.float32).tobytes())
    return path


PLACES = {
    "key": lambda x: b"}" + x + b"K\x01s",
    "key of many": lambda x: b"}(" + x + b"K\x01" + text("a") + b"K\x01u",
    "key of DICT": lambda x: b"(" + x + b"K\x01d",
    "key of OrderedDict": lambda x: b"ccollections\nOrderedDict\n]" + x + b"K\x01\x86a\x85R",
    "item of a set": lambda x: b"}" + text("s") + b"\x8f(" + x + b"\x90s",
    "set": lambda x: b"}" + text("s") + b"(" + x + b"\x91s",
    "value": lambda x: b"}" + text("v") + x + b"s",
    "content": lambda x: x,
    "called": lambda x: b"}" + text("v") + x + b")Rs",
    "arguments": lambda x: b"}" + text("v") + b"cargparse\nNamespace\n" + x + b"Rs",
    "made": lambda x: b"}" + text("v") + b"cargparse\nNamespace\n" + x + b"\x81s",
    "attributes": lambda x: b"}" + text("v") + b"cargparse\nNamespace\n)\x81" + x + b"bs",
    "attributes of a dictionary": lambda x: b"}" + text("v") + b"}" + x + b"bs",
    "name": lambda x: b"}" + text("v") + x + x + b"\x93s",
    "reference": lambda x: b"}" + text("v") + x + b"Qs",
    "kind of reference": lambda x: b"}" + text("w") + tensor(storage(kind=x)) + b"s",
    "type of storage": lambda x: b"}" + text("w") + tensor(storage(of_type=x)) + b"s",
    "key of storage": lambda x: b"}" + text("w") + tensor(storage(key=x)) + b"s",
    "size of storage": lambda x: b"}" + text("w") + tensor(storage(size=x)) + b"s",
    "view of storage": lambda x: b"}" + text("w") + tensor(storage(view=x)) + b"s",
    "storage": lambda x: b"}" + text("w") + tensor(x) + b"s",
    "offset": lambda x: b"}" + text("w") + tensor(offset=x) + b"s",
    "shape": lambda x: b"}" + text("w") + tensor(shape=x) + b"s",
    "strides": lambda x: b"}" + text("w") + tensor(strides=x) + b"s",
    "axis": lambda x: b"}" + text("w") + tensor(shape=x + b"\x85") + b"s",
    "step": lambda x: b"}" + text("w") + tensor(strides=x + b"\x85") + b"s",
    "gradient": lambda x: b"}" + text("w") + tensor(rest=x + x) + b"s",
    "type of tensor": lambda x: (
        b"}" + text("w") + tensor(rest=b"\x89}" + x + b"}").replace(b"tensor_v2", b"tensor_v3") + b"s"
    ),
    "parameter": lambda x: b"}" + text("w") + b"ctorch._utils\n_rebuild_parameter\n" + x + b"\x85Rs",
}


def read(path):
    try:
        return read_weights(path)
    except ValueError as error:
        said = str(error)
        assert said.startswith("expected ") and str(path) in said and len(said) < 1000 and said.isprintable()
        return None


VALUES = [pytest.param(name, marks=pytest.mark.slow if name == "deep" else ()) for name in STRANGE]


def test_a_deep_key_ends_nothing(tmp_path):
    assert read(torch_file(tmp_path, PLACES["key"](DEEP))) is None


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("value", VALUES)
def test_nothing_of_a_pickle_is_walked_through(tmp_path, place, value):
    start = time.process_time()
    found = read(torch_file(tmp_path, PLACES[place](STRANGE[value])))
    assert time.process_time() - start < 5
    # Refused, or beside the tensors.
    assert found is None or set(found) <= {"w"}


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("part", range(5))
def test_nor_in_any_part_of_the_older_format(tmp_path, value, part):
    number = b"\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
    parts = [number, b"M\xe9\x03", b"}" + text("little_endian") + b"\x88s", b"}", b"]"]
    parts[part] = STRANGE[value]
    whole = b"".join(b"\x80\x02" + one + b"." for one in parts)
    assert not read(torch_file(tmp_path, whole, stream=True))


LENGTHS = {
    b"X": 4,
    b"B": 4,
    b"T": 4,
    b"\x8b": 4,
    b"\x8d": 8,
    b"\x8e": 8,
    b"\x96": 8,
    b"\x95": 8,
    b"r": 4,
    b"j": 4,
}


@pytest.mark.parametrize("code", LENGTHS, ids=lambda code: code.hex())
@pytest.mark.parametrize("stream", [False, True])
def test_counts_beyond_the_file_take_no_memory(tmp_path, code, stream):
    for number in (2**31 - 1, 2**32 - 1, 2**33, 2**62, 2**64 - 1):
        if number < 256 ** LENGTHS[code]:
            program = b"}" + code + number.to_bytes(LENGTHS[code], "little") + b"abc"
            path = torch_file(tmp_path, b"\x80\x04" + program if stream else program, stream=stream)
            tracemalloc.start()
            try:
                assert read(path) is None or code == b"\x95"
                assert tracemalloc.get_traced_memory()[1] < 10**8
            finally:
                tracemalloc.stop()


def test_too_many_instructions_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pickle_reader, "_MOST_INSTRUCTIONS", 1000)
    for program in (b"}0" * 2000 + b"}", b"(" * 2000 + b"}"):
        with pytest.raises(ValueError, match="more than 1000 instructions in its pickle: save"):
            read_weights(torch_file(tmp_path, program))


@pytest.mark.slow
def test_work_and_memory_grow_no_faster_than_the_file(tmp_path):
    thousand = b"](" + b"K\x01K\x02\x86" * 1000 + b"e" + b"q\x01"
    copies = b"ccollections\nOrderedDict\nh\x01\x85R0" * 50_000  # 50 million pairs
    long_key = text("k" * 10**6)
    nest = b"}" + long_key + b"q\x02" + b"}" + b"h\x02}" * 200 + b"s" * 200 + b"s"
    one = b"}" + text("w") + tensor() + b"q\x03s0}(" + long_key + b"q\x02"
    named = one + b"0" + b"".join(text(f"{i}") + b"h\x03" for i in range(10)) + b"u"
    for name, program in {
        "copies": thousand + b"0" + copies + b"}",
        "long names": nest,
        "names": named,
        "repeated": b"}" + text("w") + tensor(shape=b"J\xff\xff\xff\x7f2\x86", strides=b"K\0K\0\x86") + b"s",
        "axes": b"}"
        + text("w")
        + tensor(shape=b"(" + b"K\x01" * 1000 + b"t", strides=b"(" + b"K\x01" * 1000 + b"t"),
        "digits": b"}" + text("w") + b"L" + b"9" * 10**6 + b"L\ns",
        "many digits": b"}" + b"\x8b" + struct.pack("<i", 10**6) + b"\x7f" * 10**6 + b"K\x01s",
    }.items():
        path = torch_file(tmp_path, program)
        start = time.process_time()
        tracemalloc.start()
        try:
            read(path)
            assert tracemalloc.get_traced_memory()[1] < 3 * 10**8, name
        finally:
            tracemalloc.stop()
        assert time.process_time() - start < 60, name  # tracing takes ten times as long


def test_zip_files_that_give_more_than_they_hold(tmp_path):
    path = torch_file(tmp_path, b"}" + text("w") + tensor() + b"s")
    assert set(read_weights(path)) == {"w"}
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")  # of the name that is there
        archive.writestr("a/data/0", bytes(12))
    with pytest.raises(ValueError, match="two records of one name"):
        read_weights(path)
    path = torch_file(tmp_path, b"}" + text("w") + tensor() + b"s")
    with zipfile.ZipFile(path, "a") as archive:
        record = archive.getinfo("a/data/0")
        for number in range(1, 200):  # of one place
            archive.filelist.append(other := zipfile.ZipInfo(f"a/data/{number}"))
            for field in ("header_offset", "file_size", "compress_size", "CRC"):
                setattr(other, field, getattr(record, field))
            other.file_size = other.compress_size = 10**4
        archive._didModify = True
    with pytest.raises(ValueError, match="records larger than the file"):
        read_weights(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/code/net.py", "")
        archive.writestr("a/data.pkl", b"\x80\x02}.")
    with pytest.raises(ValueError, match="of TorchScript, which is a program"):
        read_weights(path)


def test_control_characters_and_length_stay_out_of_errors(tmp_path):
    for name in ("\x1b[2J\n", "\u202egnp.exe", "x" * 10**6):
        for program in (
            f"c{name.replace(chr(10), '')}\nf\n".encode(),
            text(name) + text("f") + b"\x93",
            text(name) + b"Q",
            b"}" + text("w") + tensor(storage(kind=text(name))) + b"s",
            b"}(" + text(name) + tensor() + text(name) + tensor() + b"u",
        ):
            read(torch_file(tmp_path, program))  # asserts what is said


def test_plain_values():
    program = b"\x80\x04(K\x01J\xff\xff\xff\xff\x8a\x01\x80G?\xf0\0\0\0\0\0\0NX\x01\0\0\0aC\x01b\x88\x89](K\x01K\x02e"
    program += b"}(\x8c\x01aK\x01K\x02K\x03u)t."
    found = read_pickle(io.BytesIO(program), find=pytest.fail, refer=pytest.fail)
    assert found == (1, -1, -128, 1.0, None, "a", b"b", True, False, [1, 2], {"a": 1, 2: 3}, ())
    with pytest.raises(RefusedError, match="instruction EXT1"):
        read_pickle(io.BytesIO(b"\x80\x02\x82\x01."), find=pytest.fail, refer=pytest.fail)
