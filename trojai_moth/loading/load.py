"""Load a model file from an untrusted source: read it as data, rebuild the stock network, compare, transplant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import nn

from ..errors import UnreadableModelError
from .container import Container
from .examine import examine
from .files import open_regular, sha256_of
from .refusal import Refusal, shown
from .structure import Weights
from .symbols import StorageClaim, TensorClaim


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A classifier that consists of this installation's code and a file's weights."""

    module: nn.Module
    """On the CPU, float32, in evaluation mode; maps (N, 3, H, W) to logits (N, classes)."""
    architecture: str
    """TrojAI name, a key of ARCHITECTURES."""
    classes: int
    sha256: str
    """Hexadecimal digest of the file's bytes."""
    container: str
    """"zip" (torch >= 1.6), "legacy" or "safetensors"."""
    attested: bool
    """Whether the file describes the network's structure and it equals the stock one; False for bare state dicts."""


def load_model(path: Path, *, architecture: str | None = None, classes: int | None = None) -> LoadedModel:
    """Load a known architecture's whole module, state dict or safetensors file; nothing the file asks for is run.

    ``architecture`` and ``classes`` are what the round's configuration says; a file that disagrees is refused.
    Raises UnreadableModelError, and nothing else, with one line that names the file and the reason.
    """
    try:
        with open_regular(path) as file:
            return _load(file, architecture, classes)
    except Refusal as refusal:
        raise UnreadableModelError(f"{shown(path)}: {refusal}") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UnreadableModelError(f"{shown(path)}: can not be read ({reason.lower()})") from None
    except Exception as error:
        # What no check foresaw is still a file that can not be trusted, not a reason to end a long scan.
        raise UnreadableModelError(f"{shown(path)}: can not be read ({type(error).__name__})") from error


def _load(file: BinaryIO, architecture: str | None, classes: int | None) -> LoadedModel:
    digest = sha256_of(file)
    found = examine(file, architecture, classes)
    state = found.skeleton.state_dict()  # for its layers' version numbers, which torchvision's mnasnet insists on
    state.update(_read_weights(found.container, found.weights))
    found.skeleton.load_state_dict(state, strict=True, assign=True)
    return LoadedModel(
        module=found.skeleton,
        architecture=found.variant.name,
        classes=found.variant.classes,
        sha256=digest,
        container=found.container.kind,
        attested=found.attested,
    )


def _read_weights(container: Container, weights: Weights) -> dict[str, torch.Tensor]:
    users: dict[str, int] = {}
    for claim in weights.claims.values():
        users[claim.storage.key] = users.get(claim.storage.key, 0) + 1
    read = _reading_once(container.read)
    tensors = {}
    for name, claim in weights.claims.items():
        tensors[name] = _tensor(read(claim.storage), claim, shared=users[claim.storage.key] > 1)
    return tensors


def _reading_once(read: Callable[[StorageClaim], torch.Tensor]) -> Callable[[StorageClaim], torch.Tensor]:
    # A file may mention one large storage in every tensor.
    done: dict[str, torch.Tensor] = {}

    def read_once(storage: StorageClaim) -> torch.Tensor:
        if storage.key not in done:
            done[storage.key] = read(storage)
        return done[storage.key]

    return read_once


def _tensor(flat: torch.Tensor, claim: TensorClaim, shared: bool) -> torch.Tensor:
    """A contiguous tensor that shares its memory with no other."""
    view = flat.as_strided(claim.shape, claim.stride, claim.offset)
    whole = view.is_contiguous() and view.numel() == flat.numel() and not shared
    return view if whole else view.clone(memory_format=torch.contiguous_format)
