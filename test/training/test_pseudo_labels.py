import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from training_scenes import scene, write_scenes

from superpoint_training.pseudo_labels import LabelFolder, Labels, labelled_pictures

SOME = Labels(np.array([[3.5, 4.0]], np.float32), np.array([0.5], np.float32), (96, 128))


def test_labels_are_found_wherever_picture_and_labels_have_gone(tmp_path) -> None:
    (picture,) = write_scenes(tmp_path / "robot", 1)
    folder = LabelFolder(tmp_path / "labels")
    folder.open({})
    folder.write(picture, SOME)
    moved = shutil.copytree(tmp_path / "labels", tmp_path / "server" / "labels")
    elsewhere = picture.rename(tmp_path / "server" / "renamed.png")
    assert np.array_equal(LabelFolder(moved).read(elsewhere, (96, 128)).xy, SOME.xy)
    assert not LabelFolder(moved).has(picture)


def test_another_picture_of_the_same_name_has_no_labels(tmp_path) -> None:
    (picture,) = write_scenes(tmp_path, 1)
    folder = LabelFolder(tmp_path / "labels")
    folder.open({})
    folder.write(picture, SOME)
    cv2.imwrite(str(picture), scene(5))
    assert not folder.has(picture)
    with pytest.raises(ValueError, match="found 1 files of labels, and 1 of 1 pictures where they were"):
        labelled_pictures([picture], tmp_path / "labels")


def test_labels_that_were_made_otherwise_are_refused_by_the_setting_that_differs(tmp_path) -> None:
    folder = LabelFolder(tmp_path)
    folder.open({"seed": 0, "adaptation": {"threshold": 0.1, "views": 3}})  # as an earlier version, without scales
    folder.open({"adaptation": {"views": 3, "threshold": 0.1}, "seed": 0})
    for settings, told in (
        ({"threshold": 0.1, "views": 4}, "adaptation.views was 3, not 4"),
        ({"threshold": 0.1, "scales": [1.0], "views": 3}, r"adaptation.scales was nothing, not \[1.0\]"),
        ({"views": 3}, "adaptation.threshold was 0.1, not nothing"),
    ):
        with pytest.raises(ValueError, match=f"labels.json: these labels were made otherwise, {told}; choose another"):
            folder.open({"seed": 0, "adaptation": settings})


def test_labels_of_another_size_are_refused(tmp_path) -> None:
    (picture,) = write_scenes(tmp_path, 1)
    folder = LabelFolder(tmp_path / "labels")
    folder.open({})
    folder.write(picture, SOME)
    with pytest.raises(ValueError, match=r"labels on 128×96 pixels; .*000.png has 64×48"):
        folder.read(picture, (48, 64))


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.95])
def test_labels_that_were_cut_off_are_there_but_not_readable(tmp_path, part) -> None:
    (picture,) = write_scenes(tmp_path, 1)
    folder = LabelFolder(tmp_path / "labels")
    folder.open({})
    folder.write(picture, SOME)
    assert folder.has_readable(picture)
    (file,) = (tmp_path / "labels").glob("*.npz")
    file.write_bytes(file.read_bytes()[: int(part * file.stat().st_size)])
    assert folder.has(picture) and not folder.has_readable(picture)
    with pytest.raises(ValueError, match=r"npz: no readable labels of .*000.png, as it is damaged; `superpoint-train"):
        folder.read(picture, (96, 128))
    file.unlink()
    with pytest.raises(ValueError, match="as there is no such file"):
        folder.read(picture, (96, 128))


def test_labels_are_on_the_disk_before_they_take_their_name(tmp_path, monkeypatch) -> None:
    (picture,) = write_scenes(tmp_path, 1)
    folder = LabelFolder(tmp_path / "labels")
    folder.open({})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="npz"):
        folder.write(picture, SOME)
    assert [path.name for path in (tmp_path / "labels").iterdir()] == ["labels.json"]


@pytest.mark.parametrize("text", ["", '{"seed": '])
def test_a_note_that_cannot_be_read_is_named_with_what_would_do(tmp_path, text) -> None:
    (tmp_path / "labels.json").write_text(text)
    with pytest.raises(ValueError, match=r"labels.json: .* bytes that are no JSON object.*; choose another folder, or"):
        LabelFolder(tmp_path).open({"seed": 0})


def test_a_picture_that_cannot_be_opened_has_no_labels(tmp_path, monkeypatch) -> None:
    (picture,) = write_scenes(tmp_path, 1)

    def failing(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", failing)
    assert not LabelFolder(tmp_path).has(picture)
