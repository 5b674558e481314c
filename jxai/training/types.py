"""Types that several files of this package name."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import jax

if TYPE_CHECKING:
    # jax.Device is this class, assigned in a way that type checkers take for a variable.
    from jaxlib._jax import Device as Device
else:
    Device = jax.Device

# Nested dicts, tuples and dataclasses of arrays, as jax.tree sees them.
PyTree = Any

# (variables, one episode or one classification batch, key, step) -> (loss, (new batch statistics, metrics)).
LossFn = Callable[
    [dict[str, PyTree], PyTree, jax.Array, jax.Array], tuple[jax.Array, tuple[PyTree, dict[str, jax.Array]]]
]


class DataIterator(Protocol):
    """An endless or long iterator over batches that can say where it stands and go back there.

    The iterators of `grain.MapDataset` are such; so is anything of one's own with these methods.
    """

    def __next__(self) -> PyTree:
        """The next batch, with leading axis (episodes, ...)."""
        ...

    def get_state(self) -> Any:
        """Where the iterator stands, as something that JSON can hold."""
        ...

    def set_state(self, state: Any) -> None:
        """Goes back to where `get_state` was called."""
        ...
