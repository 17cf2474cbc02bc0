"""Homographic Adaptation: what a detector finds in many views of a picture becomes the picture's
labels.

DeTone et al. 2018, section 5 (eq. 7 to 10): the picture is warped by N_h random homographies, the
detector's heatmaps are warped back and averaged where a view shows the picture, and the peaks of
the average are the pseudo-labels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from superpoint_ros.features.image import resize_image, to_source_pixels
from superpoint_ros.network.heatmap import DetectionSettings, detect, heatmap_from_logits, refine
from superpoint_ros.network.superpoint import CELL, SuperPoint
from superpoint_ros.printable import printable
from superpoint_training.config import AdaptationConfig
from superpoint_training.homography import sample_homography, view_masks, warp_batch
from superpoint_training.pictures import BadPicture, read_picture, shrink_to_cover
from superpoint_training.precision import autocast, choose_dtype
from superpoint_training.processes import Processes
from superpoint_training.pseudo_labels import LabelFolder, Labels

CPU = torch.device("cpu")
FAINTEST = 1e-5  # probability below which a peak is none, however few there are
ADAPTATION = 2  # stream of random numbers, beside samples.TRAINING and VALIDATION

Network = Callable[[Tensor], tuple[Tensor, Tensor | None]]
"""Pictures (B, 1, H, W) float in [0, 1] to cell logits (B, 65, H/8, W/8) and descriptors, as `SuperPoint.forward`."""


@torch.no_grad()
def average_heatmap(model: Network, image: Tensor, homographies: Tensor, batch: int, border: int) -> Tensor:
    """The mean of the heatmaps of a picture and its views, in the picture's pixels (eq. 10).

    image         (H, W) float in [0, 1], sides multiples of 8, on the network's device
    homographies  (N, 3, 3) float, picture to view; the picture itself is taken too
    border        pixels: answers that near to the edge of a view, or to the picture's own edge in
                  it, don't count

    Returns (H, W) float32; where no view counts, which is at the picture's edge, it is 0.
    """
    size = (image.shape[-2], image.shape[-1])
    identity = torch.eye(3, device=homographies.device)[None]
    total = torch.zeros((1, 1, *size), device=image.device)
    seen = torch.zeros_like(total)
    inner = view_masks(identity.to(image.device), size, border=border)  # of a view, not its edge
    for views in torch.cat([identity, homographies.float()]).to(image.device).split(batch):
        pictures = warp_batch(image[None, None].expand(len(views), -1, -1, -1), views)
        with autocast(choose_dtype("auto", image.device), image.device):
            logits, _ = model(pictures.contiguous(memory_format=torch.channels_last))
        counts = (inner & view_masks(views, size, border=border)).float()
        back = torch.linalg.inv(views.double()).float()
        # Heat and weight go back through the same interpolation, so that a partly counted pixel is
        # no dimmer.
        both = torch.cat([heatmap_from_logits(logits)[:, None] * counts, counts], dim=1)
        heat, weight = warp_batch(both, back).sum(dim=0, keepdim=True).split(1, dim=1)
        total += heat
        seen += weight
    return torch.where(seen > 0.5, total / seen.clamp_min(0.5), 0.0)[0, 0]


def adapt_picture(
    model: Network,
    picture: NDArray[np.uint8],
    rng: np.random.Generator,
    settings: AdaptationConfig,
    device: torch.device = CPU,
) -> Labels:
    """Pseudo-labels of one picture (H, W) uint8, in its own pixels."""
    shrunk = shrink_to_cover(picture, settings.size)
    size = _whole_cells(shrunk.shape)
    grey = resize_image(shrunk, size)
    heatmap = scaled_heatmap(model, picture, grey, rng, settings, device)[None]
    # With peaks below the threshold or without, suppression leaves the same ones above it. What a filter rejects still
    # suppresses what is around it, else its shoulder would be the label; so peaks first.
    lowest = min(settings.threshold, FAINTEST) if settings.min_points else settings.threshold
    extent = torch.tensor([size], device=device)
    found = detect(heatmap, extent, DetectionSettings(grey.size, lowest, settings.nms_radius, settings.border))
    peaks = found.xy[0, : int(found.count[0])].long()
    places = localisable(heatmap[0].cpu().numpy(), grey.astype(np.float32) / np.float32(255), settings)
    kept = torch.from_numpy(places).to(device)[peaks[:, 1], peaks[:, 0]].nonzero()[: settings.max_points, 0]
    scores = found.scores[0, kept]
    kept = kept[: max(int((scores > settings.threshold).sum()), settings.min_points)]
    pixels = refine(heatmap, peaks[None, kept], extent)[0] if settings.subpixel else peaks[kept].float()
    xy = to_source_pixels(pixels.cpu().numpy(), (picture.shape[0], picture.shape[1]), size)
    return Labels(xy, found.scores[0, kept].cpu().numpy(), (picture.shape[0], picture.shape[1]))


def scaled_heatmap(
    model: Network,
    picture: NDArray[np.uint8],
    grey: NDArray[np.uint8],
    rng: np.random.Generator,
    settings: AdaptationConfig,
    device: torch.device,
) -> Tensor:
    """The mean of the averaged heatmaps at all `settings.scales`, in the pixels of `grey`: (H, W) float32.

    grey  the picture at scale 1; other scales are made from the picture itself
    """
    heatmaps = []
    for scale in settings.scales:
        size = _whole_cells([scale * side for side in grey.shape])
        level = grey if size == grey.shape else resize_image(picture, size)
        image = torch.from_numpy(level).to(device).float() / 255
        count = settings.views // len(settings.scales)
        views = [sample_homography(rng, size, settings.homography) for _ in range(count)]
        homographies = torch.from_numpy(np.array(views).reshape(-1, 3, 3))
        heat = average_heatmap(model, image, homographies, settings.batch, settings.border)[None, None]
        # A peak of a finer picture keeps its height: the mean over its pixels would make little of it.
        if size[0] > grey.shape[0]:
            heat = F.adaptive_max_pool2d(heat, grey.shape)
        elif size != grey.shape:
            heat = F.interpolate(heat, grey.shape, mode="bilinear", align_corners=False)
        heatmaps.append(heat[0, 0])
    return torch.stack(heatmaps).mean(dim=0)


def _whole_cells(size: Sequence[float]) -> tuple[int, int]:
    height, width = (max(1, round(side / CELL)) * CELL for side in size)
    return height, width


def localisable(
    heatmap: NDArray[np.float32], image: NDArray[np.float32], settings: AdaptationConfig
) -> NDArray[np.bool_]:
    """Where a peak is a place, not one of many in a patch that a detector fires on throughout: (H, W) bool.

    heatmap, image (H, W) float32, the image in [0, 1]; by `settings.contrast` and `settings.structure`.
    """
    stands_out = np.asarray(heatmap >= settings.contrast * cv2.blur(heatmap, (9, 9)))
    if not settings.structure:
        return stands_out
    dx, dy = (cv2.Sobel(image, cv2.CV_32F, *order, scale=255 / 8) for order in ((1, 0), (0, 1)))
    xx, yy, xy = (cv2.GaussianBlur(product, (0, 0), 1.5) for product in (dx * dx, dy * dy, dx * dy))
    smaller = (xx + yy) / 2 - np.hypot((xx - yy) / 2, xy)
    return np.asarray(stands_out & (smaller >= settings.structure**2))


def inference_network(model: SuperPoint, device: torch.device) -> Network:
    """A network to run on many views: on a CPU in ncnn where it is installed and a descriptor head is there, as its
    graph has both. Twice as fast as torch; it sees pictures rounded to 256 grey levels.
    """
    model = model.eval()
    if device.type == "cpu" and model.architecture.descriptor_dim:
        try:
            from superpoint_ros.network.engines.ncnn_network import NcnnNetwork
        except ImportError:
            pass
        else:
            fast = NcnnNetwork(model, torch.get_num_threads())

            def each(pictures: Tensor) -> tuple[Tensor, Tensor]:
                grey = (pictures[:, 0] * 255).round().to(torch.uint8).numpy()
                logits, dense = zip(*map(fast.logits_and_descriptors, grey), strict=True)
                return torch.from_numpy(np.stack(logits)), torch.from_numpy(np.stack(dense))

            return each
    return cast(Network, model.to(device, memory_format=torch.channels_last))  # type: ignore[call-overload]


def claim(folder: Path, weights_id: str, settings: AdaptationConfig, seed: int) -> None:
    """Start a folder of labels, or raise ValueError if it has another network's, or made with other settings."""
    # batch only divides the work
    told = {key: value for key, value in asdict(settings).items() if key not in ("batch", "rounds")}
    LabelFolder(folder).open({"weights_id": weights_id, "seed": seed, "adaptation": told})


