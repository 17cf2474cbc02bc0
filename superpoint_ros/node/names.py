"""Names of a camera's topics after remapping: those that belong to the images follow them, as with image_transport."""

from __future__ import annotations

from rclpy.lifecycle import LifecycleNode


def resolved(node: LifecycleNode, topic: str) -> str:
    """The full name after remapping. Raises RuntimeError with a sentence for what is no topic name."""
    try:
        return str(node.resolve_topic_name(topic))
    except Exception as error:
        raise RuntimeError(f"'{topic}' is no topic name: {error}") from None


def compressed_topic(node: LifecycleNode, image_topic: str) -> str:
    """`/compressed` below where `image_topic` is remapped to, unless it is remapped itself."""
    below = f"{image_topic.removesuffix('/compressed')}/compressed"
    return _remapped(node, below) or f"{resolved(node, image_topic).removesuffix('/compressed')}/compressed"


def camera_info_topic(node: LifecycleNode, prefix: str, image_topic: str) -> str:
    """`camera_info` beside where `image_topic` is remapped to, unless it is remapped itself.

    prefix  of the camera's topics, as in "left/"
    """
    beside = image_topic.rpartition("/")[0]
    own = [f"{prefix}camera_info", f"{beside}/camera_info" if beside else "camera_info"]
    explicit = next(filter(None, (_remapped(node, topic) for topic in own)), None)
    return explicit or resolved(node, image_topic).removesuffix("/compressed").rpartition("/")[0] + "/camera_info"


def _remapped(node: LifecycleNode, topic: str) -> str | None:
    name = resolved(node, topic)
    return name if name != node.resolve_topic_name(topic, only_expand=True) else None
