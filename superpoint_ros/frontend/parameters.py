"""The node's parameters: one table with default, description, range and whether it changes live."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from typing import Any

from superpoint_ros.features.extractor import Extractor
from superpoint_ros.features.image import MAX_PIXELS, SMALLEST_SIDE
from superpoint_ros.features.intensity import AUTOMATIC
from superpoint_ros.features.pyramid import check_scales
from superpoint_ros.frontend.messages import DESCRIPTOR_TYPES
from superpoint_ros.frontend.track_points import LAYOUTS
from superpoint_ros.frontend.tracker import REFERENCES
from superpoint_ros.network.engines.engine import ENGINES, PRECISIONS
from superpoint_ros.network.heatmap import DetectionSettings

PER_CAMERA = ("image_topics", "frame_ids", "mask_files")
"""Arrays with an entry for each camera, or as they are by default."""


def _entry(
    default: Any,
    description: str,
    live: bool = False,
    limits: tuple[float, float] | None = None,
    choices: Sequence[str] = (),
    by_camera: bool = False,
) -> Any:
    """A row of the table.

    limits     lowest and highest value allowed, both included
    by_camera  whether `CAMERA.NAME` sets it for one camera
    """
    metadata = {
        "description": description,
        "live": live,
        "limits": limits,
        "choices": tuple(choices),
        "by_camera": by_camera,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Parameters:
    """The table; an instance holds one set of values."""

    weights: str = _entry(
        "",
        "default (or empty), fast (for a CPU), or a weights file: safetensors, or .pth of Magic Leap or rpautrat, or "
        "Hugging Face.",
    )
    device: str = _entry("auto", "Where the network runs: auto (CUDA if there is one), cpu, cuda, cuda:1 …")
    engine: str = _entry(
        "auto",
        "What runs the network; auto: the fastest that is installed and agrees. cudagraph and tensorrt need CUDA.",
        choices=ENGINES,
    )
    precision: str = _entry("auto", "Of the convolutions; float16 needs CUDA.", choices=PRECISIONS)
    cameras: tuple[str, ...] = _entry(
        ("",),
        "Names of the cameras, as in [left, right]: NAME/image in, ~/NAME/features … out. One empty name: "
        "`image` in, `~/features` … out.",
    )
    image_topics: tuple[str, ...] = _entry(("",), "In place of NAME/image, one for each camera; empty: as they are.")
    frame_ids: tuple[str, ...] = _entry(
        ("",), "In place of the frame in the images' headers, one for each camera; empty: theirs."
    )
    synchronise: str = _entry(
        "none",
        "none: the newest frame of each camera, whenever it came. exact, approximate: sets of frames of all cameras "
        "whose stamps are the same, or at most sync_slop apart. Needs message_filters.",
        choices=("none", "exact", "approximate"),
    )
    sync_slop: float = _entry(
        0.01,
        "Seconds that the stamps of a set may differ; keep it below half the frame period.",
        limits=(0.0001, 10.0),
    )
    sync_queue: int = _entry(10, "Frames of each camera that wait for their partners.", limits=(1, 1000))
    image_transport: str = _entry(
        "raw",
        "raw: sensor_msgs/Image on `image`. compressed: CompressedImage on `image/compressed`.",
        choices=("raw", "compressed"),
    )
    rectify: bool = _entry(
        False,
        "Fill rectified_x, rectified_y with the calibration on `camera_info` beside the image topic, or where "
        "`camera_info` is remapped to.",
    )
    mask_files: tuple[str, ...] = _entry(
        ("",),
        "Pictures that are black where keypoints are not wanted (own vehicle, burnt-in text), one for each camera; "
        "empty: none.",
    )
    use_mask_topic: bool = _entry(
        False,
        "Take such masks from the topic `mask` or NAME/mask (sensor_msgs/Image), too; the newest counts, and without "
        "one no image is extracted. Latched: reliable and transient local.",
    )
    autostart: bool = _entry(True, "Configure and activate at start-up; false waits for a lifecycle manager.")
    lazy: bool = _entry(
        True,
        "Subscribe to images only while anyone subscribes to what comes of them; false: always, so that a subscriber "
        "need not wait for the first.",
        live=True,
    )
    rate: float = _entry(
        0.0,
        "Images of each camera, or sets of synchronised ones, that are processed in a second, at most; 0.0: all.",
        live=True,
        limits=(0.0, 1000.0),
        by_camera=True,
    )
    max_keypoints: int = _entry(1024, "The strongest keypoints are kept.", live=True, limits=(1, 65536), by_camera=True)
    detection_threshold: float = _entry(
        0.005, "A keypoint's score is above this probability.", live=True, limits=(0.0, 0.999)
    )
    nms_radius: int = _entry(
        4,
        "Pixels at network resolution; no two keypoints are this close or closer.",
        live=True,
        limits=(0, 64),
    )
    border: int = _entry(
        4,
        "Pixels at network resolution along the image's edge without keypoints.",
        live=True,
        limits=(0, 1024),
    )
    subpixel: bool = _entry(True, "Refine keypoints within the pixel.", live=True)
    resize: int = _entry(
        0,
        "Longer side in pixels at which images go through the network; 0: as they come. Half the side is a quarter "
        "of the time. Keypoints are in pixels of the image as it came in any case.",
        live=True,
        limits=(0, 8192),
        by_camera=True,
    )
    scales: str = _entry(
        "single",
        "Sizes at which an image goes through the network, for what is seen from near and from far: single (1.0), "
        "video (1.0, 0.5; 1.25 times the time), matching (1.0, 0.7, 0.5, 0.35; 1.86 times), zoom (1.4 before these; "
        "3.8 times), or numbers relative to resize, the largest first, as in '1.0, 0.7'. They share max_keypoints.",
        live=True,
    )
    intensity_range: tuple[float, ...] = _entry(
        AUTOMATIC,
        "Values of 16-bit and float images that become black and white. [0.0, 0.0]: found from the images, "
        "and followed slowly.",
        live=True,
        by_camera=True,
    )
    max_image_pixels: int = _entry(
        MAX_PIXELS,
        "Larger images are refused before they are decoded.",
        live=True,
        limits=(SMALLEST_SIDE**2, 2**30),
    )
    match_ratio: float = _entry(
        1.0,
        "A match's distance is below this part of that to the second nearest (Lowe); 1.0: off.",
        live=True,
        limits=(0.01, 1.0),
    )
    min_similarity: float = _entry(
        0.6,
        "A match's cosine similarity is at least this; -1.0: off.",
        live=True,
        limits=(-1.0, 1.0),
    )
    homography_threshold: float = _entry(
        3.0,
        "Pixels of reprojection error up to which a match is an inlier.",
        live=True,
        limits=(0.1, 100.0),
    )
    refine: bool = _entry(
        True,
        "Align the pictures themselves about matches: homographies to a few hundredths of a pixel, x and y of "
        "~/matches to about a tenth.",
        live=True,
    )
    reference: str = _entry(
        "previous",
        "What a frame is compared with: the previous one, or a keyframe that stays until its "
        "homography fails or its inlier ratio falls below keyframe_min_inliers.",
        live=True,
        choices=REFERENCES,
    )
    keyframe_min_inliers: float = _entry(
        0.5, "Inliers by matches below which the keyframe changes.", live=True, limits=(0.0, 1.0)
    )
    tracks: bool = _entry(False, "Give keypoints ids that stay with the physical point (track_ids).", live=True)
    track_max_gap: int = _entry(
        5,
        "Frames in a row that a track may miss and still be taken up again.",
        live=True,
        limits=(0, 1000),
    )
    track_cloud: str = _entry(
        "none",
        "Publish tracks on ~/track_cloud as VINS-Mono's or VINS-Fusion's estimator takes them; needs tracks and the "
        "calibration on `camera_info`.",
        choices=LAYOUTS,
    )
    descriptor_type: str = _entry(
        "float16",
        "How descriptors are published; float16 and uint8 need half and a quarter of the bytes of float32.",
        live=True,
        choices=tuple(DESCRIPTOR_TYPES),
    )
    motion: bool = _entry(
        False,
        "Publish ~/motion: rotation and translation from frame to frame, by the calibration on `camera_info`; in "
        "metres for the left camera of a stereo pair.",
    )
    stereo_pairs: tuple[str, ...] = _entry(
        ("",),
        "Pairs of `cameras`, as in ['left,right']: ~/left/stereo_matches, and with a calibration ~/left/points. Needs "
        "synchronise. The calibration is on each camera's `camera_info`.",
    )
    images_rectified: bool = _entry(
        False, "The images are rectified already (image_rect): of their CameraInfo P alone counts."
    )
    stereo_tolerance: float = _entry(
        2.0,
        "Pixels that stereo matches may be off their epipolar line; it grows with a keypoint's scale.",
        live=True,
        limits=(0.1, 100.0),
    )
    stereo_max_disparity: int = _entry(
        0,
        "Pixels; 0: a quarter of the image's width. Without a calibration there is none.",
        live=True,
        limits=(0, 65536),
    )
    max_age: float = _entry(
        1.0, "Seconds of age above which features count as stale in the diagnostics.", live=True, limits=(0.001, 3600.0)
    )
    overload_drops: float = _entry(
        0.5,
        "Part of the images above which drops count as overload in the diagnostics; 1.0: never.",
        live=True,
        limits=(0.0, 1.0),
    )
    publish_features: bool = _entry(True, "Publish ~/features, while anyone subscribes.", live=True)
    publish_matches: bool = _entry(True, "Publish ~/matches, while anyone subscribes.", live=True)
    publish_homography: bool = _entry(True, "Publish ~/homography, while anyone subscribes.", live=True)

    by_camera: Mapping[str, Any] = field(default_factory=dict)
    """`CAMERA.NAME` -> value, of the parameters that may be set for one camera."""

    def of(self, camera: str) -> Parameters:
        """The values for one camera."""
        split = ((*key.rpartition(".")[::2], value) for key, value in self.by_camera.items())
        return replace(self, **{name: value for whose, name, value in split if whose == camera})

    def per_camera(self, name: str) -> tuple[str, ...]:
        """The values of a parameter of PER_CAMERA, one for each camera."""
        given: tuple[str, ...] = getattr(self, name)
        return given if len(given) == len(self.cameras) else ("",) * len(self.cameras)

    def pairs(self) -> list[tuple[str, str]]:
        """The stereo pairs: names of the left and of the right camera."""
        split = [[name.strip() for name in given.split(",")] for given in self.stereo_pairs if given]
        return [(left, right) for left, right in split]

    def apply(self, extractor: Extractor) -> None:
        """Let an extractor look for keypoints as these values say."""
        extractor.settings = DetectionSettings(
            self.max_keypoints,
            self.detection_threshold,
            self.nms_radius,
            self.border,
            self.subpixel,
        )
        extractor.resize = self.resize or None
        extractor.scales = check_scales(self.scales)

    def tracking(self) -> dict[str, Any]:
        """The part that `Tracker.advance` needs, as its arguments."""
        return {
            "threshold": self.homography_threshold,
            "ratio": self.match_ratio if self.match_ratio < 1 else None,
            "min_similarity": self.min_similarity if self.min_similarity > -1 else None,
            "reference": self.reference,
            "keyframe_min_inliers": self.keyframe_min_inliers,
            "track_max_gap": self.track_max_gap if self.tracks else None,
        }

    def stereo(self) -> dict[str, Any]:
        """The part that `match_stereo` needs, as its arguments."""
        return {
            "tolerance": self.stereo_tolerance,
            "max_disparity": float(self.stereo_max_disparity) or None,
            **{name: self.tracking()[name] for name in ("ratio", "min_similarity")},
        }


TABLE: dict[str, Field[Any]] = {row.name: row for row in fields(Parameters) if row.metadata}
"""Name -> row."""


def is_array(row: Field[Any]) -> bool:
    """Whether its values are lists in ROS; here they are tuples."""
    return isinstance(row.default, tuple)
