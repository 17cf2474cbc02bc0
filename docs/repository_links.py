"""Links of the pages to files outside docs/, which GitHub follows: on the site each such file is a page, too.

The page shows the file as it is, in colours, as sphinx.ext.viewcode does for modules.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from pygments.lexers import get_lexer_for_filename
from pygments.util import ClassNotFound
from sphinx.util.logging import getLogger

SCHEME = "repository"
OUTWARD = re.compile(r"\]\(((?:\.\./)+[^)#\s]+)(#[^)\s]*)?\)")
"""The target of a link in Markdown that goes up."""


def setup(app: Any, root: Path) -> None:
    """Lead such links to pages of the site, and make the pages. A file that is not there is a warning."""

    def mark(app: Any, page: str, source: list[str]) -> None:
        source[0] = OUTWARD.sub(lambda link: f"]({target(link.group(1), page)}{link.group(2) or ''})", source[0])

    def lead(app: Any, doctree: nodes.document) -> None:
        page = app.env.docname
        files = linked(app).setdefault(page, set())
        for link in doctree.findall(nodes.reference):
            path = link.get("refuri", "").partition(f"{SCHEME}:")[2].partition("#")[0]
            if not path:
                continue
            if not (root / path).is_file():
                getLogger(__name__).warning("there is no file %s", path, location=link)
            else:
                files.add(path)
                link["refuri"] = app.builder.get_relative_uri(page, f"source/{path}")

    def forget(app: Any, env: Any, page: str) -> None:
        linked(app).pop(page, None)

    def pages(app: Any) -> Iterator[tuple[str, dict[str, Any], str]]:
        for path in sorted(set().union(*linked(app).values())):
            text = (root / path).read_text(encoding="utf-8")
            shown = app.builder.highlighter.highlight_block(text, language(path))
            yield f"source/{path}", {"title": path, "body": f"<h1>{path}</h1>{shown}"}, "page.html"

    app.connect("source-read", mark)
    app.connect("doctree-read", lead)
    app.connect("env-purge-doc", forget)
    app.connect("html-collect-pages", pages)


def target(link: str, page: str) -> str:
    """A relative link of a page, as `repository:PATH` if it leaves docs/."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), link))
    return link if path.startswith("docs/") else f"{SCHEME}:{path}"


def linked(app: Any) -> dict[str, set[str]]:
    """The files to which each page links; kept with what Sphinx remembers of the pages."""
    if not hasattr(app.env, "superpoint_ros_files"):
        app.env.superpoint_ros_files = {}
    return app.env.superpoint_ros_files


def language(path: str) -> str:
    """Pygments' name for what a file holds."""
    try:
        return get_lexer_for_filename(path).aliases[0]
    except ClassNotFound:
        return "text"
