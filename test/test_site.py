"""The documentation site: built as `make docs` builds it, in place and, as rosdoc2 does, from a copy."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from superpoint_ros.frontend.parameters import TABLE

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


def build(pages: Path, out: Path) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("sphinx", reason="needs Sphinx (make docs installs it)")
    pytest.importorskip("myst_parser", reason="needs MyST (make docs installs it)")
    pytest.importorskip("sphinxcontrib.mermaid", reason="needs sphinxcontrib-mermaid (make docs installs it)")
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", pages, out]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    built = build(DOCS, out)
    assert built.returncode == 0, built.stdout + built.stderr
    return out


class Page(HTMLParser):
    """The places of a page and where it links to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.places: set[str] = {""}
        self.links: list[str] = []
        self.diagrams = 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        self.places.add(named.get("id") or "")
        self.links += [named[name] for name in ("href", "src") if named.get(name)]
        self.diagrams += "mermaid" in (named.get("class") or "").split()


def test_every_link_of_the_site_leads_to_a_page_and_a_place_on_it(site):
    pages = {path: Page(path) for path in site.rglob("*.html")}
    assert len(pages) > 20
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                assert parts.scheme in ("http", "https"), f"{path.name}: {link}"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_file(), f"{path.relative_to(site)}: {link}"
            if target in pages and not target.is_relative_to(site / "source"):
                assert unquote(parts.fragment) in pages[target].places, f"{path.relative_to(site)}: {link}"


def test_every_diagram_is_left_to_mermaid_to_draw(site):
    for source in DOCS.rglob("*.md"):
        page = (site / source.relative_to(DOCS)).with_suffix(".html")
        assert Page(page).diagrams == len(re.findall("^```mermaid$", source.read_text(), re.M)), source.name


def test_the_pages_have_every_parameter_and_every_field(site):
    shown = (site / "parameters.html").read_text()
    assert [name for name in TABLE if f">{name}</span>" not in shown] == []
    shown = (site / "messages.html").read_text()
    for message in (ROOT / "msg").glob("*.msg"):
        names = re.findall(r"^[\w/\[\]]+ (\w+)(?:=\w+)?$", message.read_text(), re.M)
        assert [name for name in names if f">{name}</span>" not in shown] == [], message.name


def test_in_a_copy_elsewhere_dead_links_and_nothing_else_fail_the_build(tmp_path):
    shutil.copytree(DOCS, tmp_path / "pages")
    page = tmp_path / "pages" / "concepts.md"
    page.write_text(page.read_text() + "[a](nowhere.md) [b](bags.md#nowhere) [c](../msg/Nowhere.msg)\n")
    built = build(tmp_path / "pages", tmp_path / "out")
    assert built.returncode != 0
    complaints = [line for line in built.stderr.splitlines() if "WARNING" in line]
    for dead in ("'nowhere.md'", "'nowhere'", "there is no file msg/Nowhere.msg"):
        assert sum(dead in line for line in complaints) == 1, built.stderr
    assert len(complaints) == 3
    assert (tmp_path / "out" / "source" / "config" / "superpoint.yaml.html").is_file()


@pytest.fixture
def generated(monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    return import_module("generated")


def test_a_message_becomes_a_table_of_its_fields_and_constants(generated):
    definition = """# What it is,
# in two lines.

# Where, 3 * N values, |x| below 1.
float32[3] x
float32[3] y

# How.
# NEAR  close by,
#       or closer
# FAR   not near
uint8 NEAR=0
uint8 FAR=1
uint8 how
"""
    assert generated.message(definition).splitlines() == [
        "What it is, in two lines.",
        "",
        "| field | type | what |",
        "|---|---|---|",
        r"| `x` | `float32[3]` | Where, 3 \* N values, \|x\| below 1. |",
        r"| `y` | `float32[3]` | Where, 3 \* N values, \|x\| below 1. |",
        "| `NEAR` = 0 | `uint8` | close by, or closer |",
        "| `FAR` = 1 | `uint8` | not near |",
        "| `how` | `uint8` | How. |",
    ]


def test_what_is_no_field_and_a_mark_that_means_nothing_are_refused(generated):
    with pytest.raises(ValueError, match="'float32 x y' is no field"):
        generated.message("# About.\n\n# X.\nfloat32 x y\n")
    with pytest.raises(ValueError, match="<!-- generated: topics -->: expected"):
        generated.generate("topics", ROOT)


def test_without_the_packages_of_the_table_the_documented_file_takes_its_place(generated, monkeypatch, caplog):
    pytest.importorskip("sphinx", reason="needs Sphinx (make docs installs it)")
    monkeypatch.setitem(sys.modules, "write_parameters", None)
    assert "\n    max_keypoints: 1024\n" in generated.parameters(ROOT)
    assert "config/superpoint.yaml takes its place" in caplog.text
