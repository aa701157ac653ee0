"""Load a model file from an untrusted source: read it as data, rebuild the stock network, compare, transplant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..core.errors import MothError, UnreadableModelError
from .architectures import STOCK_CHANNELS, canonical_name, is_counter
from .container import Container
from .examine import NotStock, check_numbers, examine
from .files import open_regular
from .networks import find_builder
from .open_file import take_apart
from .other_models import by_name
from .own_code import allowed_architectures
from .own_weights import fill, fit
from .refusal import ForeignCode, OtherClass, Refusal, shown, unreadable
from .steady_file import SteadyFile
from .structure import Weights
from .symbols import StorageClaim, TensorClaim
from .trusted import pickles_are_trusted, unpickle_network


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A classifier that consists of this installation's code and a file's weights."""

    module: nn.Module
    """On the CPU, float32, in evaluation mode; maps (N, 3, H, W) to logits (N, classes).

    A network that the user named may take other channels and return what its code returns.
    """
    architecture: str
    """TrojAI name, a key of ARCHITECTURES; for other networks the name as it was given."""
    classes: int
    """For a network of the user's own with a fixed number of outputs it is their word, or the last weight's length."""
    sha256: str
    """Hexadecimal digest of the file's bytes."""
    container: str
    """"zip" (torch >= 1.6), "legacy" or "safetensors"; "pickle" when it was run."""
    attested: bool
    """Whether the file describes the network's structure and it equals the stock one; False for bare state dicts."""
    counted: bool = True
    """Whether the number of classes is known; else only the network's output shows it."""
    unpickled: bool = False
    """Whether the file was run because the user trusts it; then its code is its own."""

    remark: str = ""
    """Which of a checkpoint's weights were read, what is not as the network's library makes it, what was converted."""
    described: bool = False
    """Whether a file that is not attested describes a structure, which was not looked at."""

    @property
    def note(self) -> str:
        """What a reader of results must know of how this was loaded; empty when there is nothing."""
        if self.unpickled:
            return "loaded by --trust-pickle: the file's own code was run, and its structure is its own"
        why = "what the file says of it was not looked at" if self.described else "the file holds weights only"
        notes = [] if self.attested else [f"structure not attested: {why}"]
        return "; ".join([*notes, self.remark] if self.remark else notes)


@dataclass(frozen=True)
class _Wish:
    """What is asked for beside the file, see :func:`load_model`."""

    architecture: str | None
    classes: int | None
    channels: int | None
    entry: str | None


def load_model(
    path: Path,
    *,
    architecture: str | None = None,
    classes: int | None = None,
    channels: int | None = None,
    entry: str | None = None,
) -> LoadedModel:
    """Load a whole module, state dict or safetensors file as data; nothing that the file asks for is run.

    ``architecture`` names what the weights belong to, see :func:`~trojai_moth.loading.networks.find_builder`; without
    it the file must hold a stock network. ``classes`` and ``channels`` (of its images) are what is known of it; a file
    that disagrees is refused. ``entry`` is the part of a checkpoint that is read, where several are networks.
    Raises UnreadableModelError, and nothing else, with one line that names the file and the reason.
    """
    try:
        with open_regular(path) as file:
            return _load(file, _Wish(architecture, classes, channels, entry))
    except Refusal as refusal:
        raise UnreadableModelError(f"{shown(path)}: {refusal}") from None
    except OSError as error:
        raise UnreadableModelError(f"{shown(path)}: {unreadable(error)}") from None
    except Exception as error:
        # What no check foresaw is still a file that cannot be trusted, not a reason to end a long scan.
        raise UnreadableModelError(f"{shown(path)}: {unreadable(error)}") from error


def _load(file: SteadyFile, wish: _Wish) -> LoadedModel:
    try:
        stock = wish.architecture is None or canonical_name(wish.architecture) is not None
        return _stock(file, wish) if stock else _own(file, wish)
    except ForeignCode:
        if not pickles_are_trusted():
            raise
        return _run(file, wish.architecture, wish.classes, file.sha256)


def _stock(file: SteadyFile, wish: _Wish) -> LoadedModel:
    """A network of TrojAI's, or one that the user says is such and whose head or channels are others."""
    try:
        found = examine(file, wish.architecture, wish.classes, wish.entry)
    except NotStock:
        if wish.architecture is None:
            raise
        return _own(file, wish)
    except OtherClass:
        if wish.architecture not in allowed_architectures():  # a round's configuration does not make it a stock network
            raise
        return _own(file, wish)
    if wish.channels not in (None, STOCK_CHANNELS):
        raise Refusal(
            f"takes {STOCK_CHANNELS} input channels, but {wish.channels} are asked for; one of the two belongs to "
            "another model"
        )
    state = found.skeleton.state_dict()  # for its layers' version numbers, which torchvision's mnasnet insists on
    state.update({name: torch.zeros((), dtype=value.dtype) for name, value in state.items() if is_counter(name)})
    state.update(_read_weights(found.container, found.weights))
    found.skeleton.load_state_dict(state, strict=True, assign=True)
    return LoadedModel(
        module=found.skeleton,
        architecture=found.variant.name,
        classes=found.variant.classes,
        sha256=file.sha256,
        container=found.container.kind,
        attested=found.attested,
        remark=found.note,
    )


def _own(file: SteadyFile, wish: _Wish) -> LoadedModel:
    """The network that the user named, with the file's tensors, whatever class they belonged to."""
    assert wish.architecture is not None
    container, sets = take_apart(file, wish.entry, any_class=True)
    try:
        builder = find_builder(wish.architecture)
    except MothError as error:
        raise ForeignCode(f"cannot be read as its configuration or --architecture says: {error}") from None
    try:
        fitted = fit(builder, sets, wish.classes, wish.channels, named=wish.entry is not None)
    except Refusal as refusal:
        raise by_name(refusal, container.content.names, [name for it in sets for name in it.claims]) from None
    chosen = Weights(fitted.claims, None)
    check_numbers(container, chosen)
    return LoadedModel(
        module=fill(fitted, read_weights(container, chosen)),
        architecture=wish.architecture,
        classes=fitted.classes,
        counted=fitted.counted,
        sha256=file.sha256,
        container=container.kind,
        attested=False,
        remark=fitted.note,
        described=fitted.weights.root is not None,
    )


def _run(file: SteadyFile, architecture: str | None, classes: int | None, digest: str) -> LoadedModel:
    """What --trust-pickle does with a file that is no stock network, and only then."""
    if classes is None:
        raise Refusal("is no stock network, so its configuration must say how many classes it has; add number_classes")
    module = unpickle_network(file)
    return LoadedModel(
        module=module,
        architecture=architecture or type(module).__name__,
        classes=classes,
        sha256=digest,
        container="pickle",
        attested=False,
        unpickled=True,
    )


def _read_weights(container: Container, weights: Weights) -> dict[str, torch.Tensor]:
    """All weights, those in a short number type as float32."""
    return {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in read_weights(container, weights).items()
    }


def read_weights(container: Container, weights: Weights) -> dict[str, torch.Tensor]:
    """All weights by name, each in memory of its own."""
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
