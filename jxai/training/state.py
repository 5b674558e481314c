"""What training changes from step to step, in one immutable structure."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jxai.checks import check_key, shown
from jxai.errors import InputError, InputTypeError
from jxai.training.types import PyTree


@flax.struct.dataclass
class TrainState:
    """Everything a training step reads and writes; the step itself is a pure function of it.

    Attributes:
        step: updates made so far, () int32.
        params: what the optimizer changes.
        batch_stats: running averages of the batch norms; {} where the model has none.
        opt_state: state of the Optax optimizer.
        key: the run's random key. It never changes: a step folds the number of each episode into it.
    """

    step: jax.Array
    params: PyTree
    batch_stats: PyTree
    opt_state: optax.OptState
    key: jax.Array

    @classmethod
    def create(cls, key: jax.Array, variables: Any, *, optimizer: optax.GradientTransformation) -> Self:
        """State before the first step.

        Args:
            key: `jax.random.key` of the run.
            variables: what a Flax module's `init` returned: "params" and, where the model has batch norms,
                "batch_stats". They are kept, not copied, and never altered.
            optimizer: the Optax optimizer that `make_step` is given as well.

        Returns:
            A state at step 0.

        Raises:
            TypeError: no random key, variables or optimizer.
            ValueError: `variables` has no "params", or a collection that training would lose.
        """
        check_key(key)
        if not isinstance(variables, Mapping) or not hasattr(optimizer, "init"):
            raise InputTypeError(
                f"expected variables and an Optax optimizer, got {shown(variables)} and {shown(optimizer)}: make them"
            )
        if "params" not in variables:
            raise InputError(
                f'expected `variables` with "params", got {sorted(variables)}: pass what `init` returned'
            )
        unknown = sorted(set(variables) - {"params", "batch_stats"})
        if unknown:
            raise InputError(
                f'expected `variables` of "params" and "batch_stats", got {unknown} as well: '
                "a step keeps no other collection, so remove it or put it into the loss function"
            )
        params = variables["params"]
        return cls(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=variables.get("batch_stats", {}),
            opt_state=optimizer.init(params),
            key=key,
        )

    @property
    def variables(self) -> dict[str, PyTree]:
        """What a Flax module's `apply` takes: {"params": ..., "batch_stats": ...}."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def to_host(state: TrainState) -> dict[str, PyTree]:
    """A state as numpy arrays in a dict; the key as its data, since not every format can hold typed keys."""
    tree = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return jax.tree.map(np.asarray, jax.device_get({**tree, "key": jax.random.key_data(state.key)}))
