"""Where workers run: a device, and a share of the cores, for each."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from ...core.device import all_devices


@dataclass(frozen=True)
class Slot:
    """A worker's own place. cores: those it is pinned to; empty where processes cannot be pinned."""

    device: torch.device
    cores: tuple[int, ...]
    threads: int


def workers_for(workers: int | None, device: torch.device) -> int:
    """How many workers are meant: as asked for, else one per device that may be used."""
    return workers or len(all_devices(device))


def slots(workers: int, device: torch.device) -> list[Slot]:
    """Devices in turn, and the cores and threads of this process in equal shares; at least one of each."""
    devices = all_devices(device)
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    threads = max(1, torch.get_num_threads() // workers)
    return [Slot(devices[number % len(devices)], _share(cores, number, workers), threads) for number in range(workers)]


def pin(slot: Slot) -> None:
    """Keep this process to its slot."""
    if slot.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, slot.cores)
    torch.set_num_threads(slot.threads)


def _share(cores: list[int], number: int, workers: int) -> tuple[int, ...]:
    if not cores:
        return ()
    return tuple(cores[number::workers]) if workers <= len(cores) else (cores[number % len(cores)],)
