"""The pipeline that ours is compared with: SuperPoint in plain eager float32 torch.

Written as the public PyTorch implementations write it (rpautrat's SuperPoint-PyTorch, LightGlue,
transformers): NCHW, BatchNorm as its own step, suppression by max-pools over the whole heatmap,
descriptors by grid_sample. It is what one gets without this package, and it is not to be improved.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from superpoint_ros.network.checkpoint import Checkpoint
from superpoint_ros.network.engines.engine import Extraction
from superpoint_ros.network.heatmap import DetectionSettings


class Reference:
    """numpy image in to numpy features out; called as an engine is."""

    name = "reference"
    precision = "float32"

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        self.device = device
        self.model = checkpoint.build().to(device)

    @torch.inference_mode()
    def __call__(
        self,
        pictures: Sequence[NDArray[np.uint8]],
        sizes: Sequence[tuple[int, int]],
        settings: DetectionSettings,
    ) -> list[Extraction]:
        """Extract from pictures of one size, multiples of 8."""
        image = self.upload(pictures)
        logits, dense = self.model(image)
        assert dense is not None
        found = self.keypoints(logits, settings)
        return [
            Extraction(xy.cpu().numpy(), scores.cpu().numpy(), self.sample(xy, one).cpu().numpy())
            for (xy, scores), one in zip(found, dense, strict=True)
        ]

    def upload(self, pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
        return torch.from_numpy(np.stack(pictures))[:, None].to(self.device).float() / 255

    def keypoints(self, logits: Tensor, settings: DetectionSettings) -> list[tuple[Tensor, Tensor]]:
        """(N, 2) pixels and (N,) scores of each picture."""
        probability = torch.softmax(logits, 1)[:, :-1]
        b, _, h, w = probability.shape
        scores = probability.permute(0, 2, 3, 1).reshape(b, h, w, 8, 8)
        scores = scores.permute(0, 1, 3, 2, 4).reshape(b, h * 8, w * 8)
        scores = _suppress(scores, settings.nms_radius)
        if settings.border:
            near, far = slice(None, settings.border), slice(-settings.border, None)
            for edge in (near, far):
                scores[:, edge] = -1
                scores[:, :, edge] = -1
        found = []
        for one in scores:
            y, x = torch.where(one > settings.detection_threshold)
            strongest, order = one[y, x].topk(min(settings.max_keypoints, len(y)))
            found.append((torch.stack([x, y], dim=-1)[order].float(), strongest))
        return found

    def sample(self, xy: Tensor, dense: Tensor) -> Tensor:
        """(N, D) descriptors of one picture's (D, Hc, Wc) map."""
        size = torch.tensor([dense.shape[2] * 8, dense.shape[1] * 8], device=xy.device)
        grid = (xy + 0.5) / size * 2 - 1
        sampled = F.grid_sample(dense[None], grid[None, None], align_corners=False)
        return F.normalize(sampled[0, :, 0], dim=0).T.contiguous()


def _suppress(scores: Tensor, radius: int) -> Tensor:
    """Max-pool suppression in three rounds, as Magic Leap published it for SuperGlue."""

    def highest(x: Tensor) -> Tensor:
        return F.max_pool2d(x, kernel_size=2 * radius + 1, stride=1, padding=radius)

    zeros = torch.zeros_like(scores)
    kept = scores == highest(scores)
    for _ in range(2):
        near = highest(kept.float()) > 0
        rest = torch.where(near, zeros, scores)
        kept = kept | ((rest == highest(rest)) & ~near)
    return torch.where(kept, scores, zeros)
