"""The pictures of a bag together with what the node made of them."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from superpoint_ros.bags.content import COMPRESSED_IMAGE, STAMPED, BagError, Message, Topic, header_stamp
from superpoint_ros.bags.reader import BagReader
from superpoint_ros.features.decode import decode_compressed, decode_image
from superpoint_ros.features.intensity import FoundRange
from superpoint_ros.tools.demo.results import FrameResult, read_results


@dataclass(frozen=True)
class Source:
    """The images that are played: a topic of a bag, up to `stop` nanoseconds of its time."""

    bag: Path
    topic: Topic
    stop: int | None = None


@dataclass(frozen=True)
class Shot:
    """One image of the bag.

    picture  (H, W) uint8 grey
    result   None for a frame that the node skipped
    """

    stamp: int
    picture: NDArray[np.uint8]
    result: FrameResult | None


def images(bag: BagReader, source: Source, problems: list[str]) -> Iterator[Message]:
    """The messages that are played: those with a header, of a damaged bag as far as it can be read.

    problems  gets a sentence for each kind of what is left out
    """
    short = 0
    try:
        for message in bag.messages([source.topic.name], stop=source.stop):
            if len(message.data) >= STAMPED:
                yield message
            else:
                short += 1
    except BagError as error:
        problems.append(str(error))
    if short:
        problems.append(f"{bag.path}: {short} messages on {source.topic.name} end before their headers do")


def read_shots(source: Source, record: Path, stamps: Container[int]) -> Iterator[Shot]:
    """The readable images in order, each with its result.

    record  the bag with the node's answers
    stamps  nanoseconds, of the frames that were played
    """
    results = read_results(record, stamps)
    expected = next(results, None)
    decode = decode_compressed if source.topic.type == COMPRESSED_IMAGE else decode_image
    scale = FoundRange()
    with BagReader(source.bag) as bag:
        for message in images(bag, source, []):
            stamp, found = header_stamp(message.data), None
            if expected is not None and expected.stamp == stamp:
                found, expected = expected, next(results, None)
            try:
                yield Shot(stamp, decode(bag.decode(message), scale), found)
            except ValueError:  # BadImage, or BagError for what is no image message
                continue


def recorded_times(source: Source) -> Iterator[int]:
    """When each image was recorded, nanoseconds."""
    with BagReader(source.bag) as bag:
        for message in images(bag, source, []):
            yield message.time
