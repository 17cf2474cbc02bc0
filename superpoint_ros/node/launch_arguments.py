"""What the launch files have in common: arguments, parameter files, and the node that is started with them.

Needs launch and launch_ros, which the node itself does not. The launch files import it from the installed package,
whether they lie in its share folder or in a checkout; of the package it loads only what reads parameter files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launch import Action, LaunchContext
from launch.actions import DeclareLaunchArgument, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare
from launch_ros.utilities import make_namespace_absolute, prefix_namespace

from superpoint_ros.frontend.parameter_sections import in_order, read_sections

RESPAWN_DELAY = 2.0
"""Seconds."""

SHARED: dict[str, dict[str, Any]] = {
    "image_topic": {"default_value": "image", "description": "Topic of the images."},
    "camera_info_topic": {
        "default_value": "",
        "description": "Topic of the calibration; empty: camera_info beside the images.",
    },
    "mask_topic": {"default_value": "mask", "description": "Topic of the masks (parameter use_mask_topic)."},
    "node_name": {"default_value": "superpoint", "description": "Name of the node; its topics are below it."},
    "respawn": {
        "default_value": "false",
        "choices": ["true", "false"],
        "description": "Start the node again, 2 s after it has failed.",
    },
    "namespace": {"default_value": "", "description": "Namespace of the node."},
    "params_file": {
        "default_value": PathJoinSubstitution([FindPackageShare("superpoint_ros"), "config", "superpoint.yaml"]),
        "description": "YAML file of parameters; other arguments come on top.",
    },
    "use_sim_time": {
        "default_value": "",
        "choices": ["", "true", "false"],
        "description": "Take the time from /clock; empty: as in params_file.",
    },
    "device": {
        "default_value": "",
        "description": "Where the network runs: auto, cpu, cuda, cuda:1; empty: as in params_file.",
    },
}
"""Arguments of more than one launch file, as DeclareLaunchArgument takes them."""


def shared_arguments(*names: str) -> list[DeclareLaunchArgument]:
    """Those of SHARED with these names, made anew: a launch file may be included twice."""
    return [DeclareLaunchArgument(name, **SHARED[name]) for name in names]


def values_of(arguments: Sequence[DeclareLaunchArgument], context: LaunchContext) -> dict[str, str]:
    """What was given for each argument, or its default."""
    return {argument.name: LaunchConfiguration(argument.name).perform(context) for argument in arguments}


def node_in(given: Mapping[str, str], context: LaunchContext) -> str:
    """The full name of the node, below what a launch file that includes this one has pushed for a namespace."""
    pushed = context.launch_configurations.get("ros_namespace")
    return str(
        make_namespace_absolute(prefix_namespace(prefix_namespace(pushed, given["namespace"]), given["node_name"]))
    )


def parameters_in(params_file: str, node: str) -> dict[str, Any]:
    """What a parameter file says for the node of this full name: of several sections the last, on Humble its own.

    Raises ValueError with a sentence for a file that is not there or is no YAML.
    """
    sections = _read(params_file)
    ours = in_order([section for section in sections if re.fullmatch(_pattern(section), node)])
    return {name: value for section in ours for name, value in sections[section].items()}


def _read(params_file: str) -> dict[str, dict[str, Any]]:
    """node -> its parameters."""
    path = Path(params_file).expanduser()
    try:
        return read_sections(path)
    except OSError as error:
        raise ValueError(f"argument 'params_file': {path}: {error.strerror}") from None
    except ValueError:
        raise ValueError(f"argument 'params_file': {path} is no YAML file") from None


def _pattern(section: str) -> str:
    """A regular expression for the names that a section is for: ** stands for any number of parts, * for one."""
    return re.escape(section).replace(r"/\*\*", "(/[^/]+)*").replace(r"\*", "[^/]+")


def superpoint_node(
    given: Mapping[str, str],
    overrides: Mapping[str, Any] | None = None,
    remappings: Sequence[tuple[str, str]] = (),
) -> list[Action]:
    """The node; the shared arguments that were given, and `overrides`, come on top of the parameter file.

    given       text of the arguments; `image_topic`, `camera_info_topic` and `mask_topic`, where they are among them,
                take the place of `image`, `camera_info` and `mask`
    remappings  others

    If the node fails, `ros2 launch` ends with status 1 when it ends, but nothing else is stopped for that: the launch
    file may be part of a robot's. One that is started again has not failed. Raises ValueError with a sentence for a
    parameter file that is not there.
    """
    _read(given["params_file"])
    values: dict[str, Any] = dict(overrides or {})
    if given.get("use_sim_time"):
        values["use_sim_time"] = given["use_sim_time"] == "true"
    if given["device"]:
        values["device"] = given["device"]
    respawn = given.get("respawn") == "true"
    renamed = [(name, given.get(f"{name}_topic", "")) for name in ("image", "camera_info", "mask")]
    node = Node(
        package="superpoint_ros",
        executable="superpoint_node",
        name=given["node_name"],
        namespace=given["namespace"],
        output="screen",
        parameters=[str(Path(given["params_file"]).expanduser()), values],
        remappings=[*(each for each in renamed if each[1]), *remappings],
        respawn=respawn,
        respawn_delay=RESPAWN_DELAY,
    )

    def on_exit(event: ProcessExited, context: LaunchContext) -> None:
        if event.returncode and not respawn and not context.is_shutdown:
            mark_failed(context, f"superpoint_node ended with status {event.returncode}.")

    return [node, RegisterEventHandler(OnProcessExit(target_action=node, on_exit=on_exit))]


def mark_failed(context: LaunchContext, text: str) -> None:
    """Log the text, and have `ros2 launch` end with status 1, whenever it does."""
    # Launch remembers what the loop's handler of exceptions is told.
    context.asyncio_loop.call_exception_handler({"message": text})
