import json

import cv2
import pytest

from superpoint_training.curves import plot_log


def test_a_log_becomes_a_picture_of_two_plots(tmp_path) -> None:
    lines = [
        {"kind": "train", "step": 10 * i, "seconds": 6.0 * i, "loss": 1 / (i + 1), "detector": 1 / (i + 1)}
        for i in range(30)
    ]
    lines += [{"kind": "validation", "step": 100, "seconds": 60.0, "map_noise": 0.5, "pairs": 3}]
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"kind": "tra')
    plot_log(log, tmp_path / "curves.png")
    picture = cv2.imread(str(tmp_path / "curves.png"))
    assert picture is not None and picture.shape[1] > 1.5 * picture.shape[0]


def test_a_log_without_steps_is_refused_by_name(tmp_path) -> None:
    (tmp_path / "log.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"log\.jsonl: holds no steps"):
        plot_log(tmp_path / "log.jsonl", tmp_path / "curves.png")
