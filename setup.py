"""The parts that need no ROS, for `pip install .`; metadata and dependencies are in pyproject.toml.

The ROS package (messages, node, launch files) is built by CMakeLists.txt.
"""

import shutil
from glob import glob
from pathlib import Path
from xml.etree import ElementTree

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py


class BuildAnew(build_py):
    """Builds into an empty folder: what an earlier build has left there would go into the wheel, too."""

    def run(self):
        for package in ("superpoint_ros", "superpoint_training"):
            shutil.rmtree(Path(self.build_lib) / package, ignore_errors=True)
        super().run()


# package.xml is the one place for the version.
version = ElementTree.parse(Path(__file__).with_name("package.xml")).findtext("version")

setup(
    version=version,
    cmdclass={"build_py": BuildAnew},
    packages=find_packages(include=["superpoint_ros", "superpoint_ros.*"]) + find_packages("training"),
    package_dir={"superpoint_training": "training/superpoint_training"},
    # For bags written without ROS: a reader must find the definitions in them.
    data_files=[("share/superpoint_ros/msg", sorted(glob("msg/*.msg")))],
    package_data={
        "superpoint_ros": ["py.typed"],
        "superpoint_ros.network": ["weights/*"],
        "superpoint_ros.node": ["fastdds.xml"],
        "superpoint_training": ["py.typed", "recipes/*"],
    },
)
