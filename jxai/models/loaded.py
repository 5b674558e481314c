"""A model with its weights and its tokenizer, as one value that goes into `jax.jit`."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax

from jxai.models.weights import WeightsReport


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Loaded:
    """A module, its variables, what reads text for it, and where the variables came from.

    It is a pytree whose leaves are the variables: hand it to a jitted function as an argument, not by a closure, so
    that XLA takes the weights as data and not as constants that it folds for seconds.

    Example:
        >>> import jax.numpy as jnp
        >>> from jxai.models import Loaded, WeightsReport
        >>> module = nn.Dense(2)
        >>> variables = module.init(jax.random.key(0), jnp.ones((1, 3)))
        >>> model = Loaded(module, variables, None, WeightsReport((), (), ()))
        >>> jax.jit(lambda model, x: model(x))(model, jnp.ones((1, 3))).shape
        (1, 2)

    Attributes:
        module: Linen module.
        variables: its variables.
        tokenizer: a `tokenizers.Tokenizer`, or None where the model reads no text or the file has none.
        report: what became of every tensor of the file.
    """

    module: nn.Module = dataclasses.field(metadata={"static": True})
    variables: Any
    tokenizer: Any = dataclasses.field(metadata={"static": True})
    report: WeightsReport = dataclasses.field(metadata={"static": True})

    def embed(self, ids: jax.Array) -> jax.Array:
        """Embeddings (N, T, C) of tokens (N, T), before positions."""
        return self.apply(ids, method="embed")

    def encode(self, x: jax.Array, mask: jax.Array | None = None, *args: Any) -> jax.Array:
        """Hidden states (N, T, C) of embeddings (N, T, C), where a mask (N, T) is true."""
        return self.apply(x, mask, *args, method="encode")

    def unembed(self, hidden: jax.Array) -> jax.Array:
        """Scores (..., V) of hidden states (..., C)."""
        return self.apply(hidden, method="unembed")

    def apply(self, *args: Any, method: str = "__call__", **options: Any) -> Any:
        """A method of the module with its variables, such as "sentence" or "pool" of an encoder.

        Args:
            *args: the method's.
            method: its name.
            **options: the method's.

        Returns:
            What it returns.
        """
        return self.module.apply(self.variables, *args, method=method, **options)

    def __call__(self, *args: Any, **options: Any) -> Any:
        """What the module itself gives, such as scores (N, T, V) of tokens (N, T)."""
        return self.apply(*args, **options)
