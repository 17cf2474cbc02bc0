"""What the launch files have in common: arguments, and the node that is started with them.

Needs launch and launch_ros, which the node itself does not. The launch files import it from the installed package,
whether they lie in its share folder or in a checkout; it loads nothing else of the package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from launch import LaunchContext
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

SHARED: dict[str, dict[str, Any]] = {
    "image_topic": {"default_value": "image", "description": "Topic of the images."},
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


def superpoint_node(given: Mapping[str, str], overrides: Mapping[str, Any] | None = None) -> Node:
    """The node; the shared arguments that were given, and `overrides`, come on top of the parameter file.

    given  text of the arguments; `image_topic`, where it is among them, takes the place of `image`
    """
    values: dict[str, Any] = dict(overrides or {})
    if given.get("use_sim_time"):
        values["use_sim_time"] = given["use_sim_time"] == "true"
    if given["device"]:
        values["device"] = given["device"]
    remappings = []
    if topic := given.get("image_topic"):
        remappings = [("image", topic), ("image/compressed", f"{topic}/compressed")]
    return Node(
        package="superpoint_ros",
        executable="superpoint_node",
        name="superpoint",
        namespace=given["namespace"],
        output="screen",
        parameters=[given["params_file"], values],
        remappings=remappings,
    )
