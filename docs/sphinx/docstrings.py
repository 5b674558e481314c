"""Docstrings are written as Markdown has code and tables; Sphinx reads reStructuredText."""

import re
from typing import Any

_ROW = re.compile(r"^\|(?: (.*) |[-:|]+)\|$")
_NAME = re.compile(r"[A-Za-z_][\w.]*")
# What stays, what is code, and single signs that reStructuredText would take for markup.
_PARTS = re.compile(
    r"""(?P<stays>^[ ]*>>>.*(\n[ ]*\S.*)*  # a doctest, with what it prints
                | ``[^`]+``
                | (?<![\w/*])\*[A-Z][^*]+\*  # a title
                | \*[a-z]+\* | \*\*[a-z]+\*\*  # a word that is stressed
                | ^[ ]+\*{1,2}\w+(?=:))  # *args, which napoleon knows
        | `(?P<code>[^`]+)`
        | (?P<sign>\||\*|(?<=\w)_(?!\w))""",
    re.MULTILINE | re.VERBOSE,
)
_ENDS = " \n'\")]}>-/\\.,:;!?"


def setup(app: Any) -> dict[str, bool]:
    """Sphinx calls this."""
    app.connect("autodoc-process-docstring", _rewrite, priority=100)  # before napoleon
    app.connect("autodoc-process-signature", _shorten)
    app.connect("autodoc-skip-member", _skip)
    app.connect("missing-reference", _find_below_jxai)
    return {"parallel_read_safe": True}


def _rewrite(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = restructured("\n".join(lines)).split("\n")


def _shorten(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Without the two arguments that Flax gives every module, whose default is an address in memory."""
    return (re.sub(r"(, )?parent=<[^>]*>, name=None", "", signature) if signature else signature), returns


def _skip(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Methods that say of themselves that another class explains them, and Flax's of every structure."""
    doc = getattr(obj, "__doc__", None) or ""
    if what != "class":
        return None
    return True if name == "replace" or re.search(r"[Ss]ee `\w+`\.?$", doc.strip()) else None


def _find_below_jxai(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """`lrp.vjp` is jxai.lrp.vjp."""
    if node.get("refdomain") != "py":
        return None
    domain, name = env.get_domain("py"), f"jxai.{node['reftarget']}"
    if name not in domain.objects:
        return None
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", name, node, contnode)


def restructured(text: str) -> str:
    """A docstring as reStructuredText; its sections stay for napoleon.

    Args:
        text: the docstring.

    Returns:
        The text, whose tables are lists of rows.
    """
    lines: list[str] = []
    in_table = False
    for line in text.split("\n"):
        row = _ROW.match(line.strip())
        if row is None:
            lines.append(line)
        elif row[1]:  # not the line below the head
            first, *rest = (cell.strip() for cell in row[1].split("|"))
            lines += [] if in_table else [".. list-table::", "   :header-rows: 1", ""]
            lines += [f"   * - {first}", *(f"     - {cell}" for cell in rest)]
        in_table = row is not None
    # Summaries end at the first sentence, and would take "eq. 58" for two.
    text = "\n".join(lines).replace("eq. ", "equation ")

    def part(found: re.Match[str]) -> str:
        if found["stays"]:
            return found[0]
        if found["sign"]:
            return "\\" + found[0]
        code = found["code"]
        marked = f":py:obj:`{code}`" if _NAME.fullmatch(code) else f"``{code}``"
        # Where a word goes on behind code, as a plural's s, a space that is not printed parts them.
        return marked if found.string[found.end() :][:1] in _ENDS else marked + "\\ "

    return re.sub(r"^   \\\* - ", "   * - ", _PARTS.sub(part, text), flags=re.MULTILINE)
