"""The papers' data sets made small: a few classes and pictures in the layouts that their authors hand out."""

import csv
import dataclasses
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

from jxai import data


def encoded(seed: int, *, kind: str = "jpeg", width: int = 14, height: int = 10) -> bytes:
    """A picture file that no other seed gives."""
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(file, format=kind)
    return file.getvalue()


@dataclasses.dataclass
class Made:
    """A data set of the papers in its true layout, with few classes and pictures.

    Attributes:
        domain: its entry of the registry, with the numbers that were made.
        files: what stands in the layout, by path.
        classes: the pictures that a listing should have, by class, in order.
        archives: unpacked part and the archive that it comes in.
    """

    domain: data.PaperDomain
    files: dict[str, bytes]
    classes: dict[str, list[str]]
    archives: dict[str, str]

    def write(self, directory: Path, *, packed: bool = False) -> Path:
        """Puts the files into a directory, or the archives that hold them."""
        directory.mkdir(parents=True, exist_ok=True)
        for part, archive in self.archives.items() if packed else ():
            with tarfile.open(directory / archive, "w:gz" if archive.endswith("gz") else "w") as file:
                # Not in sorted order, and with the directories that real archives have.
                folder = tarfile.TarInfo(part)
                folder.type = tarfile.DIRTYPE
                if "." not in part:
                    file.addfile(folder)
                for name in sorted(self.files, reverse=True):
                    if name.split("/")[0] == part:
                        member = tarfile.TarInfo(name)
                        member.size = len(self.files[name])
                        file.addfile(member, io.BytesIO(self.files[name]))
        for name, content in {} if packed else self.files.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_bytes(content)
        return directory


def _numbered(count: int, of: int) -> list[list[int]]:
    return [list(range(c * of, (c + 1) * of)) for c in range(count)]


def _small(
    name: str, num_classes: tuple[int, int, int], num_pictures: int | None, **changes
) -> data.PaperDomain:
    return dataclasses.replace(
        data.PAPER_DOMAINS[name], num_classes=num_classes, num_pictures=num_pictures, **changes
    )


def _mini_imagenet(tables: bool) -> Made:
    # Classes by split are not in sorted order, and not by the rule i % 4.
    splits = {"base": ["n03", "n01", "n05"], "val": ["n04"], "novel": ["n02", "n06"]}
    table_of = {"base": "train.csv", "val": "val.csv", "novel": "test.csv"}
    files, classes, number = {}, {}, 0
    for split, names in splits.items():
        rows = []
        for name in names:
            classes[name] = []
            for _ in range(3):
                path = f"images/{name}{number}.jpg" if tables else f"{split}/{name}/{number}.jpg"
                files[path] = encoded(number)
                classes[name].append(path)
                rows.append({"filename": f"{name}{number}.jpg", "label": name})
                number += 1
        if tables:
            text = io.StringIO()
            writer = csv.DictWriter(text, ["filename", "label"])
            writer.writeheader()
            writer.writerows(rows)
            files[table_of[split]] = text.getvalue().encode()
    classes = {name: sorted(classes[name]) for name in sorted(classes)}
    return Made(_small("miniImageNet", (3, 1, 2), 18), files, classes, {})


def _cub() -> Made:
    names = [
        "001.Black_footed_Albatross",
        "002.Laysan_Albatross",
        "003.Sooty_Albatross",
        "004.Groove_billed_Ani",
    ]
    files, classes, images, labels, number = {}, {}, [], [], 0
    for c, name in enumerate(names, start=1):
        classes[name] = []
        for i in (2, 0, 1):
            number += 1
            picture = f"{name}/{name[4:]}_{i:04}_{number}.jpg"
            files[f"CUB_200_2011/images/{picture}"] = encoded(number)
            classes[name].append(f"CUB_200_2011/images/{picture}")
            images.append(f"{number} {picture}\n")
            labels.append(f"{number} {c}\n")
        classes[name].sort()
    files["CUB_200_2011/classes.txt"] = "".join(f"{c} {n}\n" for c, n in enumerate(names, start=1)).encode()
    files["CUB_200_2011/images.txt"] = "".join(images).encode()
    files["CUB_200_2011/image_class_labels.txt"] = "".join(labels).encode()
    return Made(_small("CUB", (2, 1, 1), 12), files, classes, {"CUB_200_2011": "CUB_200_2011.tgz"})


