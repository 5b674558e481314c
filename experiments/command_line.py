"""Running a script's `main` from the command line: typed options in, one clear line where the input is wrong."""

import sys
from collections.abc import Callable
from typing import Any

import tyro

from jxai import training

# What the library raises for wrong input, with a message that begins so; anything else keeps its traceback.
_BEGINNING = "expected "
_WRONG_INPUT = (ValueError, TypeError, FileNotFoundError, training.DivergedError)


def run(main: Callable[[Any], None], options: Any) -> None:
    """Parse the command line and call `main`.

    Args:
        main: takes the options.
        options: their dataclass.
    """
    guarded(lambda: main(tyro.cli(options)))


def guarded(main: Callable[[], None]) -> None:
    """Call `main`; wrong input ends the process with status 2 and its message."""
    try:
        main()
    except _WRONG_INPUT as error:
        if not str(error).startswith(_BEGINNING):
            raise
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        raise SystemExit(2) from error
