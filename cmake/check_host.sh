#!/bin/sh
# Is all there that set-up needs? One sentence for the first thing that is missing, then exit 1.
# Usage: check_host.sh PYTHON wheels|ros [DISTRIBUTION]
python=$1
ros_from=$2
distribution=$3

missing() {
    echo "make setup: $1" >&2
    exit 1
}

found() {
    command -v "$1" >/dev/null 2>&1
}

if [ "$ros_from" = wheels ] && [ "$(uname -sm)" != "Linux x86_64" ]; then
    missing "the ROS 2 wheels are for Linux on x86-64 and this is $(uname -sm); install ROS 2, source its setup.bash and run make again."
fi

found "$python" ||
    missing "$python not found; install Python 3.10 to 3.14 (Debian, Ubuntu: apt install python3 python3-venv python3-dev) or name yours with PYTHON=..."

"$python" - "$python" "$ros_from" "$distribution" <<'PYTHON' || exit 1
import importlib.util
import os
import platform
import sys
import sysconfig

name, ros_from, distribution = sys.argv[1:]
version = "{}.{}".format(*sys.version_info[:2])
debian = "python" + version if os.path.realpath(sys.executable).startswith("/usr/bin/") else None


def missing(sentence):
    sys.exit("make setup: " + sentence)


def install(package):
    if debian:
        return "install it (Debian, Ubuntu: apt install python3-{0} or {1}-{0})".format(
            package, debian
        )
    return "install a complete Python and name it with PYTHON=..."


if sys.implementation.name != "cpython" or not (3, 10) <= sys.version_info[:2] <= (3, 14):
    missing(
        "{} is {} {}, but CPython 3.10 to 3.14 is needed; name another with PYTHON=python3.12, "
        "say (Debian, Ubuntu: apt install python3.12 python3.12-venv python3.12-dev).".format(
            name, platform.python_implementation(), version
        )
    )
if ros_from == "wheels" and distribution == "jazzy" and sys.version_info[:2] > (3, 12):
    missing(
        "the wheels of ROS 2 Jazzy need numpy 1, which has none for Python {}; name another with "
        "PYTHON=python3.12, say.".format(version)
    )
if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
    missing("{} has no venv module (or no ensurepip); {}.".format(name, install("venv")))
if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
    missing("{} has no C headers (Python.h); {}.".format(name, install("dev")))
if ros_from == "wheels":
    libc, libc_version = platform.libc_ver()
    if libc != "glibc" or tuple(map(int, libc_version.split("."))) < (2, 28):
        missing(
            "the ROS 2 wheels need glibc 2.28 or newer and this system has {}; use a newer "
            "distribution, such as Debian 12 or Ubuntu 22.04.".format(
                (libc + " " + libc_version).strip() or "another C library"
            )
        )
elif importlib.util.find_spec("rclpy") is None:
    missing(
        "{} (Python {}) finds no rclpy, though ROS_DISTRO is {}; source ROS's setup.bash, or name "
        "the Python that ROS was built for with PYTHON=...".format(
            name, version, os.environ.get("ROS_DISTRO", "set")
        )
    )
PYTHON

found cmake || missing "cmake not found; install it (Debian, Ubuntu: apt install cmake)."
version=$(cmake --version | sed -n 's/^cmake version //p')
[ "$(printf '3.20\n%s\n' "$version" | sort -V | head -n 1)" = 3.20 ] ||
    missing "cmake $version is too old, 3.20 or newer is needed (pip install cmake has one)."
found "${CC:-cc}" || found gcc || found clang ||
    missing "no C compiler found; install one (Debian, Ubuntu: apt install g++)."
found "${CXX:-c++}" || found g++ || found clang++ ||
    missing "no C++ compiler found; install one (Debian, Ubuntu: apt install g++)."
if [ "$ros_from" = ros ]; then
    found colcon ||
        missing "colcon not found; install it (Debian, Ubuntu: apt install python3-colcon-common-extensions)."
fi
