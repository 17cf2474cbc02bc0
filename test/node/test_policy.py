"""config/superpoint_policy.xml, the SROS 2 policy, against what the running node has."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from rclpy.parameter import Parameter

POLICY = Path(__file__).parents[2] / "config" / "superpoint_policy.xml"
OF_SOME = {"/clock", "/parameter_events"}
"""Subscribed to with use_sim_time, and by some distributions."""


def allowed(kind, right):
    profile = ElementTree.parse(POLICY).find("enclaves/enclave/profiles/profile")
    assert (profile.get("ns"), profile.get("node")) == ("/", "superpoint")
    names = [each.text for group in profile.findall(kind) if group.get(right) == "ALLOW" for each in group]
    assert len(names) == len(set(names))
    return {name.replace("~", "/superpoint") if name[0] in "~/" else f"/{name}" for name in names}


def test_the_policy_allows_what_the_node_does_and_no_more(robot):
    node = robot.add_node(rectify=True, use_mask_topic=True, motion=True, lazy=False)

    def names(list_them):
        return {name for name, _ in list_them("superpoint", "/")}

    subscribed = set()
    for transport in ("raw", "compressed"):
        node.set_parameters([Parameter("image_transport", value=transport)])
        assert node.start()
        topic = node.cameras[""].inputs.topic
        robot.spin_until(lambda t=topic: t in names(node.get_subscriber_names_and_types_by_node), topic)
        subscribed |= names(node.get_subscriber_names_and_types_by_node)
        expected = allowed("topics", "publish")
        robot.spin_until(lambda e=expected: names(node.get_publisher_names_and_types_by_node) == e, "the publishers")
        served = names(node.get_service_names_and_types_by_node)
        node.trigger_deactivate()
        node.trigger_cleanup()
    assert subscribed | OF_SOME == allowed("topics", "subscribe")
    assert served | {"/superpoint/get_type_description"} == allowed("services", "reply")  # of some distributions
