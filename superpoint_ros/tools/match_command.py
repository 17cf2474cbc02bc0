"""`superpoint match`: the matches of two photographs, drawn."""

from __future__ import annotations

from pathlib import Path

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from superpoint_ros.features.extractor import Extractor, Features
from superpoint_ros.features.homography import Homography, HomographyStatus, estimate_homography
from superpoint_ros.features.matching import match
from superpoint_ros.tools import draw

DRAWN_SIDE = 960
"""Pixels: the longer side of each photograph in the drawing."""


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
    type=click.Path(path_type=Path),
    help="Weights file; the package's default if left out.",
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
    "--scales",
    default="matching",
    show_default=True,
    help="Sizes at which each goes through the network, relative to --resize: single, video, matching or numbers.",
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
    weights: Path | None,
    device: str,
    max_keypoints: int,
    detection_threshold: float,
    resize: int,
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
    pictures = [read_picture(path) for path in (left, right)]
    try:
        extractor = Extractor(
            weights, device, max_keypoints=max_keypoints, detection_threshold=detection_threshold, scales=scales
        )
        features = [extract(extractor, picture, resize) for picture in pictures]
    except (ValueError, OSError, RuntimeError) as error:
        raise click.ClickException(str(error)) from None
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


def read_picture(path: Path) -> NDArray[np.uint8]:
    """A photograph as (H, W, 3) BGR uint8; click.ClickException if there is none."""
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from None
    # from memory, as cv2.imread prints a warning of its own and does not tell a missing file from a
    # bad one
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if picture is None:
        raise click.ClickException(f"{path}: {len(data)} bytes that are not a picture; expected jpeg, png, webp, …")
    return np.asarray(picture, np.uint8)


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
