"""In which numbers a network runs: half precision where the device is good at it."""

from __future__ import annotations

from typing import Any

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BF16, FP16 = (8, 0), (7, 0)
"""Compute capabilities of the first cards with either in their tensor cores; earlier ones emulate it or crawl."""


def choose_dtype(asked: str, device: torch.device) -> torch.dtype:
    """What "auto", "fp32", "bf16" or "fp16" is on a device. Raises ValueError for bf16 on a card that has none."""
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)
    if asked == "auto":
        return DTYPES["bf16" if capability >= BF16 else "fp16" if capability >= FP16 else "fp32"]
    if asked == "bf16" and device.type == "cuda" and capability < BF16:
        name = torch.cuda.get_device_name(device)
        raise ValueError(f"run.precision is bf16, which {name} has not; expected auto, fp16 or fp32")
    return DTYPES[asked]


def autocast(dtype: torch.dtype, device: torch.device) -> torch.autocast:
    """A context in which the network runs in `dtype`; nothing in float32."""
    half = dtype != torch.float32
    return torch.autocast(device.type, dtype if half else None, enabled=half)


def gradient_scaler(dtype: torch.dtype, device: torch.device) -> Any:
    """Keeps float16 gradients from vanishing; for other numbers it does nothing."""
    enabled = dtype == torch.float16
    if hasattr(torch.amp, "GradScaler"):
        return torch.amp.GradScaler(device.type, enabled=enabled)
    return torch.cuda.amp.GradScaler(enabled=enabled)  # torch before 2.3
