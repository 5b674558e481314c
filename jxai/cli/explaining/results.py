"""What explaining leaves: the page, the sheets and the arrays."""

import dataclasses
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import jax
import numpy as np

from jxai import viz
from jxai.cli.explaining.inputs import InputSpace
from jxai.cli.explaining.methods import Method
from jxai.cli.explaining.network import Network
from jxai.cli.explaining.page import write_page
from jxai.cli.explaining.picture_files import Picture
from jxai.cli.running import folders, written

ROWS = 10  # pictures a sheet
_LONGEST = 12  # characters of a name above a picture
_PAGE, _ARRAYS = "index.html", "attributions.npz"


@dataclasses.dataclass(frozen=True)
class Explained:
    """Pictures with their scores and explanations.

    Attributes:
        pictures: N of them.
        scores: float32, (N, K).
        targets: the classes explained, (N,).
        attributions: name of a method to float32, (N, H, W, C); of none in processes but the first.
    """

    pictures: Sequence[Picture]
    scores: np.ndarray
    targets: np.ndarray
    attributions: Mapping[str, np.ndarray]

    @property
    def pixels(self) -> np.ndarray:
        """uint8, (N, H, W, 3), all in memory."""
        return np.stack([picture.pixels for picture in self.pictures])

    @property
    def target_scores(self) -> np.ndarray:
        """The explained classes' scores, (N,)."""
        return self.scores[np.arange(len(self.targets)), self.targets]


def notes(found: Explained, chosen: Sequence[Method]) -> dict[str, list[str]]:
    """The sum of each attribution over the score, for methods whose attributions are shares of it.

    Args:
        found: the explanations.
        chosen: the methods.

    Returns:
        By method, a line a picture.
    """
    lines = {}
    for method in chosen:
        if method.adds_up:
            sums = found.attributions[method.name].sum(axis=(1, 2, 3), dtype=np.float64)
            shares = np.divide(
                sums, found.target_scores, out=np.full(len(sums), np.nan), where=found.target_scores != 0
            )
            lines[method.name] = [f"sum / score = {share:.2g}".replace("-", "−") for share in shares]
    return lines


def _short(name: str) -> str:
    """A file's name as it fits above a picture: without its folders, its end where it is long."""
    name = name.rsplit("/", 1)[-1]
    return name if len(name) <= _LONGEST else f"…{name[1 - _LONGEST :]}"


def draw_sheet(
    found: Explained,
    chosen: Sequence[Method],
    path: Path,
    *,
    class_names: Sequence[str],
    opacity: float = 1.0,
) -> Path:
    """Draw the pictures and their heat maps, a row a picture.

    Args:
        found: the explanations.
        chosen: the methods, a column each.
        path: where the PNG goes.
        class_names: K names.
        opacity: of the heat maps over the pictures.

    Returns:
        The path.
    """
    probabilities = np.asarray(jax.nn.softmax(found.scores))[np.arange(len(found.targets)), found.targets]
    captions = [
        (
            class_names[int(target)],
            f"{_short(picture.name)}: score {score:.1f}, {100 * probability:.0f} %".replace(" -", " −"),
        )
        for picture, target, score, probability in zip(
            found.pictures, found.targets, found.target_scores, probabilities, strict=True
        )
    ]
    of_methods = notes(found, chosen)
    return viz.method_sheet(
        found.pixels,
        {method.label: found.attributions[method.name] for method in chosen},
        captions=captions,
        path=path,
        notes={method.label: of_methods[method.name] for method in chosen if method.name in of_methods},
        opacity=opacity,
    )


def write(
    network: Network,
    found: Explained,
    chosen: Sequence[Method],
    out: Path,
    *,
    on_page: int,
    opacity: float = 1.0,
) -> list[Path]:
    """Write the page, the sheets and the arrays.

    Args:
        network: what was explained.
        found: the explanations.
        chosen: the methods.
        out: the folder.
        on_page: at most so many pictures on the page and the sheets.
        opacity: of the heat maps over the pictures in the sheets.

    Returns:
        The files' paths.

    Raises:
        OSError: one of them cannot be written.
    """
    total, shown = len(found.pictures), min(len(found.pictures), on_page)
    with folders.writing(out):
        out.mkdir(parents=True, exist_ok=True)
    written.keep_only(out, names_of_files(shown))  # an earlier run may have left more sheets
    arrays = out / _ARRAYS
    folders.write_whole(arrays, lambda file: _save(file, found, network.space))
    first = _some(found, 0, shown)
    about = f"Network: {network.title}."
    if total > shown:
        about += f" The first {shown} of {total} pictures; attributions.npz has all of them."
    with folders.writing(out):
        page = write_page(
            out / _PAGE,
            title="What the network looks at",
            about=about,
            names=[picture.name for picture in first.pictures],
            pictures=first.pixels,
            scores=first.scores,
            targets=first.targets,
            truths=[None if one.label is None else network.class_names[one.label] for one in first.pictures],
            class_names=network.class_names,
            labels={method.name: method.label for method in chosen},
            maps=first.attributions,
            notes=notes(first, chosen),
        )
        sheets = [
            draw_sheet(
                _some(first, start, start + ROWS),
                chosen,
                out / name,
                class_names=network.class_names,
                opacity=opacity,
            )
            for name, start in zip(_sheets(shown), range(0, shown, ROWS), strict=True)
        ]
    return [page, *sheets, arrays]


def _save(file: IO[bytes], found: Explained, space: InputSpace) -> None:
    """The archive that `np.savez` would write, without ever having all pictures in memory."""
    names = np.array([picture.name for picture in found.pictures])
    arrays = {f"attributions/{name}": of for name, of in found.attributions.items()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in {
            **arrays,
            "names": names,
            "scores": found.scores,
            "targets": found.targets,
        }.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
        with archive.open("pictures.npy", "w", force_zip64=True) as member:
            shape = (len(found.pictures), space.size, space.size, 3)
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(member, header)
            for picture in found.pictures:
                member.write(np.ascontiguousarray(picture.pixels).data)


def _sheets(count: int) -> list[str]:
    return [f"sheet-{number}.png" for number in range(1, 1 + -(-count // ROWS))]


def names_of_files(count: int) -> list[str]:
    """What `write` writes.

    Args:
        count: of the pictures on the page.

    Returns:
        The files' names.
    """
    return [_PAGE, _ARRAYS, *_sheets(count)]


def _some(found: Explained, start: int, stop: int) -> Explained:
    attributions = {name: array[start:stop] for name, array in found.attributions.items()}
    return Explained(
        found.pictures[start:stop], found.scores[start:stop], found.targets[start:stop], attributions
    )
