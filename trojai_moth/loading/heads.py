"""Heads and first convolutions other than a library builds: what people change in a network of torchvision or timm.

A network is built as its library does, and its last and first layer are replaced by what names and shapes show.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from torch import nn

from .architectures import Shapes
from .refusal import Refusal, quote

_FACTORY = "name a function that builds it, --architecture package.module:factory"


def with_channels(network: nn.Module, shapes: Shapes, said: int | None = None) -> str:
    """Give the first convolution the input channels that the file's has; returns what was done, empty for nothing.

    Raises Refusal where ``said`` is another number.
    """
    found = next(((name, it) for name, it in network.named_modules() if isinstance(it, nn.Conv2d)), None)
    if found is None:
        return ""
    place, old = found
    shape = shapes.get(f"{place}.weight", ())
    if len(shape) != 4 or old.groups != 1:
        return ""
    if said not in (None, shape[1]):
        raise Refusal(
            f"takes {shape[1]} input channels, but {said} are asked for; one of the two belongs to another model"
        )
    if shape[1] == old.in_channels:
        return ""
    new = nn.Conv2d(
        shape[1],
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        stride=old.stride,  # type: ignore[arg-type]
        padding=old.padding,  # type: ignore[arg-type]
        dilation=old.dilation,  # type: ignore[arg-type]
        bias=old.bias is not None,
        padding_mode=old.padding_mode,
        device=old.weight.device,
    )
    network.set_submodule(place, new.eval())
    return f"its first convolution takes {shape[1]} channels instead of {old.in_channels}, with the stock one's stride"


def find_head(network: nn.Module, shapes: Shapes, place: str) -> tuple[str, str]:
    """Where the file has the head that its library has at ``place``, and the module that a change of it replaces.

    Both are places of modules, the same where the head is where it should be or where none is found. Raises Refusal for
    a head of several layers, since weights do not show what is between them.
    """
    if f"{place}.weight" in shapes:
        return place, place
    outer = place.rpartition(".")[0]
    alone = outer and _layers(network.state_dict(), outer) == [place]
    for replaced in (place, outer) if alone else (place,):
        layers = _layers(shapes, replaced)
        if len(layers) > 1:
            raise Refusal(
                f"has a head of several layers ({quote(layers[0])} and {quote(layers[1])}), and weights do not show "
                f"what is between them; {_FACTORY}"
            )
        if layers:
            return layers[0], replaced
    return place, place


def _layers(names: Iterable[str], place: str) -> list[str]:
    """Places of the layers with weights at and inside a place."""
    return list(dict.fromkeys(name.rpartition(".")[0] for name in names if name.startswith(f"{place}.")))


def with_head(network: nn.Module, place: str, shapes: Shapes) -> str:
    """Give the head at ``place`` the form that the file's has; returns what was done, empty for nothing.

    The file's may lie behind layers without weights, which are taken for dropout and left out, and have or lack a bias.
    """
    there, replaced = find_head(network, shapes, place)
    shape, bias = shapes.get(f"{there}.weight", ()), f"{there}.bias" in shapes
    old = network.get_submodule(place)
    if not isinstance(old, (nn.Linear, nn.Conv2d)) or len(shape) != old.weight.dim():
        return ""
    notes = []
    if there != place:
        behind = "behind layers without weights, which were taken for dropout" if there[-1:].isdigit() else "by itself"
        notes.append(f"its head is {there} instead of {place}, {behind}")
    if bias != (old.bias is not None):
        notes.append(f"its head {there} has {'a' if bias else 'no'} bias")
    if not notes:
        return ""
    device = old.weight.device
    new: nn.Module
    if isinstance(old, nn.Linear):
        new = nn.Linear(old.in_features, old.out_features, bias=bias, device=device)
    else:
        new = nn.Conv2d(
            old.in_channels,
            old.out_channels,
            old.kernel_size,  # type: ignore[arg-type]
            stride=old.stride,  # type: ignore[arg-type]
            padding=old.padding,  # type: ignore[arg-type]
            bias=bias,
            device=device,
        )
    for name in reversed(there.removeprefix(replaced).strip(".").split(".") if there != replaced else []):
        new = _inside(new, name)
    network.set_submodule(replaced, new.eval())
    return ", and ".join(notes)


def _inside(layer: nn.Module, name: str) -> nn.Module:
    before = {str(number): nn.Identity() for number in range(int(name))} if name.isdecimal() else {}
    return nn.Sequential(OrderedDict([*before.items(), (name, layer)]))
