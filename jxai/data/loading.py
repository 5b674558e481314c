"""Preparing a domain, and loading it as a source."""

import functools
import importlib.util
import os
import re
from pathlib import Path

from jxai.checks import as_path, shown
from jxai.data import archive, pipeline, prepared
from jxai.data.domains import DOMAINS, PAPER_DOMAINS, PaperDomain
from jxai.data.listing import Listing
from jxai.data.prepared import Prepared
from jxai.data.source import Source, check_names
from jxai.data.splits import SPLITS, check_split, class_rule

# Names that TensorFlow Datasets knows: data set, configuration, version. They become folders, so no others.
_TFDS = re.compile(r"tfds:\w+(/[\w.+-]+)?(:[\w.*]+)?")


def load(
    name: str,
    *,
    split: str = "all",
    manual_dir: str | os.PathLike[str] | None = None,
    short_side: int | None = None,
) -> Source:
    """Loads a domain; the first call on a machine prepares it.

    An embedded domain takes a second, and is decoded into memory (without TensorFlow Datasets installed, it is read
    from the package's archive: the same pictures). The others take minutes (see `prepare`, which can
    show how far it is), and their pictures are decoded when they are asked for. The prepared copy lives in
    `$JXAI_DATA`, or in the user's cache.

    Args:
        name: a key of `DOMAINS` or `PAPER_DOMAINS`, or "tfds:" and a data set of TensorFlow Datasets.
        split: classes of one split: "all", "base", "validation" or "novel". miniImageNet has its own; elsewhere a
            class's place i in the stored order decides: i % 2 = 0, i % 4 = 1 and i % 4 = 3.
        manual_dir: as in `prepare`.
        short_side: as in `prepare`.

    Returns:
        The source; its labels are numbered within the split.

    Raises:
        ValueError: unknown domain or split, or as `prepare`.
    """
    check_split(split)  # an unknown split is told before anything is prepared
    place = None if manual_dir is None else os.fspath(as_path("manual_dir", manual_dir))
    _check_name(name)
    if short_side is not None:
        pipeline.check_count("short_side", short_side)
    return _whole(name, str(prepared.data_root()), place, short_side).restrict(split)


def prepare(
    name: str,
    *,
    manual_dir: str | os.PathLike[str] | None = None,
    short_side: int | None = None,
    skip_corrupt: bool = False,
    progress: bool = False,
) -> Prepared:
    """Prepares a domain, unless that is done: checks its files and writes its pictures as array records.

    Args:
        name: as in `load`.
        manual_dir: where the files of a domain of the papers are, as `PAPER_DOMAINS[name].needs` says; by default
            `manual/NAME` in `$JXAI_DATA`, or in the user's cache. For TensorFlow Datasets, its own `manual_dir`.
        short_side: pictures whose sides are both longer are stored with the shorter one of this many pixels, as JPEG,
            beside the copy of another size; by default every file is stored as it is. 256 makes episodes at 224
            pixels 1.3 times as fast where files have 500 x 375, for a small loss.
        skip_corrupt: whether pictures that cannot be decoded are left out, or are an error that names them.
        progress: whether to show a progress bar, and what a builder of TensorFlow Datasets downloads.

    Returns:
        Where it is, and which pictures were left out when it was prepared.

    Raises:
        ValueError: unknown domain, files that are missing, damaged or of another number than the domain's, two
            classes of one name, or a place that cannot be written.
    """
    root = prepared.data_root()
    _check_name(name)
    if name in DOMAINS:
        from jxai.data import builders  # loads TensorFlow Datasets

        if manual_dir is not None or short_side is not None:
            raise ValueError(
                f"expected no manual_dir and no short_side for {name!r}, got one: "
                "the package has its pictures, of 32 pixels"
            )
        return Prepared(builders.prepare(name, root))
    if name in PAPER_DOMAINS:
        domain = PAPER_DOMAINS[name]
        place = root / "manual" / name if manual_dir is None else as_path("manual_dir", manual_dir)
        list_pictures = functools.partial(list_domain, domain, place)
    else:
        list_pictures = functools.partial(_list_tfds, name, manual_dir, progress)
    size = "full" if short_side is None else f"short_side_{pipeline.check_count('short_side', short_side)}"
    return prepared.prepare(
        root.joinpath("prepared", *name.split(":"), size),
        list_pictures,
        name=name,
        short_side=short_side,
        skip_corrupt=skip_corrupt,
        progress=progress,
    )


def _check_name(name: str) -> None:
    names = [*DOMAINS, *PAPER_DOMAINS]
    if not isinstance(name, str) or not (name in names or _TFDS.fullmatch(name)):
        raise ValueError(
            f"expected a domain, one of {', '.join(names)}, got {shown(name)}: name one of these, "
            '"tfds:" and a data set of TensorFlow Datasets, or load a folder of class folders with load_folder'
        )


def list_domain(domain: PaperDomain, directory: Path) -> Listing:
    """Lists the pictures of a data set of the papers by the papers' rules, and checks their numbers.

    Args:
        domain: the data set.
        directory: where its files are.

    Returns:
        Its classes and pictures.

    Raises:
        ValueError: files are missing or damaged, two classes have one name, or there are more or fewer classes or
            pictures than the domain has.
    """
    listing = domain.layout(directory, domain.needs)
    check_names(domain.name, listing.class_names)
    if domain.largest:
        listing = listing.largest(sum(domain.num_classes))
    listing = listing.first(domain.per_class)
    splits = listing.class_splits or class_rule(len(listing.classes))
    counts = tuple(splits.count(split) for split in SPLITS[1:])
    if counts != domain.num_classes:
        raise ValueError(
            f"expected {_classes(domain.num_classes)} for {domain.name}, got {_classes(counts)} in {directory}: "
            f"{domain.needs}"
        )
    if domain.num_pictures not in (None, sum(listing.sizes)):
        smallest, pictures = min(listing.classes, key=lambda entry: len(entry[1]))
        raise ValueError(
            f"expected {domain.num_pictures} pictures for {domain.name}, got {sum(listing.sizes)} in {directory} "
            f"({len(pictures)} of class {smallest!r}): {domain.needs}"
        )
    return listing


def _classes(counts: tuple[int, ...]) -> str:
    return f"{sum(counts)} classes ({', '.join(f'{n} {s}' for n, s in zip(counts, SPLITS[1:], strict=True))})"


def _list_tfds(name: str, manual_dir: str | os.PathLike[str] | None, progress: bool) -> Listing:
    from jxai.data import tfds

    return tfds.list_pictures(name.removeprefix("tfds:"), manual_dir=manual_dir, progress=progress)


@functools.cache
def _whole(name: str, root: str, manual_dir: str | None, short_side: int | None) -> Source:
    if name in DOMAINS and importlib.util.find_spec("tensorflow_datasets") is None:
        return archive.read(name)
    found = prepare(name, manual_dir=manual_dir, short_side=short_side)
    if name not in DOMAINS:
        return prepared.read(found, name)
    from jxai.data import builders

    return builders.read(name, root)
