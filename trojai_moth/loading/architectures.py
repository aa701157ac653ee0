"""The architectures of the TrojAI image rounds by their TrojAI names, built from today's torchvision."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torchvision
from torch import nn

from ..core.errors import MissingDependencyError, SettingsError
from .refusal import ForeignCode, Refusal, quote

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Architecture:
    """How its library calls a network, and the name of the weight whose first dimension is the class count."""

    factory: str
    head: str
    auxiliary: str = ""
    """How the names of auxiliary classifiers begin, for networks that can have them."""
    library: str = "torchvision"


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "resnet18": Architecture("resnet18", "fc.weight"),
        "resnet34": Architecture("resnet34", "fc.weight"),
        "resnet50": Architecture("resnet50", "fc.weight"),
        "resnet101": Architecture("resnet101", "fc.weight"),
        "resnet152": Architecture("resnet152", "fc.weight"),
        "wideresnet50": Architecture("wide_resnet50_2", "fc.weight"),
        "wideresnet101": Architecture("wide_resnet101_2", "fc.weight"),
        "googlenet": Architecture("googlenet", "fc.weight", "aux"),
        "inceptionv3": Architecture("inception_v3", "fc.weight", "AuxLogits."),
        "densenet121": Architecture("densenet121", "classifier.weight"),
        "densenet161": Architecture("densenet161", "classifier.weight"),
        "densenet169": Architecture("densenet169", "classifier.weight"),
        "densenet201": Architecture("densenet201", "classifier.weight"),
        "squeezenetv1_0": Architecture("squeezenet1_0", "classifier.1.weight"),
        "squeezenetv1_1": Architecture("squeezenet1_1", "classifier.1.weight"),
        "mobilenetv2": Architecture("mobilenet_v2", "classifier.1.weight"),
        "shufflenet1_0": Architecture("shufflenet_v2_x1_0", "fc.weight"),
        "shufflenet1_5": Architecture("shufflenet_v2_x1_5", "fc.weight"),
        "shufflenet2_0": Architecture("shufflenet_v2_x2_0", "fc.weight"),
        "mnasnet0_5": Architecture("mnasnet0_5", "classifier.1.weight"),
        "mnasnet0_75": Architecture("mnasnet0_75", "classifier.1.weight"),
        "mnasnet1_0": Architecture("mnasnet1_0", "classifier.1.weight"),
        "mnasnet1_3": Architecture("mnasnet1_3", "classifier.1.weight"),
        "vgg11bn": Architecture("vgg11_bn", "classifier.6.weight"),
        "vgg13bn": Architecture("vgg13_bn", "classifier.6.weight"),
        "vgg16bn": Architecture("vgg16_bn", "classifier.6.weight"),
        "vgg19bn": Architecture("vgg19_bn", "classifier.6.weight"),
    }
)
"""Every network of rounds 1 to 4, and those of round 11 that torchvision has."""

TIMM_ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {"vit_base_patch32_224": Architecture("vit_base_patch32_224", "head.weight", library="timm")}
)
"""The network of round 11 that needs the optional package timm."""
_TIMM_MENDING = "needs timm; pip install 'trojai-moth[timm]'"
_TIMM_PARTS = frozenset({"cls_token", "pos_embed", "patch_embed.proj.weight"})

STOCK_CHANNELS = 3
TASK = "classification:"
"""What the configurations of round 11 write before the name."""

_EVERY = MappingProxyType({**ARCHITECTURES, **TIMM_ARCHITECTURES})
_BY_FACTORY = MappingProxyType({entry.factory: name for name, entry in _EVERY.items()})


@dataclass(frozen=True)
class Variant:
    """Which network a file holds, and the two choices of the inception family that its weights do not show."""

    name: str
    classes: int
    aux_logits: bool = False
    transform_input: bool = False


def canonical_name(name: str) -> str | None:
    """The TrojAI name for a name as round configurations write it ("classification:mobilenet_v2"), or None."""
    plain = name.removeprefix(TASK).lower()
    plain = _BY_FACTORY.get(plain, plain)
    return plain if plain in _EVERY else None


def factory_of(name: str) -> str:
    """How the library calls the network of a TrojAI name."""
    return _EVERY[name].factory


def auxiliary_of(name: str) -> str:
    """How the names of auxiliary classifiers begin in the network of a TrojAI name; empty where it has none."""
    return _EVERY[name].auxiliary


def build_architecture(name: str, classes: int, *, seed: int = 0) -> nn.Module:
    """Today's network of a TrojAI name with random weights, on the CPU in float32 and training mode.

    It maps (N, 3, H, W) to logits (N, classes); googlenet and inceptionv3 come without auxiliary classifiers and
    without their input transform, as TrojAI used them. The weights depend on ``seed`` only, and the global random
    stream is left as it was. Raises SettingsError for an unknown name or fewer than one class, and
    MissingDependencyError without timm where that is needed.
    """
    known = canonical_name(name)
    if known is None:
        raise SettingsError(f"architecture {name!r} is not known; choose one of {', '.join(_EVERY)}")
    if classes < 1:
        raise SettingsError(f"a classifier needs at least one class (got {classes})")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return _build(Variant(known, classes), init_weights=True)


def build_skeleton(variant: Variant) -> nn.Module:
    """The network without memory for its weights (on the meta device), in evaluation mode."""
    with torch.device("meta"):
        return _build(variant, init_weights=False).eval()


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes of every tensor in a module's state dict."""
    state = module.state_dict().items()
    return {name: tuple(value.shape) for name, value in state if isinstance(value, torch.Tensor)}


