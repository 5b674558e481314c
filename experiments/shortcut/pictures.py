"""Pictures of clothes with a shortcut to their class: a watermark, a frame or a background of the class's color.

The domain `fashion` is embedded: ten classes, a hundred pictures each. While a network is trained every picture
carries its class's color; judged, it is without one, or with another class's.
"""

import colorsys
from typing import NamedTuple

import numpy as np

from jxai import data

SIDE = 28
SHORTCUTS = ("watermark", "frame", "background")
_TRAINED = 60  # pictures a class that are trained on; the others judge
_MARK, _EDGE, _PAPER = 4, 2, 0.9
_COLORS = np.array([colorsys.hsv_to_rgb(i / 10, 0.9, 0.9) for i in range(10)], np.float32)


class Clothes(NamedTuple):
    """Pictures in [0, 1] without a shortcut.

    Attributes:
        trained: (600, 28, 28, 3).
        trained_labels: (600,).
        judged: (400, 28, 28, 3).
        judged_labels: (400,).
    """

    trained: np.ndarray
    trained_labels: np.ndarray
    judged: np.ndarray
    judged_labels: np.ndarray


def clothes() -> Clothes:
    """The embedded pictures, the first sixty of each class to train on."""
    source = data.load("fashion")
    images = np.asarray(data.denormalize(source.array(SIDE)), np.float32).clip(0, 1)
    labels = np.asarray(source.labels)
    places = np.empty(len(labels), int)
    for label in range(10):
        rows = np.flatnonzero(labels == label)
        places[rows] = np.arange(len(rows))
    first = places < _TRAINED
    return Clothes(images[first], labels[first], images[~first], labels[~first])


def planted(shortcut: str, images: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pictures that carry a class's color, and where.

    Args:
        shortcut: one of `SHORTCUTS`.
        images: in [0, 1], (N, 28, 28, 3).
        classes: whose colors, (N,).

    Returns:
        Pictures as given but in color there, and where, (N, 28, 28) booleans.
    """
    where = np.zeros(images.shape[:3], bool)
    if shortcut == "watermark":
        where[:, 1 : 1 + _MARK, 1 : 1 + _MARK] = True
    elif shortcut == "frame":
        where[:, :_EDGE], where[:, -_EDGE:], where[:, :, :_EDGE], where[:, :, -_EDGE:] = (True,) * 4
    else:
        paper = np.median(images[:, [0, 0, -1, -1], [0, -1, 0, -1]], axis=1)[:, None, None]
        where = np.abs(images - paper).max(axis=-1) < 1 - _PAPER
    return np.where(where[..., None], _COLORS[classes][:, None, None], images), where
