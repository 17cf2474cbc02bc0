"""Small bags, and a ROS domain for each test."""

from __future__ import annotations

import pytest

from bag_samples import make_bag, make_images  # noqa: F401


@pytest.fixture
def ros_domain(monkeypatch: pytest.MonkeyPatch) -> int:
    """A ROS_DOMAIN_ID that nobody on this machine uses, with DDS kept on the machine."""
    pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
    pytest.importorskip("superpoint_ros.msg", reason="needs the built messages of superpoint_ros")
    from superpoint_ros.tools.session import private_domain

    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    return private_domain()
