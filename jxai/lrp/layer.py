"""What a rule sees of the model: one call of a Flax module, and the linear map inside it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

# The name of the bias-free copies that compute a linear map: the interceptor lets them through.
LINEAR_COPY = "jxai_linear_copy"


@dataclasses.dataclass(frozen=True)
class Linear:
    """z = map(x, kernel) + bias, with `map` linear in each argument.

    Attributes:
        map: function of (x, kernel) to z without bias.
        kernel: the weights.
        bias: broadcast over the last axis of z, or None.
    """

    map: Callable[[jax.Array, jax.Array], jax.Array]
    kernel: jax.Array
    bias: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class Layer:
    """One call of a module, as `flax.linen.intercept_methods` presents it.

    Attributes:
        module: the bound module.
        x: its first argument.
        forward: calls the module as the model would have, giving its output.
    """

    module: nn.Module
    x: jax.Array
    forward: Callable[[], Any]

    @property
    def path(self) -> str:
        """Where the module stands in the model, such as "encoder/block3/conv1"."""
        return "/".join(self.module.path)

    @property
    def kind(self) -> str:
        """The module's class name."""
        return type(self.module).__name__

    def linear(self) -> Linear:
        """The linear map of a module, whatever its options (strides, padding, groups, ...).

        A module is linear when it has a parameter "kernel" and fields `use_bias` and `dtype`, as Flax's Dense and
        Conv do and a user's own may.

        Returns:
            The map as a `Linear`; its kernel and bias are the module's own.

        Raises:
            ValueError: the module is not a linear one.
        """
        parameters = self.module.variables.get("params", {})
        if "kernel" not in parameters or not all(
            hasattr(self.module, field) for field in ("use_bias", "dtype")
        ):
            raise ValueError(
                f"expected a linear module (parameter 'kernel', fields use_bias and dtype) for this rule, got "
                f"{self.kind} at '{self.path}': give it another rule in the composite, such as lrp.Pass()"
            )
        # Computing in float32 at least keeps ratios exact where a module was told to use bfloat16.
        dtype = jnp.promote_types(self.x.dtype, jnp.float32)
        bias = parameters.get("bias")
        copy = self.module.clone(
            parent=None, name=LINEAR_COPY, use_bias=False, dtype=dtype, _deep_clone=False, _reset_names=False
        )
        return Linear(
            map=lambda x, kernel: copy.apply({"params": {"kernel": kernel}}, x),  # type: ignore[arg-type]
            kernel=jnp.asarray(parameters["kernel"], dtype),
            bias=None if bias is None else jnp.asarray(bias, dtype),
        )
