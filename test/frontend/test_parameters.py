"""superpoint_ros/frontend/parameters.py and config/superpoint.yaml"""

import importlib
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from superpoint_ros.frontend.parameter_rules import change
from superpoint_ros.frontend.parameters import TABLE, Parameters
from superpoint_ros.network.heatmap import DetectionSettings

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config" / "superpoint.yaml"


def test_the_documented_file_holds_every_parameter_with_its_default():
    written = yaml.safe_load(CONFIG.read_text())["/**"]["ros__parameters"]
    defaults = {
        name: list(row.default) if isinstance(row.default, tuple) else row.default for name, row in TABLE.items()
    }
    assert written == defaults


def test_the_documented_file_holds_the_table_as_it_is():
    command = [sys.executable, "-m", "docs.write_parameters", "--check"]  # -m: of this checkout, installed or not
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (run.returncode, run.stdout) == (0, ""), run.stderr


def test_a_stale_table_is_named_and_written_anew(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT)
    writer = importlib.import_module("docs.write_parameters")
    file = tmp_path / "superpoint.yaml"
    file.write_text(CONFIG.read_text().replace("1024", "1025"))
    monkeypatch.setattr(writer, "FILE", file)
    assert writer.main(["--check"]) == 1
    assert capsys.readouterr().out == (
        "superpoint.yaml: its table of parameters is stale; `make parameters` writes it anew\n"
    )
    assert (writer.main([]), writer.main(["--check"])) == (0, 0)
    assert "max_keypoints: 1024\n" in file.read_text()
    file.write_text("no marks here")
    with pytest.raises(ValueError, match="superpoint.yaml: expected one line with 'parameters begin"):
        writer.main([])


def test_only_live_parameters_change_while_configured():
    for name, row in TABLE.items():
        other = {bool: True, int: 20, float: 0.5, str: "x", tuple: [1.0, 2.0]}[type(row.default)]
        other = ["x"] if row.default == ("",) else other
        other = max(other, row.metadata["limits"][0]) if row.metadata["limits"] else other
        other = row.metadata["choices"][-1] if row.metadata["choices"] else other
        other = "1.0, 0.5" if name == "scales" else other
        other = ["left,right"] if name == "stereo_pairs" else other
        other = not row.default if isinstance(row.default, bool) else other
        proposal = [SimpleNamespace(name=name, value=other)]
        rig = {"cameras": ("left", "right"), "synchronise": "exact" if name == "stereo_pairs" else "none"}
        current = Parameters(**(rig if name in ("synchronise", "stereo_pairs") else {}), tracks=name == "track_cloud")
        assert getattr(change(current, proposal, configured=False), name) in (
            other,
            tuple(other) if isinstance(other, list) else other,
        )
        if row.metadata["live"]:
            change(current, proposal, configured=True)
        else:
            with pytest.raises(ValueError, match="clean up first"):
                change(current, proposal, configured=True)


@pytest.mark.parametrize("scales", ["", "big", "0.5, 1.0", "1.0, 0.7, x"])
def test_scales_that_cannot_be_are_refused_by_name(scales):
    with pytest.raises(
        ValueError, match="^parameter 'scales' must be single, video, matching, zoom, or 1 to 8 numbers"
    ):
        change(Parameters(), [SimpleNamespace(name="scales", value=scales)], configured=True)


def test_an_extractor_gets_what_the_parameters_say():
    extractor = SimpleNamespace()
    Parameters(max_keypoints=7, detection_threshold=0.1, nms_radius=2, border=1, subpixel=True).apply(extractor)
    assert extractor.settings == DetectionSettings(7, 0.1, 2, 1, True)
    assert (extractor.resize, extractor.scales) == (None, (1.0,))
    Parameters(resize=320, scales="1.0, 0.7").apply(extractor)
    assert (extractor.resize, extractor.scales) == (320, (1.0, 0.7))


@pytest.mark.parametrize(
    ("pairs", "synchronise", "sentence"),
    [
        (["left"], "exact", "two of the cameras for each pair, as in .'left,right'., got 'left'; the cameras are"),
        (["left,back"], "exact", "got 'left,back'; the cameras are"),
        (["left,left"], "exact", "got 'left,left'"),
        (["left,right", "left,right"], "exact", "each left camera once"),
        (["left,right"], "none", "set 'synchronise' to exact or approximate"),
    ],
)
def test_stereo_pairs_that_cannot_be_are_refused_by_name(pairs, synchronise, sentence):
    current = Parameters(cameras=("left", "right"), synchronise=synchronise)
    with pytest.raises(ValueError, match=f"^parameter 'stereo_pairs' .*{sentence}"):
        change(current, [SimpleNamespace(name="stereo_pairs", value=pairs)], configured=False)


def test_stereo_pairs_are_read_with_and_without_spaces():
    current = Parameters(cameras=("left", "right", "back"), synchronise="exact")
    proposal = SimpleNamespace(name="stereo_pairs", value=["left,right", "right, back"])
    assert change(current, [proposal], configured=False).pairs() == [("left", "right"), ("right", "back")]


def test_a_camera_does_not_go_while_it_has_values_of_its_own():
    def given(**values):
        return [SimpleNamespace(name=name.replace("__", "."), value=value) for name, value in values.items()]

    rig = change(Parameters(), given(cameras=["left", "right"], left__resize=320), configured=False)
    with pytest.raises(ValueError, match=r"'left.resize' is for a camera 'left', but there are \['front'\]"):
        change(rig, given(cameras=["front"]), configured=False)
    assert change(rig, given(cameras=["front"], left__resize=None), configured=False).cameras == ("front",)
