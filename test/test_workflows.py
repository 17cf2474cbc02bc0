""".github/workflows: what they run is what README tells people to run, on every distribution that it names."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github" / "workflows").glob("*.yml")}
README = (ROOT / "README.md").read_text()


def steps(workflow):
    """Everything that the jobs of a workflow run, as one text."""
    return "\n".join(step.get("run", "") for job in WORKFLOWS[workflow]["jobs"].values() for step in job["steps"])


def the_ros_way():
    """The commands by which README has a native ROS build the package: from rosdep to colcon."""
    block = re.search(r"## The ROS way.*?```sh\n(.*?)```", README, re.S).group(1)
    return [line.split(" # ")[0].strip() for line in block.splitlines()[1:-1]]


def test_the_distributions_are_those_of_readme_and_rolling():
    named = re.search(r"## The ROS way\n\n(.*):\n", README).group(1)
    matrix = WORKFLOWS["ros"]["jobs"]["colcon"]["strategy"]["matrix"]["include"]
    assert [row["ros"] for row in matrix] == [*re.findall(r"[a-z]+", named.lower().replace(" or ", " ")), "rolling"]


@pytest.mark.parametrize("line", the_ros_way())
def test_a_native_build_is_what_readme_says(line):
    assert line.replace("numpy>=1.26,<2", "${{ matrix.numpy }}") in steps("ros")


def test_numpy_is_held_where_the_messages_of_ros_need_numpy_1():
    matrix = WORKFLOWS["ros"]["jobs"]["colcon"]["strategy"]["matrix"]["include"]
    held = {row["ros"] for row in matrix if row["numpy"] == "numpy>=1.26,<2"}
    assert held == {"humble", "jazzy", "kilted"}


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_what_is_run_of_the_checkout_is_there(workflow):
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M).group(1).split()
    text = steps(workflow)
    assert set(re.findall(r"\bmake (?:-C \S+ )?(\w+)", text)) <= set(targets)
    for path in re.findall(r"src/superpoint_ros/(\S+)", text) + re.findall(r"^\.ci/\S+", text, re.M):
        assert (ROOT / path).exists()
