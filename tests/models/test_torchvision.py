"""Published checkpoints: torchvision's own scores, the names of whole networks, files that must be refused."""

import pickle
from pathlib import Path

import jax
import numpy as np
import pytest
from torchvision_files import FILES, SMALL_FILES, images, made_up, tensors

from jxai.models import (
    VGG,
    BottleneckResNet,
    Classifier,
    Conv4,
    DenseNet,
    EfficientNetB0,
    EfficientNetLite0,
    ResNet,
    SqueezeNet,
    load_pretrained,
)
from jxai.models.published_names import NETWORKS, as_in_file, published_names, recognized

_VGG = {"num_classes": 5, "stage_sizes": (1, 2), "widths": (4, 6)}
_RESNET = {"stage_sizes": (1, 2), "widths": (4, 6), "stem_width": 5}
SMALL = {
    "VGG": VGG(**_VGG, dense_widths=(8, 7)),
    "VGG with batch norm": VGG(**_VGG, dense_widths=(8,), batch_norm=True),
    "basic": Classifier(ResNet(**_RESNET), 5),
    "bottleneck": BottleneckResNet(5, **_RESNET),
    "DenseNet": DenseNet(5, stage_sizes=(2, 1), growth=4, bottleneck=2, stem_width=6),
    "SqueezeNet": SqueezeNet(5, stem_width=6, stages=(((3, 4), (3, 5)), ((4, 6),))),
}

# torchvision 0.29.2's classes with `made_up` values, in evaluation, on `images(32)`.
SMALL_SCORES = {
    "VGG": [
        [-0.543367, 2.22999, 0.846962, 3.16959, -2.40154],
        [0.292834, 0.336115, -0.121471, 0.44817, 0.331055],
    ],
    "VGG with batch norm": [
        [-2.53685, 3.68102, 1.21682, 2.46628, 1.82467],
        [-1.0676, 2.3082, 0.282755, 1.60198, 0.259927],
    ],
    "basic": [
        [-2.09541, 5.73664, 2.16688, 0.165947, -5.60648],
        [-3.13541, 10.2624, 3.80619, 0.746571, -9.89912],
    ],
    "bottleneck": [
        [12.4819, -0.596068, -6.91193, 5.95188, 9.08708],
        [22.9611, 2.38378, -13.8527, 8.49656, 14.9476],
    ],
    "DenseNet": [
        [-1.23357, 0.391476, -1.83349, 0.25958, 2.068],
        [-1.70618, 1.092, -2.80425, -0.0291865, 3.15739],
    ],
    "SqueezeNet": [[0.286667, 0.0, 0.094428, 0.0, 1.61679], [0.227528, 0.0, 0.0668565, 0.0, 2.09501]],
}

# The first five scores of torchvision's whole networks, on `images(64)`; on `images(224)` of VGG16.
SCORES = {
    "VGG16": [
        [-1.51403, -1.72423, -0.102457, -0.895242, 6.13142],
        [-1.52203, -0.566277, -0.195669, -1.9665, 10.4324],
    ],
    "VGG16 with batch norm": [
        [-15.0521, 1.30623, 3.46354, -5.90041, 3.48276],
        [-22.1676, 2.59195, 4.99523, -10.6656, 4.9747],
    ],
    "ResNet18": [
        [53.3522, -14.6409, -12.0851, -23.5022, -41.3709],
        [72.2879, -8.76458, -13.3317, -38.1742, -60.6466],
    ],
    "ResNet34": [
        [583.249, -55.0334, -166.8, -530.965, -376.278],
        [716.851, -57.6468, -154.634, -643.639, -449.879],
    ],
    "ResNet50": [
        [497.546, -865.237, 34.7318, -83.7258, -312.2],
        [774.645, -1345.45, 127.546, -74.9292, -554.687],
    ],
    "ResNet101": [
        [412747.0, -536093.0, 1158.4, 160458.0, -246916.0],
        [635946.0, -809237.0, 3110.87, 267858.0, -371548.0],
    ],
    "ResNet152": [
        [428069000.0, -633978000.0, -57701600.0, -18273600.0, -397113000.0],
        [654222000.0, -965883000.0, -88616200.0, -36272400.0, -597646000.0],
    ],
    "DenseNet121": [
        [0.310004, 0.481824, -1.49247, 0.902027, 0.355183],
        [0.0329657, 0.640591, -2.00773, 1.09099, 0.478919],
    ],
    "SqueezeNet 1.1": [[0.0, 0.60392, 0.0, 0.0, 0.0], [0.0, 0.900475, 0.0, 0.0, 0.0]],
}


