"""What several tests need: small random networks, the default extractor, one photograph."""

from __future__ import annotations

import fcntl
import itertools
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

HERE = Path(__file__).parent
SHARED = ("", "features", "frontend", "network", "node", "bags", "fuzz")
# Where the packages and what tests share is found, from the checkout, installed or not. Not by pytest's `pythonpath`,
# which Humble's pytest (6.2) does not have.
sys.path[:0] = [str(folder) for folder in (HERE.parent, HERE.parent / "training", *(HERE / name for name in SHARED))]

from superpoint_ros.features.extractor import Extractor
from superpoint_ros.network.checkpoint import Checkpoint, save_checkpoint
from superpoint_ros.network.superpoint import Architecture, SuperPoint

# No deadline: other people's processes share the machine. The same examples each time: a failure
# belongs to the change that is being tested.
hypothesis.settings.register_profile("superpoint_ros", deadline=None, derandomize=True)
hypothesis.settings.load_profile("superpoint_ros")


# A shell that starts us in the background has SIGINT ignored, which programs that the tests interrupt would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)


def _random_checkpoint(
    batch_norm: bool = False, descriptor_dim: int = 16, norm_first: bool = False, stem: int = 1
) -> Checkpoint:
    """A network small enough to run in a millisecond, whose answers vary from pixel to pixel."""
    architecture = Architecture((4, 4, 8, 8), 16, descriptor_dim, batch_norm, norm_first, stem)
    model = SuperPoint(architecture)
    generator = torch.Generator().manual_seed(0)

    def normal(like: torch.Tensor, mean: float, deviation: float) -> torch.Tensor:
        return mean + deviation * torch.randn(like.shape, generator=generator)

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.copy_(normal(module.weight, 0, (2 / module.weight[0].numel()) ** 0.5))
                module.bias.copy_(normal(module.bias, 0, 0.1))
            elif isinstance(module, nn.BatchNorm2d):
                module.weight.copy_(normal(module.weight, 1, 0.2))
                module.bias.copy_(normal(module.bias, 0, 0.2))
                module.running_mean.copy_(normal(module.running_mean, 0.3, 0.2))
                module.running_var.copy_(normal(module.running_var, 1, 0.2).abs() + 0.1)
    return Checkpoint(architecture, model.state_dict(), {"name": "tiny"})


@pytest.fixture(scope="session")
def random_checkpoint() -> Callable[..., Checkpoint]:
    """random_checkpoint(batch_norm=False, descriptor_dim=16, norm_first=False, stem=1): the same small weights each
    time."""
    return _random_checkpoint


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A weights file with a small random network with BatchNorm."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_checkpoint(path, _random_checkpoint(batch_norm=True))
    return str(path)


@pytest.fixture(scope="session")
def extractor() -> Extractor:
    """The default extractor, on the CPU. Leave its settings as they are."""
    return Extractor(device="cpu")


@pytest.fixture(scope="session")
def photograph() -> NDArray[np.uint8]:
    """A grey photograph, 240×320, from scikit-image's wheel."""
    if find_spec("skimage") is None:
        pytest.skip("scikit-image, whose photographs are used, is not installed")
    import cv2
    from skimage import data

    photograph = cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(photograph[:384], (320, 240), interpolation=cv2.INTER_AREA))


DOMAINS = itertools.count(os.getpid())


@pytest.fixture
def ros_domain() -> Iterator[int]:
    """A ROS_DOMAIN_ID of this test's own, on a machine where others may run these tests, too."""
    for number in itertools.islice(DOMAINS, 100):
        domain = 1 + number % 100
        with open(os.path.join(tempfile.gettempdir(), f"superpoint_ros_domain_{domain}"), "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            yield domain
            return
    pytest.fail("all 100 ROS domains of these tests are in use")
