"""Where subscribers once imported `decode_descriptors` from; now `from superpoint_ros import decode_descriptors`."""

from superpoint_ros.frontend.messages import decode_descriptors

__all__ = ["decode_descriptors"]
