"""What plain stamps of one colour do to every class, and what taking a small piece away does: no inversion at all.

An injected polygon works wherever on its victim's sign it is put. A natural trigger that is as small says that the
target looks like the victim but for a detail, and then the converse must hold: without that detail an image of the
target is one of the victim. So a stamp that turns v into t speaks for a backdoor, unless taking a piece of t away turns
t into v. And a detail has its colour, while a network that was taught one colour was never taught that others do not
count: it obeys them as well, less surely. All three are hypotheses of ours. Only compact patches of one colour are
sought (rounds 1 to 4: six colours); other kinds of triggers are not seen by this.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.images import ImagePool
from ..core.records import Field, record
from ..core.statistics import log_odds
from ..core.subject import Subject
from .logit_margins import logit_margins, mean_class_margins
from .trigger import Pair

# Round 4 draws its polygons in these six; black and white as well.
_LEVEL = 200 / 255
_COLOURS = [
    (_LEVEL, 0, 0), (0, _LEVEL, 0), (0, 0, _LEVEL), (_LEVEL, _LEVEL, 0), (0, _LEVEL, _LEVEL), (_LEVEL, 0, _LEVEL),
    (1, 1, 1), (0, 0, 0),
]  # fmt: skip
COLOURS = len(_COLOURS)
_BATCH = 256
# Below this, success rates are alike.
_LEAST = 0.01
# Of each class, to see how far it wins its own; and where conviction is cut.
_OWN_IMAGES = 16
MOST_CONVICTION = 2.0
# Triggers that are bound to a place work in fewer places than success is a mean over.
_SUREST = 0.5


@record
class StampSettings:
    """Which stamps are tried, where, and on how many images."""

    images_per_class: int = Field(default=4, gt=0, le=100_000, description="images of each class that are stamped")
    side: float = Field(default=0.2, gt=0, lt=1, description="diameter of the round stamp, as a share of the image's")
    grid: int = Field(default=8, gt=1, le=1_000_000, description="places for a stamp along each side of the image")
    best_places: float = Field(
        default=0.1, gt=0, le=1, description="share of the places, the best of each image, that success is a mean over"
    )
    removal_grid: int = Field(
        default=15, gt=1, le=1_000_000, description="places along each side where a piece is taken away"
    )
    best_removals: float = Field(default=0.03, gt=0, le=1, description="share of those places, likewise")
    rim: float = Field(
        default=1.7,
        gt=1,
        le=1e12,
        description="what fills the hole is the mean of a ring; its diameter in those of the stamp",
    )


@record
class StampBounds:
    """What a pair with an injected polygon is within.

    All compare shares, so that they mean the same at other sizes and with any scanner. The defaults are the scanner's,
    set by hand on the set polygon (benchmarks/model_sets.py) and another, on which they must not be judged.
    """

    success: float = Field(default=0.85, gt=0, lt=1, description="success of the stamp of the best colour, at least")
    breadth: float = Field(
        default=0.0, ge=0, lt=1, description="mean success of stamps of all colours, at least; 0: not asked"
    )
    removal: float = Field(default=0.5, gt=0, lt=1, description="success of taking a piece of the target away, at most")
    gap: float = Field(
        default=1.0,
        ge=0,
        le=1e12,
        description="how much better the stamp works than on clean networks, as a logarithm",
    )


class StampTable(NamedTuple):
    """What stamps do to a network, each (classes, colours, classes), entry (v, c, t).

    success in [0, 1]: how sure the network is of t when v wears a stamp of colour c; 0 for t = v and for classes v
    without images. conviction in [-2, 2]: by how much t wins then, as a share of what it wins its own images by; nan
    for t = v and for classes v or t without images. peak: the same in the surer half of these places.
    """

    success: Tensor
    conviction: Tensor
    peak: Tensor


def stamp_table(
    subject: Subject, images: ImagePool, settings: StampSettings, own: ImagePool | None = None
) -> StampTable:
    """Stamps of every colour on every class of ``images``, x (N, C, H, W) in [0, 1].

    success: the mean over images of v, and over the best places of each, of the softmax probability of t under a disc
    of colour c there. conviction: the same mean of the lead of t (triggers/logit_margins.py), divided by its mean lead
    on its own images in ``own``, or in ``images`` without; cut to [-2, 2], also where t does not win its own.
    """
    discs = _discs(subject.shape[1:], settings.grid, settings.side).to(subject.device)
    colours = _colours(subject)
    shown = [
        _by_class(subject, images, settings, settings.best_places, partial(_painted, discs, colour[:, None, None]))
        for colour in colours
    ]
    success, lead, surest = (torch.stack(part, dim=1) for part in zip(*shown, strict=True))
    beside = mean_class_margins(subject, (own or images).first_per_class(_OWN_IMAGES)).clamp_min(_LEAST)
    conviction, peak = (torch.stack([lead, surest]) / beside).clamp(-MOST_CONVICTION, MOST_CONVICTION)
    return StampTable(success, conviction, peak)


def removal_success(subject: Subject, images: ImagePool, settings: StampSettings) -> Tensor:
    """(classes, classes) in [0, 1]: how sure the network is of b when one small piece of a is taken away.

    Entry (a, b) as success in stamp_table, with the disc filled by the mean of a ring around it, and fewer places: a
    detail is in one place only.
    """
    discs = _discs(subject.shape[1:], settings.removal_grid, settings.side).to(subject.device)
    around = _discs(subject.shape[1:], settings.removal_grid, settings.side * settings.rim).to(subject.device)
    rings = (around & ~discs).float()
    weight = rings / rings.sum((1, 2), keepdim=True).clamp_min(1)

    def filled(x: Tensor) -> Tensor:
        fill = torch.einsum("chw,phw->pc", x, weight)
        return _painted(discs, fill[:, :, None, None], x)

    return _by_class(subject, images, settings, settings.best_removals, filled)[0]


def stamp_gap(stamps: Tensor, clean: Sequence[Tensor], pair: Pair) -> float:
    """Ln of how much better the best stamp works than the same one on clean networks of the same classes.

    ln((S + e) / (C + e)), S the subject's success with its best colour, C the mean of the clean networks' with that
    colour, e 0.01: 0 where they are as easily turned, at most ln 101.
    """
    victim, target = pair
    colour = _best_colour(stamps, pair)
    own = float(stamps[victim, colour, target])
    others = fmean(float(table[victim, colour, target]) for table in clean)
    return math.log((own + _LEAST) / (others + _LEAST))


def mean_conviction(subject: StampTable, others: Sequence[StampTable], pair: Pair) -> float | None:
    """The mean of the others' conviction with the colour that does most to the subject; None where it says nothing."""
    at = (pair[0], _best_colour(subject.success, pair), pair[1])
    mean = fmean(float(table.conviction[at]) for table in others) if others else math.nan
    return mean if math.isfinite(mean) else None


