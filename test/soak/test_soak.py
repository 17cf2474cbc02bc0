"""test/soak/soak.py, for half a minute; `make soak` takes ten."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from soak.actions import ENCODINGS, encoded
from soak.broken import BROKEN
from soak.rig import Failure, SoakRig, check_features
from soak.soak import Soak
from superpoint_ros.features.decode import decode_image
from superpoint_ros.features.intensity import FoundRange
from superpoint_ros.frontend.messages import features_fields, to_message
from superpoint_ros.frontend.parameters import Parameters
from superpoint_ros.frontend.pictures import grey_picture


def test_a_node_lives_through_half_a_minute_of_faults(ros_domain, tmp_path):
    rig = SoakRig(ros_domain, tmp_path)
    try:
        soak = Soak(rig, seed=1)
        soak.run(seconds=30)
        assert soak.tried and soak.totals["frames_out"] > 0 and soak.totals["frames_bad"] > 0
        rig.stop()
    finally:
        rig.close()


@pytest.mark.parametrize("kind", BROKEN)
def test_every_broken_image_is_one(kind):
    with pytest.raises(ValueError):
        grey_picture(BROKEN[kind](), False, Parameters(), FoundRange())


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_good_image_is_one(encoding):
    picture = np.random.default_rng(0).integers(0, 256, (24, 32), np.uint8)
    assert decode_image(encoded(picture, encoding)).shape == (24, 32)


def test_features_that_are_not_valid_are_noticed(extractor):
    from std_msgs.msg import Header

    from robot import photograph
    from superpoint_ros.msg import Features

    found = extractor(photograph())
    message = to_message(Features, features_fields(found, Header(), "w"))
    check_features(message)
    message.x[3] = 1e6
    with pytest.raises(Failure, match="outside of the image"):
        check_features(message)
