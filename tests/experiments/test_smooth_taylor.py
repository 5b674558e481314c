"""The SmoothTaylor table on two small pictures and a small network: every row, resumed to the same numbers."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.smooth_taylor import imagenet
from experiments.smooth_taylor import paper as smooth_taylor
from experiments.smooth_taylor.table import LABELS, PUBLISHED, table
from jxai import attribution
from jxai.cli.explaining.picture_files import Picture

OPTIONS = smooth_taylor.Options(
    num_regions=3, num_draws=2, adaptive_roots=2, adaptive_draws=2, sheet=1, count=2, progress=False
)
RANDOM = np.random.default_rng(0)
PICTURES = [RANDOM.integers(0, 256, (46, 46, 3), np.uint8) for _ in range(2)]
KERNEL = jnp.asarray(RANDOM.normal(size=(3, 3, 3, 4)), jnp.float32)


def network(x):
    maps = jax.lax.conv_general_dilated(
        x, KERNEL, (4, 4), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jax.nn.relu(maps).mean(axis=(1, 2)) + 1


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Options of a run on small pictures; the numbers of roots are smaller than the paper's too."""
    examples = [Picture(f"{i}.png", lambda p=p: p) for i, p in enumerate(PICTURES)]
    monkeypatch.setattr(smooth_taylor, "validation", lambda source, count, resampling: examples[:count])
    monkeypatch.setattr(smooth_taylor, "load_network", lambda name, weights: network)
    # A resumed run computes with the programs of the first: compiling them takes nearly all of its time.
    monkeypatch.setattr(smooth_taylor, "programs", functools.cache(smooth_taylor.programs))
    return dataclasses.replace(OPTIONS, out=tmp_path)


def records(options):
    """What was measured: each line's seconds are another run's, and so is the digest, which covers them."""
    lines = (options.out / "efficientnet-lite0.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in ("seconds", "digest")} for line in lines]


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_to_the_same_numbers(small, capsys):
    smooth_taylor.main(small)
    whole = records(small)
    assert [record.get("key") for record in whole] == [None, "0.png", "1.png"]
    assert set(whole[1]["rows"]) == set(LABELS)
    assert all(np.isfinite(pair).all() and len(pair) == 2 for pair in whole[1]["rows"].values())
    text = capsys.readouterr().out
    assert all(label in text for label in LABELS.values())
    assert (small.out / "efficientnet-lite0.png").stat().st_size > 1000
    numbers = json.loads((small.out / "table.json").read_text())
    assert numbers["measured"]["efficientnet-lite0"]["pictures"] == 2

    # Killed within the second picture's line.
    log = small.out / "efficientnet-lite0.jsonl"
    log.write_bytes(log.read_bytes()[:-40])
    smooth_taylor.main(small)
    assert records(small) == whole

    with pytest.raises(ValueError, match="num_draws"):
        smooth_taylor.main(dataclasses.replace(small, num_draws=3))


def test_fewer_roots_are_the_first_of_more():
    do = smooth_taylor.programs(network, OPTIONS)
    x, target, key = imagenet.to_input(PICTURES[0])[None], jnp.array([1]), jax.random.key(0)
    two, one = (do.taylor(tens, key, x, target, jnp.float32(0.5)) for tens in (2, 1))
    assert two.shape == (2, 46, 46)
    np.testing.assert_allclose(two[0], one[0], rtol=1e-5, atol=1e-7)
    assert np.abs(two[1] - two[0]).max() > 0


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        ("black", "expected finite heat maps of cat.png, got NaN or infinity for ig-black: look"),
        (
            "noise",
            "heat maps of cat.png, got NaN or infinity for ig-noise-1, ig-noise-5, ig-noise-10, ig-noise-20",
        ),
        (
            "taylor",
            "heat maps of cat.png, got NaN or infinity for st-0.3-150, .*, adaptive-aupc, adaptive-autvc:",
        ),
        ("searches", "noise scales of cat.png, got NaN or infinity for adaptive-aupc:"),
        ("judge", "AUPC and AUTVC of cat.png, got NaN or infinity for ig-noise-1:"),
    ],
)
def test_nan_is_named_with_its_picture_and_row(spoilt, message):
    """Programs that give ones, but for one of them."""

    def maps(rows, name):
        return jnp.full((rows, 4, 4), jnp.nan if name == spoilt else 1.0)

    scale = jnp.full(1, jnp.nan if spoilt == "searches" else 0.5)
    areas = np.ones(len(LABELS))
    areas[list(LABELS).index("ig-noise-1")] = np.inf if spoilt == "judge" else 1
    do = smooth_taylor.Programs(
        predict=lambda x: jnp.array([0]),
        black=lambda x, target: maps(1, "black"),
        noise=lambda key, x, target: maps(20, "noise"),
        taylor=lambda tens, *given: maps(tens, "taylor"),
        searches={
            name: lambda *given: attribution.AdaptiveNoise(scale, scale, scale, scale, scale)
            for name in ("aupc", "autvc")
        },
        judge=lambda key, x, target, heatmaps: (areas, areas),
    )
    with pytest.raises(ValueError, match=message):
        smooth_taylor.judge_picture(do, jax.random.key(0), jnp.ones((1, 4, 4, 3)), name="cat.png")


