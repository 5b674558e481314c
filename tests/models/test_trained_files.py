"""Checkpoints as trainings leave them: prefixes, nesting, half precision, other heads, and what lies beside."""

import argparse
import collections
import datetime
import json
import pathlib
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_torch_file import pickled, tensor, write_stream, write_zip
from test_torchvision import SMALL
from torchvision_files import SMALL_FILES, tensors

from jxai.models import load_pretrained, read_weights

# bearpaw/pytorch-classification#27, menzelab/implicit-shape-reconstruction#2: "module." of DataParallel.
PREFIXES = (
    "module.",
    "state_dict.",
    "model.",
    "state_dict.module.",
    "state_dict.model.module.",
    "net.0.",
    "_orig_mod.",
)
NAMES = ("w.pth", "w.pth.tar", "w.ckpt", "w.pt", "w.bin", "w.npz", "w.safetensors")
KINDS = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64"}


def write(path, arrays):
    """A file of these names, of the kind that its own name says."""
    if path.suffix == ".npz":
        np.savez(path, **{name: np.asarray(array) for name, array in arrays.items()})
    elif path.suffix == ".safetensors":
        header, content = {}, b""
        for name, array in arrays.items():
            place = [len(content), len(content) + array.nbytes]
            header[name] = {
                "dtype": KINDS[str(array.dtype)],
                "shape": list(array.shape),
                "data_offsets": place,
            }
            content += array.tobytes()
        head = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(head)) + head + content)
    else:
        older = path.suffix == ".pt"
        described = {
            name: tensor(str(i), array, view=(None,) if older else ())
            for i, (name, array) in enumerate(arrays.items())
        }
        storages = {str(i): array for i, array in enumerate(arrays.values())}
        (write_stream if older else write_zip)(path, described, storages)
    return path


def nested(path, arrays, beside):
    """A file of PyTorch's whose names with dots are nested dictionaries at the first `beside` dots."""
    tree, storages = {"epoch": 3, "arch": "resnet", "best": 0.5}, {}
    for i, (name, array) in enumerate(arrays.items()):
        node = tree
        *above, last = name.split(".", beside)
        for part in above:
            node = node.setdefault(part, collections.OrderedDict())
        node[last], storages[str(i)] = tensor(str(i), array), array
    return write_zip(path, tree, storages)


@pytest.fixture(scope="module", params=["basic", pytest.param("DenseNet", marks=pytest.mark.slow)])
def network(request):
    return SMALL[request.param], tensors(SMALL_FILES[request.param])


def as_plain(tmp_path, network):
    model, arrays = network
    return load_pretrained(model, write(tmp_path / "plain.npz", arrays), image_size=32)


def assert_same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize(("prefix", "name"), list(zip(PREFIXES, NAMES, strict=True)))
def test_any_prefix_in_any_file(network, tmp_path, prefix, name):
    model, arrays = network
    expected, plain = as_plain(tmp_path, network)
    path = write(tmp_path / name, {prefix + tensor_name: array for tensor_name, array in arrays.items()})
    found, report = load_pretrained(model, path, image_size=32)
    assert_same(found, expected)
    assert report.mapped == tuple((ours, prefix + theirs) for ours, theirs in plain.mapped)
    assert report.left_over == tuple(sorted(prefix + one for one in plain.left_over)) and not report.missing


@pytest.mark.parametrize("dots", [1, 2])
def test_nested_with_an_optimizer_beside_it(network, tmp_path, dots):
    model, arrays = network
    expected, _ = as_plain(tmp_path, network)
    rest = {f"optimizer.state.{i}.momentum_buffer": array for i, array in enumerate(arrays.values())}
    rest["criterion.weight"] = np.ones(5, np.float32)
    everything = {f"state_dict.module.{name}": array for name, array in arrays.items()} | rest
    found, report = load_pretrained(model, nested(tmp_path / "w.pth.tar", everything, dots), image_size=32)
    assert_same(found, expected)
    assert set(rest) <= set(report.left_over)


def test_a_moving_average_has_to_be_chosen(network, tmp_path):
    model, arrays = network
    expected, _ = as_plain(tmp_path, network)
    average = {f"model_ema.{name}": array * 2 for name, array in arrays.items()}
    path = write(
        tmp_path / "w.safetensors", {f"model.{name}": array for name, array in arrays.items()} | average
    )
    with pytest.raises(
        ValueError, match=r"got 2 whose names begin with 'model\.' or 'model_ema\.': choose by"
    ):
        load_pretrained(model, path, image_size=32)
    found, report = load_pretrained(model, path, image_size=32, prefix="model.")
    assert_same(found, expected)
    assert set(average) <= set(report.left_over)
    doubled, _ = load_pretrained(model, path, image_size=32, prefix="model_ema.")
    assert_same(doubled, jax.tree.map(lambda x: x * 2, expected))
    with pytest.raises(ValueError, match=r"behind 'none\.'"):
        load_pretrained(model, path, image_size=32, prefix="none.")
    with pytest.raises(TypeError, match="expected prefix as a text"):
        load_pretrained(model, path, image_size=32, prefix=3)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_half_precision(network, tmp_path, dtype, name):
    model, arrays = network
    half = {
        name: array.astype(dtype) if array.dtype == np.float32 else array for name, array in arrays.items()
    }
    found, _ = load_pretrained(model, write(tmp_path / name, half), image_size=32)
    rounded = {
        name: array.astype(np.float32) if array.dtype == dtype else array for name, array in half.items()
    }
    assert_same(found, as_plain(tmp_path, (model, rounded))[0])
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(np.float32)}


