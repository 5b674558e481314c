"""`jxai.data` under hostile input; fuzzed files are in `test_files.py`."""

import contextlib
import functools
import io
import tempfile
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image
from strategies import (
    EFFORTS,
    Argument,
    Case,
    Spoilt,
    choice,
    count,
    given_as,
    key,
    one_of,
    search,
    unheard_of,
)

from jxai import data

EXEMPT = {
    "Domain": "a description",
    "PaperDomain": "a description",
    "Prepared": "what `prepare` returns",
}
SPLIT = choice("all", "base", "validation", "novel")
PATHS = [*(Spoilt(v, refused=True) for v in (None, 3, [], b"\0", "a\0b", "/no/such/place", "x" * 5000))]


def pictures(n, side=6):
    return np.random.default_rng(n).integers(0, 256, (n, side, side, 3), np.uint8)


@functools.cache
def source(classes=8, per_class=5):
    labels = np.repeat(np.arange(classes), per_class)
    return data.from_arrays("toy", pictures(len(labels)), labels)


SOURCE = given_as(
    lambda size: source(),
    *(Spoilt(v, refused=True) for v in (None, 3, "latin", [[1], [2, 3]], np.zeros(3), np.zeros((3, 3), int))),
    *(Spoilt(v) for v in (source(2, 1), source(1), data.from_arrays("none", pictures(0), np.zeros(0, int)))),
)
SOURCES = given_as(
    lambda size: [source(), source(6, 6)],
    *(Spoilt(v, refused=True) for v in (None, [], 3, "latin", [None], [source(), 3], {})),
)
IMAGES = Argument(
    lambda size: st.integers(1, 4).map(pictures),
    lambda size: st.sampled_from(
        [
            *(Spoilt(pictures(2) * np.float32(v), refused=True) for v in (np.nan, np.inf)),
            *(
                Spoilt(pictures(2).astype(dtype))
                for dtype in (np.float32, np.int32, bool, complex, object, "U3")
            ),
            *(Spoilt(pictures(2).astype(np.float64) * v) for v in (1e300, -1e300)),
            *(
                Spoilt(np.zeros(shape, np.uint8))
                for shape in ((0, 4, 4, 3), (2, 0, 4, 3), (2, 4, 4, 2), (3,), ())
            ),
            *map(Spoilt, (None, "text", object(), {}, [[1], [2, 3]])),
        ]
    ),
)
LABELS = [
    np.zeros(2, int),
    np.full(4, -1),
    np.full(4, 2**40),
    np.zeros(4),
    np.full(4, np.nan),
    None,
    "text",
    {},
]
TASK = {
    "way": count(1, 2, odd=(50,)),
    "shot": count(1, 2, odd=(50,)),
    "num_query": count(1, 2, odd=(50,)),
    "seed": count(0, 7, least=0),
    "repeat": one_of(False, True),
}
MAKING = {
    "image_size": count(4, 6),
    "augment": choice(None, "resized-crop", "crop-erase"),
    "batch_size": count(2, 4, odd=(3, 1000)),
    "shard_index": count(0, 1, least=0, odd=(2,)),
    "shard_count": count(2, odd=(3,)),
}


def first(function):
    """What stands first in the data set that a function makes."""
    return lambda **given: function(**given)[0]


def saved(**given):
    """`load_folder` of two classes of one picture each, unless it is given another path."""
    with tempfile.TemporaryDirectory() as folder:
        for name in "ab":
            (Path(folder) / name).mkdir()
            Image.fromarray(pictures(1)[0]).save(Path(folder) / name / "0.png")
        if given["path"] == "":
            given["path"] = folder
        return len(data.load_folder(**given))


def read(path):
    if path != "":
        return data.read_picture(path)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "0.png"
        Image.fromarray(pictures(1)[0]).save(file)
        return data.read_picture(file)


PLACE = {
    "name": choice("CUB", wrong=("tfds:", "tfds:/etc", "tfds:../up", "tfds:a/../../b", "latin/", "\0")),
    # A folder without CUB's files.
    "manual_dir": one_of(
        None, str(Path(__file__).parent), bad=[Spoilt(v, refused=True) for v in (3, [], "/no/such/place")]
    ),
    "short_side": count(None, 5),
}


def refusing(function):
    """Nobody has put CUB in place: what is well-formed is refused for that, and here counts as answered."""

    def call(**given):
        with contextlib.redirect_stderr(io.StringIO()):
            try:
                return function(**given)
            except ValueError as error:
                if "got none of them: put there" in str(error):
                    return None
                raise

    return call


