"""Where tests find what is installed: the package itself, and programs."""

import os
import shutil
import sys
from pathlib import Path

import pytest


def prefix():
    """Where CMake has installed superpoint_ros. Skips the test, by name, where it has not."""
    pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
    messages = pytest.importorskip("superpoint_ros.msg", reason="needs the built messages of superpoint_ros")
    return next(path for path in Path(messages.__file__).parents if (path / "share" / "superpoint_ros").is_dir())


def program(name):
    """A program beside this Python, as in a virtual environment that is not activated, or on the path.

    Skips the test, by name, where it is in neither.
    """
    folders = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    found = shutil.which(name, path=folders)
    if found is None:
        pytest.skip(f"{name} is not on the path")
    return found
