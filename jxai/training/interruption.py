"""Being asked to stop: SIGTERM, and the preemption notice of a cluster."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import jax


class Interrupted(SystemExit):
    """Training was asked to stop and has saved; uncaught, the process exits with 143, as after SIGTERM."""

    def __init__(self, step: int) -> None:
        super().__init__(128 + signal.SIGTERM)
        self.step = step

    def __str__(self) -> str:
        return f"interrupted by SIGTERM at step {self.step}"


class Abandoned(BaseException):
    """Raised in work that SIGTERM need not wait for; never leaves `fit`."""


class Watch:
    """Tells whether to save and stop now; made by `interruption`.

    Attributes:
        came: whether this process was sent SIGTERM.
    """

    def __init__(self, agreed: Callable[[int], bool] | None = None) -> None:
        self.came, self._giving_up, self._agreed = False, False, agreed

    def __call__(self, step: int) -> bool:
        """Whether to save and stop after so many steps. With several processes each must ask at every step."""
        return self.came if self._agreed is None else self._agreed(step)

    @contextmanager
    def give_up(self) -> Iterator[None]:
        """What SIGTERM ends at once, with `Abandoned`; with several processes it waits for the next step."""
        self._giving_up = True
        try:
            if self.came:
                raise Abandoned
            yield
        finally:
            self._giving_up = False

    def remember(self, number: int, frame: FrameType | None) -> None:
        """The handler of the signal."""
        self.came = True
        if self._giving_up:
            raise Abandoned


@contextmanager
def interruption() -> Iterator[Watch]:
    """While this context is open, SIGTERM does not end the process but is remembered.

    With several processes JAX's coordination service sees the signal (of any of them) and picks a step at
    which all stop. Outside the main thread signals cannot be caught, and SIGTERM ends the process as ever.

    Yields:
        What tells whether it came.
    """
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        yield Watch(multihost_utils.reached_preemption_sync_point)
        return
    watch = Watch()
    if threading.current_thread() is not threading.main_thread():
        yield watch
        return
    before = signal.signal(signal.SIGTERM, watch.remember)
    try:
        yield watch
    finally:
        # None stands for a handler that was not set from Python and cannot be put back from here.
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
