"""What the contracts change around a plugin, and what they look at afterwards."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.device import resolve_device
from ..core.subject import Subject
from ..rounds.samples import Samples

# An id that no round has, so that no plugin can have been made for it.
OTHER_ID = "id-99999942"
# Seconds in which a plugin on a slow network has to leave, once its time is over.
GRACE_S = 10.0


def require(condition: bool, words: str) -> None:
    """AssertionError with these words unless the condition holds; unlike ``assert`` it stays under ``python -O``."""
    if not condition:
        raise AssertionError(words)


def move_streams() -> None:
    """Draw from every global random stream."""
    torch.rand(11)
    random.random()
    np.random.rand(3)  # noqa: NPY002 (the global stream is the point)


def streams() -> tuple[object, ...]:
    """The state of every global random stream, to be compared."""
    numpys: Any = np.random.get_state()  # noqa: NPY002
    return (bytes(torch.get_rng_state().numpy()), random.getstate(), *map(str, numpys[2:]), bytes(numpys[1]))


def devices() -> list[torch.device]:
    """The CPU and, where there is one, the accelerator."""
    best = resolve_device("auto")
    return [torch.device("cpu")] + ([best] if best.type != "cpu" else [])


def on_device(subject: Subject, device: torch.device) -> Subject:
    """A copy of the subject on this device."""
    copy = subject.clone()
    return replace(copy, module=copy.module.to(device), device=device)


def renamed(subject: Subject) -> Subject:
    """The same network under another id and as if from another file."""
    return replace(subject.clone(), model_id=OTHER_ID, source_sha256="f" * 64)


@contextmanager
def misleading_folder() -> Iterator[None]:
    """Inside, the working directory is a round that calls the renamed model clean, and one of another name poisoned."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / OTHER_ID).mkdir()
        (folder / "METADATA.csv").write_text(f"model_name,poisoned\n{OTHER_ID},False\nid-toy,True\n", encoding="utf-8")
        (folder / OTHER_ID / "ground_truth.csv").write_text("0\n", encoding="utf-8")
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


@dataclass(frozen=True)
class Snapshot:
    """A model and its images at one moment."""

    tensors: dict[str, Tensor]
    modes: list[bool]
    flags: dict[str, bool]
    images: list[Tensor]


def snapshot(subject: Subject, samples: Samples) -> Snapshot:
    """Copies of everything that a plugin could change."""
    module, pools = subject.module, (samples.train, samples.held, samples.clean)
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return Snapshot(
        tensors={name: tensor.detach().clone() for name, tensor in tensors.items()},
        modes=[part.training for part in module.modules()],
        flags={name: parameter.requires_grad for name, parameter in module.named_parameters()},
        images=[tensor.clone() for pool in pools for tensor in (pool.x, pool.y)],
    )


def require_same(before: Snapshot, subject: Subject, samples: Samples) -> None:
    """AssertionError that says what was changed since."""
    now = snapshot(subject, samples)
    require(before.tensors.keys() == now.tensors.keys(), "the model's weights or buffers are others than before")
    changed = [name for name, tensor in before.tensors.items() if not torch.equal(tensor, now.tensors[name])]
    require(not changed, f"these weights were changed: {', '.join(changed)}")
    require(before.modes == now.modes, "the model was left in another mode, training or evaluation")
    require(before.flags == now.flags, "requires_grad of the weights was changed")
    same = all(torch.equal(one, other) for one, other in zip(before.images, now.images, strict=True))
    require(same, "the images were changed")


def odd(subject: Subject) -> Subject:
    """The subject, in training mode and with one weight frozen: whoever puts things back must look how they were."""
    subject.module.train()
    next(subject.module.parameters()).requires_grad_(False)
    return subject


def first_images(samples: Samples, count: int) -> Samples:
    """The same with ``count`` images in all; with none it is what a model without example images has."""
    few = torch.arange(count)
    return replace(samples, train=samples.train.take(few), held=samples.held.take(few), clean=samples.clean.take(few))
