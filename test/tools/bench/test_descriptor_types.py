"""Half and a quarter of the bytes, and matching as good within 1 %, on real photographs."""

from __future__ import annotations

import pytest

pytest.importorskip("skimage", reason="scikit-image is not installed")

from superpoint_ros.features.extractor import Extractor
from superpoint_ros.tools.bench.descriptor_types import compare_types, photographs


@pytest.fixture(scope="module")
def quality():
    return compare_types(Extractor(device="cpu", max_keypoints=300), photographs()[:4])


@pytest.mark.parametrize("kind, part", [("float16", 1 / 2), ("uint8", 1 / 4)])
def test_smaller_descriptors_match_as_well_within_a_hundredth(quality, kind, part):
    full, small = quality["float32"], quality[kind]
    assert small.size == full.size * part
    assert full.correct > 500
    assert full.correct > full.matches / 2
    assert small.correct == pytest.approx(full.correct, rel=0.01)
    assert small.matches == pytest.approx(full.matches, rel=0.01)
