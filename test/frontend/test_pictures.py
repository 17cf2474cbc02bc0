"""superpoint_ros/frontend/pictures.py"""

from types import SimpleNamespace

import numpy as np
import pytest

from superpoint_ros.features.intensity import FoundRange
from superpoint_ros.frontend.parameters import Parameters
from superpoint_ros.frontend.pictures import grey_picture


def message(height, width):
    stamp = SimpleNamespace(sec=1, nanosec=0)
    return SimpleNamespace(
        header=SimpleNamespace(stamp=stamp),
        height=height,
        width=width,
        encoding="mono8",
        is_bigendian=0,
        step=width,
        data=np.full(height * width, 7, np.uint8).tobytes(),
    )


def test_an_image_is_its_grey_levels():
    found = grey_picture(message(24, 640), False, Parameters(), FoundRange())
    assert found.shape == (24, 640) and (found == 7).all()


@pytest.mark.parametrize("values", [Parameters(resize=160), Parameters(scales="0.5"), Parameters(scales="0.5, 0.25")])
def test_an_image_that_is_too_small_for_the_network_at_its_largest_size_is_bad(values):
    with pytest.raises(ValueError, match="both sides must have at least 16"):
        grey_picture(message(24, 640), False, values, FoundRange())
