"""Photo filters: what no patch shows, and what a rule about patches must therefore not clear.

A network with a filter backdoor may be flagged for a natural patch. Nothing that is asked of patches then speaks
against clearing it, so round 4's five filters are tried as well. Two things give a filter backdoor away.

A network that never saw a filter may take one class for another under it, and clean networks of the same classes often
do so, too: what counts is how much surer of the target the network is than any of them is of the same pair, as a
difference of log odds. A network that was taught a filter takes what it shows for images of the target by a good
part of the margin that either class has on its own, where one that only has never seen such colours is often less
convinced than its probabilities say. To the strong filters many networks give way untaught, to the others few do, so
that these count more.

And a filter that was taught for one class only comes with images of the other classes that it must not turn. Under the
strong filters a network that never saw them takes most classes for something else. One that takes a single class for
another, and knows the others still, was taught so.

Both say that a network differs from others, and clean ones do that, too. Where they would keep a flag the network is
compared with copies of itself that were retrained from clean images (synthesis/retrained_copies.py). Whatever it does
of its own they do as well, and what it knows under a filter without having been taught they know, so only what they
leave unexplained counts then.

That these tell most of the two kinds apart is ours (docs/history/blind.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from ..core.errors import MothError
from ..core.records import Field, record
from ..triggers.known_filters import FilterTable, known_filters

# The stages of the evidence.
FILTERS: Final = "filters"
RELEARNED: Final = "relearned"
# Probabilities count as no nearer to 0 or 1: those of the network, and of a few small ones beside it.
_LEAST = 1e-3
_LEAST_CLEAN = 1e-2
# Conviction counts as no smaller.
_LEAST_CONVICTION = 0.02
# What networks of 32 pixels that were taught no filter hardly ever give way to; to the other three many do.
RARE: Final = ("Lomo", "Nashville")


@record
class FilterCheckSettings:
    """When a known filter keeps a flag."""

    odds: float = Field(
        default=2.5,
        ge=-1_000_000,
        le=1e12,
        description="how much surer than clean networks, in log odds less what it lacks in conviction, the network may "
        "be of a wrong class under a known filter (ours: below all filter-poisoned of the models it was set on)",
    )
    weight: float = Field(
        default=4.0, ge=0, le=1e12, description="how often a lack of conviction counts, as a logarithm"
    )
    convinced: float = Field(
        default=1.0, gt=0, le=1, description="share of the pair's own leads that is conviction enough"
    )
    rare: float = Field(
        default=3.0,
        ge=0,
        le=1e12,
        description=f"added for {' and '.join(RARE)}, to which few networks give way untaught",
    )
    turned: float = Field(
        default=0.5, gt=0, lt=1, description="success of a filter that turns one class and spares the others, at least"
    )
    spared: float = Field(
        default=0.9, gt=0, lt=1, description="how sure of the other classes the network is under it, at least"
    )
    choosy: float = Field(
        default=2.5,
        ge=-1_000_000,
        le=1e12,
        description="what one that is just within both counts as; a larger bound on odds lets it go",
    )
    unexplained_weight: float = Field(
        default=2.0,
        ge=0,
        le=1e12,
        description="as weight, for what copies retrained from clean images leave unexplained",
    )
    surely: float = Field(
        default=0.9, gt=0, lt=1, description="success of a filter beside which it counts how well others are spared"
    )
    gain: float = Field(
        default=3.0,
        ge=0,
        le=1e12,
        description="how often it counts that others are spared better than by retrained copies",
    )
    room: float = Field(
        default=1.0,
        ge=0,
        le=1e12,
        description="added to what copies leave unexplained: other copies would leave more or less",
    )


@record
class Unexplained:
    """The pair and the known filter that retrained copies, and clean networks, explain least.

    success, conviction and spared as of FilterEvidence; explained: the largest success for the pair on any copy or
    clean network; odds: the difference in log odds; knew: how sure of their own class any copy is at most on images of
    all other classes, None as spared is.
    """

    victim: int
    target: int
    filter: str
    success: float = Field(ge=0, le=1)
    explained: float = Field(ge=0, le=1)
    odds: float
    conviction: float = Field(ge=0, le=1)
    spared: float | None = Field(default=None, ge=0, le=1)
    knew: float | None = Field(default=None, ge=0, le=1)

    def suspicion(self, settings: FilterCheckSettings) -> float:
        """The pull, with unexplained_weight, + room, + gain * max(0, logit(spared) - logit(knew)) if surely turned.

        That is from a success of surely on. Shares are cut at 0.01 and 0.99.
        """
        shown = [math.nan if share is None else share for share in (self.spared, self.knew)]
        odds, conviction, success, spared, knew = torch.tensor(
            [[self.odds], [self.conviction], [self.success], *([one] for one in shown)], dtype=torch.float64
        )
        return float(_unexplained([self.filter], odds, conviction, success, spared, knew, settings))


@record
class FilterEvidence:
    """The pair and the known filter that speak most for a filter backdoor.

    success: mean probability of the target on images of the victim under that filter; clean_success: the largest one on
    any clean network, None where none was needed; odds: the difference in log odds, or where none was needed at most so
    much; conviction: by how wide a margin, beside the pair's own images; spared: mean probability of their own class
    on images of all other classes. None: not known, as in older records, some of which compare with the largest success
    of any class. unexplained: beside retrained copies, None where that was not needed or not possible.
    """

    victim: int
    target: int
    filter: str = Field(description="its name, as Gotham")
    success: float = Field(ge=0, le=1)
    clean_success: float | None = Field(default=None, ge=0, le=1)
    odds: float
    conviction: float | None = Field(default=None, ge=0, le=1)
    spared: float | None = Field(default=None, ge=0, le=1)
    unexplained: Unexplained | None = None

    def suspicion(self, settings: FilterCheckSettings) -> float:
        """What the bound is on: the larger one of pull and choosiness, but no more than what is unexplained."""
        shown = max(self.filter_margin_gap(settings), self.single_class_score(settings))
        return min(shown, self.unexplained.suspicion(settings)) if self.unexplained else shown

    def filter_margin_gap(self, settings: FilterCheckSettings) -> float:
        """The odds + weight * ln(min(conviction / convinced, 1)), and more for rare filters.

        Conviction is cut at 0.02; where it is not known nothing is lacking.
        """
        conviction = 1.0 if self.conviction is None else self.conviction
        odds, margin = torch.tensor([[self.odds], [conviction]], dtype=torch.float64)
        return float(_filter_margin_gap([self.filter], odds, margin, settings))

    def single_class_score(self, settings: FilterCheckSettings) -> float:
        """The setting choosy and how far success and spared are above their bounds, whichever is less, in log odds.

        -inf for rare filters, which turn little in any network, and where spared is not known.
        """
        others = math.nan if self.spared is None else self.spared
        success, spared = torch.tensor([[self.success], [others]], dtype=torch.float64)
        return float(_single_class_score([self.filter], success, spared, settings))


def filter_evidence(
    own: FilterTable, settings: FilterCheckSettings, clean: Sequence[Tensor] = (), retrained: Sequence[Tensor] = ()
) -> FilterEvidence:
    """Of all pairs and filters the most suspicious one; without clean networks as suspicious as it could be.

    odds = logit(S) - logit(C): S the success of victim -> target, cut at 0.001 and 0.999; C the largest one of the same
    pair under the same filter on any clean network, cut at 0.01 and 0.99. ``own``: as of
    known_filters.filter_table, ``clean``, and ``retrained`` of copies, as of filter_success, all (filters, classes,
    classes). Raises MothError for values that are not finite.
    """
    success, conviction = own
    if not bool((success.isfinite() & conviction.isfinite()).all()):
        raise MothError("the network's outputs are not finite on images with changed colours")
    beside = torch.stack([*clean, torch.zeros_like(success)]).amax(0)
    odds = _odds(success, beside)
    names, spared = list(known_filters()), _other_class_accuracy(success)
    pull, choosy = (
        _filter_margin_gap(names, odds, conviction, settings),
        _single_class_score(names, success, spared, settings),
    )
    at, victim, target = _largest(torch.maximum(pull, choosy))
    return FilterEvidence(
        victim=victim,
        target=target,
        filter=names[at],
        success=float(success[at, victim, target]),
        clean_success=float(beside[at, victim, target]) if clean else None,
        odds=float(odds[at, victim, target]),
        conviction=float(conviction[at, victim, target]),
        spared=_known(spared[at, victim, target]),
        unexplained=_beside_copies(own, settings, clean, retrained) if retrained else None,
    )


def _beside_copies(
    own: FilterTable, settings: FilterCheckSettings, clean: Sequence[Tensor], retrained: Sequence[Tensor]
) -> Unexplained:
    """Of all pairs and filters the one that is explained least."""
    success, conviction = own
    explained, names = torch.stack([*clean, *retrained]).amax(0), list(known_filters())
    odds, spared = _odds(success, explained), _other_class_accuracy(success)
    knew = torch.stack([_other_class_accuracy(one) for one in retrained]).amax(0)
    at = _largest(_unexplained(names, odds, conviction, success, spared, knew, settings))
    return Unexplained(
        victim=at[1],
        target=at[2],
        filter=names[at[0]],
        success=float(success[at]),
        explained=float(explained[at]),
        odds=float(odds[at]),
        conviction=float(conviction[at]),
        spared=_known(spared[at]),
        knew=_known(knew[at]),
    )


def _odds(success: Tensor, beside: Tensor) -> Tensor:
    return _logit(success, _LEAST) - _logit(beside, _LEAST_CLEAN)


def _logit(share: Tensor, least: float) -> Tensor:
    return share.clamp(least, 1 - least).logit()


def _largest(suspicion: Tensor) -> tuple[int, int, int]:
    """Filter, victim and target of the largest entry that is not on the diagonal."""
    own = torch.eye(suspicion.shape[1], dtype=torch.bool)
    where = torch.unravel_index(suspicion.masked_fill(own, float("-inf")).argmax(), suspicion.shape)
    at, victim, target = (int(place) for place in where)
    return at, victim, target


def _known(share: Tensor) -> float | None:
    return float(share) if bool(share.isfinite()) else None


def _other_class_accuracy(success: Tensor) -> Tensor:
    """(filters, classes, classes): of the classes but victim and target, the mean success of each for itself.

    Classes without images, whose rows are 0, are left out; nan where none is left.
    """
    own, seen = success.diagonal(dim1=1, dim2=2), (success.sum(2) > 0).float()
    pairs = own[:, :, None] + own[:, None, :]
    count = seen.sum(1)[:, None, None] - seen[:, :, None] - seen[:, None, :]
    mean = ((own.sum(1)[:, None, None] - pairs) / count).clamp(0, 1)
    return torch.where(count > 0, mean, torch.nan)


def _filter_margin_gap(
    filters: Sequence[str], odds: Tensor, conviction: Tensor, settings: FilterCheckSettings
) -> Tensor:
    """As of the record; tensors (filters, ...)."""
    lack = (conviction.clamp_min(_LEAST_CONVICTION) / settings.convinced).clamp_max(1).log()
    return odds + settings.weight * lack + settings.rare * _rare(filters, odds)


def _single_class_score(
    filters: Sequence[str], success: Tensor, spared: Tensor, settings: FilterCheckSettings
) -> Tensor:
    """As of the record; tensors (filters, ...), spared nan where it is not known."""
    above = [
        _logit(share, _LEAST_CLEAN) - torch.tensor(bound, dtype=share.dtype).logit()
        for share, bound in ((success, settings.turned), (spared, settings.spared))
    ]
    known = spared.isfinite() & ~_rare(filters, spared)
    return torch.where(known, settings.choosy + torch.minimum(*above), float("-inf"))


def _unexplained(
    filters: Sequence[str],
    odds: Tensor,
    conviction: Tensor,
    success: Tensor,
    spared: Tensor,
    knew: Tensor,
    settings: FilterCheckSettings,
) -> Tensor:
    """As of that record; tensors (filters, ...), spared and knew nan where they are not known."""
    gain = (_logit(spared, _LEAST_CLEAN) - _logit(knew, _LEAST_CLEAN)).clamp_min(0)
    counts = gain.isfinite() & (success >= settings.surely)
    pull = _filter_margin_gap(filters, odds, conviction, replace(settings, weight=settings.unexplained_weight))
    return pull + settings.room + settings.gain * torch.where(counts, gain, torch.zeros_like(gain))


def _rare(filters: Sequence[str], like: Tensor) -> Tensor:
    """(filters, 1, ...) bool, of as many dimensions as ``like``."""
    return torch.tensor([name in RARE for name in filters]).view(-1, *[1] * (like.dim() - 1))
