"""Pairs made from photographs: the second view is the photograph seen by a camera that has moved.

Every pair is drawn from its own seed, so a set is the same on every machine and in every order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.image import Resize, resize_image
from superpoint_training.augmentation import Photometric, photometric
from superpoint_training.evaluation.pairs import Pair, Views, read_resized
from superpoint_training.homography import scaling
from superpoint_training.pictures import EXTENSIONS, listed_names

UNCHANGED = Photometric(
    share=1.0,
    brightness=0.0,
    contrast=(1.0, 1.0),
    gamma=1.0,
    shade=0.0,
    blur=0.0,
    motion=0.0,
    gaussian=0.0,
    speckle=0.0,
)
"""Nothing is done; with `share` 1 every effect that is not 0 here happens in every pair."""
SUPERSAMPLING = 2
ZOOM = (1.5, 4.0)


@dataclass(frozen=True)
class Motion:
    """From which camera motions a pair's is drawn, uniformly.

    The defaults are a little motion: without, keypoints rounded to the same pixel look exact.

    rotation  greatest turn about the optical axis, degrees, to either side
    tilt      (least, greatest) angle between the photograph and the image plane, degrees, about any
              axis
    scale     (least, greatest) magnification, uniform in its logarithm
    shift     greatest displacement along x and y, as a share of the picture's side
    """

    rotation: float = 10.0
    tilt: tuple[float, float] = (0.0, 8.0)
    scale: tuple[float, float] = (0.9, 1.1)
    shift: float = 0.05


KINDS: dict[str, tuple[Motion, Photometric]] = {
    "viewpoint": (Motion(tilt=(20.0, 50.0)), UNCHANGED),
    "rotation": (Motion(rotation=180.0), UNCHANGED),
    "scale": (Motion(scale=(0.5, 2.0)), UNCHANGED),
    "illumination": (
        Motion(),
        replace(UNCHANGED, brightness=50.0, contrast=(0.3, 1.7), gamma=2.5, shade=0.8),
    ),
    "noise": (Motion(), replace(UNCHANGED, gaussian=30.0, speckle=0.25)),
    "blur": (Motion(), replace(UNCHANGED, blur=3.0, motion=12.0)),
    "strong": (
        Motion(rotation=60.0, tilt=(0.0, 40.0), scale=(0.6, 1.4), shift=0.1),
        Photometric(
            share=1.0,
            brightness=40.0,
            contrast=(0.5, 1.5),
            gamma=1.5,
            shade=0.5,
            blur=1.2,
            motion=5.0,
            gaussian=12.0,
            speckle=0.1,
        ),
    ),
}
"""What differs between the two views; "strong" is everything at once."""


def list_photographs(directory: Path, names: Path | None = None) -> list[Path]:
    """The pictures of a directory and its folders, sorted, or those that a file lists.

    names  a text file with one name a line, relative to `directory`; empty lines and those that
           start with # do not count

    Raises ValueError if there is none, or if a listed one does not exist.
    """
    if names is None:
        found = sorted(path for path in directory.rglob("*") if path.suffix.lower() in EXTENSIONS)
        if not found:
            raise ValueError(f"{directory}: no picture found (looked for {', '.join(EXTENSIONS)})")
        return found
    listed = listed_names(names)
    missing = [name for name in listed if not (directory / name).is_file()]
    if not listed:
        raise ValueError(f"{names}: lists no picture; expected one name a line, relative to {directory}")
    if missing:
        raise ValueError(f"{names}: {len(missing)} of {len(listed)} pictures not in {directory}: {missing[0]} …")
    return [directory / name for name in listed]


def warped_pairs(photographs: Sequence[Path], count: int, kinds: Sequence[str], size: Resize, seed: int) -> list[Pair]:
    """Make `count` pairs, all photographs in turn, all kinds equally often.

    kinds  of `KINDS`; ValueError for another. size: of both views, as in `target_size`
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        found = f"unknown kind of pair {unknown[0]!r}" if unknown else "no kind of pair is named"
        raise ValueError(f"{found}; expected some of {', '.join(KINDS)}")
    pairs = []
    for index in range(count):
        photograph = photographs[index % len(photographs)]
        # The second time round a photograph gets another kind, even if the numbers share a divisor.
        kind = kinds[(index + index // len(photographs)) % len(kinds)]
        name = f"{index:04d} {photograph.name} {kind}"
        load = partial(_load_warped, photograph, kind, size, (seed, index))
        pairs.append(Pair(name, str(photograph), kind, "photograph", name, load))
    return pairs


def rotation_pairs(photographs: Sequence[Path], angles: Sequence[float], size: Resize) -> list[Pair]:
    """Each photograph with itself turned about its centre by each angle; `kind` is the angle."""
    pairs = []
    for index, photograph in enumerate(photographs):
        for angle in dict.fromkeys(angles):
            name = f"{index:04d} {photograph.name} {angle:g}°"
            load = partial(_load_rotated, photograph, angle, size)
            pairs.append(Pair(name, str(photograph), f"{angle:g}", "photograph", name, load))
    return pairs


def zoom_pairs(photographs: Sequence[Path], count: int, seed: int) -> list[Pair]:
    """Make `count` pairs that zoom out by 1.5 to 4, with a little tilt and turn; `kind` says by how much.

    From close to far, as HPatches does: the corners of the first view lie inside the second. Both have half the side
    of the photograph's file; the first is drawn from that, so it shows what the second is too coarse for, up to
    a zoom of 2 as sharp as the file.
    """
    pairs = []
    for index in range(count):
        photograph = photographs[index % len(photographs)]
        rng = np.random.default_rng((seed, index))
        zoom = float(np.exp(rng.uniform(*np.log(ZOOM))))
        changes = {
            "scale": zoom,
            "rotation": float(rng.uniform(-30, 30)),
            "tilt": float(rng.uniform(0, 20)),
            "axis": float(rng.uniform(0, 360)),
        }
        name = f"{index:04d} {photograph.name} zoom"
        kind = next(f"up to {bound:g}" for bound in (2, 3, 4) if zoom <= bound)
        shift = tuple(rng.uniform(-0.05, 0.05, 2).tolist())
        load = partial(_load_zoomed, photograph, changes, shift)
        pairs.append(Pair(name, str(photograph), kind, name, "photograph", load))
    return sorted(pairs, key=lambda pair: pair.kind)


def camera_homography(
    size: tuple[int, int],
    rotation: float = 0.0,
    tilt: float = 0.0,
    axis: float = 0.0,
    scale: float = 1.0,
    shift: tuple[float, float] = (0.0, 0.0),
) -> NDArray[np.float64]:
    """How the picture of a plane changes when the camera moves: (3, 3) float64, last element 1.

    size      (height, width) of both pictures; the focal length is the longer side (a view of 53
              degrees)
    rotation  turn of the picture about its centre, degrees, from x towards y
    tilt      angle between the plane and the image plane, degrees, about an axis through the centre
    axis      direction of that axis in the picture, degrees from x towards y
    scale     magnification at the centre
    shift     of the centre, pixels along x and y
    """
    focal = float(max(size))
    turn, _ = cv2.Rodrigues(np.radians([0.0, 0.0, rotation]))
    lean, _ = cv2.Rodrigues(np.radians(tilt) * np.array([np.cos(np.radians(axis)), np.sin(np.radians(axis)), 0.0]))
    # The plane z = 0 at distance `focal`: (x, y) ↦ focal · (Rx)_xy / ((Rx)_z + focal).
    plane = (lean @ turn)[:, :2]
    projection = np.column_stack([plane, [0, 0, 1]]) * np.array([[scale], [scale], [1 / focal]])
    projection[2, 2] = 1
    centre = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2])
    to_centre, back = np.eye(3), np.eye(3)
    to_centre[:2, 2] = -centre
    back[:2, 2] = centre + shift
    homography = back @ projection @ to_centre
    return np.asarray(homography / homography[2, 2], np.float64)


