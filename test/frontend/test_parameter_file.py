"""superpoint_ros/frontend/parameter_file.py, which needs no ROS"""

from pathlib import Path

import pytest

from superpoint_ros.frontend.parameter_file import parameters_of, read_parameters, robot_wide_names
from superpoint_ros.frontend.parameters import Parameters

CONFIG = Path(__file__).parents[2] / "config" / "superpoint.yaml"


def written(folder, text):
    path = folder / "robot.yaml"
    path.write_text(text)
    return path


def test_the_documented_file_is_read_and_holds_the_defaults():
    assert read_parameters(CONFIG, {}) == Parameters() == read_parameters(None, {})


@pytest.mark.parametrize("name", ["superpoint", "/superpoint", "/**", "/front/superpoint", "front:\n  superpoint"])
def test_sections_are_found_by_the_nodes_name(tmp_path, name):
    indent = "    " if "\n" in name else "  "
    path = written(tmp_path, f"{name}:\n{indent}ros__parameters:\n{indent}  max_keypoints: 7\n")
    assert read_parameters(path, {}).max_keypoints == 7


@pytest.mark.parametrize("distribution, border", [("humble", 5), ("jazzy", 1), (None, 1)])
def test_the_later_section_counts_but_on_humble_the_nodes_own_and_an_assignment_before_both(
    tmp_path, monkeypatch, distribution, border
):
    monkeypatch.delenv("ROS_DISTRO", raising=False)
    if distribution:
        monkeypatch.setenv("ROS_DISTRO", distribution)
    path = written(
        tmp_path,
        "superpoint: {ros__parameters: {border: 5, nms_radius: 6}}\n/**: {ros__parameters: {border: 1, resize: 320}}\n",
    )
    values = read_parameters(path, {"nms_radius": "7"})
    assert (values.border, values.resize, values.nms_radius) == (border, 320, 7)


@pytest.mark.parametrize("sections", [("superpoint", "/**"), ("/**", "superpoint"), ("/*", "/superpoint", "/**")])
def test_sections_count_as_for_a_node(tmp_path, ros_domain, sections):
    rclpy = pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
    text = "".join(f"{name}: {{ros__parameters: {{border: {n}}}}}\n" for n, name in enumerate(sections, 2))
    path, context = written(tmp_path, text), rclpy.Context()
    rclpy.init(context=context, args=["--ros-args", "--params-file", str(path)], domain_id=ros_domain)
    try:
        node = rclpy.create_node("superpoint", context=context, automatically_declare_parameters_from_overrides=True)
        assert read_parameters(path, {}).border == node.get_parameter("border").value
        node.destroy_node()
    finally:
        rclpy.shutdown(context=context)


def test_values_take_the_type_of_their_parameter():
    values = read_parameters(
        None,
        {
            "detection_threshold": "1e-3",
            "match_ratio": "1",
            "intensity_range": "[0, 100]",
            "cameras": "[left, right]",
            "weights": "",
            "tracks": "true",
        },
    )
    assert (values.detection_threshold, values.match_ratio, values.weights, values.tracks) == (0.001, 1.0, "", True)
    assert (values.intensity_range, values.cameras) == ((0.0, 100.0), ("left", "right"))
    assert parameters_of({"weights": 7}).weights == "7"


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("camera: {ros__parameters: {frequency: 3}}", "expected a section for /\\*\\* or /superpoint .* for /camera"),
        ("just words", "expected a section .* it has none"),
        ("a: [", "not a YAML file"),
        ("superpoint: {ros__parameters: &x {resize: *x}}", "not a YAML file"),
        ("a: &x {b: *x}", "not a YAML file"),
        ("superpoint: {ros__parameters: {max_keypoint: 3}}", "did you mean 'max_keypoints'"),
        ("superpoint: {ros__parameters: {tracks: 3}}", "parameter 'tracks' must be bool, got 3"),
        ("superpoint: {ros__parameters: {resize: 3}}", "parameter 'resize' must be 0 or at least"),
        ("superpoint: {ros__parameters: {resize: true}}", "parameter 'resize' must be int, got True"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, text, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_parameters(written(tmp_path, text), {})


def test_an_unknown_name_for_all_nodes_is_warned_of_and_the_rest_read(tmp_path):
    path = written(tmp_path, "/**: {ros__parameters: {frequency: 3, max_keypoint: 4, border: 5}}\n")
    said = []
    assert read_parameters(path, {}, said.append).border == 5
    others = ", and taken to be for other nodes."
    assert said == [
        f"{path}: parameter 'frequency' is unknown{others}",
        f"{path}: parameter 'max_keypoint' is unknown (did you mean 'max_keypoints'?){others}",
    ]


def test_names_for_nodes_of_any_name_are_found_among_the_arguments(tmp_path):
    text = (
        "/**: {ros__parameters: {frequency: 3}}\n/front/*: {ros__parameters: {a: {b: 4}}}\n"
        "superpoint: {ros__parameters: {border: 5}}\n"
    )
    arguments = ["node", "--ros-args", "-p", "c:=1", "--params-file", str(written(tmp_path, text))]
    assert robot_wide_names(arguments) == {"frequency", "a.b"}
    assert robot_wide_names(["node", "--params-file", "/no/such/file"]) == set()
    assert robot_wide_names(["node", "--params-file"]) == set()


def test_a_home_folder_is_found_in_paths(monkeypatch):
    monkeypatch.setenv("HOME", "/home/her")
    values = parameters_of({"weights": "~/w.pth", "mask_files": ["~/m.png"]})
    assert (values.weights, values.mask_files) == ("/home/her/w.pth", ("/home/her/m.png",))


@pytest.mark.parametrize("value", ["nan", float("inf")])
def test_numbers_are_finite(value):
    with pytest.raises(ValueError, match="parameter 'intensity_range' must be a list of float"):
        parameters_of({"intensity_range": [0, value]})


def test_values_for_one_camera_are_read_and_those_of_other_nodes_warned_of(tmp_path):
    said = []
    path = written(
        tmp_path,
        "/**: {ros__parameters: {cameras: [left, right], left: {resize: 160}, planner: {rate: 20}}}\n"
        "superpoint: {ros__parameters: {right: {intensity_range: [0, 9]}}}\n",
    )
    values = read_parameters(path, {}, said.append)
    assert values.by_camera == {"left.resize": 160, "right.intensity_range": (0.0, 9.0)}
    assert (values.of("left").resize, values.of("right").resize) == (160, 0)
    assert said == [
        f"{path}: parameter 'planner.rate' is for a camera 'planner', but there are ['left', 'right']; "
        "it is taken to be for other nodes."
    ]
    with pytest.raises(ValueError, match="'front.rate' is for a camera 'front'"):
        read_parameters(path, {"front.rate": "3"})
