"""Contact sheets: samples with their labels drawn, and what a network finds in them."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from superpoint_ros.network.heatmap import DetectionSettings, detect, heatmap_from_logits
from superpoint_ros.network.superpoint import SuperPoint

Picture = NDArray[np.uint8]

RED, GREEN, BLUE = (230, 60, 50), (60, 200, 80), (60, 120, 255)
MAGNIFICATION = 2


def annotate(
    image: Picture,
    points: NDArray[np.floating],
    colour: tuple[int, int, int] = RED,
    valid: NDArray[np.bool_] | None = None,
    title: str = "",
) -> Picture:
    """A grey image, magnified, with rings round its points: (2 H, 2 W, 3) uint8 RGB.

    valid  (H, W): what is not valid is tinted blue
    """
    colours = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_GRAY2RGB)
    if valid is not None:
        colours[~valid] = colours[~valid] // 2 + np.array([0, 0, 100], np.uint8)
    large = cv2.resize(colours, None, fx=MAGNIFICATION, fy=MAGNIFICATION, interpolation=cv2.INTER_NEAREST)
    for x, y in (points + 0.5) * MAGNIFICATION - 0.5:
        cv2.circle(large, (round(float(x)), round(float(y))), 4, colour, 1, cv2.LINE_AA)
    if title:
        cv2.putText(large, title, (4, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 3, cv2.LINE_AA)
        cv2.putText(large, title, (4, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1, cv2.LINE_AA)
    return np.asarray(large, np.uint8)


def tile(pictures: Sequence[Picture], columns: int) -> Picture:
    """Pictures (H, W, 3) of one size in rows of `columns`, the last row filled up with white."""
    height, width = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    gap = 2
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for index, picture in enumerate(pictures):
        y, x = index // columns * (height + gap), index % columns * (width + gap)
        sheet[y : y + height, x : x + width] = picture
    return sheet


@torch.no_grad()
def detections_sheet(network: SuperPoint, images: Sequence[Tensor], threshold: float = 0.1) -> Picture:
    """What a network in eval mode finds in images (1, H, W) uint8 of one size."""
    device = next(network.parameters()).device
    batch = torch.stack(list(images)).to(device).float() / 255
    heatmap = heatmap_from_logits(network(batch)[0])
    sizes = torch.tensor([heatmap.shape[1:]] * len(heatmap), device=device)
    found = detect(heatmap, sizes, DetectionSettings(detection_threshold=threshold, max_keypoints=300, border=0))
    pictures = [
        annotate(image[0].numpy(), found.xy[i, : int(found.count[i])].cpu().numpy(), GREEN)
        for i, image in enumerate(images)
    ]
    return tile(pictures, columns=4)
