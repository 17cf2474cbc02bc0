"""test/soak/soak.py, for half a minute; `make soak` takes ten."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from robot import photograph
from soak.actions import configure_for, new_mask
from soak.broken import BROKEN, BROKEN_COMPRESSED, EMPTY
from soak.checks import Failure, check_features, check_mask
from soak.pictures import CODECS, ENCODINGS, MASK_ENCODINGS, MASKS, SIZES, compressed, encoded
from soak.rig import SoakRig
from soak.soak import Soak
from superpoint_ros.features.decode import decode_compressed, decode_image
from superpoint_ros.features.extractor import Extractor
from superpoint_ros.features.intensity import FixedRange, FoundRange
from superpoint_ros.frontend.masking import Mask as NodeMask
from superpoint_ros.frontend.messages import features_fields, to_message
from superpoint_ros.frontend.parameters import Parameters
from superpoint_ros.frontend.pictures import grey_picture
from superpoint_ros.network.heatmap import DetectionSettings


def test_a_node_lives_through_half_a_minute_of_faults(ros_domain, tmp_path):
    rig = SoakRig(ros_domain, tmp_path)
    try:
        soak = Soak(rig, seed=1)
        soak.run(seconds=30)
        soak.round(compressed_and_masked)
        soak.round(new_mask)
        assert soak.tried and all(soak.totals[f"frames_{kind}"] > 0 for kind in ("out", "bad", "unmasked"))
        assert "| compressed and masked | 1 |" in soak.table() and "| compressed image: " in soak.table()
        rig.stop()
    finally:
        rig.close()


def compressed_and_masked(rig, world, random):
    configure_for(rig, world, random, compressed=True, masked=True)


@pytest.mark.parametrize("kind", BROKEN)
def test_every_broken_image_is_one(kind):
    with pytest.raises(ValueError):
        grey_picture(BROKEN[kind](), False, Parameters(), FoundRange())


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_good_image_is_one(encoding):
    picture = np.random.default_rng(0).integers(0, 256, (24, 32), np.uint8)
    assert decode_image(encoded(picture, encoding)).shape == (24, 32)


@pytest.mark.parametrize("kind", BROKEN_COMPRESSED)
def test_every_broken_compressed_image_is_one(kind):
    with pytest.raises(ValueError):
        grey_picture(BROKEN_COMPRESSED[kind](), True, Parameters(), FoundRange())


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_good_compressed_image_is_that_picture(encoding, codec):
    picture = photograph(SIZES[3])
    message = compressed(encoded(picture, encoding), codec)
    found = decode_compressed(message, FixedRange(0, 65535))
    assert found.shape == (241, 318 if encoding == "yuv422_yuy2" else 319)
    if "bayer" not in encoding:
        assert np.abs(found - picture[:, : found.shape[1]].astype(int)).mean() < 2


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("kind", EMPTY)
def test_an_image_without_keypoints_is_a_good_one_when_compressed(kind, codec):
    assert grey_picture(compressed(EMPTY[kind](), codec), True, Parameters(), FoundRange()).shape == (240, 320)


@pytest.mark.parametrize("size", [*SIZES, (241, 318)])
@pytest.mark.parametrize("encoding", MASK_ENCODINGS)
def test_every_mask_fits_every_image(size, encoding):
    for mask in MASKS:
        node = NodeMask()
        node.update(mask.message(encoding))
        black = np.flatnonzero(~node.allowed(size).all(axis=0))
        assert abs(len(black) - size[1] / 3) < 2
        assert mask.broken_by(np.array([np.median(black)]), size[1])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("count", "threshold"), [(50, 0.02), (1024, 0)])
def test_keypoints_tell_which_mask_is_in_use(size, count, threshold, network):
    network.settings = DetectionSettings(count, threshold, subpixel=True)
    for network.resize in (120, 200):
        for used in MASKS:
            node = NodeMask()
            node.update(used.message())
            x = network.batch([photograph(size)], [node.allowed(size)])[0].xy[:, 0]
            assert [mask for mask in MASKS if not mask.broken_by(x, size[1])] == [used]


@pytest.fixture(scope="module")
def network():
    return Extractor(device="cpu")


def test_features_of_an_image_without_its_mask_are_noticed():
    from superpoint_ros.msg import Features

    message = Features(width=300, x=[10.0, 150.0])
    masks = [MASKS[0], MASKS[2]]
    check_mask(message, masks)
    assert masks == [MASKS[2]]
    check_mask(message, masks)
    message.x[1] = 250.0
    with pytest.raises(Failure, match="where the mask is black"):
        check_mask(message, masks)


def test_features_that_are_not_valid_are_noticed(extractor):
    from std_msgs.msg import Header

    from superpoint_ros.msg import Features

    found = extractor(photograph())
    message = to_message(Features, features_fields(found, Header(), "w"))
    check_features(message)
    message.x[3] = 1e6
    with pytest.raises(Failure, match="outside of the image"):
        check_features(message)
