"""A model of one's own on the command line: of every library, its weights, its classes, what it takes."""

import dataclasses
import textwrap

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jxai.cli.explaining.explain import Options, main
from jxai.cli.explaining.inputs import TORCHVISION, InputSpace
from jxai.cli.explaining.network import NetworkOptions, load_network
from jxai.cli.judging import judge

# Each gives 4 scores of pictures (N, 16, 16, 3): those of its first weights are the test's.
MODELS = {
    "function": """
        import jax.numpy as jnp

        def apply(variables, x):
            return x.mean((1, 2)) @ variables["kernel"]

        def make():
            return apply, {"kernel": jnp.eye(3, 4)}
        """,
    "linen": """
        import flax.linen as nn
        import jax
        import jax.numpy as jnp

        def make():
            model = nn.Sequential([nn.Conv(5, (3, 3)), nn.relu, lambda x: x.mean((1, 2)), nn.Dense(4)])
            return model, jax.jit(model.init)(jax.random.key(0), jnp.ones((1, 16, 16, 3)))
        """,
    "nnx": """
        from flax import nnx

        class Net(nnx.Module):
            def __init__(self, rngs):
                self.conv = nnx.Conv(3, 5, (3, 3), rngs=rngs)
                self.head = nnx.Linear(5, 4, rngs=rngs)

            def __call__(self, x):
                return self.head(nnx.relu(self.conv(x)).mean((1, 2)))

        def make():
            return Net(nnx.Rngs(0))
        """,
    "equinox": """
        import equinox
        import jax

        class Net(equinox.Module):
            conv: equinox.nn.Conv2d
            head: equinox.nn.Linear

            def __call__(self, image):
                return self.head(jax.nn.relu(self.conv(image)).mean((1, 2)))

        def make():
            first, second = jax.random.split(jax.random.key(0))
            return Net(equinox.nn.Conv2d(3, 5, 3, key=first), equinox.nn.Linear(5, 4, key=second))
        """,
    "keras": """
        import keras

        def make():
            keras.utils.set_random_seed(0)
            layers = keras.layers
            return keras.Sequential([
                keras.Input((16, 16, 3)),
                layers.Conv2D(5, 3, activation="relu", name="b"),
                layers.GlobalAveragePooling2D(),
                layers.Dense(4, name="a"),  # sorted by name, it would be the first
            ])
        """,
}
NEEDED = {"equinox": "equinox", "keras": "keras"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with two pictures in `pictures`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    (tmp_path / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(tmp_path / "pictures" / name)
    return tmp_path


def written(folder, name, text):
    (folder / f"{name}.py").write_text(textwrap.dedent(text))
    return f"{name}:make"


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_of_every_library_is_explained(folder, kind, capsys):
    if kind in NEEDED:
        pytest.importorskip(NEEDED[kind])
    (folder / "classes.txt").write_text("ant\nbee\ncow\ndog\n\n")
    place = written(folder, f"own_{kind}", MODELS[kind])
    of = NetworkOptions(model=place, classes=folder / "classes.txt", input_size=16)
    options = Options(
        (folder / "pictures",), methods=("input-x-gradient", "epsilon-plus"), network=of, progress=False
    )
    main(dataclasses.replace(options, out=folder / "out", target="Cow"))
    printed = capsys.readouterr().out
    assert "a.png: " in printed and printed.count("explained: cow") == 2
    with np.load(folder / "out" / "attributions.npz") as arrays:
        scores, maps = arrays["scores"], arrays["attributions/epsilon-plus"]
        pictures = arrays["pictures"]
        assert arrays["targets"].tolist() == [2, 2] and arrays["names"].tolist() == ["a.png", "b.png"]
    assert pictures.shape == maps.shape == (2, 16, 16, 3) and scores.shape == (2, 4)
    assert np.isfinite(maps).all() and np.abs(maps).sum() > 0
    # What the function itself says of these pictures, however it is compiled.
    network = load_network(of)
    x = jnp.asarray(pictures, jnp.float32) / 255
    np.testing.assert_allclose(scores, network.classifier(x), rtol=1e-5, atol=1e-6)
    assert network.class_names == ("ant", "bee", "cow", "dog")
    if kind == "function":
        np.testing.assert_allclose(scores[:, :3], x.mean((1, 2)), rtol=1e-5)


def test_weights_go_where_their_names_say(folder):
    place = written(folder, "own_weights", MODELS["nnx"])
    of = NetworkOptions(model=place, input_size=16)
    names = {"conv.kernel": (3, 3, 3, 5), "conv.bias": (5,), "head.kernel": (5, 4), "head.bias": (4,)}
    tensors = {name: np.full(shape, 0.25, np.float32) for name, shape in names.items()}

    def load(tensors):
        np.savez(folder / "w.npz", **tensors)
        return load_network(dataclasses.replace(of, weights=folder / "w.npz"))

    x = jnp.ones((1, 16, 16, 3))
    (score,) = np.unique(load(tensors).classifier(x))
    inside, edge, corner = ((3 * k * 0.25 + 0.25) for k in (9, 6, 4))
    mean = (14 * 14 * inside + 4 * 14 * edge + 4 * corner) / 256
    np.testing.assert_allclose(score, 5 * 0.25 * mean + 0.25, rtol=1e-6)
    as_paths = {name.replace(".", "/"): tensor for name, tensor in tensors.items()}
    assert np.array_equal(load(as_paths).classifier(x), load(tensors).classifier(x))
    with pytest.raises(
        ValueError, match=r"expected in .*w\.npz the model's 4 variables, got none for head\.bias, and"
    ):
        load({name: tensor for name, tensor in tensors.items() if name != "head.bias"})
    with pytest.raises(ValueError, match=r"none for none, and other that it has not: name the tensors as"):
        load(tensors | {"other": np.zeros(1)})
    with pytest.raises(
        ValueError, match=r"expected head\.bias of shape \(4,\), got \(3,\) in .*w\.npz: give"
    ):
        load(tensors | {"head.bias": np.zeros(3)})


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            "nowhere:make",
            r"expected a module nowhere, got none, nor a file nowhere\.py: start jxai where it lies",
        ),
        ("json:make", r"expected a function make in json, got None: define it there"),
        ("json:dump_", r"expected a function dump_ in json, got None: did you mean dump"),
        ("make", r"expected a model as MODULE:FUNCTION, got 'make'"),
        (
            "given:nothing",
            r"expected given:nothing to give \(apply, variables\), or a model of .*, got None: return",
        ),
        ("given:text", r"expected given:text to give .*, got 'net'"),
        (
            "given:vector",
            r"expected scores \(2, K\) of 2 images from given:vector, got \(2,\): return one array",
        ),
        (
            "given:small",
            r"expected a model of images \(N, 16, 16, 3\), got from given:small: .*: give --input-size",
        ),
        (
            "given:two",
            r"expected 4 names in .*classes\.txt, one a score of given:two, got 3: give a line a class",
        ),
    ],
)
def test_what_is_no_model_is_named(folder, model, message):
    written(
        folder,
        "given",
        """
        def nothing(): pass
        def text(): return "net"
        def vector(): return (lambda v, x: x.sum((1, 2, 3))), {}
        def small(): return (lambda v, x: x.reshape(-1, 12) @ v), __import__("numpy").ones((5, 2))
        def two(): return (lambda v, x: x.reshape(len(x), -1)[:, :4]), {}
        """,
    )
    (folder / "classes.txt").write_text("a\nb\nc\n")
    classes = folder / "classes.txt" if model == "given:two" else None
    with pytest.raises(ValueError, match=message):
        load_network(NetworkOptions(model=model, classes=classes, input_size=16))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "m:f", "network": "vgg16"}, r"expected --network or --model, got both: leave vgg16 out"),
        (
            {"network": "vgg16"},
            r"expected --weights for vgg16, got none: give torchvision's checkpoint \(vgg16-",
        ),
        (
            {"input_size": 100},
            r"expected --input-size with --model, got it alone: efficientnet-lite0 has its own",
        ),
        ({"maps": "x"}, r"expected --maps with --model, got it alone"),
        ({"model": "own:make", "std": (1.0, 0.0, 1.0)}, r"expected finite means and deviations above 0, got"),
        ({"model": "own:make", "input_size": 0}, r"expected an input size of at least 1"),
        (
            {"model": "own:make", "classes": "none.txt"},
            r"expected a text file with a class's name a line, got none",
        ),
        ({"model": "own:make", "maps": "body"}, r"body"),
    ],
)
def test_options_that_do_not_go_together(folder, changes, message):
    written(folder, "own", MODELS["function"])
    from pathlib import Path

    if "classes" in changes:
        changes = changes | {"classes": Path(changes["classes"]), "input_size": 16}
    with pytest.raises(ValueError, match=message):
        load_network(NetworkOptions(**changes))


