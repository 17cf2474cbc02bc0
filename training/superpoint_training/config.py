"""What a training run is told: one tree of frozen dataclasses. The defaults are the paper's, but for what the recipe
`paper` says of perspective and eps.

Every section checks itself; its ValueError names the key, what is allowed and what was given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from superpoint_ros.features.intensity import AUTOMATIC
from superpoint_ros.network.superpoint import Architecture
from superpoint_training.augmentation import Photometric
from superpoint_training.homography import HomographyRange
from superpoint_training.losses import LossConfig
from superpoint_training.optimisation import Optimisation, at_least
from superpoint_training.shapes import SHAPES


def _check_size(size: tuple[int, int]) -> None:
    if min(size) < 16 or any(side % 8 for side in size):
        raise ValueError(f"size: expected two sides of at least 16 in multiples of 8, got {size}")


@dataclass(frozen=True)
class ShapesConfig:
    """Synthetic Shapes.

    size   (height, width) in pixels, multiples of 8
    kinds  of `shapes.SHAPES`, drawn equally often
    """

    size: tuple[int, int] = (120, 160)
    kinds: tuple[str, ...] = SHAPES
    homography: HomographyRange = HomographyRange()
    photometric: Photometric = Photometric()

    def __post_init__(self) -> None:
        _check_size(self.size)
        unknown = [kind for kind in self.kinds if kind not in SHAPES]
        if unknown or not self.kinds:
            found = ", ".join(unknown) or "none"
            raise ValueError(f"kinds: expected some of {', '.join(SHAPES)}, got {found}")


@dataclass(frozen=True)
class AdaptationConfig:
    """Homographic Adaptation.

    size         (height, width) that pictures are shrunk to cover; (0, 0) leaves them
    views        homographies a picture, besides the picture itself (N_h)
    batch        views in one forward pass
    scales       of that size at which a picture is labelled, each with its share of the views; their heatmaps are
                 averaged
    threshold    of the averaged heatmap
    nms_radius   pixels
    min_points   kept a picture even if they are below the threshold, for detectors of little training
    max_points   kept a picture
    border       pixels at a view's edge whose answers don't count, as the network sees zeros beyond
    contrast     a peak's height over the mean of its 9×9 pixels, at least: below about 4 it is one of
                 many in a patch that the detector likes everywhere; 0 takes all
    structure    grey levels a pixel by which the picture changes around a peak in its flattest
                 direction (square root of Shi and Tomasi's eigenvalue), at least: without, nothing
                 says where a label should be; 0 takes all
    rounds       of adaptation and joint training (`superpoint-train all`)
    """

    size: tuple[int, int] = (240, 320)
    views: int = 100
    batch: int = 25
    scales: tuple[float, ...] = (1.0,)
    homography: HomographyRange = HomographyRange()
    threshold: float = 0.015
    nms_radius: int = 4
    min_points: int = 0
    max_points: int = 600
    border: int = 3
    contrast: float = 0.0
    structure: float = 0.0
    subpixel: bool = False
    rounds: int = 1

    def __post_init__(self) -> None:
        at_least(self, 1, "batch", "max_points", "rounds")
        at_least(self, 0, "views", "min_points", "nms_radius", "border", "contrast", "structure")
        if not self.scales or min(self.scales) <= 0:
            raise ValueError(f"scales must be one or more factors above 0, got {self.scales}")
        if not 0 <= self.threshold < 1:
            raise ValueError(f"threshold must be at least 0 and below 1, got {self.threshold}")


@dataclass(frozen=True)
class PairsConfig:
    """Training pairs: two views of a picture.

    size              (height, width) of a view, multiples of 8
    fit               "cover": views are of the whole picture, shrunk to cover `size`; "native": of a part of it, `size`
                      pixels large, at the picture's own resolution, and somewhere else each time
    first             homographies from there to the first view; in the paper that view is the picture itself
    second            homographies from the first view to the second
    photometric       of both views
    correspondences   points a pair for the sparse loss; labelled ones first, then random ones
    nms_radius        pixels of a view: labels this near to a stronger one are not asked for, as the detector's own
                      suppression would not answer them; 0 asks for all, one a cell
    """

    size: tuple[int, int] = (240, 320)
    fit: Literal["cover", "native"] = "cover"
    first: HomographyRange = HomographyRange(crop=1.0, perspective=0.0, scale=(1.0, 1.0), rotation=0.0, translation=0.0)
    second: HomographyRange = HomographyRange()
    photometric: Photometric = Photometric()
    correspondences: int = 256
    nms_radius: int = 4

    def __post_init__(self) -> None:
        _check_size(self.size)
        at_least(self, 1, "correspondences")
        at_least(self, 0, "nms_radius")


@dataclass(frozen=True)
class DistillationConfig:
    """What teacher and student see, and what the student is asked for.

    size         (height, width) of a view, multiples of 8
    scale        (least, greatest) side of a view's pixel, in pixels of the picture
    perspective  greatest keystone of a view, as a share of half its side
    rotation     greatest in-plane rotation, degrees; 180 for every direction
    degraded     share of the views that the student sees worse than they are, 0 to 1
    photometric  how much worse; the teacher's are as they are
    weight       of the descriptors' cosine distance, beside the detector's divergence; at 2 the first layers learn for
                 the descriptors alone
    views        homographies over which the teacher's heatmap is averaged besides the view itself; 0: its single pass
    homography   from which those are drawn
    batch        views in one forward pass of the teacher, where there is an average
    border       pixels at a view's edge that don't count for it
    """

    size: tuple[int, int] = (192, 192)
    scale: tuple[float, float] = (0.35, 1.5)
    perspective: float = 0.1
    rotation: float = 180.0
    degraded: float = 0.75
    photometric: Photometric = Photometric()
    weight: float = 0.5
    views: int = 0
    homography: HomographyRange = HomographyRange()
    batch: int = 25
    border: int = 3

    def __post_init__(self) -> None:
        _check_size(self.size)
        at_least(self, 0, "weight", "views", "border")
        at_least(self, 1, "batch")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must be two sides above 0, the lower first, got {self.scale}")
        if not 0 <= self.perspective < 0.5:
            raise ValueError(f"perspective must be at least 0 and below 0.5, got {self.perspective}")
        if not 0 <= self.rotation <= 180:
            raise ValueError(f"rotation must be between 0 and 180 degrees, got {self.rotation}")
        if not 0 <= self.degraded <= 1:
            raise ValueError(f"degraded must be between 0 and 1, got {self.degraded}")


@dataclass(frozen=True)
class InputConfig:
    """Pictures and bags.

    longer_side  pictures from bags are shrunk to this, pixels; 0 keeps their size
    every        k-th frame of a bag is taken
    min_change   mean difference in grey levels, at 32×32, below which a frame repeats the one
                 before; 0 takes all
    topics       image topics of a bag; none: all of them
    held_out     share of the pictures kept for validation; of a bag a stretch of time
    intensity_range
                 values of 16-bit and float pictures and frames that become black and white; (0, 0): found from each
                 picture, and from the frames of a bag as the node does it
    memory       megabytes of decoded pictures that each process of `distill` keeps
    """

    longer_side: int = 640
    every: int = 1
    min_change: float = 2.0
    topics: tuple[str, ...] = ()
    held_out: float = 0.02
    intensity_range: tuple[float, float] = AUTOMATIC
    memory: int = 0

    def __post_init__(self) -> None:
        at_least(self, 1, "every")
        at_least(self, 0, "longer_side", "min_change", "memory")
        if not 0 <= self.held_out < 1:
            raise ValueError(f"held_out must be at least 0 and below 1, got {self.held_out}")
        low, high = self.intensity_range
        if (low, high) != AUTOMATIC and not low < high:
            raise ValueError(f"intensity_range must be (low, high) with low below high, got {self.intensity_range}")


@dataclass(frozen=True)
class EvaluationConfig:
    """What `superpoint-train all` measures in the end; the command `evaluate` has options of its
    own.

    pairs            warped from held-out pictures
    rotation_photos  held-out pictures that are turned; 0 leaves the sweep out
    shapes           pictures of each synthetic shape
    """

    pairs: int = 210
    rotation_photos: int = 20
    shapes: int = 50

    def __post_init__(self) -> None:
        at_least(self, 0, "pairs", "rotation_photos", "shapes")


@dataclass(frozen=True)
class RunConfig:
    """How the machine is used.

    seed                decides every random number of the run
    workers             processes that draw pictures, of all training processes on a machine together; 0 draws in the
                        training process
    threads             of torch on the CPU; 0 leaves torch's choice
    precision           "auto": on CUDA bf16 where the card has it, else fp16 with scaled gradients where it has that;
                        fp32 elsewhere
    compile             torch.compile the network
    checkpoint_minutes  between checkpoints, which is what a crash can lose
    validate_minutes    between validations
    validation_samples  pictures or pairs a validation
    explosion           a loss this many times its running mean stops the run
    """

    seed: int = 0
    workers: int = 4
    threads: int = 0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compile: bool = False
    checkpoint_minutes: float = 10.0
    validate_minutes: float = 10.0
    validation_samples: int = 256
    explosion: float = 100.0

    def __post_init__(self) -> None:
        at_least(self, 0, "seed", "workers", "threads", "checkpoint_minutes", "validate_minutes")
        at_least(self, 1, "validation_samples", "explosion")


@dataclass(frozen=True)
class AboutConfig:
    """What the exported file says of itself: name of the weights, what they learnt from, and under
    which licence.
    """

    name: str = ""
    data: str = ""
    licence: str = ""


@dataclass(frozen=True)
class Config:
    """A whole run; `recipe.load_config` reads one."""

    # Of all sections, for pydantic in `recipe`.
    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "strict": True}

    network: Architecture = Architecture()
    shapes: ShapesConfig = ShapesConfig()
    magicpoint: Optimisation = Optimisation()
    inputs: InputConfig = InputConfig()
    adaptation: AdaptationConfig = AdaptationConfig()
    pairs: PairsConfig = PairsConfig()
    loss: LossConfig = LossConfig()
    superpoint: Optimisation = Optimisation()
    distillation: DistillationConfig = DistillationConfig()
    distill: Optimisation = Optimisation()
    evaluation: EvaluationConfig = EvaluationConfig()
    run: RunConfig = RunConfig()
    about: AboutConfig = AboutConfig()

    def __post_init__(self) -> None:
        if self.network.descriptor_dim < 1:
            dim = self.network.descriptor_dim
            raise ValueError(f"network.descriptor_dim must be at least 1, got {dim}")
