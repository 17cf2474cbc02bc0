"""Run the SuperPoint node on one camera.

ros2 launch superpoint_ros superpoint.launch.py image_topic:=/camera/image_raw
"""

from launch import Action, LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction

from superpoint_ros.node.launch_arguments import shared_arguments, superpoint_node, values_of

ARGUMENTS = shared_arguments(
    "image_topic",
    "camera_info_topic",
    "mask_topic",
    "namespace",
    "node_name",
    "params_file",
    "use_sim_time",
    "device",
    "respawn",
)


def generate_launch_description() -> LaunchDescription:
    """One node; with `image_transport: compressed` it listens to IMAGE_TOPIC/compressed."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=make_node)])


def make_node(context: LaunchContext) -> list[Action]:
    """The node, with those arguments that were given on top of the parameter file."""
    return superpoint_node(values_of(ARGUMENTS, context))
