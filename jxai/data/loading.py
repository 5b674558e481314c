"""Preparing a domain, and loading it as a source."""

import dataclasses
import functools
import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

from jxai import __version__, extras
from jxai.checks import as_path, printable, shown
from jxai.data import archive, pipeline, prepared
from jxai.data.domains import DOMAINS, PAPER_DOMAINS, PaperDomain
from jxai.data.listing import Listing, some
from jxai.data.prepared import Prepared
from jxai.data.source import Source, check_names
from jxai.data.splits import SPLITS, check_split, class_rule
from jxai.data.stamps import stamp
from jxai.errors import InputError
from jxai.progress import Progress

# Names that TensorFlow Datasets knows: data set, configuration, version. They become folders, so no others.
_TFDS = re.compile(r"tfds:\w+(/[\w.+-]+)?(:[\w.*]+)?")

_DEFAULT = "default"  # what a copy was made from where nobody said where the files are


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
    `$JXAI_DATA`, or in the user's cache; files that changed since, another folder, other options and another version
    of jxai have a copy of their own.

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
    _check_name(name)
    if short_side is not None:
        pipeline.check_count("short_side", short_side)
    if name in DOMAINS and importlib.util.find_spec("tensorflow_datasets") is None:
        _check_embedded(name, manual_dir, short_side)
        return _from_archive(name).restrict(split)
    found = _prepared(name, manual_dir=manual_dir, short_side=short_side, skip_corrupt=False, progress=False)
    return _whole(name, str(prepared.data_root()), found.directory).restrict(split)


def prepare(
    name: str,
    *,
    manual_dir: str | os.PathLike[str] | None = None,
    short_side: int | None = None,
    skip_corrupt: bool = False,
    progress: Progress = False,
) -> Prepared:
    """Prepares a domain, unless that is done: checks its files and writes its pictures as array records.

    Args:
        name: as in `load`.
        manual_dir: where the files of a domain of the papers are, as `PAPER_DOMAINS[name].needs` says; by default
            `manual/NAME` in `$JXAI_DATA`, or in the user's cache. For TensorFlow Datasets, its own `manual_dir`.
        short_side: pictures whose sides are both longer are stored with the shorter one of this many pixels, as JPEG,
            beside the copy of another size; by default every file is stored as it is. 256 makes episodes at 224
            pixels 1.3 times as fast where files have 500 x 375, for a small loss.
        skip_corrupt: whether pictures that cannot be decoded are left out, or are an error that names them; `load`
            takes a copy without them.
        progress: whether to show how far it is (a bar on a terminal, a line a minute elsewhere or for "lines"), and
            what a builder of TensorFlow Datasets downloads.

    Returns:
        Where it is, and which pictures were left out when it was prepared.

    Raises:
        ValueError: unknown domain, files that are missing, damaged or of another number than the domain's, two
            classes of one name, or a place that cannot be written.
    """
    _check_name(name)
    found = _prepared(
        name, manual_dir=manual_dir, short_side=short_side, skip_corrupt=skip_corrupt, progress=progress
    )
    if found.skipped and not skip_corrupt:
        raise InputError(
            f"expected readable images, got {len(found.skipped)} in {name} that are not, left out when it was "
            f"prepared: {some(found.skipped)}: get them again, or say data.prepare(skip_corrupt=True) again"
        )
    return found


def _prepared(
    name: str,
    *,
    manual_dir: str | os.PathLike[str] | None,
    short_side: int | None,
    skip_corrupt: bool,
    progress: Progress,
) -> Prepared:
    """As `prepare`, but a copy without some pictures is one."""
    root = prepared.data_root()
    if name in DOMAINS:
        with extras.named():
            from jxai.data import builders  # loads TensorFlow Datasets

        _check_embedded(name, manual_dir, short_side)
        return Prepared(builders.prepare(name, root))
    size = "full" if short_side is None else f"short_side_{pipeline.check_count('short_side', short_side)}"
    below = root.joinpath("prepared", *name.split(":"), size)
    files = _files(name, manual_dir, root, progress)
    key = files.key(short_side)
    if key is None and manual_dir is None and (before := prepared.newest(below, _DEFAULT)) is not None:
        return prepared.read_about(
            before
        )  # what it was made of was removed since, or left on another machine
    listing = (
        None if key is not None else files.list_pictures()
    )  # an error that says what is missing, or a download
    key = key or files.key(short_side)

    def list_pictures() -> Listing:
        return listing or files.list_pictures()

    def check() -> None:
        if files.key(short_side) != key:
            raise InputError(
                f"expected the files of {name} to stay as they are while they are prepared, got others in "
                f"{printable(files.directory)}: prepare it again"
            )

    return prepared.prepare(
        below / str(key),
        list_pictures,
        name=name,
        short_side=short_side,
        skip_corrupt=skip_corrupt,
        progress=progress,
        made_from=_DEFAULT if manual_dir is None else os.path.realpath(manual_dir),
        check=check,
    )


