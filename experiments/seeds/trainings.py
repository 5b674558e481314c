"""One small training: the encoder of a seed as a classifier of base classes, then a head in episodes."""

import functools
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.seeds.variants import NUM_CLASSES, VARIANTS, WIDTH
from jxai import data, fewshot, models

SIDE, WAY = 24, 5
DOMAINS = {
    "latin": "novel",
    "hebrew": "all",
    "thai": "novel",
    "arabic": "all",
    "georgian": "all",
    "fashion": "all",
}
"""Judged domains and which of their classes; the networks learn the base classes of `latin`."""
_BATCH, _QUERIES, _JUDGED_QUERIES = 16, 5, 10
OPTIMIZER = optax.adam(1e-3)
LONGER = {"graph": 4}
"""How many times as many updates a head has, if not once."""
OPTIMIZERS = {
    "graph": optax.chain(OPTIMIZER, optax.masked(optax.scale(3.0), {"encoder": False, "head": True}))
}
"""Of heads that have one of their own: the graph network stays at chance for as long as the encoder outruns it."""
ENCODER = models.encoder("conv4np", image_size=SIDE, width=WIDTH)


class Pictures(NamedTuple):
    """Normalized pictures with their classes.

    Attributes:
        trained: (n, 24, 24, 3).
        labels: (n,).
        source: of both.
        judged: pictures of all domains, one domain after another.
        judged_sources: by domain.
    """

    trained: jax.Array
    labels: jax.Array
    source: data.Source
    judged: np.ndarray
    judged_sources: dict[str, data.Source]


@functools.cache
def pictures() -> Pictures:
    """All of them, read once."""
    base = data.load("latin", split="base")
    sources = {name: data.load(name, split=split) for name, split in DOMAINS.items()}
    judged = np.concatenate([source.array(SIDE) for source in sources.values()])
    return Pictures(jnp.asarray(base.array(SIDE)), jnp.asarray(base.labels), base, judged, sources)


@functools.cache
def pretrained(seed: int, num_steps: int) -> Any:
    """The encoder's variables after it learned the base classes.

    Args:
        seed: of initial values and batches.
        num_steps: updates, of sixteen pictures each.

    Returns:
        {"params", "batch_stats"}.
    """
    shown, key = pictures(), jax.random.key(seed)
    classifier = models.Classifier(ENCODER, num_classes=NUM_CLASSES)
    variables = dict(classifier.init(key, shown.trained[:2], train=False))
    opt_state = OPTIMIZER.init(variables["params"])
    for number in range(num_steps):
        variables, opt_state = _classified(
            classifier, variables, opt_state, jax.random.fold_in(key, number), shown.trained, shown.labels
        )
    return {kind: variables[kind]["encoder"] for kind in ("params", "batch_stats")}