def test_other_heads_are_an_option_that_reports(network, tmp_path):
    model, arrays = network
    expected, _ = as_plain(tmp_path, network)
    head = "fc" if "fc.weight" in arrays else "classifier"
    more = {"module.aux.fc.weight": np.ones((3, 3), np.float32)}
    wrapped = {f"module.{name}": array for name, array in arrays.items()}
    path = write(tmp_path / "more.pth", wrapped | more)
    with pytest.raises(ValueError, match=r"left over 1 \(aux\.fc\.weight\) behind 'module\.' in more"):
        load_pretrained(model, path, image_size=32)
    found, report = load_pretrained(model, path, image_size=32, strict=False)
    assert_same(found, expected)
    assert "module.aux.fc.weight" in report.left_over and not report.missing

    without = {name: array for name, array in wrapped.items() if not name.startswith(f"module.{head}.")}
    path = write(tmp_path / "less.pth", without)
    with pytest.raises(ValueError, match=r"got none for 2 \(params/head/.*less\.pth"):
        load_pretrained(model, path, image_size=32)
    found, report = load_pretrained(model, path, image_size=32, strict=False)
    assert set(report.missing) == {"params/head/bias", "params/head/kernel"}
    fresh = found["params"].pop("head")
    assert not fresh["bias"].any() and 0.1 < float(fresh["kernel"].std()) < 1
    expected["params"].pop("head")
    assert_same(found, expected)

    # Another number of classes stays an error, and so does a file with nothing of the network.
    path = write(tmp_path / "other.pth", without | {f"module.{head}.weight": np.ones((7, 3), np.float32)})
    with pytest.raises(ValueError, match="expected a tensor of shape"):
        load_pretrained(model, path, image_size=32, strict=False)
    with pytest.raises(ValueError, match="expected a tensor for every variable"):
        load_pretrained(
            model, write(tmp_path / "none.pth", {"module.aux.thing": np.ones(3)}), image_size=32, strict=False
        )


def test_what_lies_beside_is_passed_over_and_programs_are_refused(tmp_path):
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    beside = {
        "optimizer": optimizer.state_dict(),
        "args": argparse.Namespace(lr=0.1, nested=argparse.Namespace(a=1)),
        "path": pathlib.PurePosixPath("x"),
        "when": datetime.datetime(2020, 1, 2),
        "classes": {"a", "b"},
        "counts": collections.Counter("abc"),
        "lists": collections.defaultdict(list, a=[1]),
        "metric": np.float64(0.5),
        "random": np.random.default_rng(0).bytes(8),
        "array": np.arange(3),
        "size": torch.Size([1, 2]),
        "device": torch.device("cpu"),
        "dtype": torch.float32,
        "slice": slice(1, 2),
        "complex": 1j,
    }
    for options in ({}, {"pickle_protocol": 4}, {"_use_new_zipfile_serialization": False}):
        torch.save({"state_dict": layer.state_dict(), **beside}, tmp_path / "w.ckpt", **options)
        found = read_weights(tmp_path / "w.ckpt")
        np.testing.assert_array_equal(found["state_dict.weight"], layer.weight.detach().numpy())
        assert found["optimizer.state.0.exp_avg"].shape == (2, 3)
        torch.save(layer, tmp_path / "whole.pth", **options)
        with pytest.raises(ValueError, match=r"the name 'torch\.nn\..*Linear' in .* save model\.state_dict"):
            read_weights(tmp_path / "whole.pth")


@pytest.mark.parametrize("older", [False, True])
def test_types_and_views_as_pytorch_writes_them(tmp_path, older):
    torch = pytest.importorskip("torch")
    whole = torch.arange(24.0).reshape(4, 6)
    state = {
        "whole": whole,
        "part": whole[1:3, ::2],
        "turned": whole.T,
        "spread": torch.ones(1).expand(3, 2),
        "parameter": torch.nn.Parameter(whole),
        "half": whole.half(),
        "counter": torch.tensor(7),
        "complex": torch.complex(whole, whole),
    }
    expected = {name: value.detach().numpy() for name, value in state.items()}
    state |= {"b": whole.bfloat16(), "u": whole.to(torch.uint16), "f8": whole.to(torch.float8_e4m3fn)}
    expected |= {
        "b": expected["whole"].astype(jnp.bfloat16),
        "u": expected["whole"].astype(np.uint16),
        "f8": expected["whole"].astype(jnp.float8_e4m3fn),
    }
    torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=not older)
    found = read_weights(tmp_path / "w.pth")
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def test_the_pickles_of_python_2(tmp_path):
    """An OrderedDict was written as its pairs."""
    array = np.arange(3, dtype=np.float32)
    pairs = pickled({"w": tensor("0", array, view=(None,))})
    item = pairs[pairs.index(b"X\x01\0\0\0w") : -2]
    content = b"\x80\x02ccollections\nOrderedDict\n](](" + item + b"ee\x85R."
    write_stream(tmp_path / "w.pth", {}, {"0": array})
    whole = (tmp_path / "w.pth").read_bytes().replace(pickled({}), content, 1)
    (tmp_path / "w.pth").write_bytes(whole)
    np.testing.assert_array_equal(read_weights(tmp_path / "w.pth")["w"], array)
