"""The node's work on a bag: features, matches and homographies of every image into another bag."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from superpoint_ros.bags.content import BagError
from superpoint_ros.bags.reader import BagReader
from superpoint_ros.features.extractor import Extractor
from superpoint_ros.frontend.parameter_rules import without_camera
from superpoint_ros.tools.extract.input import Images, choose_cameras
from superpoint_ros.tools.extract.output import Output, write_record
from superpoint_ros.tools.extract.resume import Past, record_of, remove_output, set_aside
from superpoint_ros.tools.extract.task import Report, Task
from superpoint_ros.tools.extract.work import Work

GPU_BATCH = 8
"""Images in a forward pass on CUDA; on the CPU each goes alone, as in the node."""


def number_of_images(task: Task) -> int:
    """How many its bag says it holds. Raises BagError if it is clear already that it cannot be extracted."""
    with BagReader(task.bag) as bag:
        cameras = choose_cameras(bag, task.topics, task.values)
        if task.output.exists() and not task.resume:
            raise BagError(f"{task.output}: exists already; bags are never overwritten (--resume continues one)")
        return sum(bag.topics[camera.topic].count for camera in cameras)


def extract_bag(task: Task, extractor: Extractor, progress: Callable[[int], object]) -> Report:
    """Extract one bag.

    progress  called with numbers of images that are done, from another thread

    Raises BagError, ValueError or OSError with a sentence if it cannot begin; what goes wrong later is in the report.
    """
    report = Report(task)
    with ExitStack() as stack:
        bag = stack.enter_context(BagReader(task.bag))
        cameras = choose_cameras(bag, task.topics, task.values)
        batch = task.batch or (GPU_BATCH if extractor.device != "cpu" else 1)
        record = record_of(task.values, task.bag, task.storage, cameras, extractor, batch)
        past, left = None, task.output.with_name(f"{task.output.name}.interrupted")
        if task.resume and (task.output.exists() or left.exists()):
            finished = set_aside(task.output, left, record)
            if finished is not None:
                report.frames = report.resumed = int(finished["frames"])
                report.problems = list(finished["problems"])
                report.notes = ["it is complete already"]
                progress(sum(bag.topics[camera.topic].count for camera in cameras))
                return report
            past = stack.enter_context(Past(left, cameras))
        images = Images(bag, cameras, task.values)
        names = [camera.name for camera in cameras]
        others = filter(None, (without_camera(name, names) for name in task.values.by_camera))
        report.notes += [*bag.notes, *others]
        work = Work(report, bag, images, extractor, cameras, batch, past, progress)
        output = Output(task.output, task.storage, cameras, task.values, record)
        work.run(output, lambda: remove_output(left))
        if past is not None and not work.plan.count:
            remove_output(left)
        report.problems += [f"{task.bag}: {problem}" for problem in images.problems]
    if not (report.interrupted or report.broken):
        write_record(
            task.output, {**record, "complete": True, "frames": report.frames, "problems": list(report.problems)}
        )
    return report
