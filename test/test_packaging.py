"""What is installed, by CMake and by pip, and what set-up says where something is missing."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

from installation import prefix, program

ROOT = Path(__file__).resolve().parents[1]
ROS_MODULES = (
    "rclpy",
    "ament_index_python",
    "builtin_interfaces",
    "cv_bridge",
    "diagnostic_msgs",
    "launch",
    "launch_ros",
    "lifecycle_msgs",
    "rcl_interfaces",
    "sensor_msgs",
    "std_msgs",
    "superpoint_ros.msg",
)
PACKAGES = {
    "superpoint_ros": ROOT / "superpoint_ros",
    "superpoint_training": ROOT / "training" / "superpoint_training",
}

ROOMS = ("network", "features", "frontend", "bags", "tools/extract")
WITHOUT_ROS = {ROOT / "superpoint_ros" / room: ROOT for room in ROOMS} | {
    PACKAGES["superpoint_training"]: ROOT / "training"
}
"""Folders of code that needs no ROS: where each one's packages begin."""


def installed_files() -> set[str]:
    """Source files of both packages, as an installation lays them out."""
    return {
        f"{package}/{path.relative_to(folder).as_posix()}"
        for package, folder in PACKAGES.items()
        for pattern in ("*.py", "*.safetensors", "*.yaml", "py.typed")
        for path in folder.rglob(pattern)
    }


def run_python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=300)


def test_the_version_is_package_xmls() -> None:
    version = ElementTree.parse(ROOT / "package.xml").findtext("version")
    assert importlib.metadata.version("superpoint_ros") == version


def test_importing_what_needs_no_ros_imports_no_ros(tmp_path: Path) -> None:
    names = sorted(
        ".".join(path.relative_to(above).with_suffix("").parts)
        for folder, above in WITHOUT_ROS.items()
        for path in folder.rglob("*.py")
        if path.stem not in ("__init__", "__main__")
    )
    assert len(names) > 10
    # None in sys.modules makes an import fail, as on a machine without ROS.
    code = f"""
import importlib, sys
sys.modules.update(dict.fromkeys({ROS_MODULES}))
from superpoint_ros import Extractor, Features, estimate_homography, match
for name in {names}:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in ("ncnn", "onnx", "onnxruntime", "openvino", "triton"):  # engines of choice
            raise
"""
    result = run_python(code, tmp_path)
    assert result.returncode == 0, result.stderr


def test_no_room_without_ros_imports_the_messages() -> None:
    # What import-linter cannot see: superpoint_ros.msg does not exist in the source tree.
    for folder in WITHOUT_ROS:
        for path in folder.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                assert not (
                    isinstance(node, ast.ImportFrom) and (node.module or "").startswith("superpoint_ros.msg")
                ), f"{path}:{node.lineno} imports the messages"


def test_messages_are_found_from_the_checkout_and_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2")
    code = """
import sys
from superpoint_ros.msg import FeatureMatches, Features, HomographyStamped
assert "torch" not in sys.modules, "importing the messages loads torch"
assert (Features.FLOAT32, Features.FLOAT16, Features.UINT8) == (0, 1, 2)
status = HomographyStamped
assert (status.OK, status.NO_REFERENCE) == (0, 1)
assert (status.TOO_FEW_MATCHES, status.DEGENERATE) == (2, 3)
from superpoint_ros import Extractor
"""
    for folder in (ROOT, tmp_path):
        result = run_python(code, folder)
        assert result.returncode == 0, result.stderr


def test_cmake_installs_modules_executables_header_launch_and_config() -> None:
    place = prefix()
    packages = Path(importlib.import_module("superpoint_ros.msg").__file__).parents[2]
    missing = {name for name in installed_files() if not (packages / name).is_file()}
    assert missing == set(), "not installed; if they are new, `make setup` installs them"
    there = {path.relative_to(packages).as_posix() for name in PACKAGES for path in (packages / name).rglob("*.py")}
    former = {name for name in there - installed_files() if not name.startswith("superpoint_ros/msg/")}
    assert former == set(), "of an earlier version; `make setup` takes them away"
    for folder in ("launch", "config"):
        for path in (ROOT / folder).glob("*.*"):
            assert (place / "share" / "superpoint_ros" / folder / path.name).is_file()
    assert (place / "include" / "superpoint_ros" / "superpoint_ros" / "features.hpp").is_file()
    for name in ("superpoint_node", "superpoint", "superpoint-train"):
        assert os.access(place / "lib" / "superpoint_ros" / name, os.X_OK)


@pytest.mark.parametrize("links", [False, True], ids=["files", "links, some to folders"])
def test_an_install_takes_away_what_an_earlier_version_has_left(tmp_path: Path, links: bool) -> None:
    """A package that is gone would shadow the module that has its name now, and a module would still be found."""
    (tmp_path / "new" / "tools").mkdir(parents=True)
    (tmp_path / "new" / "tools" / "extract.py").write_text("")
    (tmp_path / "CMakeLists.txt").write_text(
        f"""cmake_minimum_required(VERSION 3.20)
project(superpoint_ros LANGUAGES NONE)
set(PYTHON_INSTALL_DIR lib/python/site-packages)
configure_file({ROOT}/cmake/remove_former_install.cmake.in remove.cmake @ONLY)
install(SCRIPT ${{CMAKE_CURRENT_BINARY_DIR}}/remove.cmake)
install(DIRECTORY new/ DESTINATION ${{PYTHON_INSTALL_DIR}}/superpoint_ros)
"""
    )
    packages, kept = tmp_path / "prefix" / "lib" / "python" / "site-packages", tmp_path / "kept"
    for folder in (kept, packages / "another"):
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("")
    package = packages / "superpoint_ros"
    if links:
        package.mkdir()
        (package / "tools").symlink_to(kept)
    else:
        (package / "tools" / "extract").mkdir(parents=True)
        (package / "tools" / "extract" / "__init__.py").write_text("")
        (package / "tools" / "cli.py").write_text("")
    for command in (
        ["-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_INSTALL_PREFIX={tmp_path / 'prefix'}"],
        ["--install", tmp_path / "build"],
    ):
        subprocess.run(["cmake", *command], check=True, capture_output=True, timeout=300)
    found = {path.relative_to(packages).as_posix() for path in packages.rglob("*.py")}
    assert found == {"another/__init__.py", "superpoint_ros/tools/extract.py"}
    assert (kept / "__init__.py").is_file()


