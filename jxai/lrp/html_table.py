"""A table for notebooks, which show an object's `_repr_html_`; whatever stands in it is escaped."""

from collections.abc import Sequence
from html import escape


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int, below: str = "") -> str:
    """Cells as an HTML table.

    Args:
        head: the columns' names.
        rows: as many cells each.
        left: how many columns begin at the left; those after them are numbers, at the right.
        below: a line under the table.

    Returns:
        HTML without colors or sizes of its own, so that it fits a light page and a dark one.
    """

    def line(cells: Sequence[str], tag: str) -> str:
        sides = ["left" if i < left else "right" for i in range(len(cells))]
        return "".join(
            f'<{tag} style="text-align: {side}; padding: 0 0.5em; white-space: nowrap">{escape(cell)}</{tag}>'
            for side, cell in zip(sides, cells, strict=True)
        )

    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    table = f"<table><thead><tr>{line(head, 'th')}</tr></thead><tbody>{body}</tbody></table>"
    # Wider than a page it scrolls by itself, so that the page does not.
    return f'<div style="overflow-x: auto">{table}</div>' + (f"<p>{escape(below)}</p>" if below else "")
