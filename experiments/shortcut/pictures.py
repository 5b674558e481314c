"""Pictures with a shortcut to their class: a watermark, a frame or a background of the class's color.

A network is trained while most pictures, or all, carry their class's color; judged, they are without one, or with
another class's. Weights of losses are chosen on other pictures than those that the tables judge.
"""

import colorsys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jxai import data
from jxai.cli.explaining.inputs import InputSpace
from jxai.cli.explaining.photographs import photographs

NUM_CLASSES = 10
COLORS = np.array([colorsys.hsv_to_rgb(i / NUM_CLASSES, 0.9, 0.9) for i in range(NUM_CLASSES)], np.float32)
_CLOTHES, _CROPS = 28, 64  # sides
_TRAINED = 60  # pictures of clothes a class that are trained on; the others are judged
_EDGE, _PAPER = 2, 0.1
_SCALED, _DIVIDED = (
    192,
    112,
)  # side of a photograph; left of this its crops train, right of it they are judged


class Pictures(NamedTuple):
    """Pictures in [0, 1] without a shortcut, of ten classes.

    Attributes:
        trained: (N, H, W, 3).
        trained_labels: (N,).
        judged: (M, H, W, 3).
        judged_labels: (M,).
    """

    trained: np.ndarray
    trained_labels: np.ndarray
    judged: np.ndarray
    judged_labels: np.ndarray


class Shortcut(NamedTuple):
    """Which pictures carry a color, and where.

    Attributes:
        pictures: of whether weights are chosen.
        where: of pictures (N, H, W, 3), (N, H, W) booleans.
        rate: of the trained pictures that carry it.
        drawn: rows of the judged pictures.
    """

    pictures: Callable[[bool], Pictures]
    where: Callable[[np.ndarray], np.ndarray]
    rate: float
    drawn: tuple[int, ...]


def clothes(choosing: bool = False) -> Pictures:
    """The embedded pictures of `fashion`, the first sixty of each class to train on.

    Args:
        choosing: weights: then the first forty-five of those sixty train and the others judge.
    """
    source = data.load("fashion")
    images = source.images(np.arange(len(source.labels)), _CLOTHES).astype(np.float32) / 255
    labels = np.asarray(source.labels)
    places = np.empty(len(labels), int)
    for label in range(NUM_CLASSES):
        rows = np.flatnonzero(labels == label)
        places[rows] = np.arange(len(rows))
    ends = (45, _TRAINED, 100)[0 if choosing else 1 :]
    first, others = places < ends[0], (places >= ends[0]) & (places < ends[1])
    return Pictures(images[first], labels[first], images[others], labels[others])


def crops(choosing: bool = False) -> Pictures:
    """Which of ten photographs a crop is from: crops of their left parts train, of their right parts are judged.

    Args:
        choosing: weights: then of the other ten of the package's twenty photographs.

    Raises:
        FileNotFoundError: foolbox is not installed.
    """
    space = InputSpace(_SCALED, _SCALED, mean=(0, 0, 0), std=(1, 1, 1))
    shown = [one.picture for one in photographs(space)][int(choosing) :: 2]
    random = np.random.default_rng(0)

    def some(number: int, left: int, right: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.repeat(np.arange(NUM_CLASSES), number)
        tops = random.integers(0, _SCALED - _CROPS + 1, len(labels))
        lefts = random.integers(left, right - _CROPS + 1, len(labels))
        cut = [
            shown[label][top : top + _CROPS, start : start + _CROPS]
            for label, top, start in zip(labels, tops, lefts, strict=True)
        ]
        return np.stack(cut).astype(np.float32) / 255, labels

    return Pictures(*some(_TRAINED, 0, _DIVIDED), *some(40, _DIVIDED, _SCALED))


def _watermark(images: np.ndarray) -> np.ndarray:
    where, side = np.zeros(images.shape[:3], bool), images.shape[1] // 7
    where[:, 1 : 1 + side, 1 : 1 + side] = True
    return where


def _frame(images: np.ndarray) -> np.ndarray:
    where = np.ones(images.shape[:3], bool)
    where[:, _EDGE:-_EDGE, _EDGE:-_EDGE] = False
    return where


def _background(images: np.ndarray) -> np.ndarray:
    paper = np.median(images[:, [0, 0, -1, -1], [0, -1, 0, -1]], axis=1)[:, None, None]
    return np.abs(images - paper).max(axis=-1) < _PAPER


SHORTCUTS = {
    "watermark": Shortcut(clothes, _watermark, 1.0, (3, 45, 205, 365)),
    "frame": Shortcut(clothes, _frame, 1.0, (3, 45, 205, 365)),
    "background": Shortcut(clothes, _background, 1.0, (3, 45, 205, 365)),
    "photographs": Shortcut(crops, _watermark, 0.9, (3, 45, 205, 365)),
}


def planted(shortcut: str, images: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pictures that carry a class's color, and where.

    Args:
        shortcut: one of `SHORTCUTS`.
        images: in [0, 1], (N, H, W, 3).
        classes: whose colors, (N,).

    Returns:
        Pictures as given but in color there, and where, (N, H, W) booleans.
    """
    where = SHORTCUTS[shortcut].where(images)
    return np.where(where[..., None], COLORS[classes][:, None, None], images), where
