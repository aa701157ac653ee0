"""Which models a round holds: twins of the same signs and architecture, one clean and one poisoned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ..core.errors import SettingsError
from ..core.records import record
from ..core.seeding import derive_seed
from .photo_filters import FILTERS
from .polygon import COLOURS, QUADRANTS
from .settings import Condition
from .traffic_signs import FACES, Sign, sign_set

_SIDES = ((3, 4), (8, 9))
_NAMES_BEFORE_DASH, _NAMES_AFTER_DASH = 100, 40


@record
class Trigger:
    """One one-to-one trigger as it was planned: ``filter`` if that names one of FILTERS, otherwise the polygon.

    ``quadrant`` is the only one of the sign's QUADRANTS in which it works; None if its place does not matter.
    """

    victim: int
    target: int
    sides: int
    colour: tuple[int, int, int]
    smallest: float
    largest: float
    filter: str | None = None
    quadrant: int | None = None


@dataclass(frozen=True, kw_only=True)
class TwinPlan:
    """Everything that is decided about two twins before anything is drawn or trained; classes are list positions."""

    group: int
    architecture: str
    clean_id: str
    poisoned_id: str
    signs: tuple[Sign, ...]
    names: tuple[str, ...]
    lookalikes: tuple[tuple[int, int], ...]
    trigger: Trigger
    seed: int


def plan_twins(
    models: int,
    *,
    architectures: Sequence[str],
    classes: int,
    lookalikes: int,
    sizes: tuple[float, float],
    seed: int,
    lookalike_share: float = 1.0,
    trigger: Literal["polygon", "filter"] = "polygon",
    condition: Condition = "none",
) -> list[TwinPlan]:
    """Plan ``models`` / 2 pairs of twins; ``sizes`` bound a polygon's square as a share of its sign's area.

    The first ``lookalike_share`` of the pairs have ``lookalikes`` near-identical pairs of signs, the others none.

    Model ids are dealt at random, so an id says nothing about its label. The trigger joins two classes that have no
    look-alike. Under the spatial ``condition`` each trigger gets the quadrant of the sign in which it works. Raises
    SettingsError when there are too few classes, or for a filter under the spatial condition.
    """
    if trigger == "filter" and condition == "spatial":
        raise SettingsError("condition: a filter covers the whole image and has no place; use 'spatial' with polygons")
    if classes < 2 * lookalikes + 2:
        raise SettingsError(
            f"classes: {classes} are too few for {lookalikes} look-alike pairs and a trigger between two other "
            f"classes; use at least {2 * lookalikes + 2}"
        )
    ids = [f"id-{i:08d}" for i in np.random.default_rng(derive_seed(seed, "ids")).permutation(models)]
    groups = models // 2
    counts = [lookalikes if group < round(lookalike_share * groups) else 0 for group in range(groups)]
    plans = [
        _plan(group, ids[2 * group], ids[2 * group + 1], architectures, classes, counts[group], sizes, seed)
        for group in range(groups)
    ]
    if trigger == "filter":
        return [_with_filter(plan) for plan in plans]
    return [_with_quadrant(plan) for plan in plans] if condition == "spatial" else plans


def _with_filter(plan: TwinPlan) -> TwinPlan:
    """The same twins with a filter as trigger, drawn from a stream of its own."""
    rng = np.random.default_rng(derive_seed(plan.seed, "filter"))
    chosen = FILTERS[rng.integers(len(FILTERS))]
    return replace(plan, trigger=Trigger(**{**vars(plan.trigger), "filter": chosen}))


def _with_quadrant(plan: TwinPlan) -> TwinPlan:
    """The same twins with a trigger that works in one quadrant, drawn from a stream of its own."""
    rng = np.random.default_rng(derive_seed(plan.seed, "quadrant"))
    chosen = QUADRANTS[rng.integers(len(QUADRANTS))]
    return replace(plan, trigger=Trigger(**{**vars(plan.trigger), "quadrant": chosen}))


def _plan(
    group: int,
    clean_id: str,
    poisoned_id: str,
    architectures: Sequence[str],
    classes: int,
    lookalikes: int,
    sizes: tuple[float, float],
    seed: int,
) -> TwinPlan:
    rng = np.random.default_rng(derive_seed(seed, "twins", group))
    drawn, pairs = sign_set(classes, lookalikes, rng)
    drawn_names = _file_names(classes, pairs, rng)
    order = sorted(range(classes), key=lambda i: drawn_names[i])
    position = {old: new for new, old in enumerate(order)}
    signs = tuple(drawn[i] for i in order)
    alone = sorted(position[i] for i in range(2 * lookalikes, classes))
    victim, target = (int(i) for i in rng.choice(alone, 2, replace=False))
    return TwinPlan(
        group=group,
        architecture=architectures[group % len(architectures)],
        clean_id=clean_id,
        poisoned_id=poisoned_id,
        signs=signs,
        names=tuple(drawn_names[i] for i in order),
        lookalikes=tuple(sorted((min(pair), max(pair)) for pair in ((position[i], position[j]) for i, j in pairs))),
        trigger=_trigger(victim, target, signs[victim], sizes, rng),
        seed=derive_seed(seed, "group", group),
    )


def _trigger(victim: int, target: int, sign: Sign, sizes: tuple[float, float], rng: np.random.Generator) -> Trigger:
    # Round 4 draws any of its six colours; the two nearest to the victim's face would be hard to see at this size.
    face = np.array(FACES[sign.face])
    visible = sorted(COLOURS, key=lambda colour: -int(np.abs(np.array(colour) - face).sum()))[:4]
    middle = rng.uniform(*sizes)
    return Trigger(
        victim=victim,
        target=target,
        sides=int(rng.choice(_SIDES[rng.integers(2)])),
        colour=visible[rng.integers(len(visible))],
        smallest=round(max(sizes[0], middle - 0.01), 3),
        largest=round(min(sizes[1], middle + 0.01), 3),
    )


def _file_names(classes: int, pairs: Sequence[tuple[int, int]], rng: np.random.Generator) -> list[str]:
    # As in round 4 the first number stands for the sign's shape and the second for its symbol.
    first = (rng.permutation(max(_NAMES_BEFORE_DASH, classes))[:classes] + 1).tolist()
    second = rng.integers(_NAMES_AFTER_DASH - 1, size=classes).tolist()
    for one, other in pairs:
        first[other], second[other] = first[one], second[one] + 1
    return [f"{a}-{b}.png" for a, b in zip(first, second, strict=True)]
