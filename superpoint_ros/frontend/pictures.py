"""An image message to the picture that goes through the network; the same for topics and for bags."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.decode import decode_compressed, decode_image
from superpoint_ros.features.image import as_grey, target_size
from superpoint_ros.features.intensity import FoundRange, scale_of
from superpoint_ros.features.pyramid import check_scales, level_sizes
from superpoint_ros.frontend.parameters import Parameters
from superpoint_ros.frontend.stamps import nanoseconds


def grey_picture(message: Any, compressed: bool, values: Parameters, found: FoundRange) -> NDArray[np.uint8]:
    """(H, W) uint8 of a sensor_msgs/Image, or of a CompressedImage, that the extractor takes.

    found  the range of this camera's 16-bit or float images so far; follows them unless `intensity_range` is set

    Raises ValueError with a sentence for an image that cannot be used.
    """
    nanoseconds(message.header.stamp)
    decode = decode_compressed if compressed else decode_image
    grey = as_grey(decode(message, scale_of(values.intensity_range, found), values.max_image_pixels))
    level_sizes(target_size(grey.shape, values.resize or None), check_scales(values.scales))
    return grey