def save(folder: Path, arrays) -> Path:
    np.savez(folder / "weights.npz", **arrays)
    return folder / "weights.npz"


def scores(model, path, side):
    variables, report = load_pretrained(model, path, image_size=side)
    assert report.missing == () and all(name.endswith(".num_batches_tracked") for name in report.left_over)
    apply = jax.jit(lambda v, x: model.apply(v, x, train=False))
    return np.asarray(apply(variables, images(side))), report


@pytest.mark.parametrize("name", SMALL)
def test_scores_are_torchvisions(name, tmp_path):
    got, report = scores(SMALL[name], save(tmp_path, tensors(SMALL_FILES[name])), 32)
    np.testing.assert_allclose(got, SMALL_SCORES[name], rtol=1e-4, atol=1e-4)
    counters = [tensor for tensor, shape in SMALL_FILES[name].items() if shape == ()]
    assert sorted(report.left_over) == sorted(counters)
    assert len(report.mapped) == len(SMALL_FILES[name]) - len(counters)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_scores_of_whole_networks_are_torchvisions(name, tmp_path):
    got, _ = scores(NETWORKS[name], save(tmp_path, tensors(FILES[name])), 224 if "VGG16" in name else 64)
    largest = np.abs(got).max()
    np.testing.assert_allclose(got[:, :5], SCORES[name], rtol=1e-4, atol=1e-5 * largest)


def test_whole_networks_are_recognized_by_names():
    assert {name: recognized(shapes) for name, shapes in FILES.items()} == {name: name for name in FILES}
    assert recognized(["conv1.weight"]) is None and recognized([]) is None
    lite = [f"{name}.weight" for name in published_names(EfficientNetLite0()).values()]
    assert recognized(lite) == "EfficientNet-Lite0"


def test_densenets_older_names(tmp_path):
    file = tensors(SMALL_FILES["DenseNet"])
    older = {
        name.replace("norm1", "norm.1").replace("norm2", "norm.2"): array for name, array in file.items()
    }
    older = {
        name.replace("conv1", "conv.1").replace("conv2", "conv.2"): array for name, array in older.items()
    }
    older = {name: array for name, array in older.items() if not name.endswith("tracked")}
    got, report = load_pretrained(SMALL["DenseNet"], save(tmp_path, older), image_size=32)
    want, _ = load_pretrained(SMALL["DenseNet"], save(tmp_path, file), image_size=32)
    assert report.left_over == () and jax.tree.all(jax.tree.map(np.array_equal, got, want))
    assert dict(report.mapped)["params/layer1/bn2/scale"] == "features.denseblock1.denselayer2.norm.2.weight"
    spelled = as_in_file(published_names(NETWORKS["DenseNet121"]), older)
    assert spelled["layer0/conv1"].endswith("denselayer1.conv.1")
    assert spelled["layer20/conv1"].endswith("denselayer3.conv1")  # the file has none


def other(shapes, **changed):
    """A file of one layer: names are all that is looked at before it is refused."""
    return {
        name: np.zeros(changed.get(name, (1,) if shape else ()), np.float32) for name, shape in shapes.items()
    }


