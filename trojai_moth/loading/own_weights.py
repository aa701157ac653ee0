"""A file's weights for a network that the user named: which of them, for how many classes, and whether they fit.

What a file holds is only read as data. The network is built by the code that the user named or a library, and is the
user's word: nothing in the file attests its structure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile

import torch
from torch import nn

from ..core.errors import MothError
from .architectures import Shapes, is_counter, shapes_of
from .heads import find_head, with_channels, with_head
from .networks import Builder
from .refusal import Refusal, quote
from .structure import Weights, last_length, normalise, parts_of, several
from .symbols import TensorClaim

_TRIED_CLASSES = (10, 12)
_TRIED_CHANNELS = (3, 1)
_MOST_TRIED = 8
_STATISTICS = ("running_mean", "running_var")
_CONVERTED = frozenset({"float16", "bfloat16", "float64"})
_FIT_MEND = "give with --architecture what builds the very network that was saved"


@dataclass(frozen=True)
class Fitted:
    """Weights of a file and the network that they fit."""

    weights: Weights
    network: nn.Module
    claims: dict[str, TensorClaim]
    """The file's tensors by the network's names of its parameters and buffers."""
    classes: int
    counted: bool
    """Whether the number of classes is known; else it is that of the last weights, which need not be the output's."""
    notes: tuple[str, ...]

    @property
    def note(self) -> str:
        """What a reader of results must know of what was taken; empty when there is nothing."""
        return "; ".join(self.notes)


def fit(builder: Builder, sets: list[Weights], classes: int | None, channels: int | None, *, named: bool) -> Fitted:
    """The one of a file's sets of weights that fits the network; raises Refusal.

    ``classes`` and ``channels`` are what the user says, None where the file shows them; ``named`` whether the user
    chose the set.
    """
    try:
        probe = _Probe.of(builder.having(name for weights in sets for name in weights.claims))
        fitting, reason = _fitting(probe, sets, classes, channels)
        parts = [part for weights in sets for part in parts_of(weights)] if not fitting and not named else []
        if parts:
            _refuse_parts(*_fitting(probe, parts, classes, channels), sets)
    except MothError as error:
        raise Refusal(str(error)) from None
    if len(fitting) > 1:
        raise several([it.weights.entry for it in fitting])
    if not fitting:
        raise reason or Refusal(f"does not fit the architecture {quote(builder.name)}; {_FIT_MEND}")
    found = fitting[0]
    if found.weights.entry and (named or len(sets) > 1):
        return replace(found, notes=(f"read was its entry {found.weights.entry}", *found.notes))
    return found


def _refuse_parts(fitting: list[Fitted], _: Refusal | None, sets: list[Weights]) -> None:
    """Say so where one part of a set is the network: what the other is for is not known here."""
    if len(fitting) > 1:
        raise several([it.weights.entry for it in fitting])
    for found in fitting:
        begin = found.weights.entry.rpartition(".")[2] + "."
        whole = next(it for it in sets if found.weights.entry in (part.entry for part in parts_of(it)))
        others = [name for name in whole.claims if not name.startswith(begin)]
        mend = f"give --entry {found.weights.entry}"
        mend = f"{mend}, and these as --mean and --std" if normalise(others) else f"where that changes nothing, {mend}"
        raise Refusal(
            f"holds more than the network: its weights under {quote(begin)}, but also {quote(others[0])}; {mend}"
        )


def _fitting(
    probe: _Probe, sets: list[Weights], classes: int | None, channels: int | None
) -> tuple[list[Fitted], Refusal | None]:
    """Those that fit, and why the one that is the most alike does not."""
    fitting, reason = [], None
    alike = sorted(((probe.likeness(weights), weights) for weights in sets), key=lambda pair: -pair[0])
    for number, (names, weights) in enumerate(alike[:_MOST_TRIED]):
        if number and 2 * names < len(probe.names):
            break
        try:
            fitting.append(_fit_one(probe, weights, classes, channels))
        except Refusal as refusal:
            reason = reason or refusal
        except MothError as error:
            reason = reason or Refusal(str(error))
    return fitting, reason


def _prefix(names: Collection[str]) -> str:
    """The parts, with their dots, that all names begin with."""
    first, last = min(names, default="").split(".")[:-1], max(names, default="").split(".")[:-1]
    shared = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return "".join(f"{part}." for part, _ in shared)


