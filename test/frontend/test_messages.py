"""superpoint_ros/frontend/messages.py"""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from superpoint_ros.features.extractor import Features
from superpoint_ros.features.matching import match
from superpoint_ros.frontend.messages import (
    DESCRIPTOR_TYPES,
    decode_descriptors,
    encode_descriptors,
    features_fields,
    to_message,
)


def features(count=50, dim=256, seed=0):
    rng = np.random.default_rng(seed)
    descriptors = rng.normal(size=(count, dim)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    xy = rng.uniform(0, 200, (count, 2)).astype(np.float32)
    scores, scales = np.sort(rng.random(count, np.float32))[::-1], rng.choice(np.float32([1, 2]), count)
    return Features(xy, scores, descriptors, (240, 320), scales=scales)


@pytest.mark.parametrize(
    ("descriptor_type", "size", "error"),
    [("float32", 4, 1e-7), ("float16", 2, 2e-4), ("uint8", 1, 3e-3)],
)
def test_descriptors_survive_encoding(descriptor_type, size, error):
    original = features().descriptors
    data = encode_descriptors(original, descriptor_type)
    assert (data.dtype, data.nbytes) == (np.uint8, original.size * size)
    decoded = decode_descriptors(data.tobytes(), 256, DESCRIPTOR_TYPES[descriptor_type])
    np.testing.assert_allclose(decoded, original, atol=error)


def test_subscribers_import_the_decoder_without_torch(tmp_path):
    code = """
import sys
from superpoint_ros import decode_descriptors
from superpoint_ros.node.messages import decode_descriptors as former
assert former is decode_descriptors
assert not {"torch", "cv2"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=300)


def test_uint8_follows_the_formula_in_the_message_file():
    values = np.array([[0.0, 0.25, -0.25, 0.9, -0.9, 1 / 256]], np.float32)
    np.testing.assert_array_equal(encode_descriptors(values, "uint8"), [128, 192, 64, 255, 1, 129])


def test_an_image_without_keypoints_encodes_to_nothing():
    for descriptor_type, constant in DESCRIPTOR_TYPES.items():
        data = encode_descriptors(np.empty((0, 256), np.float32), descriptor_type)
        assert decode_descriptors(data, 256, constant).shape == (0, 256)


def test_constants_agree_with_the_message_definitions():
    pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
    from superpoint_ros.features.homography import HomographyStatus
    from superpoint_ros.msg import Features as FeaturesMessage
    from superpoint_ros.msg import HomographyStamped

    for name, value in DESCRIPTOR_TYPES.items():
        assert getattr(FeaturesMessage, name.upper()) == value
    for status in HomographyStatus:
        assert getattr(HomographyStamped, status.name) == status


@pytest.mark.parametrize("count", [0, 1, 50])
def test_a_ros_message_holds_the_features_exactly(count):
    pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
    from rclpy.serialization import deserialize_message, serialize_message
    from std_msgs.msg import Header

    from superpoint_ros.msg import Features as FeaturesMessage

    original = features(count)
    fields = features_fields(original, Header(frame_id="camera"), "w@1", track_ids=np.arange(count, dtype=np.int32))
    message = deserialize_message(serialize_message(to_message(FeaturesMessage, fields)), FeaturesMessage)
    np.testing.assert_array_equal(np.column_stack([message.x, message.y]).reshape(count, 2), original.xy)
    np.testing.assert_array_equal(message.scores, original.scores)
    np.testing.assert_array_equal(message.scale, original.scales)
    decoded = decode_descriptors(message.descriptors, message.descriptor_dim, message.descriptor_type)
    np.testing.assert_allclose(decoded, original.descriptors, atol=1e-7)
    assert list(message.track_ids) == list(range(count))
    assert (message.header.frame_id, message.height, message.width, message.weights_id) == (
        "camera",
        240,
        320,
        "w@1",
    )


def test_arrays_are_handed_over_without_a_check_of_each_element():
    """rclpy looks at every element of a list or numpy array, but not of an array.array."""
    pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
    import timeit

    from superpoint_ros.msg import Features as FeaturesMessage

    descriptors = np.zeros(1024 * 256 * 4, np.uint8)
    ours = min(timeit.repeat(lambda: to_message(FeaturesMessage, {"descriptors": descriptors}), number=1, repeat=5))
    naive = min(timeit.repeat(lambda: FeaturesMessage(descriptors=descriptors), number=1, repeat=5))
    assert ours < naive / 5


def test_quantised_descriptors_match_as_well():
    rng = np.random.default_rng(4)
    reference = features(400)
    noisy = reference.descriptors + rng.normal(0, 0.03, reference.descriptors.shape).astype(np.float32)
    noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)

    def through(descriptor_type):
        one, other = (
            SimpleNamespace(
                descriptors=decode_descriptors(
                    encode_descriptors(d, descriptor_type), 256, DESCRIPTOR_TYPES[descriptor_type]
                )
            )
            for d in (reference.descriptors, noisy)
        )
        pair = [Features(reference.xy, reference.scores, side.descriptors, reference.size) for side in (one, other)]
        matches = match(*pair)
        return (matches[:, 0] == matches[:, 1]).sum()

    assert through("float32") >= 390
    for descriptor_type in ("float16", "uint8"):
        assert through(descriptor_type) >= 0.99 * through("float32")