@pytest.mark.parametrize(
    ("model", "file"),
    [
        ("ResNet50", "ResNet101"),
        ("ResNet101", "ResNet50"),
        ("ResNet18", "ResNet34"),
        ("VGG16", "VGG16 with batch norm"),
        ("SqueezeNet 1.1", "VGG16"),
    ],
)
def test_files_of_other_networks_are_refused(model, file, tmp_path):
    path = save(tmp_path, other(FILES[file]))
    with pytest.raises(
        ValueError, match=rf"variable of .* weights\.npz: the file seems to be of {file}$"
    ) as raised:
        load_pretrained(NETWORKS[model], path)
    if (model, file) == ("ResNet50", "ResNet101"):  # 17 blocks more, with 3 convolutions and 3 batch norms
        assert f"got none for none and left over {17 * 3 * 6} (layer3.10.bn1.bias, " in str(raised.value)
    if (model, file) == ("ResNet101", "ResNet50"):
        assert f"got none for {17 * 3 * 5} (batch_stats/block13/bn1/mean, " in str(raised.value)


def test_files_of_the_right_network_are_refused_unless_whole(tmp_path):
    model, file = SMALL["basic"], tensors(SMALL_FILES["basic"])
    for name in ("layer1.0.conv2.weight", "bn1.running_var"):
        with pytest.raises(ValueError, match=r"got none for 1 \(.*\) and left over none in"):
            load_pretrained(
                model, save(tmp_path, {k: v for k, v in file.items() if k != name}), image_size=32
            )
    for name in ("layer9.num_batches_tracked", "note"):
        with pytest.raises(ValueError, match=rf"got none for none and left over 1 \({name}\)"):
            load_pretrained(model, save(tmp_path, {**file, name: np.array(1)}), image_size=32)
    wrong = {**file, "layer2.1.conv2.weight": np.zeros((6, 6, 1, 1), np.float32)}
    with pytest.raises(ValueError, match=r"tensor of shape \(3, 3, 6, 6\) .* from layer2\.1\.conv2\.weight"):
        load_pretrained(model, save(tmp_path, wrong), image_size=32)
    incomplete = {name: array for name, array in other(FILES["ResNet18"]).items() if name != "fc.bias"}
    with pytest.raises(ValueError, match=r"params/head/bias.* of this network, but not as it was published"):
        load_pretrained(NETWORKS["ResNet18"], save(tmp_path, incomplete))
    with pytest.raises(ValueError, match="of no network that is known here"):
        load_pretrained(NETWORKS["ResNet18"], save(tmp_path, {"w": np.ones(3)}))


def test_vgg_fits_one_size_of_image(tmp_path):
    path = save(tmp_path, tensors(SMALL_FILES["VGG"]))
    with pytest.raises(
        ValueError, match=r"first dense layer for maps of 6x16x16, got \(8, 384\): .*image_size"
    ):
        load_pretrained(SMALL["VGG"], path, image_size=64)


def test_damaged_files_and_files_that_carry_code(tmp_path):
    path = save(tmp_path, tensors(SMALL_FILES["basic"]))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match="expected an archive of arrays"):
        load_pretrained(SMALL["basic"], path)
    (tmp_path / "weights.pth").write_bytes(pickle.dumps({"conv1.weight": print}, protocol=2))
    with pytest.raises(ValueError, match=r"weights\.pth"):
        load_pretrained(SMALL["basic"], tmp_path / "weights.pth")
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        load_pretrained(SMALL["basic"], tmp_path / "none.pth")


@pytest.mark.parametrize("model", [ResNet(), Classifier(Conv4(), 5), EfficientNetB0()])
def test_networks_without_published_names(model, tmp_path):
    with pytest.raises(ValueError, match=rf"expected one of VGG16, .*, got {type(model).__name__}"):
        load_pretrained(model, tmp_path / "none.pth")


def test_made_up_values_are_the_same_everywhere():
    # Computed once where the scores above were.
    assert made_up("fc.weight", (2, 3)).sum().item() == pytest.approx(-0.3618212, rel=1e-6)