@functools.partial(jax.jit, static_argnums=0)
def _classified(
    classifier: nn.Module, variables: Any, opt_state: Any, key: jax.Array, images: Any, labels: Any
) -> Any:
    rows = jax.random.choice(key, len(images), (_BATCH,), replace=False)

    def loss(params: Any) -> Any:
        given = {**variables, "params": params}
        scores: Any
        scores, changed = classifier.apply(given, images[rows], train=True, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(scores, labels[rows]).mean(), changed

    gradient, changed = jax.grad(loss, has_aux=True)(variables["params"])
    updates, opt_state = OPTIMIZER.update(gradient, opt_state)
    return {"params": optax.apply_updates(variables["params"], updates), **changed}, opt_state


def loss(
    head: fewshot.Head,
    shot: int,
    variables: Any,
    rows: tuple[Any, Any],
    pictures: tuple[jax.Array, jax.Array],
    weights: tuple[Any, Any],
    strength: Any,
    *,
    guided: bool,
    through: bool | None,
) -> tuple[jax.Array, Any]:
    """The loss of an episode; what only weighs may be traced, so that many variants share a program.

    Args:
        head: the head.
        shot: labeled pictures a class.
        variables: of the system.
        rows: the episode's support and query, as numbers of pictures.
        pictures: (N, 24, 24, 3) and their classes (N,).
        weights: (ξ, λ).
        strength: as in `Guidance`.
        guided: whether an explanation is computed.
        through: as in `Guidance`.

    Returns:
        (loss, new batch statistics).
    """
    (support, query), (images, labels) = rows, pictures
    episode = fewshot.Episode(
        images[support],
        jnp.repeat(jnp.arange(WAY), shot),
        images[query],
        jnp.repeat(jnp.arange(WAY), _QUERIES),
        way=WAY,
        query_classes=labels[query],
    )
    both = fewshot.Guidance(1.0, 1.0 if guided else 0.0, strength=strength, through=through)
    _, (statistics, found) = fewshot.guided_loss(ENCODER, head, variables, episode, guidance=both)
    value = weights[0] * found["loss_plain"] + found.get("loss_auxiliary", 0.0)
    return value + (weights[1] * found["loss_guided"] if guided else 0.0), statistics


@functools.partial(jax.jit, static_argnames=("optimizer", "head", "shot", "guided", "through"))
def updated(
    optimizer: Any, head: fewshot.Head, shot: int, variables: Any, opt_state: Any, *of_loss: Any, **how: Any
) -> tuple[Any, Any]:
    """One update; for the other arguments see `loss`.

    Args:
        optimizer: of Optax.
        head: the head.
        shot: labeled pictures a class.
        variables: of the system.
        opt_state: the optimizer's.
        *of_loss: of the loss.
        **how: of the loss.

    Returns:
        (variables, the optimizer's state).
    """

    def of(params: Any) -> Any:
        return loss(head, shot, {**variables, "params": params}, *of_loss, **how)

    gradient, statistics = jax.grad(of, has_aux=True)(variables["params"])
    updates, opt_state = optimizer.update(gradient, opt_state)
    return {"params": optax.apply_updates(variables["params"], updates), "batch_stats": statistics}, opt_state


def trained(name: str, variant: str, shot: int, seed: int, *, num_steps: int, encoder_steps: int) -> Any:
    """One system after all steps; systems of one seed and shot share the encoder's start, and the episodes.

    Args:
        name: of the head.
        variant: one of `VARIANTS`.
        shot: labeled pictures a class.
        seed: of everything.
        num_steps: updates, of one episode each; times `LONGER`.
        encoder_steps: updates before, of the encoder as a classifier.

    Returns:
        The variables.
    """
    shown, how = pictures(), VARIANTS[variant]
    head, optimizer, num_steps = (
        how.of(name),
        OPTIMIZERS.get(name, OPTIMIZER),
        num_steps * LONGER.get(name, 1),
    )
    variables = fewshot.init_variables(ENCODER, head, jax.random.key(seed), image_size=SIDE)
    encoder = pretrained(seed, encoder_steps)
    variables = {kind: {**variables[kind], "encoder": encoder[kind]} for kind in variables}
    opt_state = optimizer.init(variables["params"])
    rows = data.episode_table(
        shown.source, way=WAY, shot=shot, num_query=_QUERIES, seed=seed, repeat=False, num_episodes=num_steps
    )
    plain, guided = how.weights(head, shot)
    for number, row in enumerate(zip(*rows, strict=True)):
        variables, opt_state = updated(
            optimizer,
            head,
            shot,
            variables,
            opt_state,
            row,
            (shown.trained, shown.labels),
            (plain, guided * how.share(number / num_steps)),
            how.guidance.strength,
            guided=how.guided,
            through=how.guidance.through,
        )
    return variables


def judged(
    name: str, variables: Any, shot: int, seed: int, domains: Sequence[str], *, episodes: int
) -> dict[str, list[int]]:
    """Right answers in each episode of each domain; another seed has other episodes, another system the same.

    Args:
        name: of the head.
        variables: what `trained` gave.
        shot: labeled pictures a class.
        seed: the training's.
        domains: some of `DOMAINS`.
        episodes: over all domains together, a multiple of their number.

    Returns:
        {domain: right answers of the `per_episode` queries of each episode}.
    """
    shown, head = pictures(), VARIANTS["plain"].of(name)
    features = fewshot.encode(ENCODER, variables, shown.judged, head=head)
    each = episodes // len(domains)
    support, query, first = [], [], 0
    for domain, source in shown.judged_sources.items():
        if domain in domains:
            drawn = data.episode_table(
                source,
                way=WAY,
                shot=shot,
                num_query=_JUDGED_QUERIES,
                seed=zlib.crc32(f"{domain} {seed}".encode()),
                repeat=False,
                num_episodes=each,
            )
            support.append(drawn[0] + first)
            query.append(drawn[1] + first)
        first += len(source)
    accuracies = fewshot.episode_accuracies(
        head, variables, features, np.concatenate(support), np.concatenate(query), way=WAY
    )
    right = np.rint(accuracies * per_episode()).astype(int).reshape(len(domains), each)
    return {domain: row.tolist() for domain, row in zip(domains, right, strict=True)}


def per_episode() -> int:
    """Queries of a judged episode."""
    return WAY * _JUDGED_QUERIES
