"""Class pairs as pictures: an image of either class, the trigger between them, and what it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from ...core.files import write_atomically
from ...core.images import ImagePool, as_colours
from ...rounds.class_names import said
from ...triggers.trigger import Trigger, stamp

_GREY = 0.5


@dataclass(frozen=True)
class PairPicture:
    """Images (H, W, 3) in [0, 1]; trigger and stamped are None where no trigger was found."""

    classes: tuple[str, str]
    victim: np.ndarray
    target: np.ndarray | None
    trigger: np.ndarray | None
    stamped: np.ndarray | None


def pair_picture(
    images: ImagePool, victim: int, target: int, trigger: Trigger | None, names: Sequence[str]
) -> PairPicture:
    """The first image of each class; the trigger lies on grey as strongly as its mask says. names: of all classes."""
    one, other = (images.positions(label) for label in (victim, target))
    image = images.x[one[0]]
    lone = stamped = None
    if trigger is not None:
        lone = _array(_GREY + trigger.mask * (trigger.pattern - _GREY))
        stamped = _array(stamp(image.cpu(), trigger.mask, trigger.pattern))
    second = _array(images.x[other[0]]) if len(other) else None
    return PairPicture((said(victim, names), said(target, names)), _array(image), second, lone, stamped)


def draw_pairs(pictures: Sequence[PairPicture], path: Path) -> None:
    """A row per pair as a PNG."""
    figure = Figure(figsize=(7.2, 0.5 + 2.0 * len(pictures)), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(pictures), 4, squeeze=False)
    for axes, picture in zip(grid, pictures, strict=True):
        shown = (picture.victim, picture.target, picture.trigger, picture.stamped)
        for axis, array, words in zip(axes, shown, (*picture.classes, "trigger", "with trigger"), strict=True):
            axis.set_axis_off()
            axis.set_title(words, fontsize=9, parse_math=False, wrap=True)
            if array is None:
                axis.text(0.5, 0.5, "none", ha="center", va="center", fontsize=9)
            else:
                axis.imshow(array, interpolation="nearest", vmin=0, vmax=1)
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png"))


def _array(image: Tensor) -> np.ndarray:
    """(C, H, W) in [0, 1] -> (H, W, 3)."""
    return as_colours(image.detach().cpu().clamp(0, 1).numpy()).transpose(1, 2, 0)
