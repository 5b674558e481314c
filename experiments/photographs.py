"""Twenty photographs of ImageNet's classes, which the package foolbox carries, as EfficientNet-Lite0 wants them."""

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np

SIZE = 224

# ImageNet's names of the photographs' classes.
CLASS_NAMES = {
    22: "bald eagle",
    99: "goose",
    129: "spoonbill",
    243: "bull mastiff",
    251: "dalmatian",
    305: "dung beetle",
    317: "leafhopper",
    438: "beaker",
    455: "bottle cap",
    471: "cannon",
    541: "drum",
    559: "folding chair",
    609: "jeep",
    630: "loafer",
    741: "prayer rug",
    853: "thatch",
    915: "yurt",
    949: "strawberry",
    990: "buckeye",
}


@dataclasses.dataclass(frozen=True)
class Photograph:
    """A picture and what is on it.

    Attributes:
        picture: uint8, (224, 224, 3).
        label: ImageNet's number of its class.
    """

    picture: np.ndarray
    label: int

    @property
    def class_name(self) -> str:
        """ImageNet's name of its class."""
        return CLASS_NAMES[self.label]


def photographs() -> list[Photograph]:
    """All twenty, in the order of their numbers.

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
    return [Photograph(_centre(path), int(path.stem.split("_")[-1])) for path in paths]


def to_input(pictures: np.ndarray) -> np.ndarray:
    """What EfficientNet-Lite0 was trained on.

    Args:
        pictures: uint8, (..., 3).

    Returns:
        float32 of the same shape, in [-127 / 128, 1].
    """
    return (pictures.astype(np.float32) - 127) / 128


def _centre(path: Path) -> np.ndarray:
    """The central 224 x 224 pixels of the picture with its shorter side resized to 256, bicubically."""
    from PIL import Image

    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    factor = (SIZE + 32) / min(picture.size)
    width, height = (round(side * factor) for side in picture.size)
    left, top = (width - SIZE) // 2, (height - SIZE) // 2
    resized = picture.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, left + SIZE, top + SIZE)))
