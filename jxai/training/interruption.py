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


@contextmanager
def interruption() -> Iterator[Callable[[int], bool]]:
    """While this context is open, SIGTERM does not end the process but is remembered.

    With several processes JAX's coordination service sees the signal (of any of them) and picks a step at
    which all stop. Outside the main thread signals cannot be caught, and SIGTERM ends the process as ever.

    Yields:
        `interrupted(step)`: whether to save and stop now. With several processes each must call it at every
        step.
    """
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        yield multihost_utils.reached_preemption_sync_point
        return
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield lambda step: False
        return

    def remember(number: int, frame: FrameType | None) -> None:
        asked.set()

    before = signal.signal(signal.SIGTERM, remember)
    try:
        yield lambda step: asked.is_set()
    finally:
        # None stands for a handler that was not set from Python and cannot be put back from here.
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
