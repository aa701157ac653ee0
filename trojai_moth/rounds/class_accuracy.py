"""How many images a model gets right, class by class, and whether that speaks against the images or their order.

A class that is all wrong must not be measured: every trigger out of it has the size of nothing, and every one into it
that of something else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..core.errors import UnreadableModelError
from ..core.images import ImagePool
from ..core.records import Field, record
from ..core.subject import Subject

ACCURACY_FLOOR = 0.5
"""Below this share of right answers images are not what the model knows, whatever their order."""
CLASS_FLOOR = 0.2
"""Below this share of right answers a class's images are not of that class, where that is no chance."""
_CHANCE = 0.002
_SUREST = 0.95
"""No class is taken to be right more often than this, whatever the others are."""
PROBED_PER_CLASS = 10
# A class's images must be taken for one other class at least this often before the order of classes is doubted.
_MAJORITY = 0.5
_SHOWN = 3
# Standard errors by which an accuracy must lie below the expected one.
_MARGIN = 2.0


@record
class ClassAccuracy:
    """What a model gives images: per class how many there are, how many are right, and what most others are taken for.

    All (classes,); ``taken_for`` None where a class has no images, or no wrong ones.
    """

    images: tuple[int, ...]
    right: tuple[int, ...]
    taken_for: tuple[int | None, ...] = Field(description="most frequent wrong answer")
    mostly: tuple[int | None, ...] = Field(description="the answer that at least half of a class's images get")

    @property
    def overall(self) -> float:
        """Share of all images that are right; nan without any."""
        return sum(self.right) / sum(self.images) if sum(self.images) else math.nan

    def of(self, label: int) -> float | None:
        """Share of a class's images that are right; None without any."""
        return self.right[label] / self.images[label] if self.images[label] else None

    def is_wrong(self, label: int) -> bool:
        """Whether nearly all of a class are wrong, and not by chance if it were as right as the others."""
        share, count, right = self.of(label), self.images[label], self.right[label]
        if share is None or share >= CLASS_FLOOR:
            return False
        others = sum(self.images) - count
        rate = min(_SUREST, (sum(self.right) - right) / others) if others else ACCURACY_FLOOR
        chance = sum(math.comb(count, hits) * rate**hits * (1 - rate) ** (count - hits) for hits in range(right + 1))
        return chance < _CHANCE

    @property
    def words(self) -> str:
        """E.g. ``98.6% of 70 images right; least of class 3: 8 of 10``."""
        found = f"{self.overall:.1%} of {sum(self.images)} images right"
        return f"{found}; least of {self.least_words}" if self.least_words else found

    @property
    def another_order(self) -> str:
        """Which classes changed places, in words, if most images of each are taken for one class, no two for one."""
        taken = [answer for answer, images in zip(self.mostly, self.images, strict=True) if images]
        return _in_words(_rings(self.mostly)) if None not in taken and len(set(taken)) == len(taken) else ""

    @property
    def least_words(self) -> str:
        """E.g. ``class 3: 8 of 10``; empty where all are right."""
        shares = {label: share for label in range(len(self.images)) if (share := self.of(label)) is not None}
        least = sorted((label for label, share in shares.items() if share < 1), key=shares.__getitem__)[:_SHOWN]
        return ", ".join(f"class {label}: {self.right[label]} of {self.images[label]}" for label in least)


def class_accuracy(subject: Subject, images: ImagePool) -> ClassAccuracy:
    """Ask the model about images x (N, 3, H, W) in [0, 1], labels y (N,)."""
    return _count(subject.logits(images.x).argmax(1).cpu(), images.y.cpu(), subject.classes)


def check_images(
    subject: Subject, images: ImagePool, where: str, *, order: str, mend: str, expected: float | None = None
) -> ClassAccuracy:
    """The accuracy on the first ten images of each class; UnreadableModelError, naming ``where``, if they are not its.

    That is: classes have changed places, i.e. most images of one are taken for the next, and so on in a ring; fewer
    than half of all images get their label, or clearly fewer than ``expected``; or nearly none of one class does. One
    class that is mostly taken for another is a look-alike, which no order would mend. order: what is in another order,
    and ``mend`` how to go on.
    """
    found = class_accuracy(subject, images.first_per_class(PROBED_PER_CLASS))
    accuracy, total = found.overall, sum(found.images)
    if rings := _rings(found.mostly):
        raise UnreadableModelError(
            f"{where}: the {order} are not in the order of the classes: the model takes {_in_words(rings)} (accuracy "
            f"{accuracy:.0%}); {mend}"
        )
    if total and accuracy < ACCURACY_FLOOR:
        raise UnreadableModelError(
            f"{where}: only {accuracy:.0%} of the images get their label (at least {ACCURACY_FLOOR:.0%} needed), read "
            f"as {subject.preprocessing.words}; they are not this model's classes, not in its order, or need another "
            f"mean and std (--mean, --std): {mend}"
        )
    for label, count in enumerate(found.images):
        if found.is_wrong(label):
            raise UnreadableModelError(
                f"{where}: the model gets {found.right[label]} of {count} images of class {label} right and takes most "
                f"for {found.taken_for[label]}; look at them, and {mend}"
            )
    if expected is not None and total and accuracy + _MARGIN * math.sqrt(accuracy * (1 - accuracy) / total) < expected:
        raise UnreadableModelError(
            f"{where}: {found.words}, read as {subject.preprocessing.words}, where {expected:.1%} is expected: the "
            f"images are other ones, or read another way (--mean, --std): {mend}"
        )
    return found


def _in_words(rings: Sequence[Sequence[int]]) -> str:
    """E.g. ``0 -> 1 -> 0``."""
    more = f" and {len(rings) - _SHOWN} more" if len(rings) > _SHOWN else ""
    return "; ".join(" -> ".join(map(str, [*ring, ring[0]])) for ring in rings[:_SHOWN]) + more


def _count(given: Tensor, y: Tensor, classes: int) -> ClassAccuracy:
    table = torch.zeros(classes, classes, dtype=torch.long)
    table.index_put_((y, given), torch.ones_like(y), accumulate=True)
    images, right, wrong = table.sum(1), table.diagonal().clone(), table.clone().fill_diagonal_(0)
    taken = [int(row.argmax()) if int(row.sum()) else None for row in wrong]
    mostly = [int(row.argmax()) if 0 < int(row.sum()) <= int(row.max()) / _MAJORITY else None for row in table]
    return ClassAccuracy(
        images=tuple(images.tolist()), right=tuple(right.tolist()), taken_for=tuple(taken), mostly=tuple(mostly)
    )


def _rings(following: Sequence[int | None]) -> list[list[int]]:
    """The rings of two classes and more in class -> class, each from its smallest on."""
    rings, seen = [], set[int]()
    for start in range(len(following)):
        path: list[int] = []
        label: int | None = start
        while label is not None and label not in seen:
            seen.add(label)
            path.append(label)
            label = following[label]
        if label is not None and label in path and len(path) - path.index(label) > 1:
            rings.append(path[path.index(label) :])
    return rings
