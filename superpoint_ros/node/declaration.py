"""Declare the table of parameters on a node, with description, type and range of each."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import Field
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from superpoint_ros.frontend.parameter_file import unknown
from superpoint_ros.frontend.parameter_rules import CONFIGURE, check_name, checked, is_known, row_of, without_camera
from superpoint_ros.frontend.parameter_values import fitted
from superpoint_ros.frontend.parameters import TABLE, Parameters, is_array

INTEGERS = Parameter.Type.INTEGER_ARRAY


def declare(node: Node, robot_wide: Collection[str] = ()) -> Parameters:
    """Declare the table's parameters on a node and read the values it was started with.

    robot_wide  names that a file gives to all nodes: one that is unknown here is warned of

    Raises ValueError with a sentence for another unknown name or a value that is not allowed.
    """
    given = started_with(node)
    for name in given:
        if name in robot_wide and not is_known(name):
            node.get_logger().warning(f"{unknown(name)}.")
        else:
            check_name(name)
    values = {}
    for name, row in TABLE.items():
        value: Any = fitted(name, row, given[name].value) if name in given else row.default
        value = list(value) if is_array(row) else value
        try:
            # What is not among `given` may be known to rclpy all the same, see `started_with`.
            declared = node.declare_parameter(name, value, _descriptor(row), ignore_override=name in given)
        except InvalidParameterValueException as error:
            raise ValueError(str(error)) from None
        values[name] = fitted(name, row, declared.value)
    for name in given:
        own = row_of(name)
        if name in TABLE or own is None:
            continue
        sentence = without_camera(name, values["cameras"])
        if sentence and name in robot_wide:
            node.get_logger().warning(f"{sentence}; it is taken to be for other nodes.")
            continue
        values[name] = fitted(name, own, given[name].value)
        node.declare_parameter(name, values[name], _descriptor(own), ignore_override=True)
    return checked(Parameters(), values)


def started_with(node: Node) -> dict[str, Parameter]:
    """Parameters of the command line, of files and of the constructor; {} if this rclpy does not tell.

    It has no public word for them. Where it renames its own, misspelt names and values for one camera go unnoticed, and
    all others still count.
    """
    return getattr(node, "_parameter_overrides", {})


def follow_changes(node: Node, change: Callable[[list[Parameter]], None]) -> None:
    """Have `change` judge what someone wants to set; its ValueError is the refusal.

    `ros2 param dump` writes all parameters, and `load` sets them all again: what every rclpy node reads at its start
    only may be set to what it is. `CAMERA.NAME` is declared when it is first set, and may be taken away.
    """
    new: list[str] = []
    declaring = False

    def prepare(proposals: list[Parameter]) -> list[Parameter]:
        nonlocal declaring
        new.clear()
        for each in proposals:
            row = row_of(each.name)
            if node.has_parameter(each.name):
                node.describe_parameter(each.name).read_only = False  # the node's own, not a copy: `judge` refuses
            elif row is not None and each.name not in TABLE:
                new.append(each.name)
                without_range = _descriptor(row)  # what is out of it rclpy would raise here; `judge` has a sentence
                without_range.floating_point_range, without_range.integer_range = [], []
                declaring = True  # which asks `judge`, too
                try:
                    node.declare_parameter(each.name, each.value, without_range)
                finally:
                    declaring = False
        return [_as_doubles(each) for each in proposals]

    def judge(proposals: list[Parameter]) -> SetParametersResult:
        if declaring:
            return SetParametersResult(successful=True)
        try:
            for each in proposals:
                if each.value is None and (each.name in TABLE or row_of(each.name) is None):
                    raise ValueError(f"parameter '{each.name}' cannot be taken away")
                known = row_of(each.name) is not None
                own = known or each.name == "use_sim_time" or not node.has_parameter(each.name)
                if not own and each.value != node.get_parameter(each.name).value:
                    raise ValueError(f"parameter '{each.name}' is read when the node starts; start it again")
            change(proposals)
        except ValueError as error:
            for name in new:
                node.undeclare_parameter(name)
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    if hasattr(node, "add_pre_set_parameters_callback"):  # not on Humble
        node.add_pre_set_parameters_callback(prepare)
    node.add_on_set_parameters_callback(judge)


def _as_doubles(given: Parameter) -> Parameter:
    """Whole numbers given for doubles as doubles: to rclpy those are other types."""
    row = row_of(given.name)
    if row is None:
        return given
    if isinstance(row.default, float) and type(given.value) is int:
        return Parameter(given.name, value=float(given.value))
    if isinstance(row.default, tuple) and isinstance(row.default[0], float) and given.type_ == INTEGERS:
        return Parameter(given.name, value=[float(each) for each in given.value])
    return given


def _descriptor(row: Field[Any]) -> ParameterDescriptor:
    live, limits = row.metadata["live"], row.metadata["limits"]
    descriptor = ParameterDescriptor(
        dynamic_typing=True,  # rclpy has no word for a wrong type, and Humble takes no whole numbers for doubles
        description=row.metadata["description"],
        additional_constraints=("Changes live." if live else f"Not live: {CONFIGURE}.")
        + (f" One of {', '.join(row.metadata['choices'])}." if row.metadata["choices"] else ""),
    )
    if limits and isinstance(row.default, float):
        descriptor.floating_point_range = [FloatingPointRange(from_value=limits[0], to_value=limits[1])]
    elif limits:
        descriptor.integer_range = [IntegerRange(from_value=limits[0], to_value=limits[1])]
    return descriptor
