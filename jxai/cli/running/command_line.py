"""Running a script's `main` from the command line: typed options in, one clear line where the input is wrong."""

import signal
import sys
from collections.abc import Callable, Iterable
from typing import Any

import jax

from jxai import training
from jxai.checks import printable
from jxai.cli.running import threads
from jxai.cli.running.compilation_cache import keep_compiled_programs
from jxai.errors import InputError

# Wrong input, what the system refuses (full disks, missing files), too little memory; the rest keeps its traceback.
_WRONG_INPUT = (InputError, OSError, MemoryError, training.DivergedError)


def run(
    main: Callable[[Any], None], options: Any, *, about: str | None = None, explains: bool = False
) -> None:
    """Parse the command line and call `main`.

    Args:
        main: takes the options.
        options: their dataclass.
        about: how the help begins; by default with the docstring of `options`.
        explains: keep all bits of float32 in products, as explanations need (`docs/precision.md`). Accelerators
            round otherwise; `JAX_DEFAULT_MATMUL_PRECISION` still wins. And use all cores.
    """
    import tyro  # what others take from a command's file shall not need it

    def start() -> None:
        chosen = tyro.cli(options, description=about)
        if explains and jax.config.jax_default_matmul_precision is None:  # pyright: ignore[reportAttributeAccessIssue]
            jax.config.update("jax_default_matmul_precision", "highest")
        main(chosen)

    guarded(start, explains=explains)


def choices(about: str | None, **known: Iterable[str]) -> str:
    """How a command's help begins, with what can be chosen.

    Args:
        about: what the command does, with examples.
        **known: names to choose from, by what they are names of.

    Returns:
        The text.
    """
    return "\n".join([about or "", *(f"{what}: {', '.join(names)}.\n" for what, names in known.items())])


def guarded(main: Callable[[], None], *, explains: bool = False) -> None:
    """Call `main`; wrong input ends the process with status 2 and its message, Ctrl-C with 130 and how to go on.

    Args:
        main: what is called.
        explains: use all cores; what trains has a number of threads of its own (`threads.py`).
    """
    if not explains:
        threads.fix()
    keep_compiled_programs()
    try:
        main()
    except _WRONG_INPUT as error:
        # One line, whatever the files are called that it names.
        print(f"{type(error).__name__}: {printable(error, 4000)}", file=sys.stderr)
        raise SystemExit(2) from error
    except training.Interrupted as stop:
        print(f"{stop}: saved; the same command goes on from there", file=sys.stderr)
        raise
    except KeyboardInterrupt:
        print("interrupted: what is finished is kept; the same command goes on from there", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None
