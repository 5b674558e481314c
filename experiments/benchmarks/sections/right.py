"""Right: to be written."""

from sections import Parts, row


def parts(dry: bool) -> Parts:
    """All parts."""
    return {"nothing": lambda: [row("nothing", 1.0, "s", rival=("x", 2.0), goal="at least 1.3")]}
