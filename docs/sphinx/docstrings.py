"""Docstrings are written as Markdown has code and tables; Sphinx reads reStructuredText."""

import re
from typing import Any

_DOCTEST = re.compile(r"\s*(>>>|\.\.\.)( |$)")
_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_NAME = re.compile(r"[A-Za-z_][\w.]*")
_ROW = re.compile(r"^\|(.*)\|$")


def setup(app: Any) -> dict[str, bool]:
    """Sphinx calls this."""
    app.connect("autodoc-process-docstring", _rewrite, priority=100)  # before napoleon
    app.connect("missing-reference", _find_below_jxai)
    return {"parallel_read_safe": True}


def _rewrite(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = restructured(lines)


def restructured(lines: list[str]) -> list[str]:
    """A docstring's lines as reStructuredText; its sections stay for napoleon.

    Args:
        lines: of the docstring.

    Returns:
        The lines; tables have more.
    """
    found: list[str] = []
    doctest = in_table = False
    for line in lines:
        doctest = bool(_DOCTEST.match(line)) or (doctest and bool(line.strip()))
        row = None if doctest else _ROW.match(line.strip())
        if row is None:
            found.append(line if doctest else _text(line))
        elif not set(line.strip()) <= set("|-: "):
            first, *rest = (_text(cell.strip()) for cell in row[1].split("|"))
            found += [] if in_table else [".. list-table::", "   :header-rows: 1", ""]
            found += [f"   * - {first}", *(f"     - {cell}" for cell in rest)]
        in_table = row is not None
    return found


def _text(line: str) -> str:
    """A line whose code is code, and whose other signs are signs."""
    parts = _CODE.split(line)  # text and code in turns
    for i, part in enumerate(parts):
        if i % 2:
            parts[i] = f":py:obj:`{part}`" if _NAME.fullmatch(part) else f"``{part}``"
        elif "``" not in part:
            parts[i] = re.sub(r"\||(?<=\w)_(?!\w)", lambda sign: "\\" + sign[0], part)
    # Code ends where a word begins: a plural's s, or a sign that reStructuredText does not know as an end.
    return re.sub(r"(:py:obj:`[^`]+`|``[^`]+``)(?=[^\s'\")\]}>\-/\\.,:;!?])", r"\1\\ ", "".join(parts))


def _find_below_jxai(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """`lrp.vjp` is jxai.lrp.vjp."""
    if node.get("refdomain") != "py":
        return None
    domain, name = env.get_domain("py"), f"jxai.{node['reftarget']}"
    if name not in domain.objects:
        return None
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", name, node, contnode)
