"""Choosing the device, the one place that knows about accelerators."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

import torch
from torch import nn

from .errors import SettingsError

_smaller: ContextVar[int] = ContextVar("smaller", default=1)


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


def all_devices(device: torch.device) -> list[torch.device]:
    """The devices that ``device`` leaves open: all CUDA devices for ``cuda`` without a number, else itself."""
    if str(device) == "cuda":
        return [torch.device("cuda", index) for index in range(torch.cuda.device_count())] or [device]
    return [device]


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
    else:
        _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Tell glibc to keep the memory of activations instead of giving it back and faulting it in anew at every step.

    A quarter of the time of squeezenet at batch 210 and 64 pixels went there. Other allocators are left alone.
    """
    m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4  # malloc.h
    if platform.libc_ver()[0] == "glibc":
        with suppress(OSError, AttributeError):
            set_option = ctypes.CDLL(None).mallopt
            set_option(m_mmap_max, 0)
            set_option(m_trim_threshold, 2**31 - 1)
            set_option(m_top_pad, 64 * 2**20)


def has_bf16(device: torch.device) -> bool:
    """Whether products in bf16 are done by the hardware, as a GPU since 2020 and a CPU with AMX or AVX512-BF16 does."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    supported: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return supported


def default_batch(device: torch.device, area: int) -> int:
    """Images of ``area`` pixels per forward pass to begin with; where that is too many it is halved."""
    most, at = (1024, 224) if device.type == "cuda" else (64, 64)
    return max(8, min(4 * most if device.type == "cuda" else most, int(most * at**2 / area)))


def compiled(module: nn.Module, device: torch.device) -> nn.Module:
    """The network behind torch.compile; compilation, which takes a minute or so, happens when it is first run.

    On a GPU its passes are recorded as CUDA graphs and replayed; what they return is overwritten by the next pass.
    """
    made = torch.compile(module, mode="reduce-overhead" if device.type == "cuda" else "default")
    assert isinstance(made, nn.Module)
    return made


def wait_for(device: torch.device) -> None:
    """Until the device has done what it was given; for timing."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether smaller batches would help."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


@contextmanager
def smaller_batches(divisor: int) -> Iterator[None]:
    """Inside, forward passes begin with batches this many times smaller; results differ by rounding at most."""
    before = _smaller.set(divisor)
    try:
        yield
    finally:
        _smaller.reset(before)


def in_smaller_batches(batch: int) -> int:
    """A batch as it is to be inside :func:`smaller_batches`."""
    return max(1, batch // _smaller.get())


def release_memory(device: torch.device) -> None:
    """Give back what is cached, after running out."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


@contextmanager
def seeded(device: torch.device, seed: int) -> Iterator[None]:
    """The global random streams of the CPU and of this device begin at ``seed`` inside; as before afterwards.

    For what cannot be given a generator, as dropout.
    """
    accelerators: list[int] = []
    if device.type == "cuda":
        accelerators = [torch.cuda.current_device() if device.index is None else device.index]
    with torch.random.fork_rng(devices=accelerators):
        torch.default_generator.manual_seed(seed)
        for accelerator in accelerators:
            torch.cuda.default_generators[accelerator].manual_seed(seed)
        yield
