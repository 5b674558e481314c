"""How Flax modules meet their rules while a model is traced: by interception, with no change to the model."""

import contextlib
import inspect
from collections.abc import Iterator

import flax.linen as nn
import jax.numpy as jnp

from jxai.lrp.composites import Composite
from jxai.lrp.layer import LINEAR_COPY, Layer

# Flax's own modules that hold other modules, or leave values as they are at explanation time.
_TRANSPARENT = (nn.Sequential, nn.Dropout)


@contextlib.contextmanager
def rules_of(composite: Composite) -> Iterator[None]:
    """Within this context, modules called by the current thread are computed by their rules.

    Args:
        composite: the rules. A module of Flax's own without a rule is refused; a user's module without one is
            looked into.

    Yields:
        Nothing.

    Raises:
        ValueError: (when the model is called) a Flax module has no rule in the composite.
    """

    def interceptor(next_fun, args, kwargs, context):
        module = context.module
        if context.method_name != "__call__" or module.name == LINEAR_COPY or not (args or kwargs):
            return next_fun(*args, **kwargs)
        rule = composite.rule(module)
        if rule is not None:
            # Inputs that only stand for an array are written out: relevance is that of the array's entries.
            x = next(iter(inspect.signature(context.orig_method).bind(*args, **kwargs).arguments.values()))
            return rule(Layer(module, jnp.asarray(x), lambda: next_fun(*args, **kwargs)))
        if type(module).__module__.startswith("flax.") and not isinstance(module, _TRANSPARENT):
            kind, path = type(module).__name__, "/".join(module.path)
            known = ", ".join(sorted({type(rule).__name__ for _, rule in composite.rules}))
            raise ValueError(
                f"expected a rule for every Flax module, got none for {kind} at '{path}' in "
                f"{composite.name} (which has {known}): put one in front, for example "
                f"lrp.Composite(((nn.{kind}, lrp.Pass()),)) | {composite.name}"
            )
        return next_fun(*args, **kwargs)

    with nn.intercept_methods(interceptor):
        yield
