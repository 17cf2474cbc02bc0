"""The node's parameters without a node: from the same YAML file, and from `name=value`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import Field
from pathlib import Path
from typing import Any

import yaml

from superpoint_ros.frontend.parameters import TABLE, Parameters, check_name, checked, describe

NODE = "superpoint"
SECTION = "ros__parameters"


def read_parameters(path: Path | None, assignments: Mapping[str, str]) -> Parameters:
    """The values of a ROS parameter file, in sections for /** or a node called superpoint; then the assignments.

    assignments  name -> value as YAML

    Raises ValueError with a sentence for what is unknown or not allowed, OSError for a file that is not there.
    """
    values = _in_file(path) if path is not None else {}
    for name, text in assignments.items():
        check_name(name)
        try:
            values[name] = yaml.safe_load(text) if text else ""
        except yaml.YAMLError:
            values[name] = text
    return parameters_of(values)


def parameters_of(values: Mapping[str, Any]) -> Parameters:
    """The table with these values. Raises ValueError as above."""
    fitting = {}
    for name, value in values.items():
        check_name(name)
        if name in TABLE:
            fitting[name] = _fitting(name, TABLE[name], value)
    return checked(Parameters(), fitting)


def _in_file(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: not a YAML file ({str(error).splitlines()[0]})") from None
    sections = dict(_sections(content, ""))
    ours = [name for name in sections if name == "/**" or name.split("/")[-1] == NODE]
    if not ours:
        there = f"its sections are for {', '.join(sections)}" if sections else "it has none"
        raise ValueError(f"{path}: expected a section for /** or /{NODE} with {SECTION}, {there}")
    values: dict[str, Any] = {}
    for name in sorted(ours, key=lambda each: each != "/**"):
        values.update(_flat(sections[name], ""))
    try:
        for name in values:
            check_name(name)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return values


def _sections(content: Any, prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(node, parameters): keys are names, which may be in namespaces as in paths or as in nested keys."""
    if not isinstance(content, dict):
        return
    for key, value in content.items():
        if key == SECTION:
            yield prefix or "/", value or {}
        else:
            yield from _sections(value, f"{prefix}/{str(key).strip('/')}")


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _fitting(name: str, row: Field[Any], value: Any) -> Any:
    """The value as its row has it."""
    default: Any = row.default
    if not isinstance(default, tuple):
        fitting = _scalar(default, value)
    elif isinstance(value, (list, tuple)):
        fitting = [_scalar(default[0], each) for each in value]
    else:
        fitting = None
    if fitting is None or isinstance(fitting, list) and None in fitting:
        kind = type(default[0] if isinstance(default, tuple) else default).__name__
        kind = f"a list of {kind}" if isinstance(default, tuple) else kind
        raise ValueError(f"parameter '{name}' must be {kind}, got {value!r}. {describe(row)}")
    limits = row.metadata["limits"]
    if limits and not limits[0] <= fitting <= limits[1]:
        raise ValueError(f"parameter '{name}' must lie in {limits[0]} to {limits[1]}, got {value!r}. {describe(row)}")
    return fitting


def _scalar(default: Any, value: Any) -> Any:
    """The value in the type of the default, or None."""
    if isinstance(default, bool) or isinstance(value, bool):
        return value if type(default) is type(value) else None
    if isinstance(default, float):
        try:
            return float(value)  # YAML 1.1 takes 1e-3 for a string
        except (TypeError, ValueError):
            return None
    if isinstance(default, str):
        return str(value) if isinstance(value, (str, int, float)) else "" if value is None else None
    return value if isinstance(value, int) else None
