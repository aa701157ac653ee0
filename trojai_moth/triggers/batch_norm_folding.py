"""Batch normalisation folded into the convolution before it: the same function with half the passes over memory.

Only for a copy that is run in evaluation mode; the network that is trained keeps its layers.
"""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


@dataclass(frozen=True)
class Folded:
    """A copy of a network in evaluation mode and the (convolution, batch norm) names that are one layer in it."""

    module: nn.Module
    pairs: tuple[tuple[str, str], ...]

    def refresh(self, module: nn.Module) -> None:
        """Take over the weights that the network it was copied from has now."""
        values = dict(module.state_dict())
        for name, value in _folded_values(module, self.pairs).items():
            values[name] = value
        with torch.no_grad():
            for name, tensor in self.module.state_dict().items():
                tensor.copy_(values[name])


def fold(module: nn.Module) -> Folded:
    """A frozen copy with all that can be folded; with nothing folded when the network cannot be traced."""
    twin = copy.deepcopy(module).eval()
    pairs = _pairs(twin)
    for convolution, norm in pairs:
        layer = twin.get_submodule(convolution)
        assert isinstance(layer, nn.Conv2d)
        if layer.bias is None:
            layer.register_parameter("bias", nn.Parameter(layer.weight.new_zeros(layer.out_channels)))
        parent, _, last = norm.rpartition(".")
        setattr(twin.get_submodule(parent), last, nn.Identity())
    folded = Folded(twin.requires_grad_(False), pairs)
    folded.refresh(module)
    return folded


def _pairs(module: nn.Module) -> tuple[tuple[str, str], ...]:
    """Convolutions whose output goes into one batch norm and nowhere else, each used once in a forward pass."""
    try:
        graph = fx.Tracer().trace(module)
    except Exception:  # control flow that depends on values, or whatever else a research network does
        return ()
    layers, own = dict(module.named_modules()), _own_layers(module)
    calls = [node for node in graph.nodes if node.op == "call_module"]
    # A layer whose weights are also read by themselves is used more often than it is called.
    read = {str(node.target).rpartition(".")[0] for node in graph.nodes if node.op == "get_attr"}
    once = {name for name in own - read if sum(node.target == name for node in calls) == 1}
    pairs = []
    for node in calls:
        before = node.args[0] if node.args else None
        if not isinstance(before, fx.Node) or before not in calls or len(before.users) != 1:
            continue
        is_norm = isinstance(layers[node.target], nn.BatchNorm2d) and layers[node.target].running_mean is not None
        if is_norm and isinstance(layers[before.target], nn.Conv2d) and {node.target, before.target} <= once:
            pairs.append((str(before.target), str(node.target)))
    return tuple(pairs)


def _own_layers(module: nn.Module) -> set[str]:
    """Layers with one name and weights of their own: neither shared, nor computed from others, nor with hooks on it."""
    layers, weights = (
        Counter(map(id, (part for _, part in named)))
        for named in (module.named_modules(remove_duplicate=False), module.named_parameters(remove_duplicate=False))
    )
    own = set()
    for name, layer in module.named_modules():
        alone = all(weights[id(weight)] == 1 for weight in layer.parameters(recurse=False))
        plain = not layer._forward_hooks and not layer._forward_pre_hooks and not hasattr(layer, "parametrizations")
        if layers[id(layer)] == 1 and alone and plain:
            own.add(name)
    return own


def _folded_values(module: nn.Module, pairs: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    values: dict[str, Tensor] = {}
    for convolution, norm in pairs:
        layer, batch_norm = module.get_submodule(convolution), module.get_submodule(norm)
        assert isinstance(layer, nn.Conv2d) and isinstance(batch_norm, nn.BatchNorm2d)
        assert batch_norm.running_mean is not None and batch_norm.running_var is not None
        with torch.no_grad():
            weight, bias = fuse_conv_bn_weights(
                layer.weight, layer.bias, batch_norm.running_mean, batch_norm.running_var, batch_norm.eps,
                batch_norm.weight, batch_norm.bias,
            )  # fmt: skip
        values[f"{convolution}.weight"], values[f"{convolution}.bias"] = weight, bias
    return values
