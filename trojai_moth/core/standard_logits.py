"""Logits brought to a standard scale, so that no factor on a network's last layer changes what is found in it.

Multiplying all logits changes no decision, but every loss: cross-entropy is flat where they are tiny and steep where
they are large, so that a search finds nothing and a poisoned network looks clean. Whatever measures a network does so
on a copy whose logits have a standard spread on clean images. The spread is a difference of logits, so a constant on
all of them changes nothing either. A network whose classes have scales of their own, orders of magnitude apart, is
given one scale for all classes, and one whose images have, one for all images.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .errors import MothError
from .images import ImagePool
from .subject import LogitScale, Subject

SPREAD = 7.0
"""Median over images of the standard deviation over classes: that of ordinary networks of rounds 1 to 4 and the like,
whose results hardly change by this."""
_PER_CLASS = 8
_MOST_IMAGES = 256
# Adversarially trained networks have classes that win by 12 times as much as others.
_APART = 100.0
# A class has a scale where most of its images are right.
_RECOGNISED = 0.5
# The search keeps up with less. No more than needed: stamped images of networks that end in a ReLU have small logits,
# and are as sure as others once they are even.
_IMAGES_APART = 1e4
# What is searched in looks like this: images half covered with noise.
_NOISE_SEED = 0
# Below this and above its inverse float32 has no digits left to tell logits apart.
_LEAST_SPREAD = 1e-30
# Logits that differ by a smaller share of the largest are equal.
_LEAST_SHARE = 1e-6
# Logits that are on average so many times their spread have too few digits left for the differences.
_COMMON = 1000.0
# How exactly a changed last layer must give the logits that are wanted, as a share of the largest.
_TOLERANCE = 1e-3
_COMPARED = 8
# So far below the largest the logarithms of probabilities are exact, those of a single probability near 1 less far.
_REACH, _REACH_OF_ONE = 80.0, 10.0
# How often, and from which excess on, the factor is corrected for probabilities that were too certain.
_TRIES, _TOO_WIDE = 8, 1.05


class UnusableLogits(MothError):
    """Nothing can be measured with a network's logits; ``problem`` says why, to follow "the network ..."."""

    def __init__(self, model_id: str, problem: str) -> None:
        super().__init__(f"{model_id}: the network {problem}; train or fetch it again")
        self.problem = problem


class _Rescaling:
    """A forward hook: logits become (z - median(z) - centre) * scale, with one centre and scale for each class.

    ``even``: and every image's are then brought to the standard spread, which changes no decision. A hook and no module
    around the network, so that its layers keep their names for whoever looks for them.
    """

    def __init__(self, centre: Tensor, scale: Tensor, even: bool) -> None:
        self.centre, self.scale, self.even = centre, scale, even

    def __call__(self, network: nn.Module, given: Any, logits: Any) -> Any:
        """The logits (N, classes) changed; of an output with side outputs the first."""
        if isinstance(logits, tuple):
            return (self._rescaled(logits[0]), *logits[1:])
        return self._rescaled(logits)

    def _rescaled(self, logits: Tensor) -> Tensor:
        centre, scale = self.centre.to(logits.device), self.scale.to(logits.device)
        logits = logits.float()
        logits = (logits - logits.median(1, keepdim=True).values - centre) * scale
        return _evened(logits) if self.even else logits


def standardised(subject: Subject, images: ImagePool) -> Subject:
    """A copy of the subject whose logits have the standard spread on these clean images, x (N, 3, H, W) in [0, 1].

    It makes the same decisions; where classes had scales of their own, on clean images. The subject itself where that
    was done before. UnusableLogits where nothing can be measured with them.
    """
    if subject.logit_scale is not None:
        return subject
    few = _few(images)
    logits = subject.logits(few.x).float().cpu()
    if problem := _problem(logits):
        raise UnusableLogits(subject.model_id, problem)
    own = _scales_per_class(logits.double(), few.y.cpu())
    if own is not None:
        centre, scale = own
        evened = (logits - logits.median(1, keepdim=True).values - centre) * scale
        found = _hooked(subject, centre, scale * (SPREAD / spread(evened)))
        alike = _evened(logits.double() - logits.double().median(1, keepdim=True).values)
        if _uneven(found, few) and _scales_per_class(alike, few.y.cpu()) is None:
            own = None  # it is the images that have scales
    if own is None:
        factor = standard_spread(subject) / spread(logits)
        centre, scale = torch.zeros(logits.shape[1]), torch.full((logits.shape[1],), factor)
        found = _folded_certain(subject, factor, few.x, logits) or _hooked(subject, centre, scale)
    return _hooked(subject, centre, scale, even=True) if _uneven(found, few) else found


