"""Run the SuperPoint node on one camera.

ros2 launch superpoint_ros superpoint.launch.py image_topic:=/camera/image_raw
"""

from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchContext, LaunchDescription

PARAMETERS = PathJoinSubstitution([FindPackageShare("superpoint_ros"), "config", "superpoint.yaml"])

ARGUMENTS = [
    DeclareLaunchArgument("image_topic", default_value="image", description="Topic of the images."),
    DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node."),
    DeclareLaunchArgument("params_file", default_value=PARAMETERS, description="YAML file of parameters."),
    DeclareLaunchArgument(
        "use_sim_time",
        default_value="",
        choices=["", "true", "false"],
        description="Take the time from /clock; empty: as in params_file.",
    ),
    DeclareLaunchArgument(
        "device",
        default_value="",
        description="Where the network runs: auto, cpu, cuda, cuda:1; empty: as in params_file.",
    ),
]


def generate_launch_description() -> LaunchDescription:
    """One node; with `image_transport: compressed` it listens to IMAGE_TOPIC/compressed."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=make_node)])


def make_node(context: LaunchContext) -> list[Node]:
    """The node, with those arguments that were given on top of the parameter file."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ("use_sim_time", "device")}
    overrides: dict[str, bool | str] = {}
    if given["use_sim_time"]:
        overrides["use_sim_time"] = given["use_sim_time"] == "true"
    if given["device"]:
        overrides["device"] = given["device"]
    image_topic = LaunchConfiguration("image_topic")
    node = Node(
        package="superpoint_ros",
        executable="superpoint_node",
        name="superpoint",
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        parameters=[LaunchConfiguration("params_file"), overrides],
        remappings=[("image", image_topic), ("image/compressed", [image_topic, "/compressed"])],
    )
    return [node]