class Log:
    """Stands for a log."""

    def __init__(self, records):
        self.records, self.settings = {str(i): record for i, record in enumerate(records)}, {"seed": 0}


def test_the_table_stands_beside_the_published_one():
    rows = [{row: [20 + i + j, 1.5 - 0.1 * i] for j, row in enumerate(LABELS)} for i in range(3)]
    logs = {"densenet121": Log([{"rows": row, "noise_scale": {"adaptive-aupc": 0.5}} for row in rows])}
    lines = table(logs).splitlines()
    assert "3 pictures" in lines[0]
    first = next(line for line in lines if line.startswith("| IG, black"))
    assert first.split(" | ")[1:5] == [
        "21.00 ± 2.48",
        "1.40 ± 0.25",
        "23.63",
        "1.52",
    ]  # t of 2 degrees of freedom: 4.303
    second = next(line for line in lines if line.startswith("| IG, noise, N = 1 "))
    assert second.split(" | ")[5:8] == ["+1.00 ± 0.00", "0 of 3", "+0.00 ± 0.00"]
    assert set(LABELS) == set(PUBLISHED["densenet121"]) == set(PUBLISHED["resnet152"])


def test_validation_pictures_come_in_the_order_of_their_names(tmp_path):
    from PIL import Image

    for folder, name, gray in (("n2", "val_1.JPEG", 10), ("n1", "val_2.JPEG", 200), ("n1", "val_3.JPEG", 90)):
        (tmp_path / folder).mkdir(exist_ok=True)
        Image.new("RGB", (300, 280), (gray, gray, gray)).save(tmp_path / folder / name)
    found = imagenet.validation(str(tmp_path), 2)
    assert [example.name for example in found] == ["n2/val_1.JPEG", "n1/val_2.JPEG"]
    assert found[1].pixels.shape == (224, 224, 3) and found[1].pixels.mean() == 200
    assert [example.name for example in imagenet.validation("photographs", 3)] == [
        f"photograph {index}" for index in range(3)
    ]


def test_validation_pictures_of_tensorflow_datasets(monkeypatch):
    import io

    import tensorflow_datasets as tfds
    from PIL import Image

    def encoded(gray):
        file = io.BytesIO()
        Image.new("RGB", (256, 256), (gray,) * 3).save(file, "PNG")
        return file.getvalue()

    stored = [{"file_name": b"val_2", "image": encoded(20)}, {"file_name": b"val_1", "image": encoded(10)}]
    asked = []
    monkeypatch.setattr(tfds, "data_source", lambda *args, **options: asked.append((args, options)) or stored)
    found = imagenet.validation("tfds", 2)
    assert [example.name for example in found] == ["val_1", "val_2"]
    assert found[0].pixels.mean() == 10
    assert asked[0][0] == ("imagenet2012",) and asked[0][1]["split"] == "validation"


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(ValueError, match="expected pictures below"):
        imagenet.validation(str(tmp_path), 3)
    with pytest.raises(ValueError, match="count of at least 1"):
        imagenet.validation("photographs", 0)
    with pytest.raises(FileNotFoundError, match="manual_dir"):
        imagenet.validation("tfds", 3)
    with pytest.raises(ValueError, match="--weights for resnet152"):
        imagenet.load_network("resnet152", None)


def test_inputs_are_normalized_between_black_and_white():
    picture = np.stack([np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)])
    found = imagenet.to_input(picture)
    np.testing.assert_allclose(found[0, 0, 0], imagenet.LOW, rtol=1e-6)
    np.testing.assert_allclose(found[1, 0, 0], imagenet.HIGH, rtol=1e-6)


def test_pictures_of_one_name_in_two_folders_are_two(tmp_path):
    from PIL import Image

    for folder in "ab":
        (tmp_path / folder).mkdir()
        Image.new("RGB", (260, 260)).save(tmp_path / folder / "1.png")
    assert [example.name for example in imagenet.validation(str(tmp_path), 9)] == ["a/1.png", "b/1.png"]


def test_other_weights_are_other_settings(tmp_path):
    for name in ("a.pth", "b.pth"):
        (tmp_path / name).write_bytes(name.encode())
    settings = [dataclasses.replace(OPTIONS, weights=tmp_path / name).settings for name in ("a.pth", "b.pth")]
    assert settings[0] != settings[1] and OPTIONS.settings["weights"] is None