def as_published(work: Subject, original: Subject) -> Subject:
    """A changed copy of a standardised subject with its logits at the scale of the ``original``, changed in place.

    Weights that were not changed are those of the original to the last bit.
    """
    done = work.logit_scale
    if done is None or original.logit_scale is not None:
        return work
    if done.head is None:
        _unhook(work.module)
    else:
        layers = (subject.module.get_submodule(done.head) for subject in (work, original))
        with torch.no_grad():
            now, before = (list(layer.parameters(recurse=False)) for layer in layers)
            for part, first, start in zip(now, before, _scaled(before, done), strict=True):
                part.copy_(first + (part - start) / done.factor)
    return replace(work, logit_scale=None)


def _unhook(module: nn.Module) -> None:
    for key, hook in list(module._forward_hooks.items()):
        if isinstance(hook, _Rescaling):
            del module._forward_hooks[key]


def spread(logits: Tensor) -> float:
    """Median over images of the standard deviation over classes; logits (N, classes), at least 2 classes."""
    return float(logits.double().std(1, correction=0).median())


def standard_spread(subject: Subject) -> float:
    """The spread that its logits are brought to.

    A single probability near 1 is so coarse in float32 that there is no gradient above a spread of 8, so that half of
    the others' must do.
    """
    return SPREAD / 2 if subject.output.single and subject.output.kind == "probabilities" else SPREAD


def _problem(logits: Tensor) -> str | None:
    if not len(logits):
        return "was given no images"
    if not bool(torch.isfinite(logits).all()):
        return "gives logits that are no finite numbers"
    if logits.shape[1] < 2:
        return f"gives {logits.shape[1]} logits; a classifier has 2 classes or more"
    found = spread(logits)
    if not _LEAST_SPREAD < found < 1 / _LEAST_SPREAD:
        return f"gives logits that cannot be told apart in float32 (spread {found:.1e})"
    return None


def _few(images: ImagePool) -> ImagePool:
    few = images.first_per_class(_PER_CLASS)
    if len(few) <= _MOST_IMAGES:
        return few
    return few.take(torch.linspace(0, len(few) - 1, _MOST_IMAGES).long())


def _scales_per_class(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor] | None:
    """Centre and scale (classes,) that bring classes to one scale; None where they nearly have one.

    A class's scale is by how much its logit is larger on its own images than on others, both medians, above the
    image's median logit. None, too, where that would change what the clean images are taken for.
    """
    above = logits - logits.median(1, keepdim=True).values
    present = sorted(set(y.tolist()))
    if len(present) < 2:
        return None
    centre, contrast = torch.zeros(logits.shape[1]).double(), torch.full((logits.shape[1],), torch.nan).double()
    right = logits.argmax(1) == y
    for label in present:
        centre[label] = above[y != label, label].median()
        if float(right[y == label].double().mean()) > _RECOGNISED:  # of others a small contrast says nothing
            contrast[label] = above[y == label, label].median() - centre[label]
    won = contrast[contrast > 0]
    if not len(won) or float(won.max() / won.min()) < _APART:
        return None
    scale = torch.where(contrast > 0, 1 / contrast, 1 / won.median())
    even = ((above - centre) * scale).argmax(1)
    if float((even == y).double().mean()) < float((logits.argmax(1) == y).double().mean()):
        return None
    return centre.float(), scale.float()


def _uneven(subject: Subject, few: ImagePool) -> bool:
    """Whether images of some kind have logits of a scale of their own: those of a class, or those that noise covers.

    Searching a trigger for such images would be led by the size of the mask alone.
    """
    logits, y = subject.logits(few.x).cpu(), few.y.cpu()
    spreads = [one for label in set(y.tolist()) for one in _spread_range(logits[y == label])]
    stream = torch.Generator().manual_seed(_NOISE_SEED)
    noise, cover = (torch.rand(few.x.shape, generator=stream).to(few.x.device) for _ in range(2))
    spreads += _spread_range(subject.logits(torch.lerp(few.x, noise, cover[:, :1])))
    known = [one for one in spreads if math.isfinite(one) and one > 0]  # no scale helps where all logits are equal
    return bool(known) and max(known) / min(known) > _IMAGES_APART


