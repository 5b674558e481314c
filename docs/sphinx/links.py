"""Links of pages to files that are no page of the site, such as a module or a result's JSON.

They lead to the repository where the build knows it (GitHub's workflows say it, `JXAI_DOCS_REPOSITORY` does
elsewhere); otherwise the file's name stands there without a link.
"""

import os
import re
from pathlib import Path
from typing import Any

# Files beside docs/ that have a page.
_PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "README.md": "index.md"}
_LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def setup(app: Any) -> dict[str, bool]:
    """Sphinx calls this."""
    app.connect("source-read", _rewrite_page)
    app.connect("include-read", _rewrite_included)
    return {"parallel_read_safe": True}


def _rewrite_page(app: Any, page: str, content: list[str]) -> None:
    path = Path(app.env.doc2path(page))
    if path.suffix == ".md":
        content[0] = rewritten(content[0], path.parent, Path(app.srcdir))


def _rewrite_included(app: Any, path: Path, page: str, content: list[str]) -> None:
    # What is included stands in docs/, whose pages it names from the folder above.
    content[0] = rewritten(content[0], Path(app.srcdir).parent, Path(app.srcdir))


def rewritten(text: str, folder: Path, docs: Path, *, repository: str | None = None) -> str:
    """A page whose links all lead somewhere on the site.

    Args:
        text: Markdown.
        folder: where its links begin.
        docs: the site's own folder.
        repository: where files of the tree are to be seen; by default as the environment says.

    Returns:
        The page; code is left alone.
    """
    repository = _repository() if repository is None else repository
    root, here = docs.parent, folder if folder.is_relative_to(docs) else docs

    def link(found: re.Match[str]) -> str:
        label, (target, mark, anchor) = found[1], found[2].partition("#")
        if not target or "://" in target or target.startswith("mailto:"):
            return found[0]
        path = (folder / target).resolve()
        if path.parent == root and path.name in _PAGES:
            path = docs / _PAGES[path.name]
        if path.is_relative_to(docs) and path.suffix in (".md", ".png"):
            return f"[{label}]({os.path.relpath(path, here)}{mark}{anchor})"
        return f"[{label}]({repository}/{path.relative_to(root)})" if repository else label

    # A link's text may hold code: it is taken whole, before code is left alone.
    blocks = re.split(r"(```.*?```)", text, flags=re.DOTALL)
    return "".join(block if block.startswith("```") else _LINK.sub(link, block) for block in blocks)


def _repository() -> str:
    if given := os.environ.get("JXAI_DOCS_REPOSITORY"):
        return given.rstrip("/")
    server, name = os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_REPOSITORY")
    return f"{server}/{name}/blob/main" if server and name else ""