@dataclass(frozen=True)
class _Probe:
    """What a builder's networks look like for other numbers of classes and channels."""

    builder: Builder
    names: Shapes
    by_classes: tuple[Shapes, Shapes] | None
    by_channels: tuple[Shapes, Shapes] | None

    @classmethod
    def of(cls, builder: Builder) -> _Probe:
        """Build the networks that are compared; MothError where not even one can be built."""
        builder = builder.settled()
        low, high = _TRIED_CLASSES
        first = shapes_of(builder.build(classes=low, empty=True))
        by_classes = (first, shapes_of(builder.build(classes=high, empty=True))) if builder.classes else None
        by_channels = None
        if builder.channels:
            few, more = (_built(builder, low, channels) for channels in _TRIED_CHANNELS)
            by_channels = (few, more) if few and more else None
        return cls(builder, first, by_classes, by_channels)

    def likeness(self, weights: Weights) -> int:
        """How many names a set shares with the network."""
        return len(self.names.keys() & self.renamed(weights).keys())

    def renamed(self, weights: Weights) -> dict[str, TensorClaim]:
        """The tensors of a set as they are called, or with the first parts of the network's names instead of theirs."""
        as_called = {weights.prefix + name: claim for name, claim in weights.claims.items()}
        theirs, ours = _prefix(as_called), _prefix(self.names)
        changed = {ours + name.removeprefix(theirs): claim for name, claim in as_called.items()}
        return max(as_called, changed, key=lambda names: len(self.names.keys() & names.keys()))


def _built(builder: Builder, classes: int, channels: int) -> Shapes | None:
    try:
        return shapes_of(builder.build(classes=classes, channels=channels, empty=True))
    except MothError:
        return None


def _number(tried: tuple[int, int], built: tuple[Shapes, Shapes], shapes: Shapes) -> int | None:
    """The number for which a builder makes the file's shapes, from the first tensor in which the two tried differ."""
    first, second = built
    for name, shape in first.items():
        other, found = second.get(name, ()), shapes.get(name, ())
        if not len(shape) == len(other) == len(found):
            continue
        for axis, size in enumerate(shape):
            step, rest = other[axis] - size, (found[axis] - size) * (tried[1] - tried[0])
            if step:
                return tried[0] + rest // step if rest % step == 0 else None
    return None


def _fit_one(probe: _Probe, weights: Weights, classes: int | None, channels: int | None) -> Fitted:
    builder = probe.builder
    claims = probe.renamed(weights)
    shapes = {name: claim.shape for name, claim in claims.items()}
    head = _head(probe) if builder.library else ""
    found = _classes(probe, shapes, head)
    _agree("classes", found, classes, also=found == 1 and classes == 2)
    shown = _number(_TRIED_CHANNELS, probe.by_channels, shapes) if probe.by_channels else None
    _agree("input channels", shown, channels)
    if found is not None and found < 1:
        raise _misfit(builder.name, f"its head has {found} outputs")
    for empty in (True, False) if builder.library else (False,):  # a large network is built where its weights are there
        network = builder.build(found or classes, shown or channels, empty=empty)
        notes = []
        if builder.library:
            notes = [with_channels(network, shapes, channels), with_head(network, head, shapes) if head else ""]
        fitted, more = _compare(network, claims, builder.name)
        notes += [*more, _converted(network, fitted)]
    count = classes or (2 if found == 1 else found) or last_length(claims) or 1
    return Fitted(weights, network, fitted, count, bool(classes or found), tuple(filter(None, notes)))


def _agree(what: str, found: int | None, said: int | None, also: bool = False) -> None:
    if None not in (found, said) and found != said and not also:
        raise Refusal(f"has {found} {what}, but {said} are asked for; one of the two belongs to another model")


def _head(probe: _Probe) -> str:
    """The place of the layer whose size is the number of classes, the last of several."""
    if not probe.by_classes:
        return ""
    first, second = probe.by_classes
    places = [name.rpartition(".")[0] for name, shape in first.items() if second.get(name, shape) != shape]
    return places[-1] if places else ""


def _classes(probe: _Probe, shapes: Shapes, head: str) -> int | None:
    if not probe.by_classes:
        return None
    found = _number(_TRIED_CLASSES, probe.by_classes, shapes)
    if found is None and head:
        there, _ = find_head(probe.builder.build(empty=True), shapes, head)
        found = next(iter(shapes.get(f"{there}.weight", ())), None)
    return found