def _spread_range(logits: Tensor) -> list[float]:
    """A low and a high spread of these images' logits (N, classes)."""
    spreads = logits.cpu().double().std(1, correction=0)
    return [float(spreads.quantile(share)) for share in (0.25, 0.75)]


def _evened(logits: Tensor) -> Tensor:
    """Logits (N, classes) with every image's at the standard spread; by their largest first, lest squares vanish."""
    held = logits.detach()
    largest = held.abs().amax(1, keepdim=True).clamp_min(_LEAST_SPREAD)
    spreads = (held / largest).std(1, correction=0, keepdim=True).clamp_min(_LEAST_SHARE)
    return logits / largest * (SPREAD / spreads)


def _folded_certain(subject: Subject, factor: float, x: Tensor, logits: Tensor) -> Subject | None:
    """As _folded; of probabilities that were too certain for float32, with a factor that they are not any longer."""
    found = _folded(subject, factor, x[:_COMPARED], logits[:_COMPARED])
    for _ in range(_TRIES if subject.output.kind != "logits" else 0):
        excess = spread(found.logits(x)) / standard_spread(subject) if found else 1.0
        if not excess > _TOO_WIDE:  # the spread was what it seemed
            break
        factor /= excess
        found = _folded(subject, factor, x[:_COMPARED], logits[:_COMPARED])
    return found


def _folded(subject: Subject, factor: float, x: Tensor, logits: Tensor) -> Subject | None:
    """With the factor on the last layer's weights, where that is the same; training then has ordinary weights, too."""
    layers = [name for name, part in subject.module.named_modules() if isinstance(part, (nn.Linear, nn.Conv2d))]
    if not layers:
        return None
    common = float(logits.double().mean(1).abs().median()) > _COMMON * spread(logits)
    for done in [LogitScale(factor, layers[-1], centred) for centred in ([True, False] if common else [False])]:
        module = copy.deepcopy(subject.module)
        parts = list(module.get_submodule(layers[-1]).parameters(recurse=False))
        with torch.no_grad():
            for part, scaled in zip(parts, _scaled(parts, done), strict=True):
                part.copy_(scaled)
        found = replace(subject, module=module, logit_scale=done)
        wanted, given = logits.double() * factor, found.logits(x).cpu().double()
        if subject.output.kind != "logits":
            wanted, given = _known_of_probabilities(wanted, given, factor, subject.output.single)
        allowed = _TOLERANCE * float(wanted.abs().max())
        if done.centred:
            rounding = torch.finfo(torch.float32).eps * float(wanted.abs().max())
            wanted, given = (one - one.mean(1, keepdim=True) for one in (wanted, given))
            allowed = _TOLERANCE * float(wanted.abs().max()) + rounding
        if float((given - wanted).abs().max()) <= allowed:
            return found
    return None


def _known_of_probabilities(wanted: Tensor, given: Tensor, factor: float, single: bool) -> tuple[Tensor, Tensor]:
    """Both logits (N, K) as far as their probabilities say them: below the largest, and where they were not too small.

    What all logits of an image have in common is in no probability, and changes no loss.
    """
    wanted, given = (one - one.amax(1, keepdim=True) for one in (wanted, given))
    return wanted, torch.where(wanted < -min(factor, 1.0) * (_REACH_OF_ONE if single else _REACH), wanted, given)


def _scaled(parts: Sequence[Tensor], done: LogitScale) -> list[Tensor]:
    """The head's weight and bias as they are at the standard scale."""
    scaled = [part.detach() * done.factor for part in parts]
    return [part - part.mean(0, keepdim=True) for part in scaled] if done.centred else scaled


def _hooked(subject: Subject, centre: Tensor, scale: Tensor, *, even: bool = False) -> Subject:
    module = copy.deepcopy(subject.module)
    module.register_forward_hook(_Rescaling(centre, scale, even))
    return replace(subject, module=module, logit_scale=LogitScale(1.0, None))
