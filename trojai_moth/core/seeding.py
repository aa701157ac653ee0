"""Random streams that depend on what they are for, never on the order in which things run."""

from __future__ import annotations

import hashlib

import torch


def derive_seed(seed: int, *names: object) -> int:
    """A 63-bit seed for (run seed, model id, stage, ...); the same names always give the same seed."""
    text = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: object) -> torch.Generator:
    """A CPU generator for one purpose; draw on the CPU and move, so that every device sees the same numbers."""
    return torch.Generator().manual_seed(derive_seed(seed, *names))
