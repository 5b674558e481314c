"""Pictures in, heat maps out: EfficientNet-Lite0 explained by several methods side by side.

    pip install 'jxai[demo]'
    jxai explain
    jxai explain holiday/ cat.jpg --methods grad-cam smooth-taylor epsilon-plus --out runs/cats

Takes files, folders with all pictures below them, or by default twenty photographs. Leaves in the folder of results:
`index.html`, one page to look through all of them, which needs no server; `sheet-1.png` and so on, a row a picture;
`attributions.npz` with the raw arrays. Files of others that have these names are an error. Six photographs by the
default methods took 220 s of a CPU core's time.

What is finished is in a folder `unfinished-...` there until all is, and a run that was stopped goes on after its last
batch when the same command is given again, with the same versions and commit.
"""

import dataclasses
import functools
import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from tqdm import tqdm

from jxai import models, viz
from jxai.cli.explaining.methods import Classifier, Method, Settings, methods
from jxai.cli.explaining.page import write_page
from jxai.cli.explaining.photographs import CLASS_NAMES, photographs, to_input
from jxai.cli.explaining.picture_files import Picture, read_pictures
from jxai.cli.running import command_line, folders, made_with, written
from jxai.cli.running.hosts import (
    Hosts,
    HostsOption,
    ended_by_sigterm,
    from_first,
    in_turns,
    is_first,
    together,
)
from jxai.cli.running.seeds import key_of
from jxai.cli.running.unfinished_rows import Rows
from jxai.models.pretrained import efficientnet_lite0

DEFAULT_METHODS = (
    "input-x-gradient",
    "integrated-gradients",
    "smooth-grad",
    "smooth-taylor",
    "grad-cam",
    "epsilon-plus",
    "epsilon-gamma-box",
    "guided-backprop",
)
_ROWS = 10  # pictures a sheet
_PAGE, _ARRAYS = "index.html", "attributions.npz"


@dataclasses.dataclass(frozen=True)
class Options:
    """Which pictures, by which methods, and where the results go."""

    paths: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Files, or folders with all pictures below them in sorted order; by default twenty photographs."""
    methods: tuple[str, ...] = DEFAULT_METHODS
    """Their names; `all` is every one."""
    target: Literal["predicted", "true"] | int = "predicted"
    """The class explained: the one with the highest score, the true one of the twenty photographs, or a number."""
    count: int | None = None
    """At most so many pictures, the first ones."""
    out: Path = Path("runs/explain")
    settings: Annotated[Settings, tyro.conf.arg(name="")] = Settings()
    opacity: float = 1.0
    """Of the heat maps over the pictures in the sheets; the page has a slider."""
    on_page: int = 200
    """At most so many pictures on the page, the first ones: with eight methods it grows by 0.2 MB a picture."""
    batch: int = 4
    """Pictures at a time."""
    seed: int = 0
    progress: bool = True
    hosts: HostsOption = Hosts()


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
        """uint8, (N, H, W, 3)."""
        return np.stack([picture.pixels for picture in self.pictures])

    @property
    def target_scores(self) -> np.ndarray:
        """The explained classes' scores, (N,)."""
        return self.scores[np.arange(len(self.targets)), self.targets]


def load_classifier() -> Classifier:
    """EfficientNet-Lite0 with its weights; Grad-CAM weighs its last maps."""
    model, variables, _ = efficientnet_lite0()
    maps, rest = models.split(model, "activation_last", train=False)

    def apply(variables: Any, x: jax.Array) -> Any:
        return model.apply(variables, x, train=False)

    return Classifier(variables, apply, maps, rest)