def render(
    image: NDArray[np.uint8], homography: NDArray[np.float64], size: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """See an image through a homography, at a (height, width) or at its own size.

    Drawn at twice the size and averaged down, so that what shrinks does not alias. Outside the
    image it is continued by its reflection: a black border would be a corner that moves with the
    picture, or a line for matches to fail on.
    """
    height, width = size or image.shape
    large = (height * SUPERSAMPLING, width * SUPERSAMPLING)
    warped = cv2.warpPerspective(
        image,
        scaling((height, width), large) @ homography,
        (large[1], large[0]),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return np.asarray(cv2.resize(warped, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _load_warped(photograph: Path, kind: str, size: Resize, seed: tuple[int, int]) -> Views:
    image, _ = read_resized(photograph, size)
    motion, light = KINDS[kind]
    rng = np.random.default_rng(seed)
    extent = np.array([image.shape[1], image.shape[0]])
    changes = {
        "rotation": float(rng.uniform(-motion.rotation, motion.rotation)),
        "tilt": float(rng.uniform(*motion.tilt)),
        "axis": float(rng.uniform(0, 360)),
        "scale": float(np.exp(rng.uniform(*np.log(motion.scale)))),
    }
    shift = rng.uniform(-motion.shift, motion.shift, 2) * extent
    homography = camera_homography((image.shape[0], image.shape[1]), **changes, shift=(shift[0], shift[1]))
    return Views(image, photometric(rng, render(image, homography), light), homography, changes)


def _load_zoomed(photograph: Path, changes: dict[str, float], shift: tuple[float, float]) -> Views:
    image, _ = read_resized(photograph, None)
    whole = (image.shape[0], image.shape[1])
    size = (whole[0] // 2, whole[1] // 2)
    closer = camera_homography(size, **changes, shift=(shift[0] * size[1], shift[1] * size[0]))
    close = render(image, closer @ scaling(whole, size), size)
    away = np.linalg.inv(closer)
    return Views(close, resize_image(image, size), away / away[2, 2], changes)


def _load_rotated(photograph: Path, angle: float, size: Resize) -> Views:
    image, _ = read_resized(photograph, size)
    homography = camera_homography((image.shape[0], image.shape[1]), rotation=angle)
    return Views(image, render(image, homography), homography, {"rotation": angle})
