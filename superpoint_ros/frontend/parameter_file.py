"""The node's parameters without a node: from the same YAML file, and from `name=value`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from superpoint_ros.frontend.parameter_rules import check_name, checked, is_known, row_of, without_camera
from superpoint_ros.frontend.parameter_sections import SECTION, for_any_node, in_order, read_sections
from superpoint_ros.frontend.parameter_values import fitted
from superpoint_ros.frontend.parameters import Parameters
from superpoint_ros.printable import printable

NODE = "superpoint"


def read_parameters(
    path: Path | None, assignments: Mapping[str, str], warn: Callable[[str], None] = lambda sentence: None
) -> Parameters:
    """The values of a ROS parameter file, in sections for /** or a node called superpoint; then the assignments.

    Of two sections with a value the later counts, as for the node; on Humble that for the node alone.

    assignments  name -> value as YAML
    warn         called with a sentence for an unknown name in a section for all nodes, which may mean another node

    Raises ValueError with a sentence for what else is unknown or not allowed, OSError for a file that is not there.
    """
    try:
        values = _in_file(path, lambda text: warn(printable(text))) if path is not None else {}
        for name, text in assignments.items():
            check_name(name)
            try:
                values[name] = yaml.safe_load(text) if text else ""
            except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: what looks like a date and is none
                values[name] = text
        return parameters_of(values)
    except ValueError as error:
        raise ValueError(printable(str(error))) from None  # it may quote the file


def parameters_of(values: Mapping[str, Any]) -> Parameters:
    """The table with these values. Raises ValueError as above."""
    fitting = {}
    for name, value in values.items():
        check_name(name)
        if row := row_of(name):
            fitting[name] = fitted(name, row, value)
    return checked(Parameters(), fitting)


def robot_wide_names(arguments: Sequence[str]) -> set[str]:
    """Names of parameters that files among a node's command-line arguments give to nodes of any name, as /** does.

    A file that cannot be read has none: rcl, which reads it too, has a better word for it.
    """
    names: set[str] = set()
    for option, path in zip(arguments, arguments[1:], strict=False):
        if option == "--params-file":
            try:
                sections = read_sections(Path(path))
            except (ValueError, OSError):
                continue
            names.update(*(values for node, values in sections.items() if for_any_node(node)))
    return names


def unknown(name: str) -> str:
    """A sentence about a name that a file gives to all nodes and this one does not know."""
    try:
        check_name(name)
    except ValueError as error:
        return f"{str(error).split(';')[0]}, and taken to be for other nodes"
    return ""


def _in_file(path: Path, warn: Callable[[str], None]) -> dict[str, Any]:
    sections = read_sections(path)
    ours = [name for name in sections if name == "/**" or name.split("/")[-1] == NODE]
    if not ours:
        there = f"its sections are for {', '.join(sections)}" if sections else "it has none"
        raise ValueError(f"{path}: expected a section for /** or /{NODE} with {SECTION}, {there}")
    values: dict[str, Any] = {}
    robot_wide: set[str] = set()
    for section in in_order(ours):
        for name, value in sections[section].items():
            if for_any_node(section) and not is_known(name):
                warn(f"{path}: {unknown(name)}.")
                continue
            try:
                check_name(name)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from None
            values[name] = value
            (robot_wide.add if for_any_node(section) else robot_wide.discard)(name)
    cameras = values.get("cameras") or Parameters().cameras
    for name in robot_wide:
        if sentence := without_camera(name, cameras):
            warn(f"{path}: {sentence}; it is taken to be for other nodes.")
            del values[name]
    return values
