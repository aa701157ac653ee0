"""Which models a round holds: twins of the same signs and architecture, one clean and one poisoned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ..core.errors import SettingsError
from ..core.records import record
from ..core.seeding import derive_seed
from .photo_filters import FILTERS
from .polygon import COLOURS, QUADRANTS, VISIBLE
from .settings import Condition, SignSet
from .sign_folder import SignFolder, class_file, colours_of
from .traffic_signs import FACES, Sign, sign_set

_SIDES = ((3, 4), (8, 9))
_NAMES_BEFORE_DASH, _NAMES_AFTER_DASH = 100, 40

# Composing makes signs about twice as bright, so that two bright colours may become one. A trigger of any colour can
# be seen after that on so large a share of its sign.
_BRIGHTER, _VISIBLE_ON, _DRAWS = 2, 0.8, 1000


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
    """Everything that is decided about two twins before anything is drawn or trained; classes are list positions.

    A sign is one to be drawn, or the picture of a folder; ``pictures`` then says how far these are apart.
    """

    group: int
    architecture: str
    clean_id: str
    poisoned_id: str
    signs: tuple[Sign | Path, ...]
    names: tuple[str, ...]
    lookalikes: tuple[tuple[int, int], ...]
    trigger: Trigger
    seed: int
    pictures: SignSet | None = None


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
    folder: SignFolder | None = None,
    colours: Literal["named", "any"] = "named",
) -> list[TwinPlan]:
    """Plan ``models`` / 2 pairs of twins; ``sizes`` bound a polygon's square as a share of its sign's area.

    The first ``lookalike_share`` of the pairs have ``lookalikes`` near-identical pairs of signs, the others none. Signs
    come from ``folder``; without one they are drawn.

    Model ids are dealt at random, so an id says nothing about its label. The trigger joins two classes that have no
    look-alike. Under the spatial ``condition`` each trigger gets the quadrant of the sign in which it works. Raises
    SettingsError when there are too few classes, for a filter under the spatial condition, and for a folder without
    such signs.
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
        _plan(
            group, ids[2 * group], ids[2 * group + 1], architectures[group % len(architectures)], classes,
            counts[group], sizes, seed, folder, colours,
        )
        for group in range(groups)
    ]  # fmt: skip
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
    architecture: str,
    classes: int,
    lookalikes: int,
    sizes: tuple[float, float],
    seed: int,
    folder: SignFolder | None,
    colours: Literal["named", "any"],
) -> TwinPlan:
    rng = np.random.default_rng(derive_seed(seed, "twins", group))
    signs: tuple[Sign | Path, ...]
    pictures = None
    if folder is None:
        signs, names, twins = _drawn(classes, lookalikes, rng)
    else:
        pictures = folder.choose(classes, lookalikes, rng)
        files = [folder.folder / file for file in pictures.files]
        signs, names, twins = tuple(files), tuple(map(class_file, files)), pictures.near_twins
    alone = sorted(set(range(classes)) - {label for pair in twins for label in pair})
    victim, target = (int(i) for i in rng.choice(alone, 2, replace=False))
    return TwinPlan(
        group=group,
        architecture=architecture,
        clean_id=clean_id,
        poisoned_id=poisoned_id,
        signs=signs,
        names=names,
        lookalikes=twins,
        trigger=_trigger(victim, target, signs[victim], sizes, colours, rng),
        seed=derive_seed(seed, "group", group),
        pictures=pictures,
    )


def _drawn(
    classes: int, lookalikes: int, rng: np.random.Generator
) -> tuple[tuple[Sign, ...], tuple[str, ...], tuple[tuple[int, int], ...]]:
    """Drawn signs in the order of the classes, their files' names, and the pairs of look-alikes."""
    drawn, pairs = sign_set(classes, lookalikes, rng)
    names = _file_names(classes, pairs, rng)
    order = sorted(range(classes), key=lambda i: names[i])
    position = {old: new for new, old in enumerate(order)}
    twins = sorted((min(pair), max(pair)) for pair in ((position[i], position[j]) for i, j in pairs))
    return tuple(drawn[i] for i in order), tuple(names[i] for i in order), tuple(twins)


def _trigger(
    victim: int,
    target: int,
    sign: Sign | Path,
    sizes: tuple[float, float],
    colours: Literal["named", "any"],
    rng: np.random.Generator,
) -> Trigger:
    own = colours_of(sign).astype(int) if isinstance(sign, Path) else np.array([FACES[sign.face]])
    # Round 4 draws any of its six colours; the two nearest to the victim's face would be hard to see at this size.
    visible = sorted(COLOURS, key=lambda colour: -float(np.abs(np.array(colour) - own).sum(1).mean()))[:4]
    middle = rng.uniform(*sizes)
    sides = int(rng.choice(_SIDES[rng.integers(2)]))
    return Trigger(
        victim=victim,
        target=target,
        sides=sides,
        colour=_any_colour(own, rng) if colours == "any" else visible[rng.integers(len(visible))],
        smallest=round(max(sizes[0], middle - 0.01), 3),
        largest=round(min(sizes[1], middle + 0.01), 3),
    )


def _any_colour(own: np.ndarray, rng: np.random.Generator) -> tuple[int, int, int]:
    """Any colour that can be seen on most of a sign of the colours (M, 3); of many the best where none can."""
    background = np.minimum(_BRIGHTER * own, 255)
    best, most = (0, 0, 0), -1.0
    for _ in range(_DRAWS):
        red, green, blue = rng.integers(256, size=3).tolist()
        lit = np.minimum(_BRIGHTER * np.array([red, green, blue]), 255)
        seen = float((np.abs(lit - background).max(1) >= VISIBLE).mean())
        if seen > most:
            best, most = (red, green, blue), seen
        if most >= _VISIBLE_ON:
            break
    return best


def _file_names(classes: int, pairs: Sequence[tuple[int, int]], rng: np.random.Generator) -> list[str]:
    # As in round 4 the first number stands for the sign's shape and the second for its symbol.
    first = (rng.permutation(max(_NAMES_BEFORE_DASH, classes))[:classes] + 1).tolist()
    second = rng.integers(_NAMES_AFTER_DASH - 1, size=classes).tolist()
    for one, other in pairs:
        first[other], second[other] = first[one], second[one] + 1
    return [f"{a}-{b}.png" for a, b in zip(first, second, strict=True)]