def _matlab(**variables) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, variables)
    return file.getvalue()


def _cars() -> Made:
    names = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Acura TL Sedan 2012", "BMW X6 SUV 2012"]
    of_picture = [3, 1, 1, 4, 2, 2, 3, 4]  # classes from 1
    fields = [(side, "O") for side in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")]
    table = np.empty((1, 8), [*fields, ("class", "O"), ("fname", "O")])
    files, classes = {}, {name: [] for name in names}
    for i, c in enumerate(of_picture):
        table[0, i] = (1, 2, 3, 4, c, f"{i + 1:05}.jpg")
        files[f"cars_train/{i + 1:05}.jpg"] = encoded(i)
        classes[names[c - 1]].append(f"cars_train/{i + 1:05}.jpg")
    files["devkit/cars_train_annos.mat"] = _matlab(annotations=table)
    files["devkit/cars_meta.mat"] = _matlab(class_names=np.asarray([names], object))
    return Made(
        _small("Cars", (2, 1, 1), 8),
        files,
        classes,
        {"cars_train": "cars_train.tgz", "devkit": "car_devkit.tgz"},
    )


def _places(form: str) -> Made:
    names = ["airfield", "apartment_building-outdoor", "bar", "zen_garden"]
    files, classes = {}, {}
    for c, name in enumerate(names):
        folder = f"places365_standard/train/{name}"
        if form != "places365_standard":
            folder = f"{form}/{name[0]}/{name.replace('-', '/')}"
        members = [f"{folder}/{i:08}.jpg" for i in range(1, 6)]
        files.update({member: encoded(10 * c + i) for i, member in enumerate(members)})
        classes[name] = members[:3]
    if form == "places365_standard":
        files[f"{form}/val/airfield/00000001.jpg"] = encoded(99)
    archives = {
        "places365_standard": "places365standard_easyformat.tar",
        "data_256": "train_256_places365standard.tar",
        "data_large": "train_large_places365standard.tar",
    }
    domain = _small("Places", (2, 1, 1), 12, per_class=3)
    return Made(domain, files, classes, {form: archives[form]})


def _plantae() -> Made:
    # Sizes; of the two of size 2 the first by name is taken. Names are not in the order of the numbers.
    plants = {
        11: ("Rosa", 5),
        12: ("Acer", 2),
        13: ("Bellis", 1),
        14: ("Salix", 2),
        15: ("Linum", 4),
        16: ("Iris", 4),
    }
    files, classes, images, annotations = {}, {}, [], []
    for category, (name, size) in [*plants.items(), (17, ("Parus", 9))]:
        kingdom = "Aves" if name == "Parus" else "Plantae"
        members = []
        for i in range(size):
            path = f"train_val2018/{kingdom}/{category}/{100 * category + i:x}.jpg"
            files[path] = encoded(100 * category + i)
            images.append({"id": 1000 * category + i, "file_name": path, "width": 14, "height": 10})
            annotations.append({"id": len(images), "image_id": 1000 * category + i, "category_id": category})
            members.append(path)
        if name not in ("Parus", "Salix", "Bellis"):
            classes[name] = sorted(members)[:4]
    categories = [{"id": c, "name": n, "supercategory": "Plantae"} for c, (n, _) in plants.items()]
    categories.append({"id": 17, "name": "Parus", "supercategory": "Aves"})
    content = {"images": images, "annotations": annotations, "categories": categories}
    files["train2018.json"] = json.dumps(content).encode()
    return Made(
        _small("Plantae", (2, 1, 1), None, per_class=4),
        files,
        {name: classes[name] for name in sorted(classes)},
        {"train_val2018": "train_val2018.tar.gz", "train2018.json": "train2018.json.tar.gz"},
    )


MADE: dict[str, Callable[[], Made]] = {
    "miniImageNet, folders": lambda: _mini_imagenet(tables=False),
    "miniImageNet, tables": lambda: _mini_imagenet(tables=True),
    "CUB": _cub,
    "Cars": _cars,
    "Places, standard": lambda: _places("places365_standard"),
    "Places, 256": lambda: _places("data_256"),
    "Places, large": lambda: _places("data_large"),
    "Plantae": _plantae,
}
