"""The paper's own two networks: their files, the authors' published distance matrices, and the images of both.

All of it lies in the folder ``paper`` of ``real`` (benchmarks/zoo_data.py), which is no part of the repository.
"""

from pathlib import Path

import numpy as np
from torch import nn
from zoo_data import cifar10
from zoo_networks import paper_resnet20

from trojai_moth.core.files import open_regular
from trojai_moth.core.images import ImagePool

NETWORKS = ("nat", "adv")
"""Trained naturally (paper, Table III) and adversarially (Table II)."""

_AUTHORS = 2000
_CLASSES = 10


def network(real: Path, kind: str) -> nn.Module:
    """The network of NETWORKS with its weights."""
    return paper_resnet20(real / "paper" / f"cifar10_resnet20_{kind}.h5")


def authors_images(real: Path) -> ImagePool:
    """The authors' validation set, on which the published distances were measured: CIFAR-10's first 2000."""
    pool = cifar10(real)
    return ImagePool(pool.x[:_AUTHORS], pool.y[:_AUTHORS])


def free_images(real: Path) -> ImagePool:
    """The next 2000, which no distance is measured on: to harden with."""
    pool = cifar10(real)
    return ImagePool(pool.x[_AUTHORS:], pool.y[_AUTHORS:])


def published_distances(real: Path, kind: str) -> dict[tuple[int, int], float]:
    """L1 over three channels by (victim, target): rows are victims, columns the other targets in order."""
    with open_regular(real / "paper" / f"cifar10_resnet20_{kind}.npy") as file:
        matrix = np.load(file, allow_pickle=False)
    every = ((v, t) for v in range(_CLASSES) for t in range(_CLASSES) if v != t)
    return dict(zip(every, map(float, matrix.reshape(-1)), strict=True))
