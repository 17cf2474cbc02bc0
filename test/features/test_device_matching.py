from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from superpoint_ros.features import device_matching
from superpoint_ros.features.device_matching import COPIES, NearestOnDevice, nearest_on_device
from superpoint_ros.features.matching import nearest_on_cpu
from superpoint_ros.network.engines.devices import DeviceLost

CPU = torch.device("cpu")


def descriptors(count, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(count, 16)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def uploads(monkeypatch):
    """How many descriptors were brought to the device, each time."""
    counts, upload = [], torch.Tensor.to

    def counted(self, *arguments, **options):
        counts.append(len(self))
        return upload(self, *arguments, **options)

    monkeypatch.setattr(torch.Tensor, "to", counted)
    return counts


def assert_equal(found, expected):
    for one, other in zip(found[:2], expected[:2], strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(found[2:], expected[2:], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_the_device_finds_what_the_cpu_finds():
    d0, d1 = descriptors(60), descriptors(50, 1)
    assert_equal(NearestOnDevice(CPU)(d0, d1, True), nearest_on_cpu(d0, d1, True))


def test_descriptors_are_brought_to_the_device_once_as_long_as_they_are_among_the_last(uploads):
    nearest, frames = NearestOnDevice(CPU), [descriptors(20 + number, number) for number in range(COPIES + 1)]
    keyframe = frames[0]
    for frame in frames[1:]:
        nearest(keyframe, frame, False)
        nearest(keyframe, frame, False)
    assert uploads == [20, 21, 22, 23]
    nearest(frames[1], keyframe, False)  # the oldest, which has gone
    assert uploads[4:] == [21]
    assert len(nearest._copies) == COPIES


def test_other_descriptors_in_the_place_of_earlier_ones_are_brought_anew(uploads):
    nearest, keyframe = NearestOnDevice(CPU), descriptors(30)
    for seed in range(1, 20):
        other = descriptors(25, seed)  # may lie where the last one lay
        assert_equal(nearest(keyframe, other, True), nearest_on_cpu(keyframe, other, True))
    assert len(uploads) == 20


def test_where_the_device_lacks_memory_the_cpu_matches(monkeypatch, caplog):
    nearest, d0, d1 = NearestOnDevice(CPU), descriptors(60), descriptors(50, 1)
    nearest(d0, d1, True)

    def lacking(*_):
        raise torch.cuda.OutOfMemoryError("Tried to allocate 2 GiB")

    with caplog.at_level(logging.WARNING, "superpoint_ros"):
        with monkeypatch.context() as patch:
            patch.setattr(device_matching, "nearest_on_device", lacking)
            for _ in range(3):
                assert_equal(nearest(d0, d1, True), nearest_on_cpu(d0, d1, True))
        assert not nearest._copies
        for _ in range(2):
            assert_equal(nearest(d0, d1, True), nearest_on_cpu(d0, d1, True))
    assert [record.getMessage() for record in caplog.records] == [
        "cpu lacks memory (Tried to allocate 2 GiB): the CPU matches until it has some.",
        "cpu has memory again, and matches again.",
    ]


def test_a_device_that_answers_no_more_is_not_taken_for_one_that_lacks_memory(monkeypatch):
    def broken(*_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def lost(device, error):
        raise DeviceLost("gone") from error

    monkeypatch.setattr(device_matching, "nearest_on_device", broken)
    monkeypatch.setattr(device_matching, "require_alive", lost)
    with pytest.raises(DeviceLost):
        NearestOnDevice(CPU)(descriptors(3), descriptors(3), False)


def test_products_are_not_rounded_to_tf32(monkeypatch):
    seen = []
    monkeypatch.setattr(
        device_matching,
        "nearest_on_device",
        lambda *given: seen.append(torch.backends.cuda.matmul.allow_tf32) or nearest_on_device(*given),
    )
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", True)
    NearestOnDevice(CPU)(descriptors(3), descriptors(3), False)
    assert seen == [False]
