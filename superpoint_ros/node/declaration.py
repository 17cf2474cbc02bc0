"""Declare the table of parameters on a node, with description, type and range of each."""

from __future__ import annotations

from dataclasses import Field
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node

from superpoint_ros.frontend.parameters import CONFIGURE, TABLE, Parameters, check_name, checked, describe, is_array


def declare(node: Node) -> Parameters:
    """Declare the table's parameters on a node and read the values it was started with.

    Raises ValueError with a sentence for an unknown name or a value that is not allowed.
    """
    for name in node._parameter_overrides:
        check_name(name)
    values = {}
    for name, row in TABLE.items():
        default: Any = row.default
        default = list(default) if is_array(row) else default
        try:
            values[name] = node.declare_parameter(name, default, _descriptor(row)).value
        except Exception as error:
            # rclpy raises one of several classes without a common base; each names the value
            raise ValueError(f"parameter '{name}': {error}. {describe(row)}") from None
    return checked(Parameters(), values)


def _descriptor(row: Field[Any]) -> ParameterDescriptor:
    live, limits = row.metadata["live"], row.metadata["limits"]
    descriptor = ParameterDescriptor(
        description=row.metadata["description"],
        additional_constraints=("Changes live." if live else f"Not live: {CONFIGURE}.")
        + (f" One of {', '.join(row.metadata['choices'])}." if row.metadata["choices"] else ""),
    )
    if limits and isinstance(row.default, float):
        descriptor.floating_point_range = [FloatingPointRange(from_value=limits[0], to_value=limits[1])]
    elif limits:
        descriptor.integer_range = [IntegerRange(from_value=limits[0], to_value=limits[1])]
    return descriptor
