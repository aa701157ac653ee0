"""Choosing the device, the one place that knows about accelerators."""

from __future__ import annotations

import torch

from .errors import SettingsError


def resolve_device(name: str) -> torch.device:
    """The device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; SettingsError when it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SettingsError(f"--device {name}: not a device; use auto, cpu or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise SettingsError(f"--device {name}: not supported; use auto, cpu or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingsError(f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices; use cpu")
    return device


def describe_device(device: torch.device) -> str:
    """What the results say a model ran on: ``cpu`` or the accelerator's index and name."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)


def prepare_process(device: torch.device) -> None:
    """Settings of the whole process that keep inversion fast and repeatable on this device.

    Saturated masks are full of denormal numbers, which cost a CPU a hundred times an ordinary multiplication; TF32
    would blur the small differences that decide whether a trigger works.
    """
    torch.set_flush_denormal(True)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
