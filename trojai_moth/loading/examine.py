"""Everything that decides whether a file can be loaded, in little memory and without building the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

import torch
from torch import nn

from .architectures import Variant, build_skeleton, canonical_name, identify
from .attestation import attest, attest_wrapper
from .container import Container
from .open_file import take_apart
from .refusal import ForeignCode, Refusal, quote
from .structure import Weights
from .symbols import StorageClaim

_TWO_MODELS = "one of the two belongs to another model"


@dataclass(frozen=True)
class Examined:
    """A file that can be loaded: where its weights are, which network it is, and that network without memory."""

    container: Container
    weights: Weights
    variant: Variant
    skeleton: nn.Module

    @property
    def attested(self) -> bool:
        """Whether the file describes the network's structure; bare weights do not."""
        return self.weights.root is not None


def examine(file: BinaryIO, architecture: str | None = None, classes: int | None = None) -> Examined:
    """Every check of :func:`~trojai_moth.loading.load_model`; raises Refusal with the first that fails."""
    hint = _configured(architecture)
    container, weights = take_apart(file)
    variant = which_network(weights, hint)
    _cross_check(variant, hint, classes)
    skeleton = build_skeleton(variant)
    _check_dtypes(skeleton, weights)
    if weights.wrapper is not None:
        attest_wrapper(weights.wrapper)
    if weights.root is not None:
        attest(weights.root, skeleton)
    _check_numbers(container, weights)
    return Examined(container, weights, variant, skeleton)


def which_network(weights: Weights, hint: str | None = None) -> Variant:
    """The one architecture that has exactly these weights; raises Refusal."""
    return identify({key: claim.shape for key, claim in weights.claims.items()}, hint, _transforms(weights))


def _configured(architecture: str | None) -> str | None:
    if architecture is None:
        return None
    hint = canonical_name(architecture)
    if hint is None:
        raise ForeignCode(
            f"is a {quote(architecture)} by its configuration, which is not an architecture this tool knows"
        )
    return hint


def _transforms(weights: Weights) -> bool:
    return weights.root is not None and (weights.root.state or {}).get("transform_input") is True


def _cross_check(variant: Variant, architecture: str | None, classes: int | None) -> None:
    if architecture not in (None, variant.name):
        raise Refusal(f"holds a {variant.name}, but its configuration says {architecture}; {_TWO_MODELS}")
    if classes not in (None, variant.classes):
        raise Refusal(f"has {variant.classes} classes, but its configuration says {quote(classes)}; {_TWO_MODELS}")


def _check_dtypes(skeleton: nn.Module, weights: Weights) -> None:
    for name, expected in skeleton.state_dict().items():
        found = weights.claims[name].storage.dtype
        if f"torch.{found}" != str(expected.dtype):
            raise Refusal(f"stores {name} as torch.{found}; save the model as {expected.dtype}")


def _check_numbers(container: Container, weights: Weights) -> None:
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
