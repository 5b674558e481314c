"""Being asked to stop: SIGTERM, Ctrl-C, and the preemption notice of a cluster."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import jax


class Interrupted(SystemExit):
    """Training was asked to stop and has saved.

    Uncaught, the process exits with 143 or 130, as after SIGTERM or Ctrl-C.

    Attributes:
        step: the number of updates that are saved.
        signal: which signal came.
    """

    def __init__(self, step: int, number: int = signal.SIGTERM) -> None:
        super().__init__(128 + number)
        self.step, self.signal = step, signal.Signals(number)

    def __str__(self) -> str:
        return f"interrupted by {self.signal.name} at step {self.step}"


class Abandoned(BaseException):
    """Raised in work that a signal need not wait for; never leaves `fit`."""


class Watch:
    """Tells whether to save and stop now; made by `interruption`.

    Attributes:
        signal: what this process was sent; None before.
    """

    def __init__(self, agreed: Callable[[int], bool] | None = None) -> None:
        self.signal: int | None = None
        self._giving_up, self._agreed = False, agreed

    def __call__(self, step: int) -> bool:
        """Whether to save and stop after so many steps. With several processes each must ask at every step."""
        return self.signal is not None if self._agreed is None else self._agreed(step)

    def ended(self, step: int) -> Interrupted:
        """What to raise once everything of so many steps is saved."""
        return Interrupted(step, signal.SIGTERM if self.signal is None else self.signal)

    @contextmanager
    def give_up(self) -> Iterator[None]:
        """What a signal ends at once, with `Abandoned`; with several processes it waits for the next step."""
        self._giving_up = True
        try:
            if self.signal is not None:
                raise Abandoned
            yield
        finally:
            self._giving_up = False

    def remember(self, number: int, frame: FrameType | None) -> None:
        """The handler of the signals; who presses Ctrl-C again does not want to wait."""
        if self.signal == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
        if self._giving_up:
            raise Abandoned


@contextmanager
def interruption(*, saves: bool = True) -> Iterator[Watch]:
    """While this context is open, SIGTERM and Ctrl-C do not end the process but are remembered.

    With several processes JAX's coordination service sees the signal (of any of them) and picks a step at
    which all stop. Outside the main thread signals cannot be caught, and they end the process as ever.

    Args:
        saves: whether anything will be saved; else Ctrl-C is a KeyboardInterrupt as ever.

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
    numbers = [signal.SIGTERM]
    # Who has Ctrl-C ignored, or another handler for it, means that.
    if saves and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        numbers.append(signal.SIGINT)
    before = {number: signal.signal(number, watch.remember) for number in numbers}
    try:
        yield watch
    finally:
        for number, handler in before.items():
            # None stands for a handler that was not set from Python and cannot be put back from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
