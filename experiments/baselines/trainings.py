"""Encoders trained as classifiers, heads trained in episodes, and what judges both on the same episodes."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jxai import data, fewshot, models
from jxai.fewshot.heads.conditioned import vectors

SIDE, WAY, QUERIES, BATCH = 32, 5, 8, 16
GUIDED = {"plain": fewshot.PLAIN, "guided": fewshot.Guidance(guided_weight=1.0)}
"""Pretraining: cross-entropy, and with it that of the pooled features weighted by their own relevance."""
_OPTIMIZER = optax.adam(1e-3)


class Classes(fewshot.Head):
    """A dense layer on pooled features, for any number of classes; it looks at the queries alone.

    Attributes:
        num_classes: how many.
    """

    num_classes: int = 2

    def setup(self):
        """Declare the layer."""
        self.layer = nn.Dense(self.num_classes)

    def explained(self, episode: fewshot.Episode, train: bool = False) -> jax.Array:
        """Pooled features of the queries; for the arguments see `fewshot.Head`."""
        return vectors(episode.query)

    def scores(self, explained: jax.Array, train: bool = False) -> jax.Array:
        """Scores of all classes; for the arguments see `fewshot.Head`."""
        return self.layer(explained)


class Scorer(fewshot.Head):
    """A function of an episode as a head, so that it is judged like one.

    Attributes:
        function: from an episode of vectors to scores (queries, way).
    """

    function: Callable[..., jax.Array] = fewshot.nearest_centroid

    def explained(self, episode: fewshot.Episode, train: bool = False) -> fewshot.Episode:
        """The episode; for the arguments see `fewshot.Head`."""
        return episode

    def scores(self, explained: fewshot.Episode, train: bool = False) -> jax.Array:
        """What the function gives; for the arguments see `fewshot.Head`."""
        return self.function(explained)


def encoder_of(width: int) -> nn.Module:
    """The encoder.

    Args:
        width: channels of its blocks.

    Returns:
        Conv4NP for pictures of 32 pixels.
    """
    return models.encoder("conv4np", image_size=SIDE, width=width)


@functools.cache
def _step(width: int, head: fewshot.Head, guidance: fewshot.Guidance) -> Callable:
    """One update; compiled once for all seeds."""
    encoder = encoder_of(width)

    @jax.jit
    def step(variables: Any, state: Any, episode: fewshot.Episode) -> tuple[Any, Any, Any]:
        def loss(params: Any) -> Any:
            given = {**variables, "params": params}
            return fewshot.guided_loss(encoder, head, given, episode, guidance=guidance)

        gradient, (statistics, metrics) = jax.grad(loss, has_aux=True)(variables["params"])
        updates, state = _OPTIMIZER.update(gradient, state, variables["params"])
        params = optax.apply_updates(variables["params"], updates)
        return {"params": params, "batch_stats": statistics}, state, metrics

    return step


def _trained(width: int, head: Any, guidance: Any, variables: Any, episodes: Any, num_steps: int) -> Any:
    """Variables after all steps, which are called from Python: `lax.scan` is slow with convolutions on a CPU."""
    step, state = _step(width, head, guidance), _OPTIMIZER.init(variables["params"])
    metrics: dict[str, Any] = {}
    for number in range(num_steps):
        variables, state, metrics = step(variables, state, episodes(number))
    if metrics and not np.isfinite(metrics["loss"]):
        raise FloatingPointError(f"expected a finite loss after {num_steps} steps, got {metrics['loss']}")
    return variables


def pretrained(source: data.Source, kind: str, seed: int, *, width: int, num_steps: int) -> Any:
    """An encoder as a classifier of a source's classes.

    Args:
        source: base classes.
        kind: one of `GUIDED`.
        seed: of initial values and of batches, the same for both kinds.
        width: of the encoder.
        num_steps: updates, of sixteen pictures each.

    Returns:
        The encoder's {"params", "batch_stats"}.
    """
    head = Classes(len(source.class_names))
    batches = data.classification_dataset(source, batch_size=BATCH, seed=seed, image_size=SIDE)

    def episode(number: int) -> fewshot.Episode:
        batch: Any = batches[number]
        images, labels = batch["image"], batch["label"]
        return fewshot.Episode(images[:0], labels[:0], images, labels, way=head.num_classes)

    start = fewshot.init_variables(encoder_of(width), head, jax.random.key(seed), image_size=SIDE)
    return fewshot.part(_trained(width, head, GUIDED[kind], start, episode, num_steps), "encoder")


def trained(
    source: data.Source,
    head: fewshot.Head,
    kind: str,
    encoder: Any,
    seed: int,
    *,
    shot: int,
    width: int,
    num_steps: int,
) -> Any:
    """An encoder and a head, trained in episodes.

    Args:
        source: base classes.
        head: the head.
        kind: "plain", or "guided" by the head's own weights of the losses.
        encoder: what `pretrained` gave.
        seed: of the head's initial values and of the episodes, the same for both kinds.
        shot: supports a class.
        width: of the encoder.
        num_steps: updates, of an episode each.

    Returns:
        Variables of both, see `fewshot.init_variables`.
    """
    episodes = data.episode_dataset(source, way=WAY, shot=shot, num_query=QUERIES, seed=seed, image_size=SIDE)
    start = fewshot.init_variables(encoder_of(width), head, jax.random.key(seed), image_size=SIDE)
    start = {part: {**tree, "encoder": encoder.get(part, {})} for part, tree in start.items()}
    guidance = fewshot.PLAIN if kind == "plain" else fewshot.Guidance()
    return _trained(
        width,
        head,
        guidance,
        start,
        lambda number: jax.tree.map(lambda leaf: leaf[0], episodes[number]),
        num_steps,
    )


def features_of(encoder: Any, source: data.Source, *, width: int) -> jax.Array:
    """Pooled features of all of a source's pictures.

    Args:
        encoder: its {"params", "batch_stats"}.
        source: the pictures.
        width: of the encoder.

    Returns:
        (n, width).
    """
    variables = {part: {"encoder": tree, "head": {}} for part, tree in encoder.items()}
    pictures: Any = source.normalized(SIDE)
    return fewshot.encode(encoder_of(width), variables, pictures, head=fewshot.PrototypeHead())


def fine_tuned(
    encoder: Any,
    source: data.Source,
    support: np.ndarray,
    query: np.ndarray,
    *,
    width: int,
    scale: float | None,
) -> np.ndarray:
    """Accuracies of an encoder that is fine-tuned on each episode's support.

    Args:
        encoder: its {"params", "batch_stats"}.
        source: the pictures.
        support: as numbers of pictures, (episodes, way·shot), class by class.
        query: likewise, (episodes, way·queries).
        width: of the encoder.
        scale: as in `fewshot.fine_tuned_scores`.

    Returns:
        (episodes,).
    """
    variables = {part: {"encoder": tree} for part, tree in encoder.items()}
    pictures, accuracies = source.array(SIDE), []
    labels, expected = (np.repeat(np.arange(WAY), rows.shape[1] // WAY) for rows in (support, query))
    given: Any
    for of_support, of_query in zip(support, query, strict=True):
        given = pictures[of_support], labels, pictures[of_query]
        episode = fewshot.Episode(*given, way=WAY)
        scores = fewshot.fine_tuned_scores(encoder_of(width), variables, episode, scale=scale)
        accuracies.append(np.mean(np.argmax(scores, axis=-1) == expected))
    return np.array(accuracies)


def center_of(features: jax.Array) -> jax.Array:
    """SimpleShot's center: the mean feature of the base classes' pictures, (width,)."""
    return jnp.mean(features, axis=0)
