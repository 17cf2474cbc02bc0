"""Measure everything that needs a GPU, on a machine that has one, and write docs/performance.md's table.

`make gpu`, or python docs/gpu_check.py [--minutes M] [--seconds S] [--rounds N] [--no-tests]

The tests that skip without a GPU; engines beside plain eager torch at 640×480 and 1280×720, with TensorRT where ONNX
Runtime has it; the node's latency, overload and four cameras, where there is ROS 2; memory over ten minutes of changing
sizes and batches. What is between the two marks of docs/performance.md is written anew, with the card's name. The exit
status is 1 where something failed, and where there is no GPU; then nothing is written.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from superpoint_ros.features.extractor import Extractor
from superpoint_ros.network.engines.devices import DeviceUnusable, require_usable
from superpoint_ros.network.engines.parity import built_in_picture

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "gpu"
PERFORMANCE = ROOT / "docs" / "performance.md"
MARKS = "<!-- GPU begin (written by docs/gpu_check.py) -->", "<!-- GPU end -->"
TESTS = ("test/network", "test/features", "test/frontend", "test/tools/bench")
SIZES = ((480, 640), (720, 1280), (240, 320))
BATCHES = (1, 4, 3, 2)
SETTLED = 0.2
"""Part of the time after which memory must not grow any more."""


def main(arguments: list[str]) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="of watching memory; default 10")
    parser.add_argument("--seconds", type=int, default=60, help="of overload of the node; default 60")
    parser.add_argument("--rounds", type=int, default=50, help="of each engine; default 50")
    parser.add_argument("--no-tests", action="store_true", help="leave out the tests")
    options = parser.parse_args(arguments)
    try:
        if not torch.cuda.is_available():
            raise DeviceUnusable(f"torch {torch.__version__} sees no GPU on this machine")
        require_usable(torch.device("cuda:0"))
    except DeviceUnusable as error:
        print(f"make gpu: {error}. Nothing was measured, and nothing written.", file=sys.stderr)
        return 1
    FOLDER.mkdir(parents=True, exist_ok=True)
    failed = []
    if not options.no_tests and subprocess.run([sys.executable, "-m", "pytest", "-q", *TESTS], cwd=ROOT).returncode:
        failed.append("tests")
    sizes = "--sizes", "640x480,1280x720", "--batches", "1,2,4", "--rounds", str(options.rounds)
    bench = _bench("engines", *sizes, *_engines())
    node = _bench("node", "--node", "--seconds", str(options.seconds)) if _has_ros() else None
    failed += [name for name, report in (("engines", bench), ("node", node or {})) if "error" in report]
    memory = watch_memory(60 * options.minutes)
    if memory["growth_mb"] > 0:
        failed.append("memory")
    card = torch.cuda.get_device_name(0)
    report = {"card": card, "engines": bench, "node": node, "memory": memory, "failed": failed}
    (FOLDER / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    PERFORMANCE.write_text(written(PERFORMANCE.read_text(encoding="utf-8"), section(report)), encoding="utf-8")
    print(
        f"make gpu: {', '.join(failed) or 'nothing'} failed; docs/performance.md and build/gpu/report.json are written."
    )
    return int(bool(failed))


def written(text: str, section: str) -> str:
    """A document with what is between its marks replaced."""
    begin, end = (text.index(mark) for mark in MARKS)
    return f"{text[: begin + len(MARKS[0])]}\n{section}\n{text[end:]}"


def section(report: dict[str, Any]) -> str:
    """What was measured, in Markdown."""
    lines = [
        f"Measured on one {report['card']} by `make gpu`; medians, milliseconds from numpy to numpy. Calls begin 20 ms "
        "after the last one's end, as a camera's images come, and processor and GPU take their time to wake; busy are "
        "calls one right after the other. The reference is plain eager torch in float32, in the same run."
    ]
    if report["failed"]:
        lines[0] += f" **Failed: {', '.join(report['failed'])}.**"
    rows = [row for row in report["engines"].get("whole", []) if row["engine"] != "floor"]
    lines += [
        "",
        "| | size | batch | ms | × the reference | busy, ms | × the reference | same keypoints | cosine |",
        "|" + "---|" * 9,
    ]
    references = [row for row in rows if row["engine"].startswith("reference")]
    busy = {(tuple(row["size"]), row["batch"]): row["busy"] for row in references}
    for row in rows:
        (height, width), batch = row["size"], row["batch"]
        times = busy[(height, width), batch] / row["busy"]
        lines.append(
            f"| {row['engine']} | {width}×{height} | {batch} | {row['wall']:.2f} | {row['ratio']:.1f} "
            f"| {row['busy']:.2f} | {times:.1f} | {row['same']:.3f} | {row['cosine']:.5f} |"
        )
    if not any("tensorrt" in row["engine"] for row in rows):
        lines += ["", "TensorRT: not measured, ONNX Runtime does not have it there."]
    memory = report["memory"]
    seconds, settled, end = memory["seconds"], memory["settled_mb"], memory["end_mb"]
    long = f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} seconds"
    lines += [
        "",
        f"Memory of the GPU over {long} of {memory['calls']} calls, three sizes in batches of one to "
        f"four: {settled:.0f} MB after a fifth of the time, {end:.0f} MB at the end.",
        "",
    ]
    node = report["node"]
    if not node or "error" in node:
        lines.append("The node: not measured." if not node else f"The node: not measured, {node['error']}.")
        return "\n".join(lines)
    cameras, overload = node["cameras"], node["overload"]
    lines += [
        f"Node, {row['descriptor_type']} descriptors: latency less extraction p50 {row['overhead_ms_p50']:.2f} ms, p95 "
        f"{row['overhead_ms_p95']:.2f} ms, extraction {row['extraction_ms_p50']:.2f} ms.\n"
        for row in node["latency"]
    ]
    lines += [
        f"Overload: {overload['late']} of {overload['received']} features older than two extractions and 3 ms.",
        f"Four cameras: {cameras['images_a_batch']:.2f} images a batch, "
        f"{cameras['full']} of {cameras['batches']} of all four.",
    ]
    return "\n".join(lines)


def watch_memory(seconds: float, device: str = "cuda") -> dict[str, float]:
    """Extract from pictures of changing sizes and numbers, and see what memory torch holds on the GPU."""
    extractor, held, calls = Extractor(device=device), torch.cuda.memory_reserved, 0
    pictures = {size: [built_in_picture(size, seed) for seed in range(max(BATCHES))] for size in SIZES}
    for size in SIZES:
        extractor.prepare(size, max(BATCHES))
    begun, settled = time.monotonic(), -1.0
    while (elapsed := time.monotonic() - begun) < seconds or settled < 0:
        size, batch = SIZES[calls % len(SIZES)], BATCHES[calls // len(SIZES) % len(BATCHES)]
        extractor.batch(pictures[size][:batch])
        calls += 1
        if settled < 0 and elapsed >= SETTLED * seconds and calls >= len(SIZES) * len(BATCHES):
            settled = held() / 1e6
    end = held() / 1e6
    return {"seconds": elapsed, "calls": calls, "settled_mb": settled, "end_mb": end, "growth_mb": end - settled}


def _bench(name: str, *arguments: str) -> dict[str, Any]:
    path = FOLDER / f"{name}.json"
    path.unlink(missing_ok=True)
    command = [sys.executable, "-m", "superpoint_ros.tools.cli", "bench", "--device", "cuda", *arguments]
    status = subprocess.run([*command, "--json", str(path)], cwd=ROOT).returncode
    if status or not path.is_file():
        return {"error": f"`superpoint bench {' '.join(arguments)}` ended with {status}"}
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return report


def _engines() -> list[str]:
    names = ["cudagraph", "torch"]
    try:
        import onnxruntime

        names += ["tensorrt"] * ("TensorrtExecutionProvider" in onnxruntime.get_available_providers())
    except ImportError:
        pass
    return [word for name in names for word in ("--engine", name)]


def _has_ros() -> bool:
    try:
        import rclpy  # noqa: F401
    except ImportError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
