"""FEAT's head: prototypes adapted to one another by self-attention; a query belongs to the nearest of them.

Ye, Hu, Zhan and Sha, *Few-Shot Learning via Embedding Adaptation with Set-to-Set Functions*, 2020.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.initializers import variance_scaling

from jxai import lrp
from jxai.checks import check_number
from jxai.fewshot.episode import Episode
from jxai.fewshot.heads.conditioned import Conditioned, vectors
from jxai.fewshot.heads.head import class_means
from jxai.fewshot.heads.prototype import PrototypeHead
from jxai.models.layers import check_fields

# Normal with standard deviation √(2 / (in + out)), as released.
_init = variance_scaling(1.0, "fan_avg", "normal")


class Adaptation(nn.Module):
    """One layer of self-attention with a residual and layer normalization."""

    @nn.compact
    def __call__(self, x: jax.Array, together: jax.Array | None = None) -> jax.Array:
        """The adapted set.

        Args:
            x: a set of vectors, (n, C).
            together: which of them see one another, (n, n) bool; None for all.

        Returns:
            (n, C), in the order of the set.
        """
        width = x.shape[-1]
        query, key, value = (
            nn.Dense(width, use_bias=False, kernel_init=_init, name=name)(x)
            for name in ("query", "key", "value")
        )
        logits = query @ key.T / width**0.5
        if together is not None:
            logits = jnp.where(together, logits, -jnp.inf)
        mixed = nn.Dense(width, kernel_init=_init, name="out")(nn.softmax(logits) @ value)
        return nn.LayerNorm(epsilon=1e-5, name="norm")(x + mixed)


class FEATHead(PrototypeHead):
    """The prototypical network's scores by adapted prototypes, over a temperature.

    In training the paper's contrastive loss joins: each class's supports and queries are adapted among themselves,
    and all of them shall be nearest to the mean of their own class. The release's dropout is left out.

    Nobody has published how to guide this head; it is our choice. What is explained, and weighted, is the query's
    features, as in `PrototypeHead`; the adapted prototypes are constant. Where relevance is asked for down to the
    supports (`lrp.vjp` with the head's `composite`), attention's weights are constant, as the cross-attention head's.

    Attributes:
        temperature: distances are divided by it; 64 as released.
        contrast: weight of the contrastive loss, 0.1 as released for 5 shots; None for none.
        contrast_temperature: of its distances; 32 as released for 5 shots.
    """

    temperature: float = 64.0
    contrast: float | None = 0.1
    contrast_temperature: float = 32.0

    def setup(self):
        """Declare the adaptation."""
        check_fields(self)
        if self.contrast is not None:
            check_number("contrast", self.contrast, above=0)
        self.adaptation = Adaptation()

    @property
    def composite(self) -> lrp.Composite:
        """The release's rules, attention's weights held constant."""
        return lrp.Composite(((lrp.attention_weights, lrp.Constant()),), "FEAT") | lrp.sun2020

    def explained(self, episode: Episode, train: bool = False) -> Conditioned:
        """The queries (queries, C) beside the adapted prototypes (way, C); for the arguments see `Head`."""
        plain = super().explained(episode, train)
        return Conditioned(plain.features, self.adaptation(plain.context))

    def scores(self, explained: Conditioned, train: bool = False) -> jax.Array:
        """(2p·q − ‖p‖²) / temperature; for the arguments see `Head`."""
        return super().scores(explained, train) / self.temperature

    def auxiliary_loss(self, explained: Conditioned, episode: Episode) -> jax.Array | None:
        """The contrastive loss; for the arguments see `Head`."""
        if self.contrast is None:
            return None
        labels: Any = episode.query_labels
        images = jnp.concatenate([vectors(x, pool=self.pool) for x in (episode.support, episode.query)])
        classes = jnp.concatenate([episode.support_labels, labels])
        adapted = self.adaptation(images, classes[:, None] == classes[None])
        centers = class_means(adapted, classes, episode.way)
        scores = super().scores(Conditioned(images, centers)) / self.contrast_temperature
        return self.contrast * self.loss(scores, classes)
