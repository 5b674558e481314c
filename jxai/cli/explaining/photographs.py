"""Twenty photographs of ImageNet's classes, which the package foolbox carries, as a network wants them."""

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np

from jxai import data
from jxai.cli.explaining.inputs import EFFICIENTNET_LITE0, InputSpace

# ImageNet's names of its 1000 classes; the file says where they come from.
CLASS_NAMES = tuple(
    line
    for line in Path(__file__).with_name("imagenet_classes.txt").read_text("utf-8").splitlines()
    if not line.startswith("#")
)


@dataclasses.dataclass(frozen=True)
class Photograph:
    """A picture and what is on it.

    Attributes:
        picture: uint8, (size, size, 3).
        label: ImageNet's number of its class.
    """

    picture: np.ndarray
    label: int

    @property
    def class_name(self) -> str:
        """ImageNet's name of its class."""
        return CLASS_NAMES[self.label]


def photographs(space: InputSpace = EFFICIENTNET_LITE0) -> list[Photograph]:
    """All twenty, in the order of their numbers.

    Args:
        space: what the network takes.

    Returns:
        The photographs, the label taken from the file's name.

    Raises:
        FileNotFoundError: foolbox is not installed.
    """
    spec = importlib.util.find_spec("foolbox")  # finds the folder; foolbox itself is not imported
    folders = (spec.submodule_search_locations or ()) if spec else ()
    paths = sorted(path for folder in folders for path in (Path(folder) / "data").glob("imagenet_*.jpg"))
    if len(paths) != 20:
        raise FileNotFoundError(
            f"expected the twenty ImageNet photographs of the package foolbox, got {len(paths)}: "
            "pip install 'jxai[demo]'"
        )
    return [
        Photograph(space.square(data.read_picture(path)), int(path.stem.split("_")[-1])) for path in paths
    ]
