"""Makes `training_scenes` importable, and keeps torch and OpenCV from fighting over the cores."""

import sys
from pathlib import Path

import cv2
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