def identify(shapes: Shapes, hint: str | None = None, transform_input: bool = False) -> Variant:
    """Find the one architecture whose weights have exactly these names and shapes, trying ``hint`` first.

    All of them differ in names or shapes whatever the class count. Raises Refusal when none fits.
    """
    if shapes.keys() >= _TIMM_PARTS:
        names = list(TIMM_ARCHITECTURES)
        _need_timm()
    else:
        names = sorted(ARCHITECTURES, key=lambda name: name != hint)
    counted = any(map(is_counter, shapes))
    for name in names:
        variant = _candidate(name, shapes, transform_input)
        # Comparing remembered names first spares building most of the networks.
        if not variant or _without_counters(_weight_names(name, variant.aux_logits), counted) != shapes.keys():
            continue
        expected = _expected_shapes(variant)
        if all(expected[key] == shape for key, shape in shapes.items()):
            return variant
        hint = hint or name
    raise ForeignCode(f"is not an architecture this tool knows{_difference(shapes, hint, transform_input)}")


def is_counter(name: str) -> bool:
    """Whether a weight only counts the batches that a layer has seen: torch before 0.4.1 has none, and none decides."""
    return name.endswith("num_batches_tracked")


def _without_counters(names: frozenset[str], counted: bool) -> frozenset[str]:
    return names if counted else frozenset(name for name in names if not is_counter(name))


def _candidate(name: str, shapes: Shapes, transform_input: bool) -> Variant | None:
    entry = _EVERY[name]
    head = shapes.get(entry.head, ())
    if not head or head[0] < 1:
        return None
    auxiliary = bool(entry.auxiliary) and any(key.startswith(entry.auxiliary) for key in shapes)
    return Variant(name, head[0], auxiliary, transform_input and bool(entry.auxiliary))


@functools.cache
def _weight_names(name: str, aux_logits: bool) -> frozenset[str]:
    return frozenset(_expected_shapes(Variant(name, 2, aux_logits)))


@functools.lru_cache(maxsize=256)  # a round has few networks and class counts, and each is asked for again and again
def _expected_shapes(variant: Variant) -> Shapes:
    return shapes_of(build_skeleton(variant))


def _difference(shapes: Shapes, hint: str | None, transform_input: bool) -> str:
    variant = hint and _candidate(hint, shapes, transform_input)
    if not variant:
        return ""
    expected = _expected_shapes(variant)
    for key in [*shapes, *expected]:
        if key not in expected:
            return f" (unlike {hint}, it has {quote(key)})"
        if key not in shapes:
            return f" (unlike {hint}, it lacks {quote(key)})"
        if expected[key] != shapes[key]:
            return f" (unlike {hint}: {quote(key)} is {quote(shapes[key])[1:-1]} instead of {expected[key]})"
    return ""


def _need_timm() -> None:
    try:
        importlib.import_module("timm")
    except ImportError:
        raise Refusal(_TIMM_MENDING) from None


def _build_timm(entry: Architecture, classes: int) -> nn.Module:
    try:
        timm = importlib.import_module("timm")
    except ImportError:
        raise MissingDependencyError(f"architecture {entry.factory!r} {_TIMM_MENDING}") from None
    module: nn.Module = timm.create_model(entry.factory, pretrained=False, num_classes=classes)
    return module


def _build(variant: Variant, init_weights: bool) -> nn.Module:
    entry = _EVERY[variant.name]
    if entry.library == "timm":
        return _build_timm(entry, variant.classes)
    options: dict[str, object] = {"weights": None, "num_classes": variant.classes}
    if entry.auxiliary:
        options["aux_logits"] = variant.aux_logits
        options["transform_input"] = variant.transform_input
        options["init_weights"] = init_weights
    module: nn.Module = getattr(torchvision.models, entry.factory)(**options)
    return module
