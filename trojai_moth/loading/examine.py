"""Everything that decides whether a file can be loaded, in little memory and without building the model."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import nn

from .architectures import Shapes, Variant, build_skeleton, canonical_name, identify
from .attestation import attest, attest_wrapper
from .container import Container
from .open_file import take_apart
from .other_models import by_name
from .refusal import ForeignCode, Refusal, quote
from .steady_file import SteadyFile
from .structure import Weights, normalise, several
from .symbols import StorageClaim

_TRIED_GROUPS = 8
_SHORT = frozenset({"float16", "bfloat16"})
"""Every number of these types is one of float32 as well."""
_BARE_MEND = (
    "weights alone do not say what a network computes: name what does, --architecture with a name of torchvision or "
    "timm or with package.module:factory of your own code"
)
_TWO_MODELS = "one of the two belongs to another model"


class NotStock(ForeignCode):
    """Bare weights that are no stock network's."""


@dataclass(frozen=True)
class Examined:
    """A file that can be loaded: where its weights are, which network it is, and that network without memory."""

    container: Container
    weights: Weights
    variant: Variant
    skeleton: nn.Module

    note: str
    """What a reader of results must know of which weights were taken, and how; empty when there is nothing."""

    @property
    def attested(self) -> bool:
        """Whether the file describes the network's structure; bare weights do not."""
        return self.weights.root is not None


def examine(
    file: SteadyFile, architecture: str | None = None, classes: int | None = None, entry: str | None = None
) -> Examined:
    """Every check of a stock network's file; raises Refusal with the first that fails.

    ``architecture`` is a name that :func:`~trojai_moth.loading.architectures.canonical_name` knows, or None.
    """
    hint = architecture and canonical_name(architecture)
    container, sets = take_apart(file, entry)
    try:
        weights, variant = _the_network(sets, hint)
    except ForeignCode as refusal:
        kind = NotStock if all(it.root is None for it in sets) else ForeignCode
        names = [name for it in sets for name in it.claims]
        raise by_name(kind(refusal.reason), container.content.names, names) from None
    _cross_check(variant, hint, classes)
    skeleton = build_skeleton(variant)
    short = _check_dtypes(skeleton, weights)
    if weights.wrapper is not None:
        attest_wrapper(weights.wrapper)
    if weights.root is not None:
        attest(weights.root, skeleton)
    check_numbers(container, weights)
    notes = [f"read was its entry {weights.entry}, the only stock network of {len(sets)}"] if len(sets) > 1 else []
    notes += [f"read was its entry {weights.entry}"] if entry is not None else []
    notes += [f"its weights are stored as {short} and were made float32"] if short else []
    return Examined(container, weights, variant, skeleton, "; ".join(notes))


def _the_network(sets: list[Weights], hint: str | None) -> tuple[Weights, Variant]:
    """The one that is a stock network; raises Refusal where none is, with the reason of the largest, or several are."""
    fitting, reason = [], None
    for weights in sorted(sets, key=lambda weights: -len(weights.claims)):
        try:
            fitting.append((weights, which_network(weights, hint)))
        except ForeignCode as refusal:
            reason = reason or refusal
    if len(fitting) > 1:
        raise several([weights.entry for weights, _ in fitting])
    if reason and not fitting:
        raise reason
    return fitting[0]


def which_network(weights: Weights, hint: str | None = None) -> Variant:
    """The one architecture that has exactly these weights; raises Refusal."""
    shapes = {key: claim.shape for key, claim in weights.claims.items()}
    try:
        return identify(shapes, hint, _transforms(weights))
    except ForeignCode as refusal:
        if weights.root is not None:
            raise
        raise _explained(refusal.reason, weights, shapes, hint) from None


def _explained(reason: str, weights: Weights, shapes: Shapes, hint: str | None) -> ForeignCode:
    """Why bare weights are no stock network's, as far as their names show it, and what to do."""
    groups: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        first, dot, rest = name.partition(".")
        groups.setdefault(first + dot, {})[rest] = shape
    largest = sorted(groups, key=lambda first: -len(groups[first]))[:_TRIED_GROUPS]
    for first in largest if len(groups) > 1 else []:
        with suppress(Refusal):
            found, others = identify(groups[first]).name, [name for name in shapes if not name.startswith(first)]
            alone = f"save the state_dict() of the {found} by itself"
            if normalise(others):
                mend = f"{alone}, and give these as --mean and --std"
            else:
                mend = f"where that changes nothing, {alone}"
            return ForeignCode(
                f"holds more than a stock network: under {quote(first)} the weights of a {found}, but also "
                f"{quote(others[0])}; {mend}"
            )
    if weights.prefix and "unlike" not in reason:  # what was taken away may have been the network's own
        try:
            identify({weights.prefix + name: shape for name, shape in shapes.items()}, hint)
        except ForeignCode as refusal:
            reason = refusal.reason
    begin = f"; every name begins with {quote(weights.prefix)}" if weights.prefix else ""
    return ForeignCode(f"{reason}{begin}; {_BARE_MEND}")


def _transforms(weights: Weights) -> bool:
    return weights.root is not None and (weights.root.state or {}).get("transform_input") is True


def _cross_check(variant: Variant, architecture: str | None, classes: int | None) -> None:
    if architecture not in (None, variant.name):
        raise Refusal(f"holds a {variant.name}, but its configuration says {architecture}; {_TWO_MODELS}")
    if classes not in (None, variant.classes):
        raise Refusal(f"has {variant.classes} classes, but its configuration says {quote(classes)}; {_TWO_MODELS}")


def _check_dtypes(skeleton: nn.Module, weights: Weights) -> str:
    """The short number type in which some weights are stored, if any; raises Refusal for types that do not fit."""
    short = ""
    for name, expected in skeleton.state_dict().items():
        if name not in weights.claims:  # a counter of batches, see identify
            continue
        found = weights.claims[name].storage.dtype
        if found in _SHORT and expected.dtype == torch.float32:
            short = found
        elif f"torch.{found}" != str(expected.dtype):
            raise Refusal(f"stores {name} as torch.{found}; save the model as {expected.dtype}")
    return short


def check_numbers(container: Container, weights: Weights) -> None:
    """All of every storage, before any of the model's memory is taken: a damaged file may be large."""
    done: set[StorageClaim] = set()
    for name, claim in weights.claims.items():
        if claim.storage in done:
            continue
        done.add(claim.storage)
        finite = True
        for piece in container.pieces(claim.storage):
            finite = finite and bool(torch.isfinite(piece).all())
        if not finite:
            raise Refusal(f"has infinite or undefined numbers in {name}; train or fetch it again")
