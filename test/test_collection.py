"""How pytest is set up in pyproject.toml."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_a_module_that_skips_itself_takes_no_other_of_its_folder_along(tmp_path):
    pytest.importorskip("launch_testing", reason="needs ROS 2's launch_testing, whose hooks would do that")
    (tmp_path / "test_skipped.py").write_text("import pytest\n\npytest.importorskip('no_such_module')\n")
    (tmp_path / "test_there.py").write_text("def test_it_is_found():\n    pass\n")
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-c", ROOT / "pyproject.toml", tmp_path]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300).stdout
    assert "test_it_is_found" in found and "no_such_module" in found
