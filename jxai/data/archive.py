"""The embedded domains as the package ships them: archives that NumPy reads."""

import importlib.resources

import numpy as np

from jxai.checks import reason
from jxai.data.source import Source, from_arrays
from jxai.errors import InputError
from jxai.npz import read_npz


def read_archive(name: str) -> dict[str, np.ndarray]:
    """Reads one archive as the package ships it.

    Args:
        name: an embedded domain.

    Returns:
        `images` (n, 32, 32) or (n, 32, 32, 3) uint8, `labels` (n,) int16 and `class_names` (classes,).

    Raises:
        ValueError: the archive is missing or damaged.
    """
    path = importlib.resources.files("jxai.data") / "archives" / f"{name}.npz"
    try:
        with path.open("rb") as file:
            archive = read_npz(file)
        return {key: archive[key] for key in ("images", "labels", "class_names")}
    except Exception as error:  # a damaged archive may fail in many ways
        raise InputError(
            f"expected the package's pictures in {path}, got a damaged file ({reason(error)}): install jxai again"
        ) from error


def read(name: str) -> Source:
    """Reads a domain straight from its archive: what `builders.read` gives, where TensorFlow Datasets is missing.

    Args:
        name: an embedded domain.

    Returns:
        The whole domain as a source.

    Raises:
        ValueError: the archive is missing or damaged.
    """
    archive = read_archive(name)
    images = archive["images"]
    if images.ndim == 3:  # a source's digests are of pictures with three channels, as decoded ones have
        images = np.repeat(images[..., None], 3, axis=3)
    return from_arrays(
        name, images, archive["labels"], class_names=[str(one) for one in archive["class_names"]]
    )
