"""Hardened weights: safetensors with what is needed to rebuild the model, or a TrojAI-style whole module."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ..core.errors import SettingsError, UnreadableModelError
from ..core.files import publish, write_atomically
from ..core.records import from_json, to_json
from ..core.subject import Subject
from ..loading.tensor_reading import read_tensors
from .trace import HardeningTrace, WithTrace

FORMAT = "trojai-moth hardened weights 1"
_AGAIN = "harden the model again"


def save_weights(hardened: WithTrace, path: str | Path, *, first: bool = False) -> None:
    """Write a safetensors file; architecture, classes, the source file's hash, settings and trace are its metadata.

    hardened: what :func:`harden` gives. first: leave a file that is there as it is, since somebody else was first.

    >>> import tempfile
    >>> from pathlib import Path
    >>> import trojai_moth as tm
    >>> from trojai_moth.testing import square_images, trained_subject
    >>> pool = square_images(20, seed=1)
    >>> model = tm.open_model(trained_subject().module, images=pool.x, labels=pool.y, device="cpu")
    >>> hard = tm.harden(model, "moth", settings={"rounds": 1, "precision": "fp32"})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tm.save_weights(hard, Path(folder) / "hard.safetensors")
    ...     again = tm.load_weights(Path(folder) / "hard.safetensors", model)
    >>> again.trace.hardener
    'moth'
    """
    subject = hardened.subject
    metadata = {
        "format": FORMAT,
        "architecture": subject.architecture,
        "classes": str(subject.classes),
        "source_sha256": subject.source_sha256,
        "hardener": hardened.trace.hardener,
        "settings": json.dumps(hardened.trace.settings),
        "seed": str(hardened.trace.seed),
        "trace": to_json(replace(hardened.trace, weights_sha256=None)),
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in subject.network.state_dict().items()}
    (publish if first else write_atomically)(Path(path), lambda temporary: _save(tensors, temporary, metadata))


def _save(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """As save_file, but what the system refuses is an OSError, as everywhere else."""
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:
        code = errno.ENOSPC if "No space left" in str(error) else errno.EIO
        raise OSError(code, str(error), str(path)) from None


def size_of_weights(subject: Subject) -> int:
    """Bytes that the subject's weights take in a file, but for its metadata."""
    return sum(tensor.numel() * tensor.element_size() for tensor in subject.network.state_dict().values())


def read_trace(path: Path) -> HardeningTrace:
    """How weights came to be; UnreadableModelError for a damaged file and for one of another program."""
    stored = read_tensors(path)
    text = stored.metadata.get("trace")
    if text is None:
        raise UnreadableModelError(f"{path}: does not say how it was hardened, so it is not of trojai-moth")
    try:
        return replace(from_json(HardeningTrace, text, source=str(path)), weights_sha256=stored.sha256)
    except SettingsError as error:
        raise UnreadableModelError(f"{error}; {_AGAIN}") from None


def load_weights(path: Path, subject: Subject, *, sha256: str | None = None) -> Subject:
    """The subject with hardened weights; UnreadableModelError for what are not weights of it that can be judged.

    Refused are damaged files, those of another model, numbers of another type, infinite or undefined ones, and layers
    of zeros. sha256: what the file's digest must be, as a run's journal says it.
    """
    stored = read_tensors(path)
    if sha256 not in (None, stored.sha256):
        raise UnreadableModelError(
            f"{path}: not the weights that the journal names (sha256 {sha256:.12} there, {stored.sha256:.12} here); "
            f"{_AGAIN}"
        )
    if stored.metadata.get("source_sha256") != subject.source_sha256:
        raise UnreadableModelError(
            f"{path}: was made from another model file than that of {subject.model_id}; give the one that it was made "
            "from"
        )
    # A copy of the subject's own module keeps what its weights do not show, such as inception's input transform.
    hardened = subject.clone()
    module = hardened.network
    state = module.state_dict()  # for its layers' version numbers, which torchvision's mnasnet insists on
    _compare(path, stored.tensors, state, subject.architecture)
    _refuse_zeroed(path, stored.tensors, state)
    state.update(stored.tensors)
    module.load_state_dict(state, strict=True)
    hardened.module.eval()
    grey = torch.full((1, *subject.shape), 0.5)
    if not bool(torch.isfinite(hardened.logits(grey)).all()):
        raise UnreadableModelError(f"{path}: its network answers with infinite or undefined numbers; {_AGAIN}")
    return hardened


def _compare(path: Path, found: dict[str, Tensor], expected: dict[str, Tensor], architecture: str) -> None:
    """Torch itself would turn whole numbers into others without a word."""
    odd = sorted(found.keys() ^ expected.keys())
    kinds = [name for name in expected if name in found and _kind(found[name]) != _kind(expected[name])]
    if odd or kinds:
        name = (odd + kinds)[0]
        what = f"{_kind(found[name])} instead of {_kind(expected[name])}" if not odd else "in one of the two only"
        raise UnreadableModelError(f"{path}: its tensors do not fit {architecture} ({name!r:.60}: {what}); {_AGAIN}")


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _refuse_zeroed(path: Path, found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """A layer of nothing but zeros tells no images apart, and would pass for one without a trigger."""
    for name, value in expected.items():
        if value.dim() > 1 and bool(value.any()) and not bool(found[name].any()):
            raise UnreadableModelError(f"{path}: all numbers in {name!r:.60} are 0; {_AGAIN}")


def save_trojai_model(subject: Subject, path: Path) -> None:
    """Write a model.pt as the rounds hold them: the whole module on the CPU, in evaluation mode.

    A mean and standard deviation that the network expects are not in it, as they were not in the file it came from.
    """
    module = subject.clone().network.cpu().eval().requires_grad_(True)
    write_atomically(path, lambda temporary: torch.save(module, temporary))
