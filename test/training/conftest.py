"""Makes `training_scenes` importable, keeps torch and OpenCV from fighting over the cores, and has the photographs
that weights are measured on."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
cv2.setNumThreads(1)
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def done_by_two(tmp_path_factory):
    """What two processes made of five pictures: (pictures, folder)."""
    from training_scenes import write_scenes
    from two_processes import in_two_processes, train_and_adapt

    folder = tmp_path_factory.mktemp("two")
    pictures = write_scenes(folder / "pictures", 5)
    in_two_processes(train_and_adapt, pictures, folder)
    return pictures, folder


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four photographs of scikit-image, as PNG files."""
    data = pytest.importorskip("skimage.data", reason="scikit-image is not installed")
    folder = tmp_path_factory.mktemp("photographs")
    paths = []
    for name in ("astronaut", "chelsea", "coffee", "gravel"):
        paths.append(folder / f"{name}.png")
        picture = np.asarray(getattr(data, name)())
        cv2.imwrite(str(paths[-1]), picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return paths
