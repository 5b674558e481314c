"""The SmoothTaylor paper's table: Integrated Gradients and SmoothTaylor judged by AUPC and AUTVC.

    python -m experiments.smooth_taylor --source /data/ILSVRC2012/val --network densenet121 --weights densenet121.pth
    python -m experiments.smooth_taylor --source /data/ILSVRC2012/val --network resnet152 --weights resnet152.pth
    python -m experiments.smooth_taylor --source photographs --network efficientnet-lite0 --out runs/twenty \
        --num-draws 4 --adaptive-roots 20 --adaptive-draws 2

Explains the predicted class of each picture, one picture at a time on each device; what is finished is in
OUT/NETWORK.jsonl, and a run that was stopped goes on there to the same numbers. Prints the table of all networks that
OUT holds beside the published one, and writes it as Markdown and JSON, with a sheet of heat maps. At the paper's size
a picture takes about 90,000 forward passes and 15,000 gradients, most of them the searches for noise scales.
"""

import dataclasses
import functools
import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.smooth_taylor.imagenet import HIGH, LOW, NetworkName, load_network, to_input, validation
from experiments.smooth_taylor.table import FIGURE_ROWS, PUBLISHED, as_json, table
from jxai import attribution, metrics, sealing, viz
from jxai.batches.chunks import rows_in_flight
from jxai.cli.explaining.photographs import CLASS_NAMES
from jxai.cli.running import folders
from jxai.cli.running.finite import check_finite
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
from jxai.progress import Progress, tracked
from jxai.results_log import ResultsLog

_GROUP = 10  # roots whose mean is kept, so that fewer roots are the first ones of more
_NOISE_BASELINES = (1, 5, 10, 20)
# Noise scale to the numbers of roots.
_TAYLOR = {0.3: (150,), 0.5: (10, 100, 150, 200), 0.7: (150,), 1.0: (100,), 2.0: (100,)}
_ADAPTIVE_ROOTS = 150  # of the heat map at the scale that was found


@dataclasses.dataclass(frozen=True)
class Options:
    """Which pictures and network, and how much is computed; the defaults are the paper's."""

    source: str = "photographs"
    """A folder with ILSVRC2012's validation pictures; "tfds"; or "photographs", the twenty of foolbox."""
    network: NetworkName = "efficientnet-lite0"
    weights: Path | None = None
    """torchvision's checkpoint of the network."""
    count: int = 1000
    """At most so many pictures, in the order of their names."""
    num_regions: int = 30
    """Windows that a perturbation replaces."""
    num_draws: int = 50
    """Draws of noise a window."""
    adaptive_roots: int = 150
    """Roots at each evaluation of the search for noise scales."""
    adaptive_draws: int = 50
    """Draws a window there, where AUPC is searched for."""
    chunk_size: int | None = None
    """Network inputs in flight."""
    sheet: int = 4
    """How many of the pictures are drawn."""
    seed: int = 0
    out: Path = Path("runs/smooth_taylor")
    progress: bool = True
    hosts: HostsOption = Hosts()

    @property
    def settings(self) -> dict[str, Any]:
        """What changes the numbers of a picture."""
        names = ("network", "source", "num_regions", "num_draws", "adaptive_roots", "adaptive_draws", "seed")
        return {name: getattr(self, name) for name in names} | {"weights": _checksum(self.weights)}


@dataclasses.dataclass(frozen=True)
class Programs:
    """The compiled parts of one picture's judgment; x is (1, 224, 224, 3), heat maps are (rows, 224, 224).

    Attributes:
        predict: the class with the highest score, (1,).
        black: Integrated Gradients from black, of (x, target).
        noise: their means over the first 1, 2, ... baselines of noise, of (key, x, target).
        taylor: SmoothTaylor's means over the first 10, 20, ... roots, of (number of tens, key, x, target, scale).
        searches: the searches for a noise scale by objective, of (key, x, target).
        judge: AUPC and AUTVC, (rows,) each, of (key, x, target, heat maps).
    """

    predict: Callable[..., jax.Array]
    black: Callable[..., jax.Array]
    noise: Callable[..., jax.Array]
    taylor: Callable[..., jax.Array]
    searches: Mapping[str, Callable[..., attribution.AdaptiveNoise]]
    judge: Callable[..., tuple[jax.Array, jax.Array]]


