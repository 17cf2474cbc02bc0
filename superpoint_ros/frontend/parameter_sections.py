"""The sections of a ROS parameter file, each for the nodes of a name; light, as launch files read it too."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

SECTION = "ros__parameters"


def read_sections(path: Path) -> dict[str, dict[str, Any]]:
    """node -> its parameters by whole names, of each section, as they are written.

    Raises ValueError with a sentence for what is no YAML file, OSError for a file that is not there.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return {node: dict(_flat(values, "")) for node, values in _sections(content, "")}
    except (ValueError, RecursionError, yaml.YAMLError) as error:  # RecursionError: what holds itself, too
        raise ValueError(f"{path}: not a YAML file ({str(error).splitlines()[0]})") from None


def in_order(nodes: Sequence[str]) -> list[str]:
    """Of several sections the last that has a value counts: as written, but on Humble those for the node itself."""
    humble = os.environ.get("ROS_DISTRO") == "humble"
    return sorted(nodes, key=lambda each: not for_any_node(each)) if humble else list(nodes)


def for_any_node(node: str) -> bool:
    """Whether a section is for nodes of any name, as /** is."""
    return "*" in node.split("/")[-1]


def _sections(content: Any, prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Keys are names, which may be in namespaces as in paths or as in nested keys."""
    for key, value in content.items() if isinstance(content, dict) else ():
        if key == SECTION:
            yield prefix or "/", value if isinstance(value, dict) else {}
        else:
            yield from _sections(value, f"{prefix}/{str(key).strip('/')}")


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