def explain(
    classifier: Classifier,
    key: jax.Array,
    pictures: Sequence[Picture],
    chosen: Sequence[Method],
    *,
    target: Literal["predicted", "true"] | int = "predicted",
    batch: int = 4,
    folder: Path | None = None,
    progress: bool = True,
) -> Explained:
    """Explain pictures by methods; each method is compiled once, and the processes share the batches.

    Args:
        classifier: the network.
        key: of the noise; that of a picture depends on its place among the pictures and in its batch.
        pictures: at least one, all of one size.
        chosen: the methods.
        target: the class explained, as in `Options`.
        batch: pictures at a time; the last batch is filled up, so that it needs no program of its own.
        folder: where the first process keeps attributions, which memory need not hold then; those that are there
            already, of the same arguments, are not made again. None for memory.
        progress: whether to show a progress bar.

    Returns:
        Scores and attributions.

    Raises:
        ValueError: a batch below 1, a true class that is not known, or a class that the network does not have.
        OSError: nothing can be written in the folder.
    """
    one = jax.ShapeDtypeStruct((1, *pictures[0].pixels.shape), jnp.float32)
    _check(pictures, target, batch, jax.eval_shape(lambda x: classifier(x), one).shape[1])
    count, batch = len(pictures), min(batch, len(pictures))
    places = np.arange(-(-count // batch) * batch).clip(max=count - 1).reshape(-1, batch)
    bar = tqdm(total=count * (1 + len(chosen)), unit="map", disable=not progress or not is_first())

    def arguments(rows: np.ndarray, *arrays: np.ndarray) -> tuple[Any, ...]:
        x = to_input(np.stack([pictures[row].pixels for row in rows]))
        own = jax.random.fold_in(key, int(rows[0]))
        return classifier, own, jnp.asarray(x), *(jnp.asarray(array[rows]) for array in arrays)

    def each(label: str, function: Any, *arrays: np.ndarray, done: int = 0) -> Iterator[np.ndarray]:
        bar.set_description(label)
        bar.update(min(done * batch, count))
        left = list(places[done:])
        results = in_turns(lambda rows: function(*arguments(rows, *arrays)), left)
        for rows, result in zip(left, results, strict=True):
            new = len(np.unique(rows))
            yield result[:new]
            bar.update(new)

    with bar:
        scores = np.concatenate(list(each("scores", jax.jit(lambda f, key, x: f(x)))))
        targets = _targets(pictures, scores, target)
        attributions: dict[str, np.ndarray] = {}
        for method in chosen:
            function = jax.jit(method.explain)
            one = jax.eval_shape(function, *arguments(places[0], targets))
            rows = Rows(None if folder is None else folder / method.name, one.shape[1:], one.dtype)
            # The first process knows what is there: only that one keeps them.
            there = int(from_first(np.array(rows.count)))
            done = len(places) if there == count else there // batch
            rows.cut(min(done * batch, count))
            for result in each(method.label, function, targets, done=done):
                rows.add(result)
            if is_first():
                attributions[method.name] = rows.array()
    return Explained(pictures, scores, targets, attributions)


def _check(pictures: Sequence[Picture], target: str | int, batch: int, classes: int) -> None:
    if batch < 1:
        raise ValueError(f"expected a batch of at least 1, got {batch}: raise it")
    if target == "true" and any(picture.label is None for picture in pictures):
        raise ValueError(
            "expected the true class of every picture, got files, whose classes are not known: take target "
            "predicted, or a class's number"
        )
    if target not in ("predicted", "true") and not 0 <= int(target) < classes:
        raise ValueError(f"expected a target from 0 to {classes - 1}, got {target}: give a class's number")


def _targets(pictures: Sequence[Picture], scores: np.ndarray, target: str | int) -> np.ndarray:
    if target == "predicted":
        return scores.argmax(axis=1)
    return np.array([picture.label if target == "true" else int(target) for picture in pictures])


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


def draw_sheet(found: Explained, chosen: Sequence[Method], path: Path, *, opacity: float = 1.0) -> Path:
    """Draw the pictures and their heat maps, a row a picture.

    Args:
        found: the explanations.
        chosen: the methods, a column each.
        path: where the PNG goes.
        opacity: of the heat maps over the pictures.

    Returns:
        The path.
    """
    probabilities = np.asarray(jax.nn.softmax(found.scores))[np.arange(len(found.targets)), found.targets]
    captions = [
        (CLASS_NAMES[target], f"score {score:.2f}, probability {probability:.2f}".replace("-", "−"))
        for target, score, probability in zip(found.targets, found.target_scores, probabilities, strict=True)
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


def write(found: Explained, chosen: Sequence[Method], options: Options) -> list[Path]:
    """Write the page, the sheets and the arrays.

    Args:
        found: the explanations.
        chosen: the methods.
        options: where, and how.

    Returns:
        The files' paths.

    Raises:
        OSError: one of them cannot be written.
    """
    total = len(found.pictures)
    written.keep_only(options.out, _names(total))  # an earlier run may have left more sheets
    arrays = options.out / _ARRAYS
    everything: dict[str, Any] = {f"attributions/{name}": of for name, of in found.attributions.items()}
    everything["names"] = np.array([picture.name for picture in found.pictures])
    everything |= {"pictures": found.pixels, "scores": found.scores, "targets": found.targets}
    folders.write_whole(arrays, functools.partial(np.savez, **everything))
    first = _some(found, 0, options.on_page)
    about = "EfficientNet-Lite0, trained on ImageNet."
    if total > options.on_page:
        about += f" The first {options.on_page} of {total} pictures; attributions.npz has all of them."
    with folders.writing(options.out):
        page = write_page(
            options.out / _PAGE,
            title="What the network looks at",
            about=about,
            names=[picture.name for picture in first.pictures],
            pictures=first.pixels,
            scores=first.scores,
            targets=first.targets,
            truths=[None if one.label is None else CLASS_NAMES[one.label] for one in first.pictures],
            class_names=CLASS_NAMES,
            labels={method.name: method.label for method in chosen},
            maps=first.attributions,
            notes=notes(first, chosen),
        )
        sheets = [
            draw_sheet(
                _some(found, start, start + _ROWS),
                chosen,
                options.out / name,
                opacity=options.opacity,
            )
            for name, start in zip(_sheets(total), range(0, total, _ROWS), strict=True)
        ]
    return [page, *sheets, arrays]


def _sheets(count: int) -> list[str]:
    return [f"sheet-{number}.png" for number in range(1, 1 + -(-count // _ROWS))]


def _names(count: int) -> list[str]:
    """What `write` writes."""
    return [_PAGE, _ARRAYS, *_sheets(count)]


def _some(found: Explained, start: int, stop: int) -> Explained:
    attributions = {name: array[start:stop] for name, array in found.attributions.items()}
    return Explained(
        found.pictures[start:stop], found.scores[start:stop], found.targets[start:stop], attributions
    )


def choose(names: Sequence[str], settings: Settings) -> list[Method]:
    """The methods of these names, spread over this process's devices where there are several.

    Args:
        names: of methods; `all` is every one.
        settings: numbers of roots and the like.

    Returns:
        The methods, in the order asked for.

    Raises:
        ValueError: an unknown name, or none.
        FileNotFoundError: expected gradients without the photographs that it starts from.
    """
    known = methods()
    names = tuple(known) if "all" in names else tuple(dict.fromkeys(names))
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        got = ", ".join(unknown) or "none"
        raise ValueError(f"expected methods among {', '.join(known)}, got {got}")
    references = None
    if "expected-gradients" in names:
        references = jnp.asarray(to_input(np.stack([one.picture for one in photographs()])))
    devices = jax.local_devices()
    mesh = jax.sharding.Mesh(np.array(devices), ("devices",)) if len(devices) > 1 else None
    of_all = methods(settings, references=references, mesh=mesh)
    return [of_all[name] for name in names]


def main(options: Options) -> None:
    """Read, explain, write; print the classes and where everything is."""
    if options.on_page < 1:
        raise ValueError(f"expected on_page of at least 1, got {options.on_page}: raise it")
    if not 0 <= options.opacity <= 1:
        raise ValueError(f"expected opacity in [0, 1], got {options.opacity}: 1 is the heat map alone")
    key = key_of(options.seed)
    with together(options.hosts), ended_by_sigterm():
        chosen = choose(options.methods, options.settings)
        pictures = read_pictures(options.paths, count=options.count)
        classifier = load_classifier()
        _check(pictures, options.target, options.batch, len(CLASS_NAMES))
        unfinished = options.out / f"unfinished-{_digest(classifier, pictures, options)}"
        how: dict[str, Any] = {name: getattr(options, name) for name in ("target", "batch", "progress")}
        with folders.in_use(options.out):
            if is_first():
                written.claim(options.out, _names(len(pictures)))
            found = explain(classifier, key, pictures, chosen, folder=unfinished, **how)
            if is_first():
                _show(found, chosen, options)
                shutil.rmtree(unfinished, ignore_errors=True)


def _digest(classifier: Classifier, pictures: Sequence[Picture], options: Options) -> str:
    """What differs where attributions by a method of one name may."""
    about: list[Any] = [
        value for name, value in made_with.start().items() if name not in ("command", "cores")
    ]
    about += [options.settings, options.target, options.batch, options.seed, [one.label for one in pictures]]
    digest = hashlib.blake2b(repr(about).encode(), digest_size=4)
    for array in (*(one.pixels for one in pictures), *jax.tree.leaves(classifier.variables)):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _show(found: Explained, chosen: Sequence[Method], options: Options) -> None:
    for picture, scores, target in zip(found.pictures, found.scores, found.targets, strict=True):
        best = int(scores.argmax())
        print(
            f"{picture.name}: {CLASS_NAMES[best]}, score {scores[best]:.2f}; explained: {CLASS_NAMES[target]}"
        )
    for path in write(found, chosen, options):
        print(path)


def command() -> None:
    """Read the command line, then `main`."""
    command_line.run(main, Options, about=__doc__, explains=True)
