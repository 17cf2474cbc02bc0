"""Write a video that browsers play."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

CODECS = ("vp09", "avc1", "mp4v")
"""VP9 and H.264 play in every browser; MPEG-4 part 2, in most players, where OpenCV has neither."""


def write_video(path: Path, pictures: Iterable[NDArray[np.uint8]], rate: float) -> int:
    """Write pictures, (H, W, 3) BGR, as an mp4; returns how many.

    Codecs want even sides, so an odd last row or column is cut off; a picture of another size than
    the first is resized to it. Raises OSError if no codec works.
    """
    writer, size, count = None, (0, 0), 0
    for picture in pictures:
        if writer is None:
            size = (picture.shape[1] // 2 * 2, picture.shape[0] // 2 * 2)
            writer = _open(path, size, rate)
        if picture.shape[0] // 2 * 2 == size[1] and picture.shape[1] // 2 * 2 == size[0]:
            picture = np.ascontiguousarray(picture[: size[1], : size[0]])
        else:
            picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
        writer.write(picture)
        count += 1
    if writer is not None:
        writer.release()
    return count


def _open(path: Path, size: tuple[int, int], rate: float) -> cv2.VideoWriter:
    for codec in CODECS:
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), rate, size)
        if writer.isOpened():
            return writer
    raise OSError(f"{path}: OpenCV {cv2.__version__} can write none of {', '.join(CODECS)}")
