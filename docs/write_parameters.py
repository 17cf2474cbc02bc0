"""Write the table of parameters into config/superpoint.yaml, or see whether it is there.

`make parameters`, or python docs/write_parameters.py [--check]

The table is the dataclass in superpoint_ros/frontend/parameters.py; what is between the two marks of the file is
written anew. The documentation site has it as Markdown (generated.py).
"""

from __future__ import annotations

import json
import sys
import textwrap
from dataclasses import Field
from pathlib import Path
from typing import Any

from superpoint_ros.frontend.parameter_values import describe
from superpoint_ros.frontend.parameters import TABLE

FILE = Path(__file__).resolve().parents[1] / "config" / "superpoint.yaml"
MARKS = ("parameters begin (written by docs/write_parameters.py)", "parameters end")
YAML_WIDTH = 100


def main(arguments: list[str]) -> int:
    """The exit status: 1 if, with --check, the file is not what it should be."""
    now = FILE.read_text(encoding="utf-8")
    if "--check" not in arguments:
        FILE.write_text(written(now), encoding="utf-8")
    elif now != written(now):
        print(f"{FILE.name}: its table of parameters is stale; `make parameters` writes it anew")
        return 1
    return 0


def written(text: str) -> str:
    """What the file should hold. Raises ValueError with a sentence if it has lost its marks."""
    lines = text.splitlines(keepends=True)
    places = [[number for number, line in enumerate(lines) if mark in line] for mark in MARKS]
    if [len(found) for found in places] != [1, 1] or places[0] > places[1]:
        raise ValueError(f"{FILE}: expected one line with '{MARKS[0]}' and below it one with '{MARKS[1]}'")
    (begin,), (end,) = places
    return "".join(lines[: begin + 1]) + yaml() + "".join(lines[end:])


def markdown() -> str:
    """A row for each parameter."""
    rows = ["", "| parameter | default | live | what | allowed |", "|---|---|---|---|---|"]
    for name, row in TABLE.items():
        live = "yes" if row.metadata["live"] else ""
        own = f" `CAMERA.{name}` for one camera." if row.metadata["by_camera"] else ""
        what = f"{row.metadata['description']}{own}"
        rows.append(f"| `{name}` | `{default(row)}` | {live} | {what} | {allowed(row)} |")
    return "\n".join([*rows, "", ""])


def yaml() -> str:
    """Each parameter with its default, below a comment."""
    lines = []
    for name, row in TABLE.items():
        live = "Live. " if row.metadata["live"] else ""
        comment = textwrap.wrap(live + describe(row), YAML_WIDTH - len("    # "), break_on_hyphens=False)
        lines += [f"    # {line}" for line in comment] + [f"    {name}: {default(row)}"]
    return "\n".join([*lines, ""])


def allowed(row: Field[Any]) -> str:
    """The range or the choices; empty where anything of the type may be."""
    limits, choices = row.metadata["limits"], row.metadata["choices"]
    return f"{limits[0]} to {limits[1]}" if limits else ", ".join(choices)


def default(row: Field[Any]) -> str:
    """As YAML has it."""
    value = list(row.default) if isinstance(row.default, tuple) else row.default
    return value if isinstance(value, str) and value else json.dumps(value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
