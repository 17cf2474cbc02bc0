"""What the site says of parameters and messages, made from their only sources when the site is built.

In a page `<!-- generated: parameters -->` stands for the table of superpoint_ros/frontend/parameters.py, and
`<!-- generated: msg/Features.msg -->` for the fields of a message with their comments.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

MARK = re.compile(r"^<!-- generated: (\S+) -->$", re.M)
DECLARATION = re.compile(r"^([\w/]+(?:\[\d*\])?) +(\w+)(?:=(\w+))?$")
ENTRY = re.compile(r"^([A-Z][A-Z0-9_]+)  +(.*)$")
"""A line of a comment that says what one constant means."""


def setup(app: Any, root: Path) -> None:
    """Put what is generated in the place of the marks. Raises ValueError for a mark that means nothing."""

    def expand(app: Any, page: str, source: list[str]) -> None:
        source[0] = MARK.sub(lambda mark: generate(mark.group(1), root), source[0])

    app.connect("source-read", expand)


def generate(name: str, root: Path) -> str:
    """Markdown for the name in a mark."""
    if name == "parameters":
        return parameters(root)
    if name.startswith("msg/"):
        return message((root / name).read_text(encoding="utf-8"))
    raise ValueError(f"<!-- generated: {name} -->: expected parameters or a file in msg/")


def parameters(root: Path) -> str:
    """The table of parameters, or the documented file where the packages that the table needs are not installed."""
    try:
        from write_parameters import markdown
    except ImportError as error:
        from sphinx.util.logging import getLogger

        getLogger(__name__).warning(
            "the table of parameters needs %s; config/superpoint.yaml takes its place", error.name
        )
        return f"```yaml\n{(root / 'config' / 'superpoint.yaml').read_text(encoding='utf-8')}```\n"
    return markdown()


def message(text: str) -> str:
    """A message definition as a paragraph and a table with a row for each field and constant."""
    blocks = [block.splitlines() for block in re.split(r"\n\s*\n", text.strip())]
    about = " ".join(line.removeprefix("# ") for line in blocks[0] if line.startswith("#"))
    rows = [about, "", "| field | type | what |", "|---|---|---|"]
    for block in blocks[1:]:
        said, constants = comment([line[1:].removeprefix(" ") for line in block if line.startswith("#")])
        fields = [line for line in block if not line.startswith("#")]
        for line in fields:
            declared = DECLARATION.match(line)
            if declared is None:
                raise ValueError(f"{line!r} is no field of a message")
            kind, name, value = declared.groups()
            if value is None:
                rows.append(f"| `{name}` | `{kind}` | {cell(said)} |")
            else:
                rows.append(f"| `{name}` = {value} | `{kind}` | {cell(constants[name])} |")
    return "\n".join([*rows, ""])


def comment(lines: list[str]) -> tuple[str, dict[str, str]]:
    """What a comment says of its fields, and of each constant that it lists."""
    said: list[str] = []
    constants: dict[str, str] = {}
    name = ""
    for line in lines:
        if entry := ENTRY.match(line):
            name = entry.group(1)
            constants[name] = entry.group(2).strip()
        elif name and line.startswith("  "):
            constants[name] += " " + line.strip()
        else:
            said.append(line.strip())
    return " ".join(said), constants


def cell(text: str) -> str:
    """Text for a cell of a table, in which bars and stars stay what they are."""
    return re.sub(r"([|*])", r"\\\1", text)
