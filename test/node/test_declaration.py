"""superpoint_ros/node/declaration.py: the table of parameters on a node, against real rclpy."""

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")

from rclpy.parameter import Parameter

from superpoint_ros.frontend.parameters import TABLE, Parameters


def test_every_parameter_is_described_on_the_running_node(robot):
    node = robot.add_node()
    for descriptor in node.describe_parameters(list(TABLE)):
        assert len(descriptor.description) > 10
        row = TABLE[descriptor.name]
        ranges = [*descriptor.floating_point_range, *descriptor.integer_range]
        assert [(r.from_value, r.to_value) for r in ranges] == (
            [row.metadata["limits"]] if row.metadata["limits"] else []
        )
        for choice in row.metadata["choices"]:
            assert choice in descriptor.additional_constraints


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("max_keypoint", 5, "'max_keypoint' is unknown .did you mean 'max_keypoints'"),
        ("max_keypoints", 0, "'max_keypoints'.*1 to 65536"),
        ("detection_threshold", 1.5, "'detection_threshold'.*0.0 to 0.999"),
        ("nms_radius", "four", "'nms_radius' must be int, got 'four'"),
        ("nms_radius", 4.5, "'nms_radius' must be int, got 4.5"),
        ("max_age", 4000, "'max_age' must lie in 0.001 to 3600.0, got 4000"),
        ("max_age", float("nan"), "'max_age' must be float, got nan"),
        ("engine", "tensorflow", "'engine' must be one of auto, torch.*got 'tensorflow'"),
        ("resize", 8, "'resize' must be 0 or at least 16"),
        ("intensity_range", [5.0], "'intensity_range' must be .low, high."),
        (
            "intensity_range",
            [5.0, 1.0],
            "'intensity_range' must be .low, high. with low below high",
        ),
        ("cameras", ["left", "left"], "'cameras' must hold different names"),
        ("cameras", ["left", ""], "'cameras' must hold different names"),
        ("cameras", ["1st"], "'cameras' must hold different names"),
        ("synchronise", "exact", "'synchronise' must be none for a single camera"),
        ("image_topics", ["/a", "/b"], "'image_topics' must hold one entry for each of the 1"),
        ("left.resize", 160, "'left.resize' is for a camera 'left', but there are \\[''\\]"),
        ("left.resise", 160, "'left.resise' is unknown .did you mean 'left.resize'"),
        ("left.tracks", True, "'left.tracks' is unknown.*for one camera rate, max_keypoints, resize, intensity_range"),
    ],
)
def test_a_node_does_not_start_with(robot, name, value, sentence):
    with pytest.raises(ValueError, match=sentence):
        robot.add_node(**{name: value})


def test_where_rclpy_does_not_tell_what_a_node_was_started_with_it_counts_all_the_same(robot, monkeypatch):
    from superpoint_ros.node import declaration, qos

    for module in (declaration, qos):
        monkeypatch.setattr(module, "started_with", lambda node: {})
    node = robot.add_node(max_keypoints=77, max_age=2, cameras=["left", "right"], scales="video")
    found = node.parameters
    assert (found.max_keypoints, found.max_age, found.cameras) == (77, 2.0, ("left", "right"))
    assert node.get_parameter("max_keypoints").value == 77 and node.start()
    for name, value in (("max_keypoints", 0), ("nms_radius", "four"), ("engine", "tensorflow")):
        with pytest.raises(ValueError, match=name):
            robot.add_node(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_keypoints", 0),
        ("descriptor_type", "int4"),
        ("intensity_range", [2.0, 1.0]),
        ("resize", 3),
        ("tracks", "perhaps"),
        ("weights", None),
        ("max_age", "long"),
    ],
)
def test_a_running_node_refuses_and_keeps_its_value(robot, name, value):
    node = robot.add_node()
    result = node.set_parameters([Parameter(name, value=value)])[0]
    assert not result.successful
    assert name in result.reason
    assert node.parameters == Parameters()


def test_whole_numbers_serve_where_doubles_are_wanted(robot):
    node = robot.add_node(intensity_range=[7000, 9000], match_ratio=1, max_age=2)
    assert (node.parameters.intensity_range, node.parameters.max_age) == ((7000.0, 9000.0), 2.0)
    changes = [Parameter("intensity_range", value=[0, 100]), Parameter("max_age", value=3)]
    assert all(result.successful for result in node.set_parameters(changes))
    assert (node.parameters.intensity_range, node.parameters.max_age) == ((0.0, 100.0), 3.0)
    assert not node.set_parameters([Parameter("max_age", value=4000)])[0].successful
    assert node.parameters.max_age == 3.0


@pytest.mark.parametrize("name", ["cameras", "image_topics", "frame_ids", "mask_files"])
def test_a_list_of_no_names_is_as_if_it_were_not_given(robot, name):
    assert getattr(robot.add_node(**{name: []}).parameters, name) == ("",)


