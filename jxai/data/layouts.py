"""How the data sets of the papers lie on a disk: from what their authors hand out to a listing of pictures.

Each function takes the directory into which somebody put the unpacked data set, or its archives as they were
downloaded, and what errors say of that.
"""

import collections
import contextlib
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jxai.checks import printable
from jxai.data.listing import Archive, Folder, Listing, check_missing, find
from jxai.errors import InputError

# miniImageNet's three splits: as folders of class folders, or as CSV files beside one folder of pictures.
_SPLIT_FOLDERS = {"base": "base", "validation": "val", "novel": "novel"}
_SPLIT_TABLES = {"base": "train.csv", "validation": "val.csv", "novel": "test.csv"}

# A file or folder of each data set, and the archive that may be there instead.
CUB = {"CUB_200_2011": "CUB_200_2011.tgz"}
CARS = {"cars_train": "cars_train.tgz", "devkit": "car_devkit.tgz"}
PLACES = {
    "places365_standard": "places365standard_easyformat.tar",
    "data_256": "train_256_places365standard.tar",
    "data_large": "train_large_places365standard.tar",
}
PLANTAE = {"train_val2018": "train_val2018.tar.gz", "train2018.json": "train2018.json.tar.gz"}
MINI_IMAGENET = dict.fromkeys([*_SPLIT_FOLDERS.values(), "images", *_SPLIT_TABLES.values()], "")


def mini_imagenet(directory: Path, needs: str) -> Listing:
    """Lists miniImageNet: folders `base`, `val`, `novel` of class folders, or `images` and three CSV files.

    Args:
        directory: where they are.
        needs: what an error says of what belongs there.

    Returns:
        The classes in sorted order, each with its split.

    Raises:
        ValueError: a part is missing, or a table has no columns `filename` and `label`.
    """
    found, files = find(directory, {"base": "", "images": ""}, needs=needs)
    as_folders = found == "base"
    parts = _SPLIT_FOLDERS if as_folders else _SPLIT_TABLES
    check_missing(str(directory), [part for part in parts.values() if not (directory / part).exists()])
    classes = []
    for split, part in parts.items():
        named = _class_folders(files, part) if as_folders else _class_table(directory / part)
        classes += [(name, names, split) for name, names in named.items()]
    classes.sort(key=lambda entry: entry[0])
    return Listing([(name, names) for name, names, _ in classes], files, [split for *_, split in classes])


def cub(directory: Path, needs: str) -> Listing:
    """Lists CUB-200-2011: `CUB_200_2011` with `images` and its tables, or `CUB_200_2011.tgz`.

    Args:
        directory: where it is.
        needs: what an error says of what belongs there.

    Returns:
        The 200 classes in the order of their numbers.

    Raises:
        ValueError: a part is missing or damaged.
    """
    _, files = find(directory, CUB, needs=needs)
    tables = [f"CUB_200_2011/{table}.txt" for table in ("classes", "images", "image_class_labels")]
    content = dict(files.read(tables))
    names, pictures, labels = (_pairs(content[table], table) for table in tables)
    members = {number: [] for number in names}
    with _parsing(tables[2]):
        for number, picture in pictures.items():
            members[labels[number]].append(f"CUB_200_2011/images/{picture}")
    return Listing([(name, members[number]) for number, name in names.items()], files)


def cars(directory: Path, needs: str) -> Listing:
    """Lists Stanford Cars' training pictures: `cars_train` and `devkit`, or `cars_train.tgz` and `car_devkit.tgz`.

    Args:
        directory: where they are.
        needs: what an error says of what belongs there.

    Returns:
        The 196 classes in the order of their numbers.

    Raises:
        ValueError: a part is missing or damaged.
    """
    (_, files), (_, devkit) = (find(directory, {part: CARS[part]}, needs=needs) for part in CARS)
    tables = ["devkit/cars_meta.mat", "devkit/cars_train_annos.mat"]
    content = dict(devkit.read(tables))
    members: dict[int, list[str]] = {}
    with _parsing(tables[0]):
        names = [str(name) for name in _matlab(content[tables[0]])["class_names"]]
        members = {number: [] for number in range(1, len(names) + 1)}
    with _parsing(tables[1]):
        for entry in np.atleast_1d(_matlab(content[tables[1]])["annotations"]):
            members[int(entry["class"])].append(f"cars_train/{entry['fname']}")
    return Listing(list(zip(names, members.values(), strict=True)), files)