def test_the_installed_command_line_runs(tmp_path: Path) -> None:
    result = subprocess.run([program("superpoint"), "--help"], cwd=tmp_path, capture_output=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert b"demo" in result.stdout


def test_the_pip_wheel_holds_every_module_the_weights_and_nothing_of_an_earlier_build(tmp_path: Path) -> None:
    # pip builds beside the sources, so in a copy.
    source = tmp_path / "source"
    kept_out = shutil.ignore_patterns("__pycache__", ".*", "build", "*.egg-info")
    shutil.copytree(ROOT, source, ignore=kept_out)
    former = source / "build" / "lib" / "superpoint_ros" / "tools" / "former.py"  # as an earlier build leaves it
    former.parent.mkdir(parents=True)
    former.write_text("")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", tmp_path, source], check=True, timeout=300)
    (wheel,) = tmp_path.glob("superpoint_ros-*.whl")
    assert wheel.stat().st_size < 8e6, "the package is small enough for a robot's link; nearly all of it is weights"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (scripts,) = (name for name in names if name.endswith("entry_points.txt"))
        text = archive.read(scripts).decode()
    modules = {name for name in names if name.endswith(".py")}
    assert (installed_files() - names, modules - installed_files()) == (set(), set())
    assert "superpoint = superpoint_ros.tools.cli:main" in text
    assert "superpoint-train = superpoint_training.cli:main" in text


@pytest.mark.parametrize(
    ("gone", "sentence"),
    [
        (("cmake",), "cmake not found; install it (Debian, Ubuntu: apt install cmake)."),
        (("c++", "g++", "clang++"), "no C++ compiler found; install one"),
        (("python3",), "python3 not found; install Python 3.10 to 3.14"),
    ],
)
def test_a_missing_tool_is_named_in_one_sentence(tmp_path: Path, gone: tuple[str, ...], sentence: str) -> None:
    for name in ("sh", "uname", "sed", "sort", "head", "cmake", "cc", "c++"):
        if name not in gone:
            path = shutil.which(name)
            assert path, f"this test needs {name}"
            (tmp_path / name).symlink_to(path)
    if "python3" not in gone:
        # A link would take the virtual environment's settings away.
        (tmp_path / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        (tmp_path / "python3").chmod(0o755)
    result = subprocess.run(
        [ROOT / "cmake" / "check_host.sh", "python3", "wheels"],
        env={"PATH": str(tmp_path), "LC_ALL": "C"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 1
    assert result.stderr.startswith(f"make setup: {sentence}")
    assert result.stderr.count("\n") == 1


def test_a_python_without_numpy_1_is_refused_for_the_wheels_of_jazzy(tmp_path: Path) -> None:
    python = tmp_path / "python3"
    newer = "import sys; sys.version_info = (3, 13, 0, 'final', 0); exec(sys.stdin.read())"
    python.write_text(f'#!/bin/sh\nshift\nexec "{sys.executable}" -c "{newer}" "$@"\n')
    python.chmod(0o755)
    command = [ROOT / "cmake" / "check_host.sh", python, "wheels"]
    refused = subprocess.run([*command, "jazzy"], capture_output=True, text=True, timeout=300)
    assert refused.returncode == 1
    assert refused.stderr.startswith(
        "make setup: the wheels of ROS 2 Jazzy need numpy 1, which has none for Python 3.13"
    )
    assert b"Jazzy" not in subprocess.run([*command, "kilted"], capture_output=True, timeout=300).stderr


def test_missing_include_folders_are_dropped_and_others_kept(tmp_path: Path) -> None:
    # An imported target like those of the wheels: a folder of another machine among good ones.
    (tmp_path / "CMakeLists.txt").write_text(
        f"""cmake_minimum_required(VERSION 3.20)
project(probe LANGUAGES NONE)
add_library(probe::headers INTERFACE IMPORTED)
set(folders "/opt/python/nowhere/include" "{tmp_path}" "$<BUILD_INTERFACE:/not/yet/a/path>")
set_target_properties(probe::headers PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${{folders}}")
function(show)
  get_target_property(folders probe::headers INTERFACE_INCLUDE_DIRECTORIES)
  message(STATUS "folders: ${{folders}}")
endfunction()
cmake_language(DEFER CALL show)
"""
    )
    cure = ROOT / "cmake" / "drop_missing_include_dirs.cmake"
    result = subprocess.run(
        ["cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PROJECT_INCLUDE={cure}"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert f"folders: {tmp_path};$<BUILD_INTERFACE:/not/yet/a/path>\n" in result.stdout
