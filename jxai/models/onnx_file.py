"""Weights of ONNX files, by the names that the exported program's modules had."""

import os
from pathlib import Path

import numpy as np

from jxai import extras
from jxai.checks import as_path, printable, reason
from jxai.errors import InputError

_ANONYMOUS = "onnx::"


def read_onnx(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The initializers of an ONNX file; nothing of it is run.

    PyTorch's export gives matrices of dense layers a number in the place of their name, and turns them; they get the
    module's name back from the operation that takes them, "encoder.fc1.weight", and the layout (out, in). Other
    numbered arrays get their operation's name.

    Args:
        path: the file; weights in files beside it are not read.

    Returns:
        Arrays by name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no ONNX file, or its weights are in other files.
        ModuleNotFoundError: the package `onnx` is missing.
    """
    path = as_path("an ONNX file", path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"expected an ONNX file, got {printable(path, 200)}: there is none")
    with extras.named():
        import onnx
    try:
        graph = onnx.load(Path(path), load_external_data=False).graph
        arrays = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    except Exception as error:  # of protobuf and of onnx, which share no class
        raise InputError(
            f"expected an ONNX file with its weights inside, got {printable(path)} ({reason(error)}): export it again"
        ) from error
    found = {name: array for name, array in arrays.items() if not name.startswith(_ANONYMOUS)}
    for node in graph.node:
        module, _, operation = node.name.strip("/").rpartition("/")
        for name in node.input:
            if name.startswith(_ANONYMOUS) and name in arrays and arrays[name].ndim:
                place = module.replace("/", ".")
                if operation == "MatMul":
                    found[f"{place}.weight"] = arrays[name].T
                else:
                    found[f"{place}.{operation}"] = arrays[name]
    return found