def test_a_home_folder_is_found_in_paths(robot, monkeypatch):
    monkeypatch.setenv("HOME", "/home/her")
    node = robot.add_node(weights="~/w.pth", mask_files=["~/m.png"])
    assert (node.parameters.weights, node.parameters.mask_files) == ("/home/her/w.pth", ("/home/her/m.png",))


def test_what_an_active_node_holds_may_all_be_set_to_what_it_is(robot):
    """As `ros2 param dump` and `load` do."""
    node = robot.add_node(cameras=["left", "right"], weights="", intensity_range=[0, 7])
    assert node.start()
    names = list(node.list_parameters([], 0).names)
    assert "qos_overrides./left/image.subscription.depth" in names
    results = node.set_parameters(node.get_parameters(names))
    assert [result.reason for result in results if not result.successful] == []


def test_what_is_read_at_the_start_is_not_changed_later(robot):
    node = robot.add_node()
    (result,) = node.set_parameters([Parameter("qos_overrides./diagnostics.publisher.depth", value=3)])
    assert not result.successful and "start it again" in result.reason


def test_an_unknown_name_for_all_nodes_is_warned_of_and_one_for_this_node_refused(robot, monkeypatch):
    from rclpy.impl.rcutils_logger import RcutilsLogger

    from superpoint_ros.node.superpoint_node import SuperPointNode

    said = []
    monkeypatch.setattr(RcutilsLogger, "warning", lambda self, sentence, **_: said.append(sentence))
    given = [Parameter("max_keypoint", value=5)]
    node = SuperPointNode({"max_keypoint"}, context=robot.context, parameter_overrides=given)
    node.destroy_node()
    assert said == [
        "parameter 'max_keypoint' is unknown (did you mean 'max_keypoints'?), and taken to be for other nodes."
    ]
    with pytest.raises(ValueError, match="did you mean 'max_keypoints'"):
        SuperPointNode({"other"}, context=robot.context, parameter_overrides=given)


def test_changes_are_logged_with_both_values(robot, monkeypatch):
    from rclpy.impl.rcutils_logger import RcutilsLogger

    node, said = robot.add_node(), []
    monkeypatch.setattr(RcutilsLogger, "info", lambda self, sentence, **_: said.append(sentence))
    node.set_parameters([Parameter("max_keypoints", value=500), Parameter("tracks", value=False)])
    assert said == ["Parameter max_keypoints is 500 from now on, no longer 1024."]


def test_a_value_for_one_camera_is_checked_as_the_general_one_is(robot):
    for name, value, sentence in (
        ("left.rate", -1.0, "'left.rate' must lie in 0.0 to 1000.0"),
        ("left.intensity_range", [3.0, 1.0], "'left.intensity_range' must be .low, high."),
        ("left.resize", "big", "'left.resize' must be int, got 'big'"),
    ):
        with pytest.raises(ValueError, match=sentence):
            robot.add_node(cameras=["left", "right"], **{name: value})
    with pytest.raises(ValueError, match="'left.rate' cannot be: synchronised cameras have one rate"):
        robot.add_node(cameras=["left", "right"], synchronise="exact", **{"left.rate": 3})


@pytest.mark.parametrize(
    ("name", "value"), [("left.rate", -1.0), ("left.resize", 99999), ("right.max_keypoints", 0), ("left.rate", "fast")]
)
def test_a_value_for_one_camera_that_cannot_be_is_refused_by_a_running_node_which_then_listens(robot, name, value):
    """By its service, too, where an exception would end the node."""
    from rcl_interfaces.srv import SetParameters

    node = robot.add_node(cameras=["left", "right"])
    client = robot.client.create_client(SetParameters, "/superpoint/set_parameters")
    robot.spin_until(client.service_is_ready, "the service")
    answer = client.call_async(SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()]))
    robot.spin_until(answer.done, "its answer")
    assert not answer.result().results[0].successful
    assert f"'{name}' must " in answer.result().results[0].reason
    assert node.set_parameters([Parameter("max_keypoints", value=7)])[0].successful
    assert node.parameters.max_keypoints == 7 and not node.has_parameter(name)


def test_what_is_meant_for_another_node_of_the_robot_is_no_camera_s(robot, monkeypatch):
    from rclpy.impl.rcutils_logger import RcutilsLogger

    from superpoint_ros.node.superpoint_node import SuperPointNode

    said = []
    monkeypatch.setattr(RcutilsLogger, "warning", lambda self, sentence, **_: said.append(sentence))
    given = [Parameter("planner.rate", value=20)]
    SuperPointNode({"planner.rate"}, context=robot.context, parameter_overrides=given).destroy_node()
    assert said == [
        "parameter 'planner.rate' is for a camera 'planner', but there are ['']; it is taken to be for other nodes."
    ]
