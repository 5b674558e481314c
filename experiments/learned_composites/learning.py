"""A composite's numbers, learned by Adam or searched on a grid, on the same objective of the same pictures.

Everything takes the network's parameters, so that one compilation serves the networks of all seeds.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jxai import guidance, lrp

Scores = Callable[[Any, jax.Array], jax.Array]
Values = dict[str, dict[str, Any]]
_LAYERS = (lrp.Kind.CONVOLUTION, lrp.Kind.DENSE)


class Pictures(NamedTuple):
    """Inputs in [0, 1], (n, H, W, C), and the classes explained, (n,)."""

    x: jax.Array
    target: jax.Array


class Subject(NamedTuple):
    """A network and what it is asked.

    Attributes:
        params: the network's.
        tuned: the same network's, tuned on random masks.
        learned: what the composite is learned on, of the pictures that the network has learned.
        held: what nothing was learned on.
    """

    params: Any
    tuned: Any
    learned: Pictures
    held: Pictures


def everywhere(rule: lrp.Rule) -> lrp.Composite:
    """The rule in all layers."""
    return lrp.Composite(tuple((kind, rule) for kind in _LAYERS))


PRESETS: Mapping[str, lrp.Composite] = {
    "ε = 0.1": everywhere(lrp.Epsilon(0.1)),
    "γ = 0.25": everywhere(lrp.Gamma(0.25)),
    "EpsilonPlus": lrp.EpsilonPlus(),
    "EpsilonAlpha2Beta1": lrp.EpsilonAlpha2Beta1(),
    "EpsilonGammaBox": lrp.EpsilonGammaBox(low=0.0, high=1.0),
}
_EPSILONS = (0.001, 0.01, 0.1, 1.0)


@dataclasses.dataclass(frozen=True)
class Family:
    """Composites that differ in their numbers alone.

    Attributes:
        preset: their rules.
        grid: by field, the values that all layers get alike in the search.
    """

    preset: lrp.Composite
    grid: Mapping[str, Sequence[float]]

    def candidates(self, values: Values) -> list[Values]:
        """The trees of the grid."""
        found = []
        for numbers in itertools.product(*self.grid.values()):
            given = dict(zip(self.grid, numbers, strict=True))
            found.append(
                {place: {name: given.get(name, of[name]) for name in of} for place, of in values.items()}
            )
        return jax.tree.map(lambda value: jnp.asarray(value, jnp.float32), found)


_EPSILONS = (0.01, 0.1, 1.0)
FAMILIES: Mapping[str, Family] = {
    "z^B, γ": Family(
        lrp.EpsilonGammaBox(low=0.0, high=1.0),
        {"gamma": (0.1, 0.25, 0.5, 1.0, 2.0, 4.0), "epsilon": _EPSILONS},
    ),
    "αβ": Family(lrp.EpsilonAlpha2Beta1(), {"beta": (0.02, 0.25, 0.5, 1.0), "epsilon": _EPSILONS}),
}
_SHARES = (0.1, 0.3, 0.6)


class Learned(NamedTuple):
    """What learning finds.

    Attributes:
        values: the tree after the last step at which the objective and its gradient were finite.
        objective: before each such step.
    """

    values: Values
    objective: list[float]


class Learner:
    """A family's compiled functions for one network's architecture."""

    def __init__(
        self, scores: Scores, subject: Subject, family: Family, *, learning_rate: float, num_steps: int
    ):
        def f(x: jax.Array) -> jax.Array:
            return scores(subject.params, x)

        self.values, composed = lrp.rule_parameters(f, subject.held.x[:1], composite=family.preset)
        self.candidates = family.candidates(self.values)
        self._num_steps = num_steps
        self._optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps))

        def explain(params: Any, values: Values, pictures: Pictures) -> jax.Array:
            return heatmaps(scores, params, composed(values), pictures)

        def of_values(params: Any, values: Values, pictures: Pictures) -> jax.Array:
            return objective(scores, params, explain(params, values, pictures), pictures)

        def of_logs(logs: Values, params: Any, pictures: Pictures) -> jax.Array:
            # An exponential is above 0, and a step's size a share of the number.
            return of_values(params, jax.tree.map(jnp.exp, logs), pictures)

        def step(
            logs: Values, state: Any, params: Any, pictures: Pictures
        ) -> tuple[Values, Any, jax.Array, jax.Array]:
            value, slope = jax.value_and_grad(of_logs)(logs, params, pictures)
            updates, state = self._optimizer.update(slope, state)
            good = jnp.isfinite(jnp.stack([value, *jax.tree.leaves(slope)])).all()
            return optax.apply_updates(logs, updates), state, value, good  # type: ignore[return-value]

        self.explain = jax.jit(explain)
        self.objective = jax.jit(of_values)
        self._step = jax.jit(step)

    def learn(self, params: Any, values: Values, pictures: Pictures, *, seed: int, batch: int) -> Learned:
        """Adam on the logarithms; NaN stops it, and what was good before stands.

        Args:
            params: of the network.
            values: where it starts, above 0: what is 0 stays 0.
            pictures: what batches are drawn from.
            seed: of the draws.
            batch: pictures a step.

        Returns:
            The numbers.
        """
        draws = np.random.default_rng(seed)
        logs = jax.tree.map(jnp.log, values)
        state, told = self._optimizer.init(logs), []
        for _ in range(self._num_steps):
            rows = draws.choice(len(pictures.x), min(batch, len(pictures.x)), replace=False)
            moved, state, value, good = self._step(
                logs, state, params, Pictures(*(of[rows] for of in pictures))
            )
            if not good:
                break
            logs, told = moved, [*told, float(value)]
        return Learned(jax.tree.map(jnp.exp, logs), told)

    def search(self, params: Any, pictures: Pictures) -> Values:
        """The candidate with the least objective.

        Args:
            params: of the network.
            pictures: all of them count.

        Returns:
            The numbers.
        """
        found = [float(self.objective(params, values, pictures)) for values in self.candidates]
        return self.candidates[int(np.nanargmin(found))]


def heatmaps(scores: Scores, params: Any, composite: lrp.Composite, pictures: Pictures) -> jax.Array:
    """Relevance of pixels, (n, H, W)."""
    relevance = lrp.relevance(lambda x: scores(params, x), pictures.x, pictures.target, composite=composite)
    return relevance.sum(axis=-1)


def objective(scores: Scores, params: Any, maps: jax.Array, pictures: Pictures) -> jax.Array:
    """What is learned on: the score that stays without what is relevant, less that of it alone."""
    unfaithful = guidance.unfaithfulness(
        lambda x: scores(params, x), pictures.x, maps, pictures.target, shares=_SHARES
    )
    return unfaithful.mean()
