"""docs/gpu_check.py, but for what it measures, which needs a GPU."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "docs" / "gpu_check.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(engine, wall, ratio):
    return {
        "engine": engine, "size": [480, 640], "batch": 1, "wall": wall, "cpu": wall, "ratio": ratio, "cpu_ratio": ratio,
        "busy": wall / 2, "same": 0.998, "cosine": 0.99991,
    }  # fmt: skip


MEMORY = {"seconds": 600.0, "calls": 90000, "settled_mb": 812.0, "end_mb": 812.0, "growth_mb": 0.0}
LATENCY = {
    "descriptor_type": "float32",
    "overhead_ms_p50": 2.25,
    "overhead_ms_p95": 3.5,
    "extraction_ms_p50": 0.75,
}
NODE = {
    "latency": [LATENCY],
    "overload": {"late": 1, "received": 900},
    "cameras": {"images_a_batch": 3.9, "full": 90, "batches": 100},
}


def report(**changes):
    whole = [row("reference float32", 8.0, 1.0), row("cudagraph float16", 0.5, 16.0), {"engine": "floor"}]
    given = {"card": "NVIDIA Test Card", "engines": {"whole": whole}, "node": NODE, "memory": MEMORY, "failed": []}
    return {**given, **changes}


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_says_so_fails_and_writes_nothing():
    before = (ROOT / "docs" / "performance.md").read_text()
    ended = subprocess.run([sys.executable, str(SCRIPT)], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 1
    assert ended.stderr.startswith("make gpu: torch ")
    assert ended.stderr.endswith("sees no GPU on this machine. Nothing was measured, and nothing written.\n")
    assert (ROOT / "docs" / "performance.md").read_text() == before


def test_the_table_has_the_cards_name_and_every_engine_but_the_floor(script):
    text = script.section(report())
    assert text.startswith("Measured on one NVIDIA Test Card by `make gpu`")
    assert "| cudagraph float16 | 640×480 | 1 | 0.50 | 16.0 | 0.25 | 16.0 | 0.998 | 0.99991 |" in text
    assert "floor" not in text and "Failed" not in text
    assert "TensorRT: not measured" in text
    assert "10 minutes of 90000 calls" in text and "90 of 100 of all four" in text


def test_what_failed_or_was_not_measured_is_in_the_text(script):
    text = script.section(report(failed=["tests", "memory"], node=None, engines={"error": "it ended with 1"}))
    assert "**Failed: tests, memory.**" in text
    assert "The node: not measured." in text
    assert "latency" not in text


def test_the_document_has_the_marks_between_which_the_text_goes_and_keeps_all_else(script):
    text = script.PERFORMANCE.read_text(encoding="utf-8")
    once = script.written(text, "first")
    assert script.written(once, "second") == script.written(text, "second")
    begin, end = (text.index(mark) for mark in script.MARKS)
    assert once.startswith(text[:begin]) and once.endswith(text[end:])
    assert "first" in once


def test_memory_is_watched_through_all_sizes_and_batches(script, monkeypatch):
    monkeypatch.setattr(script, "SIZES", ((48, 64), (32, 40)))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 5_000_000)
    found = script.watch_memory(0, device="cpu")
    assert found["calls"] >= 2 * len(script.BATCHES)
    assert (found["settled_mb"], found["end_mb"], found["growth_mb"]) == (5.0, 5.0, 0.0)