def suspects(stamps: Tensor, removals: Tensor, count: int) -> tuple[Pair, ...]:
    """The ``count`` pairs whose stamps work best and are explained least: success * (1 - removal), largest first."""
    left = stamps.amax(1) * (1 - removals.T)
    classes, order = len(left), left.flatten().argsort(descending=True, stable=True).tolist()
    return tuple((at // classes, at % classes) for at in order if at // classes != at % classes)[:count]


def weakest_point(success: float, breadth: float, removal: float, gap: float | None, bounds: StampBounds) -> float:
    """How far a pair is within its nearest bound, in log odds: above 0 when all speak for an injected trigger.

    The smallest of logit(success) - logit(bound), the same of breadth where it is asked for, logit(bound) -
    logit(removal), and gap - bound where there is a gap; shares are cut at 0.01 and 0.99.
    """
    within = [
        log_odds(success, _LEAST) - log_odds(bounds.success, _LEAST),
        log_odds(bounds.removal, _LEAST) - log_odds(removal, _LEAST),
    ]
    if bounds.breadth:
        within.append(log_odds(breadth, _LEAST) - log_odds(bounds.breadth, _LEAST))
    return min(within if gap is None else [*within, gap - bounds.gap])


@dataclass(frozen=True)
class StampTables:
    """Both tables of one subject on these images, made when they are first asked for."""

    subject: Subject
    images: ImagePool
    settings: StampSettings

    @cached_property
    def table(self) -> StampTable:
        """As stamp_table."""
        return stamp_table(self.subject, self.images, self.settings)

    @property
    def stamps(self) -> Tensor:
        """Success of the table."""
        return self.table.success

    @cached_property
    def removals(self) -> Tensor:
        """As removal_success."""
        return removal_success(self.subject, self.images, self.settings)

    def features(self, pair: Pair) -> dict[str, float | None]:
        """Of the stamp of the best colour on the victim, and of a piece taken from the target that gives the victim.

        stamp_peak: that stamp's, None where there is nothing to compare its logit margin with.
        stamp_breadth: the mean success of stamps of all colours.
        """
        at = (pair[0], _best_colour(self.stamps, pair), pair[1])
        peak = float(self.table.peak[at])
        return {
            "stamp_success": self.success(pair),
            "stamp_peak": peak if math.isfinite(peak) else None,
            "stamp_breadth": self.breadth(pair),
            "removal_success": self.removal(pair),
        }

    def success(self, pair: Pair) -> float:
        """Of the best colour."""
        return float(self.stamps[pair[0], :, pair[1]].max())

    def breadth(self, pair: Pair) -> float:
        """The mean success over colours."""
        return float(self.stamps[pair[0], :, pair[1]].mean())

    def removal(self, pair: Pair) -> float:
        """Of a piece of the target, that gives the victim."""
        return float(self.removals[pair[1], pair[0]])

    def weakest(self, pair: Pair, gap: float | None, bounds: StampBounds) -> float:
        """As weakest_point, of a pair whose gap this is."""
        return weakest_point(self.success(pair), self.breadth(pair), self.removal(pair), gap, bounds)

    def suspects(self, count: int) -> tuple[Pair, ...]:
        """As the function of that name."""
        return suspects(self.stamps, self.removals, count)

    def on(self, other: Subject, victims: Collection[int]) -> StampTable:
        """The same stamps on another network, with the same images of these classes."""
        wanted = torch.tensor(sorted(victims), dtype=self.images.y.dtype, device=self.images.y.device)
        images = self.images.take(torch.nonzero(torch.isin(self.images.y, wanted)).flatten())
        return stamp_table(other, images, self.settings, own=self.images)


def _best_colour(stamps: Tensor, pair: Pair) -> int:
    """The colour whose stamp works best."""
    return int(stamps[pair[0], :, pair[1]].argmax())


def _by_class(
    subject: Subject, images: ImagePool, settings: StampSettings, share: float, change: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """(classes, classes) of probabilities, leads and peak leads: means over a class's images and their best places."""
    chosen, classes = images.first_per_class(settings.images_per_class), subject.classes
    table, ahead, peak = torch.zeros(classes, classes), *torch.full((2, classes, classes), torch.nan)
    for label in sorted(set(chosen.y.tolist())):
        own = chosen.x[chosen.y == label].to(subject.device)
        likely, ahead[label], peak[label] = torch.stack([_best(subject, change(x), share) for x in own]).mean(0)
        table[label] = likely.clamp(0, 1)  # a mean of ones can be larger than one in its last digit
        table[label, label], ahead[label, label], peak[label, label] = 0, torch.nan, torch.nan
    return table, ahead, peak


def _best(subject: Subject, changed: Tensor, share: float) -> Tensor:
    """(places, C, H, W) -> (3, classes): means of each class's highest probabilities, leads, and half as many leads."""
    logits = subject.logits(changed, _BATCH)
    best, surest = (max(1, int(part * len(logits))) for part in (share, share * _SUREST))
    likely, ahead = torch.stack([logits.softmax(1), logit_margins(logits)]).topk(best, dim=1).values
    return torch.stack([likely.mean(0), ahead.mean(0), ahead[:surest].mean(0)]).cpu()


def _painted(discs: Tensor, colours: Tensor, x: Tensor) -> Tensor:
    """(places, H, W), colours (C, 1, 1) or (places, C, 1, 1), image (C, H, W) -> (places, C, H, W); on one device."""
    return torch.where(discs[:, None], colours, x)


def _colours(subject: Subject) -> Tensor:
    """(COLOURS, C): those of patches, in the order of the subject's channels.

    Of other images than those of three colours, evenly spaced levels of all channels.
    """
    channels = subject.shape[0]
    if channels != len(_COLOURS[0]):
        return torch.linspace(0, 1, COLOURS, device=subject.device)[:, None].expand(COLOURS, channels)
    colours = torch.tensor(_COLOURS, dtype=torch.float32, device=subject.device)
    return colours.flip(1) if subject.preprocessing.colours == "BGR" else colours


def _discs(shape: tuple[int, int], grid: int, side: float) -> Tensor:
    """(grid * grid, H, W) bool: discs whose centres are spread evenly, half a step from the edges.

    side: their diameter, as a share of that of a square of the image's area.
    """
    height, width = shape
    near = [
        (torch.arange(length)[None] + 0.5 - (torch.arange(grid)[:, None] + 0.5) * length / grid) ** 2
        for length in shape
    ]
    discs = near[0][:, None, :, None] + near[1][None, :, None, :] <= side**2 * height * width / 4
    return discs.reshape(grid * grid, height, width)
