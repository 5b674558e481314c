"""NumPy's archives of arrays (.npz), read strictly: what `numpy.savez` writes, and nothing that takes it for more.

`numpy.load` gives back members that are no arrays as bytes, takes the last of two members of one name, evaluates
their headers as Python, and unpacks as much as an archive says it holds.
"""

import math
import re
import zipfile
from typing import IO

import numpy as np

# An archive that is packed more tightly than that, and large, is made to fill memory.
_TIGHTEST = 20
_MOST_TIGHTLY = 2**28

_END = ".npy"
_MAGIC = re.compile(rb"\x93NUMPY[\x01\x02\x03]\x00")
_LONGEST_HEADER = 10_000
# Of plain types alone: no objects, which are pickles, and no records.
_HEADER = re.compile(
    r"\{'descr': '([<>|=]?[?bBhHiIlLqQpPefdgFDGSUVMm?cuabi]\d{0,9}(?:\[\w{1,9}\])?)', 'fortran_order': (True|False), "
    r"'shape': \(((?:\d{1,19}, ?)*(?:\d{1,19})?)\),? \} *\n",
    re.ASCII,
)


def read_npz(file: IO[bytes]) -> dict[str, np.ndarray]:
    """Reads every array of an archive.

    Args:
        file: the archive, open at its beginning.

    Returns:
        Arrays by name.

    Raises:
        ValueError: it is damaged, or no archive of arrays of numbers and texts.
    """
    try:
        size = file.seek(0, 2)
        file.seek(0)
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            if len(set(names)) < len(names):
                raise ValueError("two members have one name")
            if any(
                member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members
            ):
                raise ValueError("its members are compressed as NumPy does not")
            unpacked = sum(member.file_size for member in members)
            if unpacked > max(_MOST_TIGHTLY, _TIGHTEST * size):
                raise ValueError(f"{size} bytes would be unpacked to {unpacked}")
            return {name.removesuffix(_END): _array(name, archive.read(name)) for name in names}
    except ValueError:
        raise
    # Damage fails as BadZipFile, EOFError, KeyError, zlib.error, NotImplementedError, RuntimeError and others.
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _array(name: str, content: bytes) -> np.ndarray:
    wide = 2 if content[6:7] == b"\x01" else 4
    start = 8 + wide + int.from_bytes(content[8 : 8 + wide], "little")
    if (
        not name.endswith(_END)
        or not _MAGIC.match(content)
        or not start <= min(len(content), _LONGEST_HEADER)
    ):
        raise ValueError(f"{name!r} is no array")
    header = _HEADER.fullmatch(content[8 + wide : start].decode("latin-1"))
    if header is None:
        raise ValueError(f"{name!r} is no array of numbers or texts")
    dtype, shape = np.dtype(header[1]), tuple(int(n) for n in header[3].split(",") if n.strip())
    if not dtype.itemsize or math.prod(shape) * dtype.itemsize != len(content) - start:
        raise ValueError(f"{name!r} has {len(content) - start} bytes for {dtype} {shape}")
    flat = np.frombuffer(content, dtype, offset=start)
    return flat.reshape(shape, order="F" if header[2] == "True" else "C")
