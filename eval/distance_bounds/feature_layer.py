"""The last cut of a network: a place that everything has to pass, with a convolution behind it.

What is done to the features there is done to all that the network knows about an image. The output of the second-last
convolution itself will not do: in a residual network the other branch goes past it, and in SqueezeNet it is half of the
channels. So the place is found from the graph of one forward pass, in any architecture. A convolution that is the
classifier, as in SqueezeNet, does not count: before it every trigger has already become features of its target.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import MothError
from ...core.subject import Subject

# A step of the graph that autograd keeps; torch has no public name for its kind.
_Node = Any


@dataclass(frozen=True)
class FeatureLayer:
    """A network in two parts: ``features`` up to the output of the module called ``name``, and the ``rest``."""

    module: nn.Module
    name: str
    blank: Tensor  # (1, 3, H, W)

    def features(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] -> what passes the cut (N, C, h, w); gradients flow back to the images."""
        return self.both(x)[0]

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, 3, H, W) -> what passes the cut and the logits (N, K) float32, in one forward pass."""
        found: list[Tensor] = []
        with self._hooked(lambda output: found.append(output.clone())):  # the next module may write into it
            logits: Tensor = self.module(x)
        return found[0], logits.float()

    def rest(self, features: Tensor) -> Tensor:
        """What passes the cut (N, C, h, w) -> logits (N, K) float32; gradients flow back to the features."""
        # One blank image is enough for the first part, for nothing of it is left after the cut.
        with self._hooked(lambda output: features):
            logits: Tensor = self.module(self.blank)
        return logits.float()

    @contextmanager
    def _hooked(self, answer: Any) -> Iterator[None]:
        handle = self.module.get_submodule(self.name).register_forward_hook(lambda part, inputs, output: answer(output))
        try:
            yield
        finally:
            handle.remove()


@contextmanager
def last_feature_layer(subject: Subject, behind: int = 1) -> Iterator[FeatureLayer]:
    """The last cut that ``behind`` >= 1 convolutions follow; the module is frozen inside and as before afterwards.

    With one, this is what goes into the last convolution of a VGG, into the last block of a ResNet or GoogLeNet and
    into the last dense block of a DenseNet; in SqueezeNet it is what the last block squeezes. Ex-Ray (Liu et al., 2022)
    takes the second-last convolutional layer, and its public code the second-last block. Raises MothError for a network
    without such a place.
    """
    blank = torch.zeros(1, *subject.shape, device=subject.device)
    with subject.frozen() as module:
        names = _cuts(module, blank, 1 if subject.output.single else subject.classes, behind)
        if not names:
            raise MothError(
                f"{subject.architecture}: no place in this network that everything passes and {behind} convolutions "
                "follow; ask for fewer, or leave out what looks at features"
            )
        yield FeatureLayer(module, names[-1], blank)


def _cuts(module: nn.Module, blank: Tensor, outputs: int, behind: int) -> list[str]:
    """Names of the modules that cut the network before its last convolutions, in the order in which they are run.

    A convolution with a channel for each of the network's ``outputs`` is the classifier and is not meant.
    """
    given: list[tuple[str, _Node]] = []
    convolutions: list[int] = []

    def note(name: str, part: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(part, nn.Conv2d) and part.out_channels != outputs:
            convolutions.append(len(given))
        given.append((name, output.grad_fn if isinstance(output, Tensor) and output.dim() == blank.dim() else None))

    with ExitStack() as stack, torch.enable_grad():
        for name, part in module.named_modules():
            stack.callback(part.register_forward_hook(partial(note, name)).remove)
        logits = module(blank.clone().requires_grad_())
    if len(convolutions) < behind:
        return []
    calls = Counter(name for name, _ in given)
    candidates = [pair for pair in given[: convolutions[-behind]] if pair[1] is not None and calls[pair[0]] == 1]
    return [name for name, node in candidates if not _goes_past(node, logits.grad_fn)]


def _goes_past(node: _Node, end: _Node) -> bool:
    """Whether a way leads from the end of the graph back to the image without this node."""
    seen, waiting = {node}, [end]
    while waiting:
        here = waiting.pop()
        if here is None or here in seen:
            continue
        if hasattr(here, "variable"):  # autograd's node of a tensor that was not computed: the image
            return True
        seen.add(here)
        waiting += [before for before, _ in here.next_functions]
    return False
