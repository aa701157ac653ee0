"""A network as it was before it was trained, whatever it is."""

from __future__ import annotations

import torch
from torch import nn

from ..core.errors import MothError
from ..core.subject import Subject
from ..loading import build_architecture
from ..loading.architectures import canonical_name, shapes_of


def untrained(subject: Subject, *, seed: int) -> nn.Module:
    """The subject's network with random weights that depend on ``seed`` only, on the CPU; it takes images in [0, 1].

    A stock architecture is built anew. Of any other network each layer is told to start again, as torch's own can;
    MothError where one cannot, which would keep what it has learned.
    """
    if canonical_name(subject.architecture):
        built = build_architecture(subject.architecture, subject.classes, seed=seed)
        if shapes_of(built) == shapes_of(subject.network):  # else it has a head or a first layer of its own
            return built
    copy = subject.clone()
    trained = {name: value.detach().clone() for name, value in copy.module.named_parameters()}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for part in copy.module.cpu().modules():
            if callable(reset := getattr(part, "reset_parameters", None)):
                reset()
    for name, value in copy.module.named_parameters():
        # A layer that starts with one and the same number everywhere may have learned nothing.
        if torch.equal(value.detach(), trained[name].cpu()) and float(value.detach().std(correction=0)) > 0:
            raise MothError(f"{subject.architecture}: its weights {name!r:.60} cannot be started anew")
    return copy.module