def places(directory: Path, needs: str) -> Listing:
    """Lists Places365's training pictures in any of the three forms in which they are handed out.

    `places365_standard/train` has a folder a class; `data_256` and `data_large` have folders a to z with class
    folders, some of which are divided again: `a/apartment_building/outdoor` is apartment_building-outdoor.

    Args:
        directory: where one of them, or its tar archive, is.
        needs: what an error says of what belongs there.

    Returns:
        The classes in sorted order.

    Raises:
        ValueError: none is there, or the archive is damaged.
    """
    part, files = find(directory, PLACES, needs=needs)
    below = f"{part}/train" if part == "places365_standard" else part
    classes = _class_folders(files, below)
    if not classes:
        raise InputError(f"expected class folders in {below} of {printable(directory)}, got none: {needs}")
    if all(len(name.split("/")[0]) == 1 for name in classes):
        classes = {name.split("/", 1)[-1]: names for name, names in classes.items()}
    return Listing(sorted((name.replace("/", "-"), names) for name, names in classes.items()), files)


def plantae(directory: Path, needs: str) -> Listing:
    """Lists the plants of iNaturalist 2018: `train2018.json` and `train_val2018`, or their `.tar.gz` archives.

    Args:
        directory: where they are.
        needs: what an error says of what belongs there.

    Returns:
        Every class of plants, the paper's and the smaller ones, in the sorted order of names.

    Raises:
        ValueError: a part is missing or damaged.
    """
    _, table = PLANTAE
    (_, files), (_, tables) = (find(directory, {part: PLANTAE[part]}, needs=needs) for part in PLANTAE)
    content = dict(tables.read([table]))
    members = collections.defaultdict(list)
    with _parsing(table):
        annotations = json.loads(content[table])
        names = {category["id"]: str(category["name"]) for category in annotations["categories"]}
        category_of = {entry["image_id"]: entry["category_id"] for entry in annotations["annotations"]}
        for image in annotations["images"]:
            if image["file_name"].startswith("train_val2018/Plantae/"):
                members[category_of[image["id"]]].append(image["file_name"])
        classes = sorted((names[category], pictures) for category, pictures in members.items())
    return Listing(classes, files)


def _class_folders(files: Folder | Archive, below: str) -> dict[str, list[str]]:
    """The files below a folder by the folder that holds them, which names their class."""
    classes = collections.defaultdict(list)
    for name in files.names(below):
        folder, slash, _ = name.removeprefix(f"{below}/").rpartition("/")
        if slash:
            classes[folder].append(name)
    return classes


def _class_table(path: Path) -> dict[str, list[str]]:
    """The pictures of each class in one of miniImageNet's tables."""
    classes = collections.defaultdict(list)
    with _parsing(str(path)), path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            classes[row["label"]].append(f"images/{row['filename']}")
    return classes


def _pairs(content: bytes, table: str) -> dict[str, str]:
    """A table of lines "number value"."""
    with _parsing(table):
        lines = (line.split(maxsplit=1) for line in content.decode("utf-8").splitlines())
        return {number: value.rstrip() for number, value in lines}


def _matlab(content: bytes) -> dict[str, Any]:
    import scipy.io

    return scipy.io.loadmat(io.BytesIO(content), simplify_cells=True)


@contextlib.contextmanager
def _parsing(table: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # readers of tables raise what they meet, of many kinds
        raise InputError(
            f"expected {table} as its authors made it, got {type(error).__name__}: {printable(error)}: "
            "get the data set again"
        ) from error
