"""Message definitions for bags: those of `rosbags`, and ours from the .msg files."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from rosbags.interfaces.typing import Typesdict
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

import superpoint_ros

OUR_MESSAGES = ("Features", "FeatureMatches", "HomographyStamped", "RelativePose")


def typestore() -> Typestore:
    """A new store that knows the common interfaces of ROS 2 and our messages.

    Raises FileNotFoundError if this installation has lost its .msg files.
    """
    store = get_typestore(Stores.LATEST)
    store.register(_our_types())
    return store


def message_folder() -> Path:
    """Where our .msg files lie: `msg` of a checkout, `share/superpoint_ros/msg` of an installation.

    No ament index is asked, so that it works without ROS and in an environment that was not
    sourced.
    """
    for package in superpoint_ros.__path__:
        checkout = Path(package).parent
        installed = [parent / "share" / "superpoint_ros" for parent in Path(package).parents]
        for folder in (checkout, *installed):
            if (folder / "msg" / f"{OUR_MESSAGES[0]}.msg").is_file():
                return folder / "msg"
    raise FileNotFoundError(
        f"{', '.join(superpoint_ros.__path__)}: the message definitions are missing; expected "
        "msg/*.msg beside the package, or share/superpoint_ros/msg in the installation"
    )


@cache
def _our_types() -> Typesdict:
    folder, types = message_folder(), {}
    for name in OUR_MESSAGES:
        text = (folder / f"{name}.msg").read_text(encoding="utf-8")
        types.update(get_types_from_msg(text, f"superpoint_ros/msg/{name}"))
    return types