def _compare(
    network: nn.Module, claims: dict[str, TensorClaim], architecture: str
) -> tuple[dict[str, TensorClaim], list[str]]:
    """The file's tensors that the network takes, and what was put up with; raises Refusal with the first misfit."""
    norms = _norms(network)
    notes = list(_without_statistics(norms, claims))
    expected = {name: value for name, value in network.state_dict().items() if isinstance(value, torch.Tensor)}
    tensors = {**dict(network.named_buffers(remove_duplicate=False)), **expected}
    fitted = {}
    for name, claim in claims.items():
        if name in tensors and tuple(tensors[name].shape) == claim.shape:
            fitted[name] = claim
        elif name in tensors:
            raise _misfit(architecture, f"{quote(name)} is {claim.shape} instead of {tuple(tensors[name].shape)}")
        elif not is_counter(name) and _statistic(name, norms) is None:
            raise _misfit(architecture, f"it has {quote(name)} of shape {claim.shape}, which the network lacks")
    places = {_place(value) for name, value in expected.items() if name in fitted}
    for name, value in expected.items():
        if name not in fitted and not is_counter(name) and _place(value) not in places:
            raise _misfit(architecture, f"it lacks {quote(name)}, which has shape {tuple(value.shape)} in the network")
    return fitted, notes


def _place(value: torch.Tensor) -> tuple[object, ...]:
    """What is the same for a weight that a network has under two names, and for no two others."""
    if value.is_meta or not value.numel():
        return (id(value),)
    return (value.data_ptr(), tuple(value.shape), value.stride())


def _misfit(architecture: str, how: str) -> Refusal:
    return Refusal(f"does not fit the architecture {quote(architecture)}: {how}; {_FIT_MEND}")


def _norms(network: nn.Module) -> dict[str, nn.Module]:
    return {
        f"{name}." if name else "": module
        for name, module in network.named_modules()
        if isinstance(getattr(module, "track_running_stats", None), bool)
    }


def _statistic(name: str, norms: Mapping[str, nn.Module]) -> nn.Module | None:
    """The layer whose running statistics a name is, if it is."""
    place, dot, last = name.rpartition(".")
    return norms.get(place + dot) if last in _STATISTICS else None


def _without_statistics(norms: Mapping[str, nn.Module], claims: Mapping[str, TensorClaim]) -> Iterable[str]:
    """Let layers work without running statistics that the file lacks, and say so; also where only the file has them."""
    lacking = [
        name
        for name, norm in norms.items()
        if norm.track_running_stats and _STATISTICS[0] in dict(norm.named_buffers())
    ]
    lacking = [name for name in lacking if not any(name + last in claims for last in _STATISTICS)]
    for name in lacking:
        norm = norms[name]
        norm.track_running_stats = False  # type: ignore[assignment]
        norm.running_mean = norm.running_var = norm.num_batches_tracked = None  # type: ignore[assignment]
    if lacking:
        yield f"{len(lacking)} of its normalising layers have no running statistics and use each batch's own"
    extra = [name for name, norm in norms.items() if not norm.track_running_stats and name not in lacking]
    extra = [name for name in extra if any(name + last in claims for last in _STATISTICS)]
    if extra:
        yield f"running statistics of {len(extra)} normalising layers were left out, since the network uses none"


def _converted(network: nn.Module, claims: Mapping[str, TensorClaim]) -> str:
    """Which number type was made float32; raises Refusal for one that does not fit."""
    tensors = {**dict(network.named_buffers(remove_duplicate=False)), **network.state_dict()}
    converted = set()
    for name, claim in claims.items():
        found, expected = claim.storage.dtype, tensors[name].dtype
        if found in _CONVERTED and expected == torch.float32:
            converted.add(found)
        elif f"torch.{found}" != str(expected):
            raise Refusal(f"stores {quote(name)} as torch.{found}; save the model as {expected}")
    return f"its weights are stored as {' and '.join(sorted(converted))} and were made float32" if converted else ""


def fill(fitted: Fitted, tensors: Mapping[str, torch.Tensor]) -> nn.Module:
    """Put the numbers, by the names of ``fitted.claims``, into its network; raises Refusal where they do not stay."""
    network = fitted.network
    known = {**dict(network.named_buffers(remove_duplicate=False)), **network.state_dict()}
    with torch.no_grad():
        for name, tensor in tensors.items():
            known[name].copy_(tensor)
    state = {**dict(network.named_buffers(remove_duplicate=False)), **network.state_dict()}
    for name, tensor in tensors.items():
        if not torch.isfinite(state[name]).all():
            raise Refusal(f"has numbers in {quote(name)} that are too large for float32; train or fetch it again")
        if not torch.equal(state[name], tensor.to(state[name].dtype)):
            raise Refusal(f"has two different tensors where the network has one, as {quote(name)}; {_FIT_MEND}")
    return network