CASES = {
    "Source": Case(
        lambda indices, size: source().images(indices, size),
        {
            "indices": one_of(
                [0, 3],
                (),
                np.arange(4),
                bad=[Spoilt(v, refused=True) for v in ([-1], [40], [0.5], [np.nan], None, "text", ["a"], {})],
            ),
            "size": count(4, 6),
        },
        holds=lambda found, given: found.shape == (len(given["indices"]), given["size"], given["size"], 3),
    ),
    "Source:one": Case(
        lambda i: source().image(i),
        {
            "i": one_of(
                0, np.int64(39), bad=[Spoilt(v, refused=True) for v in (-1, 40, 0.5, np.nan, None, "a")]
            )
        },
    ),
    "Source:split": Case(lambda split: len(source().restrict(split)), {"split": SPLIT}),
    "augment_on_device": Case(
        data.augment_on_device,
        {
            "key": key(),
            "images": Argument(lambda size: st.just(pictures(2)), IMAGES.bad),
            "indices": given_as(
                lambda size: np.arange(2),
                *(
                    Spoilt(v)
                    for v in (np.arange(3), np.zeros(2), np.full(2, -1), None, "text", [[1], [2, 3]])
                ),
            ),
            "kind": choice("resized-crop", "crop-erase"),
            "size": count(None, 5),
        },
    ),
    "center_square": Case(
        data.center_square,
        {
            "picture": Argument(
                lambda size: IMAGES.good(size).map(lambda images: images[0]), lambda size: IMAGES.bad(size)
            ),
            "size": count(2, 4),
            "shorter": count(4, 5),
            "resampling": choice("bicubic", "bilinear"),
        },
        holds=lambda found, given: found.shape == (given["size"], given["size"], 3),
    ),
    "classification_dataset": Case(
        first(data.classification_dataset),
        {"source": SOURCE, "seed": TASK["seed"], "num_epochs": count(None, 1), **MAKING},
        holds=lambda found, given: found["image"].shape[1:3] == (given["image_size"],) * 2,
    ),
    "denormalize": Case(data.denormalize, {"images": IMAGES}),
    "episode_dataset": Case(
        first(data.episode_dataset),
        {"sources": SOURCES, **TASK, **MAKING, "num_episodes": count(None, 4, 8), "epoch": count(1, 3)},
        holds=lambda found, given: found.support.shape[1] == given["way"] * given["shot"],
    ),
    "episode_dataset:numbers": Case(
        lambda sources, **given: data.look_up(
            data.episode_dataset(sources, numbers=True, **given)[0], np.zeros((500, 4, 4, 3), np.float32)
        ),
        {"sources": SOURCES, **TASK, "epoch": count(1, 3), "augment": choice(None)},
        holds=lambda found, given: found.support.shape == (1, given["way"] * given["shot"], 4, 4, 3),
    ),
    "episode_indices": Case(
        data.episode_indices,
        {"source": SOURCE, **TASK, "index": count(0, 2**40, least=0)},
        holds=lambda found, given: not set(found[0].tolist()) & set(found[1].tolist()),
    ),
    "episode_pairs_dataset": Case(
        first(data.episode_pairs_dataset),
        {"sources": SOURCES, **TASK, **MAKING, "num_episodes": count(None, 4), "epoch": count(1, 3)},
    ),
    "episode_table": Case(data.episode_table, {"source": SOURCE, **TASK, "num_episodes": count(1, 3)}),
    "from_arrays": Case(
        lambda **given: data.from_arrays("name", **given).fingerprint,
        {
            "images": Argument(lambda size: st.just(pictures(4)), IMAGES.bad),
            "labels": one_of(
                np.arange(4),
                [0, 0, 1, 1],
                bad=[*(Spoilt(v, refused=True) for v in LABELS), Spoilt(np.ones(4, bool))],
            ),
            "class_names": one_of(
                None,
                list("abcd"),
                bad=[Spoilt(v, refused=True) for v in (["a", "a", "b", "c"], [], 3, "abcd", {})],
            ),
        },
        holds=lambda found, given: len(found) == 32,
    ),
    "iterate": Case(
        lambda **given: next(data.iterate(**given)),
        {
            "dataset": given_as(
                lambda size: data.classification_dataset(source(), batch_size=2, seed=0),
                *(Spoilt(v, refused=True) for v in (None, 3, [1, 2])),
            ),
            "num_threads": count(0, least=0),
            "num_workers": one_of(0, bad=[Spoilt(v, refused=True) for v in (-1, 0.5, None, "1")]),
            "buffer_size": count(1, 2),
        },
    ),
    "load": Case(refusing(data.load), {**PLACE, "split": SPLIT}),
    "load_folder": Case(saved, {"path": one_of("", bad=PATHS), "split": SPLIT}),
    "look_up": Case(
        lambda image, pictures, batch: data.look_up(batch(image), pictures)["image"],
        {
            "image": one_of(
                np.array([1, 0]),
                np.zeros((2, 1), np.int32),
                bad=[Spoilt(v, refused=True) for v in (np.zeros(2), None, 3, "text", [0, 1], {})],
            ),
            "pictures": one_of(
                np.zeros((2, 4, 4, 3), np.float32),
                bad=[
                    Spoilt(v, refused=True)
                    for v in (pictures(2), np.zeros((0, 4, 4, 3)), np.zeros(3), None, 3, "text", [])
                ],
            ),
            "batch": one_of(
                lambda image: {"image": image, "label": 0},
                bad=[Spoilt(v, refused=True) for v in (lambda image: image, lambda _: None, lambda _: {})],
            ),
        },
        holds=lambda found, given: found.shape == (*given["image"].shape, 4, 4, 3),
    ),
    "merge": Case(lambda sources: len(data.merge(sources)), {"sources": SOURCES}),
    "normalize": Case(data.normalize, {"images": IMAGES}),
    "prepare": Case(
        refusing(data.prepare), {**PLACE, "skip_corrupt": one_of(False, True), "progress": one_of(False)}
    ),
    "read_picture": Case(read, {"path": one_of("", bad=PATHS)}),
    "split_classes": Case(data.split_classes, {"num_classes": count(0, 5, least=0), "split": SPLIT}),
}


@pytest.fixture(autouse=True)
def own_data_root(monkeypatch, tmp_path):
    monkeypatch.setenv("JXAI_DATA", str(tmp_path))


@EFFORTS
@pytest.mark.parametrize("name", CASES)
def test_an_answer_or_a_clear_error(name, examples):
    with jax.disable_jit():
        search(name, CASES[name], examples)


def test_every_public_function_is_here():
    assert not unheard_of("data", CASES, EXEMPT)
