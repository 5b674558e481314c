"""Weights: files of arrays read back, layouts, the report, errors."""

import json
import struct

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai.models.weights import fill_variables, read_weights

FLOATS = np.arange(24, dtype=np.float32).reshape(2, 3, 4) / 7


def write_safetensors(path, tensors, *, header=None):
    names = {"float32": "F32", "bfloat16": "BF16", "int64": "I64", "bool": "BOOL"}
    entries, data = {"__metadata__": {"format": "pt"}}, b""
    for name, array in tensors.items():
        raw = array.tobytes()
        entries[name] = {
            "dtype": names[str(array.dtype)],
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    head = json.dumps(entries).encode() if header is None else header
    path.write_bytes(struct.pack("<Q", len(head)) + head + data)
    return path


def test_safetensors(tmp_path):
    tensors = {
        "w": FLOATS,
        "half": FLOATS.astype(jnp.bfloat16),
        "n": np.array(7),
        "mask": np.array([True, False]),
        "none": np.zeros((0, 2), np.float32),
    }
    got = read_weights(write_safetensors(tmp_path / "w.safetensors", tensors))
    assert set(got) == set(tensors)
    for name, array in tensors.items():
        np.testing.assert_array_equal(got[name], array, strict=True)


@pytest.mark.parametrize(
    "header",
    [
        b"{",
        b"[1]",
        b'{"w": 1}',
        b'{"w": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}',
        b'{"w": {"dtype": "F32", "shape": [99], "data_offsets": [0, 396]}}',
        b'{"w": {"dtype": "F32", "shape": [4], "data_offsets": [-16, 0]}}',
        b'{"w": {"dtype": "pickle", "shape": [1], "data_offsets": [0, 4]}}',
        b'{"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], "more": 1}}',
    ],
)
def test_damaged_safetensors(tmp_path, header):
    path = write_safetensors(tmp_path / "w.safetensors", {"w": FLOATS[0]}, header=header)
    with pytest.raises(ValueError, match=r"expected a safetensors file, got .*w\.safetensors"):
        read_weights(path)
    for data in (b"", b"\xff" * 8, path.read_bytes()[:10]):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="expected a safetensors file"):
            read_weights(path)


