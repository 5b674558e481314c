"""From a configuration to its encoder, head and sources."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jxai import data, fewshot, models
from jxai.cli.fewshot.configs import HEADS, Config
from jxai.errors import InputError
from jxai.fewshot import Head


def build(config: Config, *, num_classes: int | None = None) -> tuple[nn.Module, Head]:
    """The configuration's encoder and head.

    Args:
        config: the configuration.
        num_classes: base classes of all sources together, for what is learnt of them in training; None to evaluate.

    Returns:
        (encoder, head).

    Raises:
        ValueError: unknown encoder or head, images too small for the encoder, or a map too small for the head.
    """
    if config.head not in HEADS:
        raise InputError(f"expected a head among {', '.join(HEADS)}, got {config.head!r}: choose one of them")
    options: dict[str, Any] = {"width": config.width}
    if config.encoder.startswith("resnet"):
        options = {"widths": tuple(config.width * 2**stage for stage in range(4)), "stem_width": config.width}
    encoder = models.encoder(config.encoder, image_size=config.image_size, **options)
    side = _map_side(encoder, config.image_size)
    match config.head:
        case "relation":
            if side < 4:
                raise InputError(
                    f"expected a feature map of at least 4x4 for the head's two poolings, got {side}x{side} "
                    f"from {config.encoder} at {config.image_size} pixels: take an encoder that pools less, "
                    "such as conv4np"
                )
            # As released: the head pads maps below 10x10. All encoders end in a ReLU.
            head = fewshot.RelationHead(
                features=config.head_width, padding=1 if side < 10 else 0, nonnegative=True
            )
        case "graph":
            head = fewshot.GraphHead(way=config.way)
        case "cross-attention":
            head = fewshot.CrossAttentionHead(num_classes=num_classes)
        case "prototype":
            head = fewshot.PrototypeHead()
        case "matching":
            head = fewshot.MatchingHead()
        case _:
            head = fewshot.FEATHead()
    return encoder, head


def episode_loss(config: Config, encoder: Any, head: Any, transformation: Any) -> Any:
    """The loss of an episode, or of a pair of them where a transformation is learned.

    Args:
        config: the configuration.
        encoder: what `build` made.
        head: the same.
        transformation: variables of the transformation, {} where there is none.

    Returns:
        A function that `training.make_step` takes.
    """
    if config.transformation == "learned":
        return fewshot.learned_transformation_loss(
            encoder,
            head,
            learning_rate=config.optimizer.learning_rate,
            guidance=config.guidance,
            num_steps=config.steps,
        )
    if config.transformation == "fixed" or config.auxiliary:
        return fewshot.transformed_loss(
            encoder, head, transformation=transformation, guidance=config.guidance, num_steps=config.steps
        )

    def loss(variables: Any, episode: fewshot.Episode, key: jax.Array, step: jax.Array) -> Any:
        del key, step  # nothing is drawn, and nothing decays
        return fewshot.guided_loss(
            encoder,
            head,
            variables,
            episode,
            guidance=config.guidance,
            train_encoder=config.train_encoder,
        )

    return loss


def load_sources(names: Sequence[str], split: str, *, short_side: int | None = None) -> list[data.Source]:
    """One split of every domain; for `short_side` see `data.prepare`."""
    return [load_domain(name, split, short_side=short_side) for name in names]


DOMAIN_CHOICES = (*data.DOMAINS, *data.PAPER_DOMAINS, "tfds:NAME", "a folder of class folders")
"""What `load_for_evaluation` takes, for people."""


def load_for_evaluation(config: Config, name: str) -> data.Source:
    """The classes that a domain is judged by: the novel ones of the papers' data sets and of what training drew from.

    Of another domain all classes are judged.
    """
    sources = {Path(source).resolve() for source in config.sources}
    novel = name in data.PAPER_DOMAINS or Path(name).resolve() in sources
    return load_domain(name, "novel" if novel else "all", short_side=config.short_side)


def load_domain(name: str, split: str, *, short_side: int | None = None) -> data.Source:
    """A domain by its name, as `data.load` takes it, or a folder of class folders by its path.

    Embedded domains and folders have one size: `short_side` is for those that are prepared.
    """
    if name in data.DOMAINS:
        return data.load(name, split=split)
    if name not in data.PAPER_DOMAINS and Path(name).is_dir():
        return data.load_folder(name, split=split)
    return data.load(name, split=split, short_side=short_side)


def _map_side(encoder: nn.Module, image_size: int) -> int:
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    (features, _) = jax.eval_shape(
        lambda x: encoder.init_with_output(jax.random.key(0), x, train=False), images
    )
    return features.shape[1]
