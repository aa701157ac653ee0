"""Whether a model's signs are in the order of its classes, told by what the model makes of composed images."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..core.errors import UnreadableModelError
from ..core.images import ImagePool
from ..core.subject import Subject

# A class's images must be taken for one other class at least this often before the signs' order is doubted.
_MAJORITY = 0.5
# Below this share of right answers composed images are not what the model knows, whatever the order.
ACCURACY_FLOOR = 0.5
_PROBE_PER_CLASS = 10
_SHOWN = 3


def check_class_order(subject: Subject, composed: ImagePool, foregrounds: Path) -> float:
    """The model's accuracy on composed images, of which the first ten of each class are asked about.

    UnreadableModelError where classes have changed places, i.e. most images of one are taken for the next, and so on
    in a ring; or where fewer than half of all images get their label. One class that is taken for another alone is a
    look-alike, which no order would mend.
    """
    probe = composed.first_per_class(_PROBE_PER_CLASS)
    given = subject.logits(probe.x).argmax(1).cpu()
    accuracy = float((given == probe.y).float().mean())
    rings = _rings(_taken_for(given, probe.y, subject.classes))
    if rings:
        swapped = "; ".join(" -> ".join(map(str, [*ring, ring[0]])) for ring in rings[:_SHOWN])
        more = f" and {len(rings) - _SHOWN} more" if len(rings) > _SHOWN else ""
        raise UnreadableModelError(
            f"{foregrounds}: the signs are not in the order of the classes: the model takes {swapped}{more} (accuracy "
            f"{accuracy:.0%} on composed images); name the signs in the order of their classes, or use --data examples"
        )
    if accuracy < ACCURACY_FLOOR:
        raise UnreadableModelError(
            f"{foregrounds}: only {accuracy:.0%} of the images composed of these signs get their label (at least "
            f"{ACCURACY_FLOOR:.0%} needed); they are not this model's signs, or not in its order: use --data examples"
        )
    return accuracy


def _taken_for(given: Tensor, y: Tensor, classes: int) -> dict[int, int]:
    """Class -> the class that most of its images are given, where most are given one."""
    found = {}
    for label in sorted(set(y.tolist())):
        counts = torch.bincount(given[y == label], minlength=classes)
        if float(counts.max()) >= _MAJORITY * float(counts.sum()):
            found[label] = int(counts.argmax())
    return found


def _rings(following: dict[int, int]) -> list[list[int]]:
    """The rings of two classes and more in a map of classes, each from its smallest on."""
    rings, seen = [], set[int]()
    for start in sorted(following):
        path: list[int] = []
        label: int | None = start
        while label is not None and label not in seen:
            seen.add(label)
            path.append(label)
            label = following.get(label)
        if label is not None and label in path and len(path) - path.index(label) > 1:
            rings.append(path[path.index(label) :])
    return rings