def test_npz(tmp_path):
    np.savez(tmp_path / "w.npz", **{"a.weight": FLOATS, "b": np.array(3)})
    got = read_weights(str(tmp_path / "w.npz"))
    assert set(got) == {"a.weight", "b"}
    np.testing.assert_array_equal(got["a.weight"], FLOATS, strict=True)
    np.savez(tmp_path / "objects.npz", w=np.array([{}], dtype=object))  # NumPy pickles objects
    with pytest.raises(ValueError, match=r"expected an archive of arrays, got .*objects\.npz"):
        read_weights(tmp_path / "objects.npz")
    (tmp_path / "w.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match="expected an archive of arrays"):
        read_weights(tmp_path / "w.npz")


def test_other_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected a file of weights, got .*none\.pth"):
        read_weights(tmp_path / "none.pth")
    (tmp_path / "w.h5").touch()
    with pytest.raises(ValueError, match=r"ends in \.npz, .* got w\.h5"):
        read_weights(tmp_path / "w.h5")


class Small(nn.Module):
    """One of every layer that has a layout."""

    @nn.compact
    def __call__(self, x, *, train=False):
        x = nn.Conv(4, (3, 3), name="conv")(x)
        x = nn.Conv(4, (3, 3), feature_group_count=4, use_bias=False, name="depthwise")(x)
        x = nn.BatchNorm(use_running_average=not train, name="bn")(x)
        return nn.Dense(5, name="head")(x.mean(axis=(1, 2)))


MODULES = {"conv": "stem.0", "depthwise": "stem.1", "bn": "stem.2", "head": "fc"}


def small(*, arrays=False):
    x = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    shapes = jax.eval_shape(lambda x: Small().init(jax.random.key(0), x), x)
    return jax.tree.map(lambda s: np.full(s.shape, 9, s.dtype), shapes) if arrays else shapes


def torch_tensors():
    rng = np.random.default_rng(0)
    shapes = {
        "stem.0.weight": (4, 3, 3, 3),
        "stem.0.bias": (4,),
        "stem.1.weight": (4, 1, 3, 3),
        "stem.2.weight": (4,),
        "stem.2.bias": (4,),
        "stem.2.running_mean": (4,),
        "stem.2.running_var": (4,),
        "fc.weight": (5, 4),
        "fc.bias": (5,),
    }
    tensors = {name: rng.uniform(0.5, 1.5, shape).astype(np.float64) for name, shape in shapes.items()}
    return {**tensors, "stem.2.num_batches_tracked": np.array(7)}


def test_layouts_give_the_torch_models_outputs():
    tensors = torch_tensors()
    variables, _ = fill_variables(small(), tensors, modules=MODULES)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    x = np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype(np.float32)
    # PyTorch's definition of each layer, written out with (N, C, H, W).
    y = np.pad(x.transpose(0, 3, 1, 2), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(y, (3, 3), axis=(2, 3))
    y = np.einsum("nihwab,oiab->nohw", windows, tensors["stem.0.weight"])
    y = y + tensors["stem.0.bias"][:, None, None]
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(y, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), axis=(2, 3)
    )
    y = np.einsum("nchwab,cab->nchw", windows, tensors["stem.1.weight"][:, 0])
    mean, var = (tensors[f"stem.2.running_{name}"][:, None, None] for name in ("mean", "var"))
    y = (y - mean) / np.sqrt(var + 1e-5)
    y = y * tensors["stem.2.weight"][:, None, None] + tensors["stem.2.bias"][:, None, None]
    want = y.mean(axis=(2, 3)) @ tensors["fc.weight"].T + tensors["fc.bias"]
    np.testing.assert_allclose(Small().apply(variables, x), want, rtol=1e-4)


def test_report_names_every_tensor_and_variable():
    tensors = torch_tensors()
    _, report = fill_variables(small(), tensors, modules=MODULES)
    pairs = {variable: tensor_name for variable, tensor_name in report.mapped}
    assert pairs["params/depthwise/kernel"] == "stem.1.weight"
    assert pairs["params/bn/scale"] == "stem.2.weight"
    assert pairs["batch_stats/bn/var"] == "stem.2.running_var"
    assert len(pairs) == 9 and report.missing == ()
    assert report.left_over == ("stem.2.num_batches_tracked",)
    lines = str(report).splitlines()
    assert lines[0] == "9 mapped, 0 missing, 1 left over" and len(lines) == 11
    assert lines[-1] == "left over  stem.2.num_batches_tracked"


def test_what_has_no_tensor_stays_where_it_is_an_array():
    tensors = {name: array for name, array in torch_tensors().items() if name != "stem.0.bias"}
    modules = {ours: theirs for ours, theirs in MODULES.items() if ours != "head"}
    variables, report = fill_variables(small(arrays=True), tensors, modules=modules)
    assert set(report.missing) == {"params/conv/bias", "params/head/bias", "params/head/kernel"}
    assert set(report.left_over) == {"fc.weight", "fc.bias", "stem.2.num_batches_tracked"}
    assert (variables["params"]["head"]["kernel"] == 9).all()
    assert not (variables["params"]["conv"]["kernel"] == 9).any()
    with pytest.raises(
        ValueError, match="every variable, got none for params/conv/bias, params/head/bias, params/head"
    ):
        fill_variables(small(), tensors, modules=modules)


@pytest.mark.parametrize("name", ["stem.0.weight", "stem.1.weight", "stem.2.running_mean", "fc.weight"])
def test_wrong_shapes(name):
    tensors = torch_tensors()
    tensors[name] = np.concatenate([tensors[name]] * 2)
    with pytest.raises(ValueError, match=rf"expected a tensor of shape .* from {name} \("):
        fill_variables(small(arrays=True), tensors, modules=MODULES)


def test_wrong_modules_and_types():
    with pytest.raises(
        ValueError, match="expected modules of the model, got fc: they are among bn, conv, depthwise, head"
    ):
        fill_variables(small(), torch_tensors(), modules={"fc": "fc"})
    tensors = {**torch_tensors(), "fc.bias": np.arange(5)}
    with pytest.raises(TypeError, match=r"expected floats for params/head/bias, got int64 in fc\.bias"):
        fill_variables(small(), tensors, modules=MODULES)
