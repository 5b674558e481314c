"""The embedded benchmark as a TensorFlow Datasets builder, which needs no TensorFlow.

Importing this file loads TensorFlow Datasets; `jxai.data.loading` does so on first use.
"""

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from jxai.data.archive import read_archive
from jxai.data.decode import decode
from jxai.data.domains import DOMAINS
from jxai.data.source import Source, from_arrays
from jxai.errors import InputError

# The one TFDS split: our splits are by class, so a domain is read whole ("all" is a reserved name there).
_SPLIT = "pictures"


class _Info(tfds.core.DatasetInfo):
    """What TFDS notes of a domain."""

    def initialize_from_bucket(self) -> None:
        """Does nothing: TFDS's storage on the network knows no domain of ours."""


class JxaiEmbedded(tfds.core.GeneratorBasedBuilder):
    """Seven small domains of real pictures; one configuration a domain, one TFDS split, `pictures`.

    The pictures keep the order of the archive.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [  # noqa: RUF012 (so TFDS declares it)
        tfds.core.BuilderConfig(name=domain.name, description=domain.description)
        for domain in DOMAINS.values()
    ]

    @property
    def _domain_name(self) -> str:
        assert self.builder_config is not None  # every builder is made with one
        return self.builder_config.name

    def _info(self) -> tfds.core.DatasetInfo:
        domain = DOMAINS[self._domain_name]
        archive = read_archive(domain.name)
        channels = 1 if archive["images"].ndim == 3 else 3
        return _Info(
            builder=self,
            description=domain.description,
            license=domain.license,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(32, 32, channels), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=[str(name) for name in archive["class_names"]]),
                }
            ),
            supervised_keys=("image", "label"),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        del dl_manager  # nothing to download
        return {_SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        archive = read_archive(self._domain_name)
        for i, (image, label) in enumerate(zip(archive["images"], archive["labels"], strict=True)):
            yield i, {"image": _png(image), "label": int(label)}


def prepare(name: str, root: str | os.PathLike[str]) -> Path:
    """Writes a domain as array records, unless that is done.

    The records are written to a directory of this process's own and moved into place whole: an interrupted
    preparation leaves nothing that looks finished, and of two processes at once the first one's copy stays.

    Args:
        name: an embedded domain.
        root: directory that holds prepared data.

    Returns:
        The directory of the prepared domain.

    Raises:
        ValueError: `root` cannot be written, or holds an incomplete copy that this function did not write.
    """
    place = Path(JxaiEmbedded.name, name, str(JxaiEmbedded.VERSION))
    target = Path(root) / place
    if not _is_complete(target):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".preparing-", dir=root) as own:
                # TFDS prints a banner about downloads and progress bars: for nothing, and for a second.
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    _builder(name, own).download_and_prepare()
                try:
                    os.rename(Path(own) / place, target)
                except OSError:
                    # If another process was first, the target is not empty: its copy stays, and ours goes.
                    if not target.exists():
                        raise
        except OSError as error:
            raise InputError(
                f"expected to write prepared data below {root}, got {error}: "
                "set JXAI_DATA to a directory with space"
            ) from error
    if not _is_complete(target):
        raise InputError(
            f"expected a prepared domain in {target}, got an incomplete one: delete that directory"
        )
    return target


def read(name: str, root: str | os.PathLike[str]) -> Source:
    """Reads a domain, prepared first where needed, into memory.

    Args:
        name: an embedded domain.
        root: directory that holds prepared data.

    Returns:
        The whole domain as a source.

    Raises:
        ValueError: the prepared copy cannot be written or read.
    """
    directory = prepare(name, root)
    try:
        builder: Any = _builder(name, root)  # TFDS's decorators hide its signatures
        # Encoded bytes, decoded as the pictures of a folder are, whatever decoder TFDS finds installed.
        records = builder.as_data_source(_SPLIT, decoders={"image": tfds.decode.SkipDecoding()})
        examples = [records[i] for i in range(len(records))]
        images = np.stack(
            [decode(example["image"], name=f"picture {i}") for i, example in enumerate(examples)]
        )
        labels = np.asarray([example["label"] for example in examples])
    except Exception as error:
        raise InputError(
            f"expected a prepared domain in {directory}, got a damaged one ({error}): delete that directory"
        ) from error
    return from_arrays(name, images, labels, class_names=builder.info.features["label"].names)


def _builder(name: str, root: str | os.PathLike[str]) -> JxaiEmbedded:
    return JxaiEmbedded(config=name, data_dir=os.fspath(root), file_format="array_record")


def _is_complete(directory: Path) -> bool:
    # TFDS writes this file last, and the directory is moved into place whole.
    return (directory / "dataset_info.json").exists()


def _png(image: np.ndarray) -> bytes:
    # Encoded bytes, never arrays: TFDS would encode those with TensorFlow.
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="png")
    return file.getvalue()
