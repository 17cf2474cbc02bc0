from __future__ import annotations

import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from superpoint_ros.tools.cli import cli
from superpoint_ros.tools.match_command import extract


def run(*arguments):
    return CliRunner().invoke(cli, ["match", *map(str, arguments), "--device", "cpu"])


@pytest.fixture
def pair(tmp_path, photograph):
    """Two photographs of one plane, the second turned by ten degrees."""
    turn = cv2.getRotationMatrix2D((160, 120), 10, 1)
    paths = tmp_path / "left.png", tmp_path / "right.jpg"
    cv2.imwrite(str(paths[0]), photograph)
    cv2.imwrite(str(paths[1]), cv2.warpAffine(photograph, turn, (320, 240)))
    return paths


def test_matches_are_drawn_and_counted(pair, tmp_path):
    output = tmp_path / "new" / "matches.png"
    result = run(*pair, "-o", output)
    assert result.exit_code == 0, result.output
    found = re.search(r"(\d+) matches, (\d+) inliers of a homography, rmse (\d\.\d+) px", result.output)
    assert found and int(found[1]) >= int(found[2]) > 50 and float(found[3]) < 3
    drawing = cv2.imread(str(output))
    assert drawing.shape == (240, 2 * 320 + 8, 3)
    left = cv2.imread(str(pair[0]))
    assert (drawing[:, :320] != left).any()


def test_photographs_without_matches_are_said_to_have_no_homography(tmp_path):
    blank = tmp_path / "blank.png"
    cv2.imwrite(str(blank), np.full((60, 80), 128, np.uint8))
    result = run(blank, blank, "-o", tmp_path / "out.png")
    assert result.exit_code == 0, result.output
    assert "0 matches, no homography (TOO_FEW_MATCHES)" in result.output


def test_sixteen_bit_photographs_are_matched_as_those_of_eight_bits_are(pair, tmp_path):
    deep = []
    for path in pair:
        picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(np.float32)
        deep.append(tmp_path / f"{path.stem}.tiff")
        cv2.imwrite(str(deep[-1]), (7000 + picture / 255 * 600).astype(np.uint16))
    for options in ((), ("--intensity-range", 7000, 7600)):
        result = run(*deep, "-o", tmp_path / "out.png", *options)
        assert result.exit_code == 0, result.output
        assert int(re.search(r"(\d+) inliers", result.output)[1]) > 50
    assert run(*deep, "--intensity-range", 5, 5).exit_code == 2


def test_photographs_of_two_cameras_of_sixteen_bits_have_a_range_each(pair, tmp_path):
    deep = []
    for path, span in zip(pair, (60000, 600), strict=True):
        picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(np.float32)
        deep.append(tmp_path / f"{path.stem}.png")
        cv2.imwrite(str(deep[-1]), (5000 + picture / 255 * span).astype(np.uint16))
    result = run(*deep, "-o", tmp_path / "out.png")
    assert result.exit_code == 0, result.output
    assert int(re.search(r"(\d+) inliers", result.output)[1]) > 50


def test_options_reach_the_extractor_and_the_matcher(pair, tmp_path):
    result = run(*pair, "-o", tmp_path / "out.png", "--max-keypoints", 40, "--min-similarity", 1)
    assert result.exit_code == 0, result.output
    assert "left.png: 40 keypoints" in result.output
    assert "\n0 matches" in result.output


def test_only_larger_photographs_are_shrunk(extractor, photograph):
    assert extract(extractor, photograph, 1024).size == photograph.shape
    assert extractor.resize is None
    extract(extractor, photograph, 160)
    assert extractor.resize == 160
    extract(extractor, photograph, 0)
    assert extractor.resize is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("missing.png", "left.png"), "missing.png: No such file"),
        (("left.png", "words.txt"), "words.txt: 9 bytes are not a readable picture"),
        (("left.png", "empty.png"), "empty.png: 0 bytes are not a readable picture"),
        (("left.png", "small.png"), "small.png: image has shape (12, 40, 3)"),
        (("left.png", "long.png", "--resize", "100"), "long.png: an image of 2000×20 resized to a longer side of 100"),
        (("left.png", "left.png", "--max-image-pixels", "1000"), "left.png: image has 320×240"),
        (("left.png", "left.png", "-o", "out.xyz"), "'.xyz' is not a picture format"),
        (("left.png", "left.png", "-o", "out"), "is not a picture format"),
        (("left.png", "left.png", "--weights", "nope.pth"), "nope.pth: no such weights file"),
        (("left.png", "left.png", "--resize", "8"), "must have at least 16"),
    ],
)
def test_bad_arguments_get_one_sentence(pair, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.txt").write_text("not a pic")
    (tmp_path / "empty.png").touch()
    cv2.imwrite("small.png", np.zeros((12, 40), np.uint8))
    cv2.imwrite("long.png", np.zeros((20, 2000), np.uint8))
    result = run(*arguments)
    assert result.exit_code == 1
    assert words in result.output
    assert len(result.output.strip().splitlines()) == 1, result.output


def test_an_unknown_device_gets_one_sentence(pair):
    result = CliRunner().invoke(cli, ["match", *map(str, pair), "--device", "abacus"])
    assert result.exit_code == 1
    assert "abacus" in result.output and "Traceback" not in result.output


def test_an_unknown_command_is_told_what_there_is():
    result = CliRunner().invoke(cli, ["mach"])
    assert result.exit_code == 2
    assert "no command 'mach'; there are " in result.output


def test_help_does_not_load_torch():
    script = (
        "import sys\n"
        "from superpoint_ros.tools.cli import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "assert 'torch' not in sys.modules and 'cv2' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for name in ("demo", "match", "weights"):
        assert f"  {name} " in done.stdout