@pytest.mark.slow
def test_grad_cam_weighs_the_maps_that_are_named(folder, capsys):
    place = written(folder, "own_maps", MODELS["linen"])
    pictures = (folder / "pictures",)
    of = NetworkOptions(model=place, input_size=48, mean=(0.5, 0.5, 0.5), std=(0.5, 0.4, 0.5))
    common = {"out": folder / "out", "progress": False}
    with pytest.raises(
        ValueError, match=r"expected --maps for grad-cam of own_maps:make, got none: name the"
    ):
        main(Options(pictures, methods=("grad-cam",), network=of, **common))
    named = dataclasses.replace(of, maps="layers_0")
    main(Options(pictures, methods=("grad-cam", "epsilon-gamma-box"), network=named, **common))
    with np.load(folder / "out" / "attributions.npz") as arrays:
        assert arrays["attributions/grad-cam"].shape == (2, 48, 48, 1)
        assert np.isfinite(arrays["attributions/epsilon-gamma-box"]).all()
    network = load_network(named)
    low, high = np.asarray(network.space.low), np.asarray(network.space.high)
    np.testing.assert_allclose(low, [-1, -1.25, -1], rtol=1e-6)
    np.testing.assert_allclose(high, [1, 1.25, 1], rtol=1e-6)
    capsys.readouterr()
    # Judged by everything that judges, but for what needs maps.
    costs = judge.Costs(num_regions=2, num_steps=2, shares=(0.5,), num_perturbations=2, num_moves=1)
    settings = judge.Settings(num_roots=2, num_steps=2, num_samples=2, window=8, stride=8)
    for metrics, methods in ((("aupc", "deletion", "sparseness"), ("smooth-taylor", "random")),):
        judge.main(
            judge.Options(
                pictures,
                network=of,
                methods=methods,
                metrics=metrics,
                settings=settings,
                costs=costs,
                batch=2,
                out=folder / "judged",
                progress=False,
            )
        )
    said = capsys.readouterr().out
    assert "own_maps:make, the predicted class of 2 pictures" in said and "| SmoothTaylor |" in said


