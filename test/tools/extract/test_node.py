"""What `superpoint extract` writes is what the node publishes, field by field, over real DDS."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("superpoint_ros.msg", reason="needs the built messages of superpoint_ros")

import numpy as np
from click.testing import CliRunner

from bag_samples import SECOND, image_bytes
from robot import photograph, shifted
from superpoint_ros.bags.content import COMPRESSED_IMAGE, IMAGE, header_stamp
from superpoint_ros.bags.reader import BagReader
from superpoint_ros.frontend.messages import DESCRIPTOR_TYPES, decode_descriptors
from superpoint_ros.tools.demo.playback import play_to_node
from superpoint_ros.tools.demo.shots import Source
from superpoint_ros.tools.extract.command import extract_command

COUNT = 12
TOPICS = ("/superpoint/features", "/superpoint/matches", "/superpoint/homography")
ROUNDING = {DESCRIPTOR_TYPES["float32"]: 1e-6, DESCRIPTOR_TYPES["float16"]: 5e-4, DESCRIPTOR_TYPES["uint8"]: 5e-3}
"""What a component of a descriptor may differ by: a step of its type, at most."""


def drive(topic, compressed):
    """A camera over a mosaic; at frame 7 it sees something else."""
    wide, messages = photograph((160, 400)), []
    for number in range(COUNT):
        picture = shifted(wide, -5 * number, -2 * number)[:120, :160]
        picture = picture[::-1, ::-1] if number >= 7 else picture
        at = SECOND * (10 + number) // 5
        messages.append((topic, at, image_bytes(at, np.ascontiguousarray(picture), compressed)))
    return messages


def by_stamp(path, stamps):
    """(topic, stamp) -> message."""
    with BagReader(path) as bag:
        return {
            (message.topic.name, header_stamp(message.data)): bag.decode(message)
            for message in bag.messages(TOPICS)
            if header_stamp(message.data) in stamps
        }


def same(one, other, track_offset, path=""):
    """Raise AssertionError with the first field that differs by more than rounding: processes share the work out among
    their threads differently.
    """
    for name in (each for each in one.__dataclass_fields__ if not each.isupper() and not each.startswith("__")):
        left, right, where = getattr(one, name), getattr(other, name), f"{path}.{name}"
        if hasattr(left, "__dataclass_fields__"):
            same(left, right, track_offset, where)
        elif name == "track_ids":
            np.testing.assert_array_equal(left - track_offset, right, where)
        elif name == "descriptors":
            decoded = (
                decode_descriptors(each.descriptors, each.descriptor_dim, each.descriptor_type) for each in (one, other)
            )
            np.testing.assert_allclose(*decoded, rtol=0, atol=ROUNDING[one.descriptor_type], err_msg=where)
        elif isinstance(left, np.ndarray) and left.dtype.kind == "f":
            np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-7, err_msg=where)
        elif isinstance(left, float):
            np.testing.assert_allclose(left, right, rtol=1e-5, err_msg=where)
        else:
            np.testing.assert_array_equal(left, right, where)


@pytest.mark.parametrize(
    "compressed, parameters",
    [
        (False, {}),
        (True, {"tracks": "true", "reference": "keyframe", "descriptor_type": "float16", "resize": "128"}),
    ],
)
def test_the_output_is_that_of_the_node(ros_domain, make_bag, tiny_weights, tmp_path, compressed, parameters):
    topic = "/camera/image_raw" + ("/compressed" if compressed else "")
    bag = make_bag("drive", {topic: COMPRESSED_IMAGE if compressed else IMAGE}, drive(topic, compressed))
    given = {"weights": tiny_weights, "device": "cpu", "engine": "torch", **parameters}
    options = [part for name, value in given.items() for part in ("--set", f"{name}={value}")]
    result = CliRunner().invoke(extract_command, [str(bag), str(tmp_path / "extracted"), *options])
    assert result.exit_code == 0, result.output

    typed = {"tracks": True, "resize": 128}
    with BagReader(bag) as reader:
        source = Source(bag, reader.image_topic(None), None)
    play_to_node(
        source,
        tmp_path / "recorded",
        tmp_path / "node.log",
        {name: typed.get(name, value) for name, value in given.items()},
        rate=1.0,
        lockstep=True,
    )
    stamps = {SECOND * (10 + number) // 5 for number in range(COUNT)}
    recorded, extracted = by_stamp(tmp_path / "recorded", stamps), by_stamp(tmp_path / "extracted", stamps)
    assert len(extracted) == 3 * COUNT - 1
    assert set(recorded) == set(extracted)
    first = recorded[TOPICS[0], min(stamps)]
    track_offset = first.track_ids.min() if len(first.track_ids) else 0  # the node has rehearsed
    assert any(message.status == 0 for (name, _), message in extracted.items() if name == TOPICS[2])
    for key, message in recorded.items():
        same(message, extracted[key], track_offset, key[0])
