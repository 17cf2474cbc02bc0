"""README.md, CONTRIBUTING.md and docs/: what they point at is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\[(?P<text>[^\[\]]+)\]\((?P<target>[^()\s]+)\)")


def links(document: Path) -> list[tuple[str, Path]]:
    """Text and target of each link to a file of this repository."""
    found = LINK.finditer(document.read_text(encoding="utf-8"))
    targets = [(match["text"], match["target"].split("#")[0]) for match in found]
    return [(text, document.parent / target) for text, target in targets if target and "://" not in target]


def names_in(module: Path) -> set[str]:
    """Functions, classes and constants of a module, and `Class.member`."""
    names = set()

    def add(body: list[ast.stmt], prefix: str) -> None:
        for statement in body:
            if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
                names.add(prefix + statement.name)
            for target in getattr(statement, "targets", [getattr(statement, "target", None)]):
                if isinstance(target, ast.Name):
                    names.add(prefix + target.id)
            if isinstance(statement, ast.ClassDef):
                add(statement.body, f"{statement.name}.")

    add(ast.parse(module.read_text(encoding="utf-8")).body, "")
    return names


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_links_to_is_there(document: Path) -> None:
    missing = [target for _, target in links(document) if not target.exists()]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_name_that_links_to_a_module_is_defined_there(document: Path) -> None:
    named = [(text.strip("`"), target) for text, target in links(document) if target.suffix == ".py"]
    code = [(name, target) for name, target in named if re.fullmatch(r"[A-Za-z_][\w.]*", name)]
    wrong = [(name, target.name) for name, target in code if name != target.name and name not in names_in(target)]
    assert wrong == []
    assert len(code) > 40 or document.name != "architecture.md"


def test_the_modules_that_documents_name_are_there() -> None:
    places = [ROOT, ROOT / "superpoint_ros"]
    for document in DOCUMENTS:
        for name in re.findall(r"`((?:\w+/)+\w+\.py)`", document.read_text(encoding="utf-8")):
            assert any((place / name).is_file() for place in places), f"{document.name} names {name}"
