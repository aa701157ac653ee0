"""Any classifier as one that takes images in [0, 1] and gives logits (N, K), on which all that measures works."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, get_args

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .channels import Normalisation
from .device import is_out_of_memory
from .errors import UnreadableModelError
from .outputs import Kind, OutputReading, Place

# Probabilities below this are taken for it, lest their logarithm be infinite; float32 holds no much smaller ones.
_LEAST: Final = 1e-37
# float32 holds nothing between 1 and 1 less this.
_LEAST_BELOW_ONE: Final = torch.finfo(torch.float32).eps / 2
# By how much probabilities may miss a sum of 1.
_SUM_TOLERANCE: Final = 1e-4
# Images that a network is asked about to find out what its output is.
_ASKED: Final = 16
_NOISE_SEED: Final = 0
# By which share of the largest logit one image's may change with the others in its batch: reduced precision of GPUs.
_ALONE_TOLERANCE: Final = 1e-2
# Names of logits in outputs that are dictionaries, in the order in which they are looked for.
_NAMES: Final[tuple[Place, ...]] = tuple(name for name in get_args(Place) if name not in ("whole", "first", "last"))
_BatchNorm = nn.modules.batchnorm._BatchNorm  # torch has no public name for batch norm of any dimension


class UnusableNetworkError(UnreadableModelError):
    """A network that is no classifier of single images; ``problem`` says why, to follow what the network is called."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}")
        self.problem = problem


class Classifier(nn.Module):
    """A ``network`` as its file holds it, and how images in [0, 1] become its input and its output becomes logits."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, expected: Normalisation | None, output: OutputReading) -> None:
        super().__init__()
        self.network, self.expected, self.output = network, expected, output
        for name in ("mean", "std") if expected else ():
            self.register_buffer(name, torch.tensor(getattr(expected, name)).view(1, -1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] -> logits (N, K)."""
        return _logits(self.given(x), self.output)

    def given(self, x: Tensor) -> Any:
        """Images (N, C, H, W) in [0, 1] -> what the network gives, whatever that is."""
        return self.network((x - self.mean) / self.std if self.expected else x)


def as_classifier(
    network: nn.Module, expected: Normalisation | None = None, output: OutputReading | None = None
) -> nn.Module:
    """In evaluation mode, takes x in [0, 1] and gives logits (N, K); the network itself where nothing is to be done."""
    output = output or OutputReading()
    plain = expected is None and output.plain
    return network.eval() if plain else Classifier(network, expected, output).eval()


def _logits(given: Any, output: OutputReading) -> Tensor:
    """Nothing here depends on values, so that the whole can be traced and compiled."""
    if output.place == "whole":
        # GoogLeNet and Inception give their side outputs too while they train; the first is the classifier's.
        values: Tensor = given[0] if isinstance(given, tuple) else given
    else:
        values = given[{"first": 0, "last": -1}.get(output.place, output.place)]
    if output.row:
        values = values.reshape(-1, output.row)
    if output.kind == "probabilities":
        values = values.float()
        found = values.clamp_min(_LEAST).log()
        values = found - (1 - values).clamp_min(_LEAST_BELOW_ONE).log() if output.single else found
    return torch.cat((-values / 2, values / 2), 1) if output.single else values


