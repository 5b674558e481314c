"""Which checkpoints stay, as Orbax asks."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class KeepBest:
    """The best checkpoint stays.

    Attributes:
        best_step: says which it is.
    """

    best_step: Callable[[], int | None]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """One answer a checkpoint."""
        del context  # of Orbax's, empty
        return [info.step == self.best_step() for info in checkpoints]
