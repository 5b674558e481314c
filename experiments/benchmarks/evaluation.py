"""Episodes a second in evaluation, from features that are encoded once: every head, beside loops of plain PyTorch.

    python -m experiments.benchmarks.evaluation --json results.json

5-way 5-shot episodes of 15 queries a class, drawn from 1000 images with the features of Conv4NP at 32 pixels (6x6x64)
and of ResNet10 at 224 (7x7x512). The heads that average maps first also get features that are averaged beforehand.
The rivals take one episode after the other, as the usual programs do, from features in memory; without PyTorch they
are left out.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.benchmarks.measure import report, result
from jxai import fewshot
from jxai.errors import InputError

# What is kept of an image: (its shape, width of RelationNet's head behind it).
FEATURES: dict[str, tuple[tuple[int, ...], int]] = {
    "conv4np": ((6, 6, 64), 64),
    "conv4np averaged": ((64,), 0),
    "resnet10": ((7, 7, 512), 512),
    "resnet10 averaged": ((512,), 0),
}
OF_MAPS = ("relation", "cross-attention")


@dataclasses.dataclass(frozen=True)
class Options:
    """Sizes of the evaluation."""

    way: int = 5
    shot: int = 5
    queries: int = 15
    """Queries a class."""
    images: int = 1000
    features: tuple[str, ...] = tuple(FEATURES)
    heads: tuple[str, ...] = ("prototype", "matching", "feat", "relation", "graph", "cross-attention")
    episodes: int = 2000
    """As in the papers, at most; fewer where they would take longer than `seconds`."""
    seconds: float = 10.0
    """Of a measurement, about; the better of two counts."""
    batch_size: int = 4
    transductive: bool = True
    """Measure transductive evaluation too."""
    json: Path | None = None
    """Where the results go as JSON."""


def head_of(name: str, options: Options, width: int) -> fewshot.Head:
    """A head by its name."""
    match name:
        case "relation":
            return fewshot.RelationHead(features=width, nonnegative=True)
        case "graph":
            return fewshot.GraphHead(way=options.way)
        case "cross-attention":
            return fewshot.CrossAttentionHead()
        case "prototype":
            return fewshot.PrototypeHead()
        case "matching":
            return fewshot.MatchingHead()
        case "feat":
            return fewshot.FEATHead()
    raise InputError(f"expected a head, got {name!r}: see --help")


def draw(options: Options, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features as behind a ReLU, and the support and queries of episodes."""
    random = np.random.default_rng(0)
    features = np.maximum(random.normal(size=(options.images, *shape)), 0).astype(np.float32)
    support, query = options.way * options.shot, options.way * options.queries
    rows = np.stack([random.permutation(options.images)[: support + query] for _ in range(options.episodes)])
    return features, rows[:, :support], rows[:, support:]


def rate(evaluate: Callable[[int], Any], options: Options) -> float:
    """Episodes a second of a function of their number, once it is compiled."""
    probe = min(options.batch_size, options.episodes)
    evaluate(probe)
    start = time.perf_counter()
    evaluate(probe)
    elapsed = time.perf_counter() - start
    count = int(np.clip(options.seconds * probe / elapsed, probe, options.episodes))
    if count > probe:
        evaluate(count)
    times = []
    for _ in range(2):
        start = time.perf_counter()
        evaluate(count)
        times.append(time.perf_counter() - start)
    return count / min(times)


def ours(name: str, options: Options, width: int, drawn: Any, transduction: Any) -> float:
    """Episodes a second of a head of this library."""
    features, support, query = drawn
    head, features = head_of(name, options, width), jax.device_put(features)
    small = features[: options.way]
    episode = fewshot.Episode(small, jnp.arange(options.way), small, way=options.way)
    variables = head.init(jax.random.key(0), episode)
    variables = {kind: {"head": tree} for kind, tree in variables.items()}

    def evaluate(count: int) -> np.ndarray:
        return fewshot.episode_accuracies(
            head,
            variables,
            features,
            support[:count],
            query[:count],
            way=options.way,
            batch_size=options.batch_size,
            transduction=transduction,
        )

    return rate(evaluate, options)


