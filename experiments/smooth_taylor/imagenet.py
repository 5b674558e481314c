"""ImageNet's validation pictures, and the networks that the SmoothTaylor paper explains, in the paper's input space.

Inputs are RGB in [0, 1] less ImageNet's mean, divided by its deviation, for every network: one unit of noise is the
same everywhere, about 58 gray levels of 255.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jxai import data, models
from jxai.cli.explaining.inputs import EFFICIENTNET_LITE0
from jxai.cli.explaining.photographs import photographs
from jxai.cli.explaining.picture_files import Picture
from jxai.data.decode import decode
from jxai.data.picture import Resampling
from jxai.errors import InputError

NetworkName = Literal["densenet121", "resnet152", "efficientnet-lite0"]

_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
# What black and white are, by channel.
LOW, HIGH = -_MEAN / _DEVIATION, (1 - _MEAN) / _DEVIATION


def to_input(picture: np.ndarray) -> jax.Array:
    """Bytes to the networks' input.

    Args:
        picture: uint8, (..., 3).

    Returns:
        float32 of the same shape.
    """
    return jnp.asarray((picture.astype(np.float32) / 255 - _MEAN) / _DEVIATION)


def load_network(name: NetworkName, weights: Path | None) -> Callable[[jax.Array], jax.Array]:
    """A network with its weights, from inputs (N, 224, 224, 3) to scores (N, 1000).

    Args:
        name: of the network.
        weights: a checkpoint of torchvision's; EfficientNet-Lite0 comes with its own package.

    Returns:
        The function.

    Raises:
        ValueError: a network of torchvision's without weights, or weights of another network.
        FileNotFoundError: there is no such file, or the package is missing.
    """
    if name == "efficientnet-lite0":
        lite, lite_variables, _ = models.efficientnet_lite0(path=weights)
        return lambda x: _scores(lite, lite_variables, ((x * _DEVIATION + _MEAN) * 255 - 127) / 128)
    if weights is None:
        raise InputError(
            f"expected --weights for {name}, got none: give torchvision's checkpoint ({name}-....pth or .safetensors)"
        )
    model = models.DenseNet121() if name == "densenet121" else models.ResNet152()
    variables, _ = models.load_pretrained(model, weights)
    return lambda x: _scores(model, variables, x)


def _scores(model: Any, variables: Any, x: jax.Array) -> jax.Array:
    return jnp.asarray(model.apply(variables, x, train=False))


def validation(source: str, count: int, *, resampling: Resampling = "bicubic") -> Sequence[Picture]:
    """The first validation pictures, in the order of their file names.

    Args:
        source: "photographs" for foolbox's twenty; "tfds" for TensorFlow Datasets' prepared imagenet2012; or a folder
            with the pictures, in folders of classes or not.
        count: at most so many.
        resampling: how pictures are resized, as the network was trained. The photographs are always resized
            bicubically, for EfficientNet-Lite0.

    Returns:
        The pictures, as torchvision's loader reads them: what EXIF says of rotation is not obeyed.

    Raises:
        ValueError: count is below 1, the folder is not there or has no pictures.
        FileNotFoundError: the data set is not prepared, or foolbox is missing.
    """
    if count < 1:
        raise InputError(f"expected a count of at least 1, got {count}: the paper takes 1000")
    if source == "photographs":
        pictures = [one.picture for one in photographs()[:count]]
        return [Picture(f"photograph {index}", picture) for index, picture in enumerate(pictures)]
    if source == "tfds":
        return _prepared(count, resampling)
    folder = Path(source)
    files = [path for path in folder.rglob("*") if path.suffix.lower() in (".jpeg", ".jpg", ".png")]
    if not files:
        raise InputError(
            f"expected pictures below {folder}, got none: give the folder of ILSVRC2012's validation set, "
            "'photographs', or 'tfds'"
        )
    files.sort(key=lambda path: (path.name, path))

    def read(path: Path) -> np.ndarray:
        return _square(decode(path.read_bytes(), name=str(path)), resampling)

    return [Picture(str(path.relative_to(folder)), lambda path=path: read(path)) for path in files[:count]]


def _prepared(count: int, resampling: Resampling) -> list[Picture]:
    import tensorflow_datasets as tfds

    skip = {"image": tfds.decode.SkipDecoding()}
    try:
        source: Any = tfds.data_source("imagenet2012", split="validation", decoders=skip, download=False)
    except Exception as error:  # tfds raises what its readers raise, of many kinds
        raise FileNotFoundError(
            f"expected imagenet2012 prepared by TensorFlow Datasets as array_record, got {type(error).__name__}: "
            f"{error}: put ILSVRC2012_img_val.tar and ILSVRC2012_img_train.tar into its manual_dir and "
            "prepare it, or name a folder"
        ) from error
    # Its order is shuffled; names are read alone, pictures when they are wanted.
    names = [_text(source[index]["file_name"]) for index in range(len(source))]
    order = sorted(range(len(names)), key=names.__getitem__)[:count]

    def read(index: int) -> np.ndarray:
        return _square(decode(source[index]["image"], name=names[index]), resampling)

    return [Picture(names[index], lambda index=index: read(index)) for index in order]


def _square(picture: np.ndarray, resampling: Resampling) -> np.ndarray:
    return data.center_square(
        picture, size=EFFICIENTNET_LITE0.size, shorter=EFFICIENTNET_LITE0.shorter, resampling=resampling
    )


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
