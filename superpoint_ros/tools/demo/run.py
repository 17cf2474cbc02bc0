"""The demo from end to end: a bag, the node, figures, pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tqdm import tqdm

from superpoint_ros.bags.reader import BagReader
from superpoint_ros.tools.demo.overview import write_overview
from superpoint_ros.tools.demo.pictures import chained_maps, sample_pair, write_overlays
from superpoint_ros.tools.demo.playback import play_to_node
from superpoint_ros.tools.demo.recording import read_truth, write_sequence
from superpoint_ros.tools.demo.results import read_diagnostics, read_results
from superpoint_ros.tools.demo.shots import Source
from superpoint_ros.tools.demo.summary import (
    Truth,
    faults,
    headline,
    judge_frame,
    summarise,
    table,
    write_summary,
)
from superpoint_ros.tools.demo.wall import wall

CAMERA_BAG, FEATURES_BAG, TRUTH, LOG = "camera_bag", "features_bag", "truth.json", "node.log"
SUMMARY, VIDEO, PAGE = "summary.json", "overlay.mp4", "overview.png"
"""What a run leaves in its folder."""


def run_demo(
    out: Path,
    bag: Path | None,
    topic_name: str | None,
    frames: int,
    rate: float | None,
    lockstep: bool,
    duration: float | None,
    parameters: Mapping[str, str],
    say: Callable[[str], None],
) -> list[str]:
    """Run it all; returns why it failed, a sentence each, or an empty list.

    bag         to play; None for the camera sequence, of so many `frames`
    rate, lockstep
                as `play_to_node` has them
    duration    seconds of the bag; None for all of it
    parameters  of the node: name -> value
    say         where sentences go

    Raises BagError, NodeDied or Timeout with a sentence; OSError if `out` cannot be written.
    """
    if bag is None:
        wall()
    else:
        opened(bag, topic_name, duration)
    # from here on nothing is wrong with what was asked for, and the results of the run before make room
    out.mkdir(parents=True, exist_ok=True)
    for name in (SUMMARY, VIDEO, PAGE):
        # a run that fails leaves nothing that looks like its result
        (out / name).unlink(missing_ok=True)
    truth: Truth | None = None
    if bag is None:
        bag = out / CAMERA_BAG
        remove_bag(bag)
        write_sequence(bag, out / TRUTH, tqdm(range(frames), "Rendering", disable=None))
        truth = read_truth(out / TRUTH)
    elif rate is None:
        # a bag of one's own is a test at its own speed
        rate = 1.0
    source, record = opened(bag, topic_name, duration), out / FEATURES_BAG
    remove_bag(record)
    problems: list[str] = []
    timing = play_to_node(source, record, out / LOG, parameters, rate, say, lockstep, problems)

    figures = [judge_frame(result, timing, truth) for result in read_results(record, timing.sent)]
    diagnostics = read_diagnostics(record)
    summary = summarise(figures, timing, diagnostics.get("device", "unknown"))
    found = [*problems, *faults(summary, with_truth=truth is not None)]
    write_summary(out / SUMMARY, summary)
    say(table(summary, diagnostics))

    small, large = chained_maps(figures, truth) if truth is not None else (None, None)
    shown = write_overlays(out / VIDEO, source, record, timing, figures, small)
    if shown < timing.frames_sent:
        say(f"{out / VIDEO} shows {shown} of {timing.frames_sent} frames.")
    pair = sample_pair(source, record, timing, figures)
    write_overview(out / PAGE, headline(summary), not found, summary, figures, pair, large)
    say(f"Look at {out / PAGE} and {out / VIDEO}; figures are in {out / SUMMARY}.")
    return found


def opened(bag: Path, topic_name: str | None, duration: float | None) -> Source:
    """What is played of a bag. Raises BagError with a sentence if that cannot be."""
    with BagReader(bag) as reader:
        topic = reader.image_topic(topic_name)
        stop = None if duration is None else reader.start_time() + round(duration * 1e9)
    return Source(bag, topic, stop)


def remove_bag(path: Path) -> None:
    """Delete a bag that an earlier run wrote; OSError if the folder holds anything else."""
    if path.is_dir():
        for file in (path / "metadata.yaml", path / f"{path.name}.mcap"):
            file.unlink(missing_ok=True)
        path.rmdir()