@torch.no_grad()
def find_output(module: nn.Module, x: Tensor, classes: int | None = None, where: str = "the network") -> OutputReading:
    """How the output becomes logits, found by asking about clean images x (N, C, H, W) on the module's device.

    module: a network, or a Classifier around one, whose own reading does not count; it is left in evaluation mode. Of
    several outputs the first or last counts, whichever has a number for each of the ``classes``; the first, where both
    have. Batch norms without statistics are to be measured before, see :func:`measure_batch_norms`.

    UnusableNetworkError, whose line starts with ``where``, for what is no classifier of single images.
    """
    _refuse_lazy(module, where)
    few = x[torch.linspace(0, len(x) - 1, min(len(x), _ASKED)).round().long()]
    given = _ask(module, few, where)
    place, values = _choose(given, len(few), classes, where)
    alone = _at(_ask(module, few[:1], where), place)
    rows = values.reshape(len(few), -1)
    if alone.numel() != rows.shape[1]:
        raise UnusableNetworkError(where, f"gives {_sizes(alone)} numbers for one image and {_sizes(values)} for more")
    if bool(torch.isfinite(rows).all()) and not _alike(alone.reshape(-1), rows[0]):
        again = _at(_ask(module, few, where), place)
        reason = (
            "gives other logits for the same images each time; switch off what it draws at random"
            if not _alike(again, values)
            else "gives an image other logits by what else is in its batch; give one that looks at each image alone"
        )
        raise UnusableNetworkError(where, reason)
    stream = torch.Generator().manual_seed(_NOISE_SEED)
    noise = torch.rand(few.shape, generator=stream).to(few)
    seen = torch.cat([rows, _at(_ask(module, noise, where), place).reshape(rows.shape)])
    # Where dimensions are squeezed, one image's output has fewer than that of several.
    row = 0 if values.dim() == alone.dim() == 2 else rows.shape[1]
    return OutputReading(place=place, kind=_kind(seen.float()), single=rows.shape[1] == 1, row=row)


@torch.no_grad()
def classes_of(module: nn.Module, x: Tensor, output: OutputReading) -> int:
    """How many classes a network has, read in this way; x (N, C, H, W) are images as for :func:`find_output`."""
    module.eval()
    given = module.given(x[:1]) if isinstance(module, Classifier) else module(x[:1])
    return int(_logits(given, output).shape[1])


def _alike(one: Tensor, other: Tensor) -> bool:
    allowed = _ALONE_TOLERANCE * float(other.abs().max())
    return float((one.float() - other.float()).abs().max()) <= allowed


def _refuse_lazy(module: nn.Module, where: str) -> None:
    kinds = {
        type(layer).__name__
        for layer in module.modules()
        for tensor in (*layer.parameters(recurse=False), *layer.buffers(recurse=False))
        if is_lazy(tensor)
    }
    if kinds:
        raise UnusableNetworkError(
            where,
            f"has layers without a size yet ({', '.join(sorted(kinds))}); run it on an image, then load its weights",
        )


def _ask(module: nn.Module, x: Tensor, where: str) -> Any:
    module.eval()
    try:
        return module.given(x) if isinstance(module, Classifier) else module(x)
    except Exception as error:  # whatever a network of somebody's raises at images that it was not made for
        if isinstance(error, RuntimeError) and is_out_of_memory(error):
            raise
        size = f"{x.shape[3]} x {x.shape[2]} pixels"
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UnusableNetworkError(where, f"cannot take images of {size} ({reason:.120})") from None


def _choose(given: Any, images: int, classes: int | None, where: str) -> tuple[Place, Tensor]:
    """Where the logits are, and what is there."""
    found = [(place, values, _width(values, images)) for place, values in _parts(given)]
    fitting = [
        (place, values, width)
        for place, values, width in found
        if width and (classes in (None, width) or (width == 1 and classes == 2))
    ]
    if not fitting:
        raise UnusableNetworkError(where, _misfit(given, images, classes))
    if classes is None and len({width for _, _, width in fitting}) > 1:
        raise UnusableNetworkError(where, f"gives {_described(given)}; say how many classes it has")
    place, values, _ = min(fitting, key=lambda one: one[1].dim() != 2)
    return place, values


def _parts(given: Any) -> list[tuple[Place, Tensor]]:
    """Tensors of floating-point numbers that may be the logits, the likeliest first."""
    parts: list[tuple[Place, Any]] = []
    if isinstance(given, Tensor):
        parts = [("whole", given)]
    elif isinstance(given, Mapping):
        named: list[tuple[Place, Any]] = [(name, given[name]) for name in _NAMES if name in given]
        parts = named[:1]
    elif isinstance(given, tuple | list) and given:
        parts = [("first", given[0])] if len(given) == 1 else [("first", given[0]), ("last", given[-1])]
    return [(place, part) for place, part in parts if isinstance(part, Tensor) and part.is_floating_point()]


def _at(given: Any, place: Place) -> Tensor:
    return next(values for found, values in _parts(given) if found == place)


