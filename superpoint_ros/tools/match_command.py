"""`superpoint match`: the matches of two photographs, drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.encoded import read_picture_file
from superpoint_ros.features.extractor import Extractor, Features
from superpoint_ros.features.homography import Homography, HomographyStatus, estimate_homography
from superpoint_ros.features.image import MAX_PIXELS, BadImage, as_grey
from superpoint_ros.features.intensity import AUTOMATIC, Scale, scale_of
from superpoint_ros.features.matching import match
from superpoint_ros.tools import draw

DRAWN_SIDE = 960
"""Pixels: the longer side of each photograph in the drawing."""


def _checked_range(_: Any, __: Any, value: tuple[float, float]) -> tuple[float, float]:
    if value != AUTOMATIC and not value[0] < value[1]:
        raise click.BadParameter(f"LOW must be below HIGH, got {value[0]:g} {value[1]:g}")
    return value


@click.command("match")
@click.argument("left", type=click.Path(path_type=Path))
@click.argument("right", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("matches.png"),
    show_default=True,
    help="The drawing; any format that OpenCV writes.",
)
@click.option(
    "--weights",
    help="Weights file, or default or fast.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--max-keypoints", type=click.IntRange(1), default=1024, show_default=True)
@click.option(
    "--detection-threshold",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.005,
    show_default=True,
)
@click.option(
    "--resize",
    type=click.IntRange(0),
    default=1024,
    show_default=True,
    help="Longer side in pixels to which larger photographs are shrunk for the network; 0: never.",
)
@click.option(
    "--intensity-range",
    type=(float, float),
    default=AUTOMATIC,
    metavar="LOW HIGH",
    callback=_checked_range,
    help="Values of 16-bit and float pictures that become black and white; found from each if left out.",
)
@click.option(
    "--max-image-pixels",
    type=click.IntRange(1),
    default=MAX_PIXELS,
    show_default=True,
    help="Larger pictures are refused before they are decoded.",
)
@click.option(
    "--scales",
    default="matching",
    show_default=True,
    help="At which sizes each runs, relative to --resize: single, video, matching, zoom or numbers.",
)
@click.option(
    "--ratio",
    type=click.FloatRange(0, 1, min_open=True),
    help="Keep matches whose distance is below this part of that to the second nearest (Lowe).",
)
@click.option(
    "--min-similarity",
    type=click.FloatRange(-1, 1),
    help="Keep matches of at least this cosine similarity.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, min_open=True),
    default=3.0,
    show_default=True,
    help="Pixels of reprojection error up to which a match is an inlier of the homography.",
)
@click.option(
    "--refine/--no-refine",
    default=True,
    show_default=True,
    help="Align the photographs themselves about matches, and fit the homography to what comes out.",
)
def match_command(
    left: Path,
    right: Path,
    output: Path,
    weights: str | None,
    device: str,
    max_keypoints: int,
    detection_threshold: float,
    resize: int,
    intensity_range: tuple[float, float],
    max_image_pixels: int,
    scales: str,
    ratio: float | None,
    min_similarity: float | None,
    threshold: float,
    refine: bool,
) -> None:
    """Draw the matches of two photographs, LEFT and RIGHT, and print how many there are.

    Inliers of the homography are green, other matches orange; the yellow outline is where LEFT lies
    in RIGHT.
    """
    pictures = [read_picture(path, scale_of(intensity_range), max_image_pixels) for path in (left, right)]
    try:
        extractor = Extractor(
            weights, device, max_keypoints=max_keypoints, detection_threshold=detection_threshold, scales=scales
        )
    except (ValueError, OSError, RuntimeError) as error:
        raise click.ClickException(str(error)) from None
    features = []
    for path, picture in zip((left, right), pictures, strict=True):
        try:
            features.append(extract(extractor, picture, resize))
        except (ValueError, RuntimeError) as error:
            raise click.ClickException(f"{path}: {error}") from None
    matches = match(features[0], features[1], ratio, min_similarity)
    images = (pictures[0], pictures[1]) if refine else None
    homography = estimate_homography(features[0], features[1], matches, threshold, images)
    drawing = draw_match(pictures[0], pictures[1], features[0], features[1], matches, homography)
    write_picture(output, drawing)
    for path, found in zip((left, right), features, strict=True):
        click.echo(f"{path}: {len(found)} keypoints")
    click.echo(f"{len(matches)} matches, {describe(homography)}")
    click.echo(f"Drawn in {output}.")


def extract(extractor: Extractor, picture: NDArray[np.uint8], longer_side: int) -> Features:
    """Features of a picture that is shrunk to a longer side first; 0: never."""
    extractor.resize = longer_side if 0 < longer_side < max(picture.shape[:2]) else None
    return extractor(picture)


def describe(homography: Homography) -> str:
    """The homography in words."""
    if homography.status != HomographyStatus.OK:
        return f"no homography ({homography.status.name})"
    how = ", refined" if homography.refined else ""
    return f"{homography.inliers.sum()} inliers of a homography, rmse {homography.rmse:.2f} px{how}"


def draw_match(
    left: NDArray[np.uint8],
    right: NDArray[np.uint8],
    f0: Features,
    f1: Features,
    matches: NDArray[np.int32],
    homography: Homography,
) -> draw.Canvas:
    """Both pictures, (H, W, 3) BGR, with keypoints, matches and the outline of `left` in `right`."""
    scales = [min(1.0, DRAWN_SIDE / max(picture.shape[:2])) for picture in (left, right)]
    canvases = [draw.canvas_of(picture, scale) for picture, scale in zip((left, right), scales, strict=True)]
    for canvas, features, scale in zip(canvases, (f0, f1), scales, strict=True):
        draw.draw_points(canvas, features.xy, scale, draw.BLUE, 1.5)
    if homography.status == HomographyStatus.OK:
        corners = draw.outline(homography.matrix, f0.size)
        draw.draw_polygon(canvases[1], corners, scales[1], draw.ESTIMATE)
    canvas, offset = draw.side_by_side(canvases[0], canvases[1])
    begins = draw.enlarge(f0.xy[matches[:, 0]], scales[0])
    ends = draw.enlarge(f1.xy[matches[:, 1]], scales[1]) + (offset, 0)
    inlier = homography.inliers
    for chosen, colour, opacity in ((~inlier, draw.OUTLIER, 0.35), (inlier, draw.INLIER, 0.45)):
        draw.draw_lines(canvas, begins[chosen], ends[chosen], colour, opacity)
        for points in (begins, ends):
            draw.draw_points(canvas, points[chosen], 1, colour)
    return canvas


def read_picture(path: Path, scale: Scale, max_pixels: int) -> NDArray[np.uint8]:
    """A photograph as (H, W, 3) BGR uint8; click.ClickException if there is none, or one that is too small."""
    try:
        picture = read_picture_file(path, scale, max_pixels, colour=True)
        as_grey(picture)
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from None
    except BadImage as error:
        raise click.ClickException(str(error)) from None
    except ValueError as error:
        raise click.ClickException(f"{path}: {error}") from None
    return picture


def write_picture(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write a picture in the format of the file's suffix; click.ClickException if it can't be."""
    try:
        written, data = cv2.imencode(path.suffix or " ", picture)
    except cv2.error:
        written = False
    if not written:
        raise click.ClickException(f"{path}: '{path.suffix}' is not a picture format; use .png or .jpg")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.tobytes())
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from None
