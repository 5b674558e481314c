"""The sheet of an episode: what stands in the PNG, and what is refused."""

import warnings

import numpy as np
import pytest
from PIL import Image

from jxai import viz

WAY, SHOT, QUERIES, SIDE = 3, 2, 2, 8


def arguments(**changes):
    rng = np.random.default_rng(0)
    values = {
        "support": rng.integers(0, 256, (WAY, SHOT, SIDE, SIDE, 3), np.uint8),
        "query": rng.integers(0, 256, (QUERIES, SIDE, SIDE, 3), np.uint8),
        "query_labels": np.array([2, 0]),
        "relevance": rng.normal(size=(QUERIES, WAY, SIDE, SIDE, 3)),
        "scores": rng.random((QUERIES, WAY)),
        "class_names": ["A", "B", "C"],
    }
    return {**values, **changes}


def pixels_of(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def shows(path, color):
    """Whether a color fills at least a hundred pixels, up to Matplotlib's rounding."""
    pixels = pixels_of(path).astype(int)
    return (np.abs(pixels - np.asarray(color, int)).max(axis=-1) <= 1).sum() >= 100


def test_a_png_in_new_folders(tmp_path):
    path = viz.episode_sheet(**arguments(), path=tmp_path / "a" / "b" / "sheet.png", title="latin", dpi=60)
    with Image.open(path) as image:
        assert image.format == "PNG" and min(image.size) > 150
    assert [file.name for file in path.parent.iterdir()] == ["sheet.png"]  # nothing unfinished beside it


def test_all_cells_share_one_scale(tmp_path):
    relevance = np.zeros((QUERIES, WAY, SIDE, SIDE, 1))
    relevance[0, 0], relevance[1, 2] = 1.0, -0.45
    gray = {
        "support": np.full((WAY, SHOT, SIDE, SIDE, 3), 9, np.uint8),
        "query": np.full((QUERIES, SIDE, SIDE, 3), 7, np.uint8),
    }
    path = viz.episode_sheet(
        **arguments(relevance=relevance, **gray), path=tmp_path / "s.png", dpi=60, scale=1.0
    )
    for value in (1.0, -0.45, 0.0):
        assert shows(path, viz.diverging_colors(value))
    assert shows(path, (9, 9, 9)) and shows(path, (7, 7, 7))  # the pictures themselves, unchanged
    path = viz.episode_sheet(
        **arguments(relevance=relevance, **gray), path=tmp_path / "s.png", scale=4.0, dpi=60
    )
    assert shows(path, viz.diverging_colors(0.25)) and not shows(path, viz.diverging_colors(-0.45))


def test_the_frame_marks_the_true_class(tmp_path):
    def green(labels):
        path = viz.episode_sheet(**arguments(query_labels=np.array(labels)), path=tmp_path / "s.png", dpi=60)
        frame = (pixels_of(path) == (0x1B, 0x78, 0x37)).all(axis=-1)
        return np.argwhere(frame)

    first, last = green([0, 0]), green([2, 2])
    assert len(first) and len(last)
    assert first[:, 1].max() < last[:, 1].min() + 5  # columns of class 0 lie left of those of class 2


@pytest.mark.parametrize(
    "names",
    [
        ("ก", "๒", "ฅ"),
        ("ا", "ث", "د"),
        ("ა", "ე", "ი"),
        ("א", "ה", "ט"),
        ("$", "&", "_^{"),
        ("bowl_with_spoon", "a" * 40, "\U0010ffff"),
    ],
)
def test_every_class_name_can_be_drawn(tmp_path, names):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Matplotlib warns of glyphs it lacks
        viz.episode_sheet(**arguments(class_names=names), path=tmp_path / "s.png", dpi=40)


@pytest.mark.parametrize("shot", [1, 5])
def test_any_number_of_shots(tmp_path, shot):
    support = np.zeros((WAY, shot, SIDE, SIDE, 3), np.uint8)
    assert viz.episode_sheet(**arguments(support=support), path=tmp_path / "s.png", dpi=40).exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"support": np.zeros((2, SHOT, SIDE, SIDE, 3), np.uint8)}, r"support of shape \(3, shot"),
        ({"query": np.zeros((SIDE, SIDE, 3), np.uint8)}, "expected query of shape"),
        ({"query": np.zeros((0, SIDE, SIDE, 3), np.uint8)}, "at least one query"),
        ({"query": np.zeros((QUERIES, SIDE, SIDE, 3))}, "before normalization"),
        ({"relevance": np.zeros((WAY, QUERIES, SIDE, SIDE, 3))}, r"relevance of shape \(2, 3, H, W, C\)"),
        ({"relevance": np.full((QUERIES, WAY, SIDE, SIDE, 3), np.nan)}, "expected finite relevance"),
        ({"scores": np.zeros((WAY, QUERIES))}, r"scores of shape \(2, 3\)"),
        ({"query_labels": np.array([0, 3])}, r"in \[0, 3\), got \[0, 3\]"),
        ({"query_labels": np.array([0])}, r"query_labels of shape \(2,\)"),
        ({"path": "sheet.jpg"}, "ends in .png"),
    ],
)
def test_errors_say_what_to_do(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        viz.episode_sheet(**{"path": tmp_path / "s.png", **arguments(), **changes})
    assert not list(tmp_path.iterdir())


def of_support(**changes):
    given = {name: arguments()[name] for name in ("support", "query", "query_labels", "class_names")}
    rng = np.random.default_rng(1)
    values = {
        "of_support": rng.normal(size=(QUERIES, WAY, SHOT, SIDE, SIDE, 3)),
        "of_query": rng.normal(size=(QUERIES, SIDE, SIDE, 3)),
        "target": np.array([1, 0]),
    }
    return {**given, **values, **changes}


def test_query_and_support_share_one_scale(tmp_path):
    maps, own = np.zeros((QUERIES, WAY, SHOT, SIDE, SIDE, 1)), np.zeros((QUERIES, SIDE, SIDE, 1))
    own[0], maps[1, 2, 1], maps[0, 0, 0] = 1.0, -0.45, 0.7
    path = viz.support_sheet(
        **of_support(of_support=maps, of_query=own), path=tmp_path / "a" / "s.png", scale=1.0, dpi=60
    )
    for value in (1.0, -0.45, 0.7, 0.0):
        assert shows(path, viz.diverging_colors(value))
    # By default maps that are zero everywhere, as of classes that a score does not see, set no scale.
    own[:], maps[:] = 0, 0
    maps[0, 0], own[0] = 2.0, 1.0
    path = viz.support_sheet(**of_support(of_support=maps, of_query=own), path=path, dpi=60)
    assert shows(path, viz.diverging_colors(1.0)) and shows(path, viz.diverging_colors(0.5))
    empty = of_support(of_support=0 * maps, of_query=0 * own)
    assert viz.support_sheet(**empty, path=path, dpi=60, title="nothing").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"of_query": np.zeros((3, SIDE, SIDE, 3))},
            r"of_query of shape \(2, H, W, C\) and of_support \(2, 3, 2, H",
        ),
        ({"of_support": np.zeros((QUERIES, WAY, SIDE, SIDE, 3))}, "one map a picture"),
        ({"of_support": np.full((QUERIES, WAY, SHOT, SIDE, SIDE, 3), np.nan)}, "expected finite of_support"),
        ({"target": np.array([0, 3])}, r"target of shape \(2,\) in \[0, 3\), got \[0, 3\]"),
        ({"query_labels": np.array([0.0, 1.0])}, "query_labels of shape"),
        ({"support": np.zeros((2, SHOT, SIDE, SIDE, 3), np.uint8)}, r"support of shape \(3, shot"),
        ({"path": "sheet.jpg"}, "ends in .png"),
    ],
)
def test_what_a_support_sheet_refuses(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        viz.support_sheet(**{"path": tmp_path / "s.png", **of_support(), **changes})
    assert not list(tmp_path.iterdir())
