"""How options are marked for the command line, so that scripts' functions can be called where there is no tyro."""

from typing import TYPE_CHECKING, Annotated, Any, TypeVar

if TYPE_CHECKING:
    from tyro.conf import Positional, arg
else:
    try:
        from tyro.conf import Positional, arg
    except ModuleNotFoundError:  # the machines that lend accelerators have little
        Positional = Annotated[TypeVar("T"), "positional"]

        def arg(**options: Any) -> dict[str, Any]:
            """The options themselves, which nothing reads here."""
            return options


__all__ = ["Positional", "arg"]