def adapt(
    model: SuperPoint,
    weights_id: str,
    pictures: Sequence[Path],
    folder: Path,
    settings: AdaptationConfig,
    seed: int,
    here: Processes,
    budget_minutes: float | None = None,
) -> dict[str, float]:
    """Label pictures, each once: those that `folder` has labels of already, which can be read, are left as they are.

    The pictures are dealt out to the processes, in an order shuffled by `seed`; labels depend on
    neither. With a budget the rest stays unlabelled, but every process labels one. Returns figures
    for the log. Raises ValueError if the folder's labels are another network's or were made with
    other settings, or if no picture can be read.
    """
    labels = LabelFolder(folder)
    if here.leads:
        claim(folder, weights_id, settings, seed)
    here.barrier()
    network = inference_network(model, here.device)
    points, done, bad, before = 0, 0, 0, 0
    # Shuffled, so that a budget that ends early leaves a fair sample.
    mine = np.random.default_rng(seed).permutation(len(pictures))[here.rank :: here.world]
    deadline = time.monotonic() + 60 * (budget_minutes if budget_minutes is not None else float("inf"))
    bar = tqdm(mine.tolist(), desc="adapt", unit="picture", disable=not here.leads, dynamic_ncols=True)
    for number in bar:
        path = pictures[number]
        if labels.has_readable(path):
            before += 1
            continue
        if done and time.monotonic() > deadline:
            break
        try:
            picture = read_picture(path)
        except BadPicture as error:
            bad += 1
            tqdm.write(f"{printable(str(error))}; skipped")
            continue
        rng = np.random.default_rng((seed, ADAPTATION, number))
        found = adapt_picture(network, picture, rng, settings, here.device)
        labels.write(path, found)
        points, done = points + len(found.xy), done + 1
        bar.set_postfix_str(f"{points / done:.0f} points a picture, {bad} bad")
    bar.close()
    figures = here.all_reduce(torch.tensor([points, done, bad, before], dtype=torch.float64, device=here.device))
    here.barrier()
    if figures[2] and not figures[1] + figures[3]:
        raise ValueError(
            f"{folder}: nothing to train on, as none of {figures[2]:.0f} pictures, from {pictures[0]} on, can be read; "
            "what is wrong with each is told above"
        )
    if figures[1] and not figures[0]:
        raise ValueError(
            f"{weights_id} found no keypoint in {figures[1]:.0f} pictures; train it longer, or lower "
            f"adaptation.threshold ({settings.threshold}), and label into another folder"
        )
    return {
        "labelled": float(figures[1]),
        "bad": float(figures[2]),
        "points_per_picture": float(figures[0] / figures[1].clamp_min(1)),
    }
