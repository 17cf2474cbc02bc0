"""The command as a user runs it, on small pictures and few steps."""

import json
import os
import re
from pathlib import Path

import cv2
import pytest
from click.testing import CliRunner, Result
from rosbags.rosbag2 import StoragePlugin
from training_scenes import scene, write_bag, write_scenes

from superpoint_ros import Extractor, estimate_homography, match
from superpoint_ros.network.checkpoint import load_checkpoint
from superpoint_training.chain import evaluate_chain
from superpoint_training.cli import main
from superpoint_training.config import Config
from superpoint_training.recipe import recipe_names

TINY = [
    "network.channels=[4, 4, 8, 8]",
    "network.head_channels=16",
    "network.descriptor_dim=16",
    "shapes.size=[64, 80]",
    "magicpoint.steps=4",
    "adaptation.size=[64, 80]",
    "adaptation.views=2",
    "adaptation.threshold=0.0",
    "adaptation.max_points=40",
    "pairs.size=[64, 80]",
    "superpoint.steps=3",
    "run.validation_samples=3",
    "evaluation.pairs=2",
    "evaluation.rotation_photos=0",
    "evaluation.shapes=1",
]


def superpoint_train(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize("rounds", [1, 2])
def test_the_whole_chain_ends_in_weights_that_the_extractor_loads(tmp_path, rounds) -> None:
    write_scenes(tmp_path / "pictures", 4)
    (tmp_path / "pictures" / "damaged.png").write_bytes(b"nonsense")
    bag = write_bag(tmp_path / "drive", StoragePlugin.MCAP, [scene(i) for i in range(10, 12)])
    out = tmp_path / "out"
    arguments = ["all", "--images", tmp_path / "pictures", "--images", bag, "--budget", 5, "--out", out]
    settings = [*TINY, "inputs.held_out=0.2", f"adaptation.rounds={rounds}"]
    result = superpoint_train(*arguments, *settings)
    assert result.exit_code == 0, result.output
    features = Extractor(out / "superpoint.safetensors", device="cpu", detection_threshold=0.0)(scene(0))
    assert len(features.xy) > 20 and features.descriptors.shape[1] == 16
    pairs = match(features, features)
    assert estimate_homography(features, features, pairs).status.name == "OK"
    report = json.loads((out / "evaluation" / "report.json").read_text())
    assert "superpoint" in json.dumps(report)
    metadata = load_checkpoint(out / "superpoint.safetensors").metadata
    assert metadata.keys() >= {"data", "data_licence", "source_commit", "metrics", "recipe", "steps"}
    assert (out / f"round{rounds}" / "superpoint" / "log.jsonl").is_file()
    # a second call finds everything done
    again = superpoint_train(*arguments, "--resume", *settings, "evaluation.shapes=0", "evaluation.pairs=1")
    assert again.exit_code == 0, again.output


def test_the_stages_one_by_one_with_previews(tmp_path) -> None:
    write_scenes(tmp_path / "pictures", 3)
    folder = {name: tmp_path / name for name in ("magicpoint", "adapted", "superpoint")}
    weights = folder["magicpoint"] / "magicpoint.safetensors"
    steps: list[list[object]] = [
        ["magicpoint", "--out", folder["magicpoint"], *TINY],
        ["adapt", "--weights", weights, "--images", tmp_path / "pictures", "--out", folder["adapted"], *TINY],
        ["superpoint", "--labels", folder["adapted"], "--start", weights, "--out", folder["superpoint"], *TINY],
        *(
            ["preview", stage, "--labels", folder["adapted"], "--count", 2, "--out", tmp_path / f"{stage}.png", *TINY]
            for stage in ("shapes", "labels", "pairs")
        ),
        ["export", folder["superpoint"] / "state.pt", tmp_path / "again.safetensors"],
    ]
    for arguments in steps:
        result = superpoint_train(*arguments)
        assert result.exit_code == 0, result.output
    for stage in ("shapes", "labels", "pairs"):
        sheet = cv2.imread(str(tmp_path / f"{stage}.png"))
        assert sheet is not None and sheet.std() > 10
    Extractor(tmp_path / "again.safetensors", device="cpu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["magicpoint", "magicpoint.step=3"], "unknown key magicpoint.step; the nearest is magicpoint.steps"),
        (["magicpoint", "--recipe", "smal"], "unknown recipe 'smal'"),
        (["magicpoint", "--device", "tpu"], "device: expected auto, cpu or cuda, got 'tpu'"),
        (["magicpoint", "--resume"], "nothing to resume"),
        (["superpoint", "--labels", "."], "no labelled pictures"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path, monkeypatch, arguments, message) -> None:
    monkeypatch.chdir(tmp_path)
    result = superpoint_train(*arguments, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert message in result.output and "Traceback" not in result.output


def test_pictures_of_the_held_out_list_are_not_trained_on(tmp_path) -> None:
    paths = write_scenes(tmp_path / "pictures", 4)
    kept = tmp_path / "kept.txt"
    kept.write_text(f"# one whole path, one name\n{paths[1]}\n{paths[3].name}\n")
    weights = tmp_path / "magicpoint" / "magicpoint.safetensors"
    assert superpoint_train("magicpoint", "--out", weights.parent, *TINY).exit_code == 0
    out = tmp_path / "adapted"
    images = ["--images", tmp_path / "pictures", "--held-out", kept]
    result = superpoint_train("adapt", "--weights", weights, *images, "--out", out, *TINY)
    assert result.exit_code == 0, result.output
    assert read(out / "pictures.txt") == [paths[0], paths[2]]
    assert read(out / "held_out.txt") == [paths[1], paths[3]]
    assert len(list((out / "labels").glob("*.npz"))) == 2
    kept.write_text("nowhere.png\n")
    result = superpoint_train("adapt", "--weights", weights, *images, "--out", tmp_path / "other", *TINY)
    assert result.exit_code == 1
    assert "kept.txt: 1 of 1 listed pictures are not there: nowhere.png" in result.output


def read(path: Path) -> list[Path]:
    return [Path(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("weights", ["default", "superpoint_ros_3"])
def test_weights_are_known_by_name(tmp_path, weights) -> None:
    write_scenes(tmp_path / "pictures", 1)
    images = ["--images", tmp_path / "pictures"]
    result = superpoint_train("adapt", "--weights", weights, *images, "--out", tmp_path / "out", *TINY)
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "out" / "adaptation.json").read_text())["weights_id"].startswith("superpoint_ros_3@")
    assert superpoint_train("export", weights, tmp_path / "copy.safetensors").exit_code == 0
    assert load_checkpoint(tmp_path / "copy.safetensors").weights_id == load_checkpoint(None).weights_id


@pytest.mark.parametrize("option", ["adapt --weights", "magicpoint --start", "distill --teacher"])
def test_weights_that_are_neither_file_nor_name_are_refused_with_the_names_there_are(tmp_path, option) -> None:
    images = [] if option.startswith("magicpoint") else ["--images", tmp_path]
    result = superpoint_train(*option.split(), "superpoint_ros_9", *images, "--out", tmp_path / "out", *TINY)
    assert result.exit_code == 2
    words = " ".join(result.output.split())
    assert "superpoint_ros_9: no such weights file; the package has default, fast, superpoint_ros_3" in words


@pytest.fixture(scope="module")
def detector(tmp_path_factory) -> Path:
    """Weights of a MagicPoint that was hardly trained."""
    out = tmp_path_factory.mktemp("magicpoint")
    assert superpoint_train("magicpoint", "--out", out, *TINY).exit_code == 0
    return out / "magicpoint.safetensors"


def adapted(detector: Path, images: Path, out: Path, *settings: object) -> Path:
    result = superpoint_train("adapt", "--weights", detector, "--images", images, "--out", out, *TINY, *settings)
    assert result.exit_code == 0, result.output
    return out


def test_pictures_labelled_on_one_machine_are_trained_on_on_another(detector, tmp_path) -> None:
    pictures = write_scenes(tmp_path / "robot" / "pictures", 4)[0].parent
    bag = write_bag(tmp_path / "robot" / "drive", StoragePlugin.MCAP, [scene(i) for i in range(10, 14)])
    labels = adapted(detector, pictures.parent, tmp_path / "robot" / "adapted", "inputs.held_out=0.3")
    assert bag.is_dir()
    labels.rename(tmp_path / "labels")
    (tmp_path / "robot").rename(tmp_path / "server")
    arguments = ["superpoint", "--labels", tmp_path / "labels", "--start", detector, *TINY, "--out"]
    alone = superpoint_train(*arguments, tmp_path / "alone")  # the bag's frames lie beside the labels
    assert alone.exit_code == 0, alone.output
    with_pictures = superpoint_train(*arguments, tmp_path / "both", "--images", tmp_path / "server" / "pictures")
    assert with_pictures.exit_code == 0, with_pictures.output
    counts = [
        int(load_checkpoint(tmp_path / out / "superpoint.safetensors").metadata["data"].split()[0])
        for out in ("alone", "both")
    ]
    assert counts[0] < counts[1] == len((tmp_path / "labels" / "pictures.txt").read_text().splitlines())


def test_a_detector_alone_learns_from_labelled_pictures(detector, tmp_path) -> None:
    write_scenes(tmp_path / "pictures", 4)
    labels = adapted(detector, tmp_path / "pictures", tmp_path / "adapted")
    out = tmp_path / "out"
    result = superpoint_train("magicpoint", "--labels", labels, "--start", detector, "--out", out, *TINY)
    assert result.exit_code == 0, result.output
    found = load_checkpoint(out / "magicpoint.safetensors")
    assert found.metadata["data"] == "3 pictures" and not found.architecture.descriptor_dim
    assert "repeatability_nms4" in found.metadata["metrics"]


def test_what_a_run_was_made_with_may_not_change_silently(detector, tmp_path) -> None:
    write_scenes(tmp_path / "pictures", 4)
    labels, out = adapted(detector, tmp_path / "pictures", tmp_path / "adapted"), tmp_path / "out"
    arguments = ["superpoint", "--labels", labels, "--out", out, *TINY]
    assert superpoint_train(*arguments).exit_code == 0
    before = (out / "config.yaml").read_text()
    for change in ("run.seed=5", "superpoint.batch_size=4", "pairs.second.rotation=10", "loss.weight=2"):
        result = superpoint_train(*arguments, "--resume", change)
        assert result.exit_code == 1
        assert f"{change.partition('=')[0]} was" in " ".join(result.output.split())
    (labels / "pictures.txt").write_text((labels / "pictures.txt").read_text().partition("\n")[2])
    result = superpoint_train(*arguments, "--resume")
    assert result.exit_code == 1 and "pictures was" in result.output
    assert superpoint_train(*arguments, "run.seed=6").exit_code == 1  # a run is there
    assert (out / "config.yaml").read_text() == before


def test_what_the_best_weights_are_chosen_by_may_not_change_silently(detector, tmp_path) -> None:
    write_scenes(tmp_path / "pictures", 5)
    labels, out = adapted(detector, tmp_path / "pictures", tmp_path / "adapted"), tmp_path / "out"
    arguments = ["superpoint", "--labels", labels, "--out", out, *TINY, "superpoint.best=repeatability_nms4"]
    assert superpoint_train(*arguments).exit_code == 0
    result = superpoint_train(*arguments, "--resume", "run.validation_samples=4")
    assert result.exit_code == 1 and "run.validation_samples was 3 and is 4" in result.output
    (labels / "held_out.txt").write_text((labels / "pictures.txt").read_text().partition("\n")[0] + "\n")
    result = superpoint_train(*arguments, "--resume")
    assert result.exit_code == 1 and "held_out was" in result.output


def test_a_refused_command_leaves_the_lists_alone(detector, tmp_path) -> None:
    images = write_scenes(tmp_path / "pictures", 5)[0].parent
    out = adapted(detector, images, tmp_path / "adapted")
    lists = [out / "pictures.txt", out / "held_out.txt"]
    before = [path.read_text() for path in lists]
    refused = ["adapt", "--weights", detector, "--images", images, "--out", out, *TINY, "adaptation.threshold=0.5"]
    result = superpoint_train(*refused, "inputs.held_out=0.5")
    assert result.exit_code == 1 and "made otherwise" in result.output
    assert [path.read_text() for path in lists] == before


def test_a_chain_that_goes_on_neither_adapts_again_nor_with_another_recipe(tmp_path) -> None:
    write_scenes(tmp_path / "pictures", 4)
    out = tmp_path / "out"
    arguments = ["all", "--images", tmp_path / "pictures", "--budget", 5, "--out", out, *TINY]
    assert superpoint_train(*arguments).exit_code == 0
    done = out / "round1" / "adaptation.json"
    (out / "round1" / "superpoint" / "superpoint.safetensors").unlink()  # as if it had been stopped there
    before = done.stat().st_mtime_ns
    again = superpoint_train(*arguments, "--resume")
    assert again.exit_code == 0, again.output
    assert done.stat().st_mtime_ns == before
    for change, told in (
        ("magicpoint.learning_rate=0.5", "magicpoint.learning_rate was"),
        ("adaptation.threshold=0.5", "made otherwise, adaptation.threshold was"),
        ("inputs.held_out=0.5", "pictures.txt: has 3 pictures, .* and these are 2 pictures"),
    ):
        changed = superpoint_train(*arguments, "--resume", change)
        assert changed.exit_code == 1 and re.search(told, " ".join(changed.output.split())), changed.output
    assert done.stat().st_mtime_ns == before


def test_what_an_interrupted_adaptation_took_is_taken_off_its_budget(tmp_path, monkeypatch) -> None:
    write_scenes(tmp_path / "pictures", 4)
    out = tmp_path / "out"
    arguments = ["all", "--images", tmp_path / "pictures", "--budget", 5, "--out", out, *TINY]
    given = []

    def interrupted(*arguments: object) -> dict[str, float]:
        given.append(arguments[-1])
        raise ValueError("interrupted")

    monkeypatch.setattr("superpoint_training.stages.adapt", interrupted)
    assert superpoint_train(*arguments).exit_code == 1
    done = json.loads((out / "round1" / "adaptation.json").read_text())
    assert done["complete"] is False
    (out / "round1" / "adaptation.json").write_text(json.dumps(done | {"minutes": 0.25}))
    assert superpoint_train(*arguments, "--resume").exit_code == 1
    assert given == pytest.approx([1.0, 0.75])
    assert json.loads((out / "round1" / "adaptation.json").read_text())["minutes"] > 0.25  # of both


def test_layers_are_only_frozen_that_a_start_has_taught(tmp_path) -> None:
    result = superpoint_train("magicpoint", "--out", tmp_path / "out", *TINY, "magicpoint.freeze_stages=1")
    assert result.exit_code == 1 and "freeze_stages and freeze_norms keep what --start brings" in result.output


@pytest.mark.parametrize("command", ["magicpoint", "adapt", "superpoint", "distill", "all", "preview"])
def test_the_help_names_every_recipe_and_which_made_the_weights(command) -> None:
    words = " ".join(superpoint_train(command, "--help").output.split())
    assert all(name in words for name in recipe_names())
    assert "rotation (made the default weights)" in words


def test_a_run_on_labels_is_not_resumed_on_shapes_nor_the_other_way(detector, tmp_path) -> None:
    write_scenes(tmp_path / "pictures", 4)
    labels = ["--labels", adapted(detector, tmp_path / "pictures", tmp_path / "adapted")]
    for began, goes_on in ((labels, []), ([], labels)):
        out = tmp_path / f"out{len(began)}"
        assert superpoint_train("magicpoint", *began, "--out", out, *TINY).exit_code == 0
        assert superpoint_train("magicpoint", *began, "--out", out, "--resume", *TINY).exit_code == 0
        result = superpoint_train("magicpoint", *goes_on, "--out", out, "--resume", *TINY)
        assert result.exit_code == 1 and "state.pt: pictures was" in result.output


@pytest.mark.parametrize("command", ["magicpoint", "preview shapes"])
def test_images_without_labels_are_refused(tmp_path, command) -> None:
    write_scenes(tmp_path / "pictures", 1)
    result = superpoint_train(*command.split(), "--images", tmp_path / "pictures", "--out", tmp_path / "out", *TINY)
    assert result.exit_code == 1 and "expected --labels, too" in result.output


def test_an_adaptation_of_pictures_none_of_which_can_be_read_fails(detector, tmp_path) -> None:
    for path in write_scenes(tmp_path / "pictures", 3):
        path.write_bytes(b"damaged")
    images = ["--images", tmp_path / "pictures"]
    result = superpoint_train("adapt", "--weights", detector, *images, "--out", tmp_path / "out", *TINY)
    assert result.exit_code == 1 and "none of 2 pictures" in result.output


def test_names_in_latin_1_cost_no_adaptation(detector, tmp_path) -> None:
    paths = write_scenes(tmp_path / "pictures", 3)
    paths[0].rename(tmp_path / "pictures" / os.fsdecode(b"caf\xe9.png"))
    out = adapted(detector, tmp_path / "pictures", tmp_path / "out")
    assert {*read(out / "pictures.txt"), *read(out / "held_out.txt")} == {*paths[1:]}


def test_a_full_disk_leaves_the_note_of_an_adaptation_and_one_that_is_damaged_is_named(tmp_path, monkeypatch) -> None:
    write_scenes(tmp_path / "pictures", 4)
    out = tmp_path / "out"
    arguments = ["all", "--images", tmp_path / "pictures", "--budget", 5, "--out", out, *TINY]
    assert superpoint_train(*arguments).exit_code == 0
    note = out / "round1" / "adaptation.json"
    (out / "round1" / "superpoint" / "superpoint.safetensors").unlink()
    kept = json.dumps(json.loads(note.read_text()) | {"complete": False})
    note.write_text(kept)

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        assert superpoint_train(*arguments, "--resume").exit_code == 1
    assert note.read_text() == kept
    note.write_text("")
    result = superpoint_train(*arguments, "--resume")
    assert result.exit_code == 1
    assert "adaptation.json: 0 bytes that are no JSON object" in " ".join(result.output.split())
    note.unlink()
    assert superpoint_train(*arguments, "--resume").exit_code == 0
    assert superpoint_train(*arguments, "--resume").exit_code == 0


def test_weights_that_cannot_be_copied_leave_those_of_before(tmp_path, monkeypatch) -> None:
    weights = tmp_path / "round1" / "superpoint" / "superpoint.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"new")
    (tmp_path / "superpoint.safetensors").write_bytes(b"before")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=rf"{tmp_path}/superpoint.safetensors"):
        evaluate_chain(Config(), weights, tmp_path)
    assert (tmp_path / "superpoint.safetensors").read_bytes() == b"before"
