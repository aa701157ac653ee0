"""Load a model file from an untrusted source: read it as data, rebuild the stock network, compare, transplant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import nn

from ..errors import UnreadableModelError
from .architectures import Variant, build_skeleton, canonical_name, identify
from .attestation import attest, attest_wrapper
from .container import Container, ZipContainer
from .files import open_regular, sha256_of
from .legacy import LegacyContainer
from .refusal import Refusal, quote
from .structure import Weights, find_weights
from .symbols import StorageClaim, TensorClaim
from .tensor_file import TensorFile, looks_like_tensor_file


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
        raise UnreadableModelError(f"{_shown(path)}: {refusal}") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UnreadableModelError(f"{_shown(path)}: can not be read ({reason.lower()})") from None
    except Exception as error:
        # What no check foresaw is still a file that can not be trusted, not a reason to end a long scan.
        raise UnreadableModelError(f"{_shown(path)}: can not be read ({type(error).__name__})") from error


def _load(file: BinaryIO, architecture: str | None, classes: int | None) -> LoadedModel:
    hint = _configured(architecture)
    digest = sha256_of(file)
    container = _open_container(file)
    weights = find_weights(container.root)
    variant = identify({key: claim.shape for key, claim in weights.claims.items()}, hint, _transforms(weights))
    _cross_check(variant, hint, classes)
    skeleton = build_skeleton(variant)
    _check_dtypes(skeleton, weights)
    if weights.wrapper is not None:
        attest_wrapper(weights.wrapper)
    if weights.root is not None:
        attest(weights.root, skeleton)
    state = skeleton.state_dict()  # for its layers' version numbers, which torchvision's mnasnet insists on
    state.update(_read_weights(container, weights))
    skeleton.load_state_dict(state, strict=True, assign=True)
    return LoadedModel(
        module=skeleton,
        architecture=variant.name,
        classes=variant.classes,
        sha256=digest,
        container=container.kind,
        attested=weights.root is not None,
    )


def _configured(architecture: str | None) -> str | None:
    if architecture is None:
        return None
    hint = canonical_name(architecture)
    if hint is None:
        raise Refusal(f"is a {quote(architecture)} by its configuration, which is not an architecture this tool knows")
    return hint


def _open_container(file: BinaryIO) -> Container:
    file.seek(0)
    start = file.read(512)
    if start.startswith(b"PK\x03\x04"):
        return ZipContainer(file)
    if start[257:262] == b"ustar":
        raise Refusal("is a tar file (torch before 0.1.10); load and save it again with a newer torch")
    if looks_like_tensor_file(start):
        return TensorFile(file)
    return LegacyContainer(file)


def _transforms(weights: Weights) -> bool:
    return weights.root is not None and (weights.root.state or {}).get("transform_input") is True


def _cross_check(variant: Variant, architecture: str | None, classes: int | None) -> None:
    if architecture not in (None, variant.name):
        raise Refusal(f"holds a {variant.name}, but its configuration says {architecture}")
    if classes not in (None, variant.classes):
        raise Refusal(f"has {variant.classes} classes, but its configuration says {quote(classes)}")


def _check_dtypes(skeleton: nn.Module, weights: Weights) -> None:
    for name, expected in skeleton.state_dict().items():
        found = weights.claims[name].storage.dtype
        if found != expected.dtype:
            raise Refusal(f"stores {name} as {found}; save the model as {expected.dtype}")


def _read_weights(container: Container, weights: Weights) -> dict[str, torch.Tensor]:
    users: dict[str, int] = {}
    for name, claim in weights.claims.items():
        if claim.storage.key not in users:
            _check_numbers(container, claim.storage, name)
        users[claim.storage.key] = users.get(claim.storage.key, 0) + 1
    read = _reading_once(container.read)
    tensors = {}
    for name, claim in weights.claims.items():
        tensors[name] = _tensor(read(claim.storage), claim, shared=users[claim.storage.key] > 1)
    return tensors


def _check_numbers(container: Container, storage: StorageClaim, name: str) -> None:
    """All of a storage, before any of the model's memory is taken: a damaged file may be large."""
    finite = True
    for piece in container.pieces(storage):
        finite = finite and bool(torch.isfinite(piece).all())
    if not finite:
        raise Refusal(f"has infinite or undefined numbers in {name}; train or fetch it again")


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


def _shown(path: Path) -> str:
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(path))