@dataclasses.dataclass(frozen=True)
class _Files:
    """What a domain is prepared from.

    Attributes:
        directory: where the files are.
        parts: which of them count.
        rules: what is made of them, besides the code.
        list_pictures: lists them.
    """

    directory: Path
    parts: tuple[str, ...]
    rules: str
    list_pictures: Callable[[], Listing]

    def key(self, short_side: int | None) -> str | None:
        """Digits that change with the files, the rules and the programs; None where no file is there."""
        files = stamp(self.directory, self.parts)
        programs = [__version__, "" if short_side is None else _resizer()]
        about = json.dumps([files, self.rules, *programs]).encode()
        return None if files is None else hashlib.blake2b(about, digest_size=8).hexdigest()


def _resizer() -> str:
    """The version of what makes pictures smaller."""
    with extras.named():
        import PIL
    return PIL.__version__


def _files(name: str, manual_dir: str | os.PathLike[str] | None, root: Path, progress: Progress) -> _Files:
    given = None if manual_dir is None else as_path("manual_dir", manual_dir)
    if given is not None and not os.path.isdir(given):
        raise InputError(f"expected a folder as manual_dir, got {printable(given)}: no such folder")
    if name in PAPER_DOMAINS:
        domain = PAPER_DOMAINS[name]
        directory = root / "manual" / name if given is None else given
        there = (part if (directory / part).exists() else archive for part, archive in domain.parts.items())
        rules = repr((domain.num_classes, domain.num_pictures, domain.largest, domain.per_class))
        return _Files(
            directory, tuple(filter(None, there)), rules, functools.partial(list_domain, domain, directory)
        )
    with extras.named():
        from jxai.data import tfds

    called = name.removeprefix("tfds:")
    list_pictures = functools.partial(tfds.list_pictures, called, manual_dir=manual_dir, progress=progress)
    if given is None:
        directory, part = tfds.place_of(called)
        return _Files(directory, (part,), "", list_pictures)
    # TensorFlow Datasets keeps one copy, whatever folder it was made of: here each folder gets its own.
    own = root / "tfds" / str(stamp(given, [""]))
    return _Files(given, ("",), "", functools.partial(list_pictures, data_dir=own))


def _check_name(name: str) -> None:
    names = [*DOMAINS, *PAPER_DOMAINS]
    if not isinstance(name, str) or not (name in names or _TFDS.fullmatch(name)):
        raise InputError(
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
        raise InputError(
            f"expected {_classes(domain.num_classes)} for {domain.name}, got {_classes(counts)} in "
            f"{printable(directory)}: "
            f"{domain.needs}"
        )
    if domain.num_pictures not in (None, sum(listing.sizes)):
        smallest, pictures = min(listing.classes, key=lambda entry: len(entry[1]))
        raise InputError(
            f"expected {domain.num_pictures} pictures for {domain.name}, got {sum(listing.sizes)} in "
            f"{printable(directory)} ({len(pictures)} of class {shown(smallest)}): {domain.needs}"
        )
    return listing


def _classes(counts: tuple[int, ...]) -> str:
    return f"{sum(counts)} classes ({', '.join(f'{n} {s}' for n, s in zip(counts, SPLITS[1:], strict=True))})"


def _check_embedded(name: str, manual_dir: str | os.PathLike[str] | None, short_side: int | None) -> None:
    if manual_dir is not None or short_side is not None:
        raise InputError(
            f"expected no manual_dir and no short_side for {name!r}, got one: "
            "the package has its pictures, of 32 pixels"
        )


_from_archive = functools.cache(archive.read)


@functools.cache
def _whole(name: str, root: str, directory: Path) -> Source:
    if name not in DOMAINS:
        return prepared.read(prepared.read_about(directory), name)
    from jxai.data import builders

    return builders.read(name, root)
