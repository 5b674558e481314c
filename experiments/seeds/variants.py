"""The heads at a small size, and the ways in which guidance is varied."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jxai import fewshot, lrp
from jxai.fewshot import Guidance, Head
from jxai.fewshot.heads.conditioned import Conditioned, vectors

WIDTH, NUM_CLASSES = 32, 24  # of the encoder's maps; base classes of `latin`
CROSS = "cross-attention"
HEADS = ("relation", "graph", CROSS, "prototype", "matching")


def heads() -> dict[str, Head]:
    """By name; the graph network is narrower than as released, the others are as wide as the encoder."""
    return {
        "relation": fewshot.RelationHead(features=WIDTH, nonnegative=True),
        "graph": fewshot.GraphHead(features=64, growth=24, widths=(48, 48, 24, 24)),
        CROSS: fewshot.CrossAttentionHead(num_classes=NUM_CLASSES),
        "prototype": fewshot.PrototypeHead(),
        "matching": fewshot.MatchingHead(),
    }


@dataclasses.dataclass(frozen=True)
class Variant:
    """How one system of a head is trained.

    Attributes:
        about: what it changes, for a table.
        guidance: of the losses.
        scaled: train plainly on the plain loss times both losses' released weights.
        warm_up: share of the training in which the guided loss's weight rises from 0.
        cool_down: share of the training in which it falls to 0 again.
        per_query: weights are normalized by the largest relevance of a whole query, not of each position's channels.
        on_maps: weights are applied to the encoder's map, before its mean over positions.
        only: the heads that it means something for.
    """

    about: str
    guidance: Guidance = Guidance()
    scaled: bool = False
    warm_up: float = 0.0
    cool_down: float = 0.0
    per_query: bool = False
    on_maps: bool = False
    only: tuple[str, ...] = HEADS

    def of(self, name: str) -> Head:
        """The head that it trains; for `name` see `heads`."""
        head = heads()[name]
        if self.on_maps:
            return {"prototype": PrototypeOnMaps, "matching": MatchingOnMaps}[name]()
        if self.per_query:
            kind = {"relation": RelationPerQuery, "graph": GraphPerQuery}[name]
            return kind(**{field: getattr(head, field) for field in _FIELDS[name]})
        return head

    def share(self, done: float) -> float:
        """Of λ that counts when a share of the training, in [0, 1), is done."""
        rising = min(1.0, done / self.warm_up) if self.warm_up else 1.0
        return rising * (min(1.0, (1 - done) / self.cool_down) if self.cool_down else 1.0)

    def weights(self, head: Head, shot: int) -> tuple[float, float]:
        """(ξ, λ) of the head."""
        if self.scaled:
            return sum(Guidance().weights(head, shot)), 0.0
        return self.guidance.weights(head, shot)

    @property
    def guided(self) -> bool:
        """Whether an explanation is computed."""
        return self.guidance.guided_weight != 0


_FIELDS = {"relation": ("features", "nonnegative"), "graph": ("features", "growth", "widths")}
_HELD = tuple(name for name in HEADS if name != CROSS)
_ALONE = Guidance(plain_weight=0.0, guided_weight=1.0)

VARIANTS = {
    "plain": Variant("plain", fewshot.PLAIN),
    "guided": Variant("guided, as released"),
    "scaled": Variant("plain, its loss times ξ + λ", fewshot.PLAIN, scaled=True, only=_HELD),
    "warm-up": Variant("λ rises over the first half", warm_up=0.5),
    "cool-down": Variant("λ falls to 0 over the second half", cool_down=0.5),
    "half": Variant("strength ½", Guidance(strength=0.5)),
    "double": Variant("strength 2", Guidance(strength=2.0)),
    "through": Variant("gradient through w", Guidance(through=True), only=_HELD),
    "held": Variant("w held constant", Guidance(through=False), only=(CROSS,)),
    "alone": Variant("guided loss alone, ξ = 0, λ = 1", _ALONE, only=_HELD),
    "beside": Variant("beside the plain loss, ξ = λ = ½", Guidance(plain_weight=0.5), only=(CROSS,)),
    "per-query": Variant("maximum over a query's whole map", per_query=True, only=("relation", "graph")),
    "on-maps": Variant("w on the map, before its mean", on_maps=True, only=("prototype", "matching")),
}
"""By name."""


def weights_per_query(relevance: jax.Array, *, strength: float) -> jax.Array:
    """1 + t·R / max|R| with the maximum over all but the first axis; 1 where all of R is 0."""
    largest = jnp.max(jnp.abs(relevance), axis=tuple(range(1, relevance.ndim)), keepdims=True)
    return 1 + strength * relevance / jnp.where(largest == 0, 1, largest)


class _PerQuery:
    """Weights are normalized over all but the first axis."""

    def explain(self, variables: Any, explained: Any, scores: jax.Array, *, strength: float = 1.0) -> Any:
        """For the arguments see `Head`."""
        found = super().explain(variables, explained, scores)  # pyright: ignore[reportAttributeAccessIssue]
        return found.replace(weights=weights_per_query(found.relevance, strength=strength))


class RelationPerQuery(_PerQuery, fewshot.RelationHead):
    """RelationNet's head, normalized over all pairs of a query."""


class GraphPerQuery(_PerQuery, fewshot.GraphHead):
    """The graph network's head, normalized over all nodes of a graph."""


class _OnMaps:
    """Queries stay maps until they were weighted; a mean over positions then goes before the scores."""

    def explained(self, episode: fewshot.Episode, train: bool = False) -> Conditioned:
        """For the arguments see `Head`."""
        found = super().explained(episode, train)  # pyright: ignore[reportAttributeAccessIssue]
        return dataclasses.replace(found, features=self.maps(episode.query))

    def scores(self, explained: Conditioned, train: bool = False) -> jax.Array:
        """For the arguments see `Head`."""
        pooled = dataclasses.replace(explained, features=vectors(explained.features))
        return super().scores(pooled, train)  # pyright: ignore[reportAttributeAccessIssue]

    def condense(self, features: jax.Array) -> jax.Array:
        """Maps, as they are; for the arguments see `Head`."""
        return features

    def maps(self, query: jax.Array) -> jax.Array:
        """What of the queries' maps is explained."""
        return query


class PrototypeOnMaps(_OnMaps, fewshot.PrototypeHead):
    """ProtoNet's head, explained down to the queries' maps."""

    @property
    def composite(self) -> lrp.Composite:
        """A mean has the ε of dense layers."""
        return _of_means | super().composite


class MatchingOnMaps(_OnMaps, fewshot.MatchingHead):
    """MatchingNet's head, explained down to the queries' maps."""

    @property
    def composite(self) -> lrp.Composite:
        """A mean has the ε of dense layers."""
        return _of_means | super().composite

    def maps(self, query: jax.Array) -> jax.Array:
        """Divided by the length of their means, so that these have length 1."""
        mean = vectors(query)
        length = jnp.sqrt(jnp.maximum(jnp.sum(mean**2, axis=-1), 1e-12))
        return query / length[:, None, None, None]


_of_means = lrp.Composite(((lrp.Kind.MEAN, lrp.Norm(0.01)),), "means")