def programs(f: Callable[[jax.Array], jax.Array], options: Options) -> Programs:
    """Compile what the table needs.

    Args:
        f: from inputs (N, H, W, 3) to scores (N, K).
        options: sizes.

    Returns:
        The programs; each is compiled when it is first used.
    """
    rows: dict[str, Any] = {"chunk_size": options.chunk_size}
    curve = functools.partial(
        metrics.perturbation_curve, low=LOW, high=HIGH, num_regions=options.num_regions, **rows
    )

    def black(x: jax.Array, target: jax.Array) -> jax.Array:
        return _heatmap(attribution.integrated_gradients(f, x, target, baseline=LOW, **rows))

    def noise(key: jax.Array, x: jax.Array, target: jax.Array) -> jax.Array:
        baselines = attribution.uniform_baselines(key, x, count=max(_NOISE_BASELINES), low=LOW, high=HIGH)

        def one(baseline: jax.Array) -> jax.Array:
            return _heatmap(attribution.integrated_gradients(f, x, target, baseline=baseline, **rows))[0]

        return _running_means(lax.map(one, baselines))

    def taylor(tens: int, key: jax.Array, x: jax.Array, target: jax.Array, scale: jax.Array) -> jax.Array:
        def some(group: jax.Array) -> jax.Array:
            own = jax.random.fold_in(key, group)
            roots: dict[str, Any] = {"noise_scale": scale, "num_roots": _GROUP, **rows}
            return _heatmap(attribution.smooth_taylor(f, own, x, target, **roots))[0]

        return _running_means(lax.map(some, jnp.arange(tens)))

    def search(area: Callable[..., jax.Array], key: jax.Array, x: jax.Array, target: jax.Array) -> Any:
        def objective(key: jax.Array, x: jax.Array, scale: jax.Array) -> jax.Array:
            of_roots, of_draws = jax.random.split(key)
            roots: dict[str, Any] = {"noise_scale": scale, "num_roots": options.adaptive_roots, **rows}
            heatmap = _heatmap(attribution.smooth_taylor(f, of_roots, x, target, **roots))
            return area(of_draws, x, target, heatmap)

        return attribution.adaptive_noise(objective, key, x)

    def aupc(key: jax.Array, x: jax.Array, target: jax.Array, heatmap: jax.Array) -> jax.Array:
        return metrics.aupc(curve(f, key, x, heatmap, target, num_draws=options.adaptive_draws))

    def autvc(key: jax.Array, x: jax.Array, target: jax.Array, heatmap: jax.Array) -> jax.Array:
        return metrics.autvc(metrics.multiscale_total_variation(heatmap))

    def judge(
        key: jax.Array, x: jax.Array, target: jax.Array, heatmaps: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        # One key for all heat maps: every one of them is perturbed by the same draws, so that differences are paired.
        def of_one(heatmap: jax.Array) -> jax.Array:
            return curve(f, key, x, heatmap[None], target, num_draws=options.num_draws)[0]

        # As many heat maps at once as fill a chunk with their draws.
        curves = lax.map(
            of_one, heatmaps, batch_size=max(1, rows_in_flight(x, options.chunk_size) // options.num_draws)
        )
        return metrics.aupc(curves), metrics.autvc(metrics.multiscale_total_variation(heatmaps))

    return Programs(
        predict=jax.jit(lambda x: f(x).argmax(axis=1)),
        black=jax.jit(black),
        noise=jax.jit(noise),
        taylor=jax.jit(taylor, static_argnums=0),
        searches={
            "aupc": jax.jit(functools.partial(search, aupc)),
            "autvc": jax.jit(functools.partial(search, autvc)),
        },
        judge=jax.jit(judge),
    )


def judge_picture(
    do: Programs, key: jax.Array, x: jax.Array, *, name: str
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Every row of the table for one picture.

    Args:
        do: the programs.
        key: the picture's own.
        x: (1, 224, 224, 3).
        name: the picture's, for errors.

    Returns:
        The record that is kept, with AUPC, AUTVC by row, and the heat maps by row, (224, 224) each.

    Raises:
        ValueError: a heat map, a noise scale or a score is not finite; the picture and the row are named.
    """
    target = do.predict(x)
    of_baselines, of_roots, of_search, of_draws = jax.random.split(key, 4)
    heatmaps: dict[str, jax.Array] = {"ig-black": do.black(x, target)[0]}
    means = do.noise(of_baselines, x, target)
    heatmaps |= {f"ig-noise-{count}": means[count - 1] for count in _NOISE_BASELINES}
    for scale, numbers in _TAYLOR.items():
        means = do.taylor(max(numbers) // _GROUP, of_roots, x, target, jnp.float32(scale))
        heatmaps |= {f"st-{scale:g}-{number}": means[number // _GROUP - 1] for number in numbers}
    scales: dict[str, float] = {}
    for area, search in do.searches.items():
        found = search(of_search, x, target).noise_scale[0]
        check_finite(f"noise scales of {name}", {f"adaptive-{area}": found})
        # A scale of 0 leaves nothing to explain; the search may end there.
        scale = jnp.maximum(found, 1e-3)
        scales[f"adaptive-{area}"] = float(scale)
        heatmaps[f"adaptive-{area}"] = do.taylor(_ADAPTIVE_ROOTS // _GROUP, of_roots, x, target, scale)[-1]
    check_finite(f"heat maps of {name}", heatmaps)
    areas = do.judge(of_draws, x, target, jnp.stack(list(heatmaps.values())))
    rows = {row: [float(area[index]) for area in areas] for index, row in enumerate(heatmaps)}
    check_finite(f"AUPC and AUTVC of {name}", rows)
    judgment = {"class": int(target[0]), "rows": rows, "noise_scale": scales}
    return judgment, {row: np.asarray(heatmap) for row, heatmap in heatmaps.items()}


def _checksum(weights: Path | None) -> str | None:
    """Which weights they are, wherever they lie."""
    return (
        None
        if weights is None or not weights.is_file()
        else hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
    )


def _heatmap(attributions: jax.Array) -> jax.Array:
    return attributions.sum(axis=-1)


def _running_means(values: jax.Array) -> jax.Array:
    counts = jnp.arange(1, len(values) + 1, dtype=values.dtype)
    return jnp.cumsum(values, axis=0) / counts[:, None, None]


def run(options: Options) -> None:
    """Judge every picture that is not judged yet, one on each device of each process."""
    resampling = "bicubic" if options.network == "efficientnet-lite0" else "bilinear"
    examples = validation(options.source, options.count, resampling=resampling)
    log = ResultsLog(options.out / f"{options.network}.jsonl", options.settings)
    drawn = [
        options.out / f"{options.network}-{index}.npz" for index in range(min(options.sheet, len(examples)))
    ]
    root = key_of(options.seed)
    wanted = [
        not log.done(example.name) or (index < len(drawn) and _kept(drawn[index]) is None)
        for index, example in enumerate(examples)
    ]
    # The first process knows: only that one writes, and the folder may be its own.
    missing = np.flatnonzero(from_first(np.array(wanted))).tolist()
    if not missing:
        return
    do = programs(load_network(options.network, options.weights), options)

    def judged(index: int) -> tuple[dict[str, Any], dict[str, Any]]:
        start, picture = time.perf_counter(), examples[index].pixels
        key = jax.random.fold_in(root, index)
        judgment, heatmaps = judge_picture(do, key, to_input(picture)[None], name=examples[index].name)
        shown = {row: heatmaps[row] for row in FIGURE_ROWS}
        return {**judgment, "seconds": time.perf_counter() - start}, {"picture": picture, **shown}

    found = in_turns(judged, missing, on_each_device=True)
    progress: Progress = (options.progress or "lines") if is_first() else False
    bar = tracked(found, total=len(missing), name="pictures", unit="picture", progress=progress)
    for index, (judgment, shown) in zip(missing, bar, strict=True):
        if not is_first():
            continue
        name = examples[index].name
        if index < len(drawn):
            arrays = {"name": np.array(name), **shown}
            digest = np.frombuffer(_digest(arrays), np.uint8)
            folders.write_whole(drawn[index], functools.partial(np.savez_compressed, digest=digest, **arrays))
        if not log.done(name):
            numbers = jax.tree.map(lambda leaf: leaf.item(), judgment)
            with folders.writing(log.path):
                log.append({"key": name, **numbers, "seconds": round(numbers["seconds"], 1)})


def draw(options: Options) -> Path | None:
    """The sheet of heat maps of the pictures that were kept for it."""
    places = [options.out / f"{options.network}-{index}.npz" for index in range(options.sheet)]
    arrays = [kept for path in places if (kept := _kept(path)) is not None]
    if not arrays:
        return None
    log = ResultsLog(options.out / f"{options.network}.jsonl", options.settings)
    records = [log.records[str(array["name"])] for array in arrays]
    captions = [(CLASS_NAMES[one["class"]], "explained class") for one in records]
    notes = {label: [_note(one, row) for one in records] for row, label in FIGURE_ROWS.items()}
    sheet = options.out / f"{options.network}.png"
    with folders.writing(sheet):
        return viz.method_sheet(
            np.stack([array["picture"] for array in arrays]),
            {
                label: np.stack([array[row] for array in arrays])[..., None]
                for row, label in FIGURE_ROWS.items()
            },
            captions=captions,
            notes=notes,
            path=sheet,
        )


def _kept(path: Path) -> dict[str, np.ndarray] | None:
    """A picture and its heat maps; None where there are none, or not as they were written."""
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            kept = dict(archive)
        digest = kept.pop("digest").tobytes()
    except Exception as error:  # a damaged archive may fail in many ways
        digest, kept, reason = b"", {}, f" ({error})"
    else:
        reason = ""
    if digest == _digest(kept):
        return kept
    print(f"note: {path} is damaged{reason}: its heat maps are made anew", file=sys.stderr)
    return None


def _digest(arrays: Mapping[str, np.ndarray]) -> bytes:
    parts = [
        (f"{name} {array.dtype} {array.shape}".encode(), array.tobytes()) for name, array in arrays.items()
    ]
    return sealing.digest_of(*(part for pair in parts for part in pair))


def _note(judgment: Mapping[str, Any], row: str) -> str:
    aupc, autvc = judgment["rows"][row]
    scale = judgment["noise_scale"].get(row)
    return f"AUPC {aupc:.1f}, AUTVC {autvc:.2f}" + ("" if scale is None else f", σ {scale:.2f}")


def main(options: Options) -> None:
    """Judge, print, write, draw."""
    with together(options.hosts), ended_by_sigterm(), folders.in_use(options.out):
        run(options)
        if is_first():
            _report(options)


def _report(options: Options) -> None:
    found = {path.stem: _log(path) for path in sorted(options.out.glob("*.jsonl"))}
    text = table(found)
    print(text)
    folders.write_whole(options.out / "table.md", text + "\n")
    numbers = {"published": PUBLISHED, "measured": as_json(found)}
    folders.write_whole(options.out / "table.json", json.dumps(numbers, indent=1) + "\n")
    print(draw(options) or "no sheet: nothing was kept for it")


def _log(path: Path) -> ResultsLog:
    """A log with the settings that it was made with."""
    with path.open(encoding="utf-8") as file:
        return ResultsLog(path, json.loads(file.readline())["settings"])