def rival(name: str, options: Options, width: int, drawn: Any) -> float:
    """Episodes a second of a loop of PyTorch."""
    import torch  # pyright: ignore[reportMissingImports]

    features, support, query = drawn
    features = torch.from_numpy(np.ascontiguousarray(np.moveaxis(features, -1, 1)))
    support, query = torch.from_numpy(support), torch.from_numpy(query)
    truth = torch.arange(options.way).repeat_interleave(options.queries)
    scores = (
        torch_prototype(options)
        if name == "prototype"
        else torch_relation(options, features.shape[1:], width)
    )

    def evaluate(count: int) -> list[float]:
        with torch.no_grad():
            found = [scores(features[support[i]], features[query[i]]).argmax(dim=1) for i in range(count)]
            return [(one == truth).float().mean().item() for one in found]

    return rate(evaluate, options)


def torch_prototype(options: Options) -> Callable[[Any, Any], Any]:
    """Scores of an episode by squared distances to prototypes."""
    import torch  # pyright: ignore[reportMissingImports]

    def scores(support: Any, query: Any) -> Any:
        support, query = (x.mean(dim=(2, 3)) if x.ndim == 4 else x for x in (support, query))
        return -(torch.cdist(query, support.view(options.way, options.shot, -1).mean(dim=1)) ** 2)

    return scores


def torch_relation(options: Options, shape: tuple[int, ...], width: int) -> Callable[[Any, Any], Any]:
    """Scores of an episode by a relation network of maps (C, h, w), on batch statistics."""
    import torch  # pyright: ignore[reportMissingImports]
    from torch import nn  # pyright: ignore[reportMissingImports]

    def block(inputs: int) -> list[Any]:
        norm = nn.BatchNorm2d(width, track_running_stats=False)
        return [nn.Conv2d(inputs, width, 3, padding=1), norm, nn.ReLU(), nn.MaxPool2d(2)]

    flat = width * (shape[1] // 4) * (shape[2] // 4)
    dense = [nn.Flatten(), nn.Linear(flat, 8), nn.ReLU(), nn.Linear(8, 1)]
    compare = nn.Sequential(*block(2 * shape[0]), *block(width), *dense)

    def scores(support: Any, query: Any) -> Any:
        means = support.view(options.way, options.shot, *support.shape[1:]).mean(dim=1)
        each = (len(query), *means.shape)
        pairs = torch.cat([means[None].expand(each), query[:, None].expand(each)], dim=2)
        return compare(pairs.flatten(0, 1)).view(len(query), options.way)

    return scores


def main(options: Options) -> None:
    """Measure and report."""
    results = []

    def add(name: str, value: float, goal: str | None = None) -> None:
        print(f"{name}: {value:.4g} episodes/s", flush=True)
        results.append(result(name, value, "episodes/s", goal))

    try:
        import torch  # pyright: ignore[reportMissingImports]  # noqa: F401

        rivals = ("prototype", "relation")
    except ImportError:
        print("PyTorch is not installed: its loops are left out")
        rivals = ()
    shares = (options.queries * options.way * count // 75 for count in (35, 70))
    released = fewshot.Transduction(counts=tuple(shares))
    for kind in options.features:
        shape, width = FEATURES[kind]
        drawn = draw(options, shape)
        for name in options.heads:
            if len(shape) == 1 and name in OF_MAPS:
                continue
            cheap = "at least 1000" if name in ("prototype", "matching") else None
            add(f"{kind} {name}", ours(name, options, width, drawn, None), cheap)
            if options.transductive:
                add(f"{kind} {name} transductive", ours(name, options, width, drawn, released))
            if name in rivals:
                add(f"{kind} {name} in PyTorch", rival(name, options, width, drawn))
    report(results, options.json)


if __name__ == "__main__":
    main(tyro.cli(Options))