def test_targets_by_name_or_number(tiny_network):
    assert tiny_network.class_of("Tabby") == tiny_network.class_of("281") == 281
    twice = dataclasses.replace(tiny_network, class_names=("one", "two", "One"))
    with pytest.raises(ValueError, match="got 'one', the name of 2 classes: did you mean one"):
        twice.class_of("one")
    for target, message in (
        ("1000", "expected a target from 0 to 999, got 1000"),
        ("-1", "expected a target from 0 to 999, got -1"),
        ("tabbi", "got 'tabbi', the name of 0 classes: did you mean .*tabby"),
        ("£", "give a number from 0 to 999"),
    ):
        with pytest.raises(ValueError, match=message):
            tiny_network.class_of(target)


def test_the_space_of_torchvisions_networks():
    pixels = np.array([[0, 128, 255]], np.uint8)
    expected = (pixels / 255 - np.array(TORCHVISION.mean)) / np.array(TORCHVISION.std)
    np.testing.assert_allclose(TORCHVISION(pixels), expected, rtol=1e-6, atol=1e-6)
    assert TORCHVISION.square(np.zeros((300, 260, 3), np.uint8)).shape == (224, 224, 3)
    assert InputSpace(8, 8, mean=(0, 0, 0), std=(1, 1, 1)).low == 0.0
