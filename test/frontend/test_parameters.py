"""superpoint_ros/frontend/parameters.py and config/superpoint.yaml"""

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from superpoint_ros.frontend.parameters import TABLE, Parameters, change

CONFIG = Path(__file__).parents[2] / "config" / "superpoint.yaml"


def test_the_documented_file_holds_every_parameter_with_its_default():
    written = yaml.safe_load(CONFIG.read_text())["/**"]["ros__parameters"]
    defaults = {
        name: list(row.default) if isinstance(row.default, tuple) else row.default for name, row in TABLE.items()
    }
    assert written == defaults


def test_every_line_of_the_documented_file_is_explained():
    lines = CONFIG.read_text().splitlines()
    for number, line in enumerate(lines):
        name = line.split(":")[0].strip()
        before = lines[number - 1].strip()
        if name in TABLE:
            assert before.startswith("#") or before.split(":")[0] in TABLE, name


def test_only_live_parameters_change_while_configured():
    for name, row in TABLE.items():
        other = {bool: True, int: 20, float: 0.5, str: "x", tuple: [1.0, 2.0]}[type(row.default)]
        other = ["x"] if row.default == ("",) else other
        other = row.metadata["choices"][-1] if row.metadata["choices"] else other
        other = not row.default if isinstance(row.default, bool) else other
        proposal = [SimpleNamespace(name=name, value=other)]
        current = Parameters(cameras=("left", "right") if name == "synchronise" else ("",))
        assert getattr(change(current, proposal, configured=False), name) in (
            other,
            tuple(other) if isinstance(other, list) else other,
        )
        if row.metadata["live"]:
            change(current, proposal, configured=True)
        else:
            with pytest.raises(ValueError, match="clean up first"):
                change(current, proposal, configured=True)