def _width(values: Tensor, images: int) -> int:
    """Numbers for each image; 0 where it is not one row for each."""
    if images == 1 and values.dim() < 2:
        return values.numel()
    if not values.dim() or len(values) != images or max(values.shape[2:], default=1) > 1:
        return 0
    return values[0].numel()


def _misfit(given: Any, images: int, classes: int | None) -> str:
    """Why an output has no logits in it, and what to do."""
    wanted = "one row of logits for each image" if classes is None else f"{images} x {classes}"
    found = f"gives {_described(given)} for {images} images, not {wanted}"
    if isinstance(given, Tensor) and not given.is_floating_point():
        return f"{found}; give a network that ends before it chooses a class"
    if isinstance(given, Tensor) and given.dim() == 4:
        return f"{found}, as networks do that classify pixels; give one that classifies whole images"
    if isinstance(given, Tensor):
        return f"{found}; correct the number of classes, or give another network"
    if isinstance(given, Mapping):
        return f"{found}; name them one of {', '.join(_NAMES)}, or give a module around it that returns them alone"
    return f"{found} first or last; give a module around it that returns its logits alone"


def _described(given: Any) -> str:
    """E.g. ``a tuple of 16 x 64 x height x width, 16 x 10``."""
    if isinstance(given, Tensor):
        return f"{_sizes(given)} {'numbers' if given.is_floating_point() else 'whole numbers'}"
    kind = f"a {type(given).__name__}"
    if isinstance(given, Mapping):
        return f"{kind} of {', '.join(map(str, list(given)[:5]))}"
    if isinstance(given, tuple | list):
        parts = [_sizes(part) if isinstance(part, Tensor) else type(part).__name__ for part in given[:5]]
        return f"{kind} of {', '.join(parts) or 'nothing'}"
    return kind


def _sizes(values: Tensor) -> str:
    """Maps without their height and width, which are others for other images and say nothing here."""
    if values.dim() == 4:
        return f"{values.shape[0]} x {values.shape[1]} x height x width"
    return " x ".join(map(str, values.shape)) or "1"


def _kind(values: Tensor) -> Kind:
    """What values (N, K) of images and of noise are; a single one is a probability where all are in [0, 1]."""
    if not bool(torch.isfinite(values).all()):
        return "logits"
    between = bool((values >= 0).all()) and bool((values <= 1).all())
    if values.shape[1] == 1:
        return "probabilities" if between and float(values.max()) > float(values.min()) else "logits"
    if between and _sum_to_one(values):
        return "probabilities"
    return "log-probabilities" if bool((values <= 0).all()) and _sum_to_one(values.exp()) else "logits"


def _sum_to_one(values: Tensor) -> bool:
    return float((values.double().sum(1) - 1).abs().max()) <= _SUM_TOLERANCE


@torch.no_grad()
def measure_batch_norms(module: nn.Module, batches: Iterable[Tensor]) -> int:
    """Give batch norms without statistics those of these batches (N, C, H, W), N >= 2; how many there were.

    Without them such a layer takes the batch's own, and one image's logits depend on the others beside it. They are
    no part of the state dict, whose names stay the file's, and training does not change them. A network that was
    measured before is measured anew. The module is left in evaluation mode.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and _lacks_statistics(layer)]
    module.eval()
    if not layers:
        return 0
    for layer in layers:
        sizes = layer.num_features
        reference = next(iter(layer.parameters(recurse=False)), None)
        device = None if reference is None else reference.device
        layer.register_buffer("running_mean", torch.zeros(sizes, device=device), persistent=False)
        layer.register_buffer("running_var", torch.ones(sizes, device=device), persistent=False)
        layer.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.long, device=device), persistent=False)
    momenta = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            # Without a momentum torch takes the mean over all batches.
            layer.momentum, layer.track_running_stats, layer.training = None, True, True
        for batch in batches:
            module(batch)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum, layer.track_running_stats, layer.training = momentum, False, False
            layer.num_batches_tracked = None
    return len(layers)


def _lacks_statistics(layer: _BatchNorm) -> bool:
    return layer.running_mean is None or "running_mean" in layer._non_persistent_buffers_set
