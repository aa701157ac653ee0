"""Hardened weights: safetensors with what is needed to rebuild the model, or a TrojAI-style whole module."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..core.errors import SettingsError, UnreadableModelError
from ..core.files import open_regular, publish, write_atomically
from ..core.records import from_json, to_json
from ..core.subject import Subject
from .trace import HardeningTrace, WithTrace

FORMAT = "trojai-moth hardened weights 1"


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
        "trace": to_json(hardened.trace),
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in subject.module.state_dict().items()}
    (publish if first else write_atomically)(Path(path), lambda temporary: _save(tensors, temporary, metadata))


def _save(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
    """As save_file, but what the system refuses is an OSError, as everywhere else."""
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:
        code = errno.ENOSPC if "No space left" in str(error) else errno.EIO
        raise OSError(code, str(error), str(path)) from None


def size_of_weights(subject: Subject) -> int:
    """Bytes that the subject's weights take in a file, but for its metadata."""
    return sum(tensor.numel() * tensor.element_size() for tensor in subject.module.state_dict().values())


def read_trace(path: Path) -> HardeningTrace:
    """How weights came to be; UnreadableModelError for a damaged file and for one of another program."""
    try:
        with open_regular(path), safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("trace")
        if text is None:
            raise UnreadableModelError(f"{path}: does not say how it was hardened, so it is not of trojai-moth")
        return from_json(HardeningTrace, text, source=str(path))
    except (OSError, SafetensorError, SettingsError) as error:
        raise UnreadableModelError(f"{path}: not readable as safetensors ({error})") from None


def load_weights(path: Path, subject: Subject) -> Subject:
    """The subject with hardened weights; UnreadableModelError if they were made from another model or are damaged."""
    try:
        with open_regular(path), safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError) as error:
        raise UnreadableModelError(f"{path}: not readable as safetensors ({error})") from None
    if metadata.get("source_sha256") != subject.source_sha256:
        raise UnreadableModelError(f"{path}: was made from another model file than that of {subject.model_id}")
    # A copy of the subject's own module keeps what its weights do not show, such as inception's input transform.
    module = subject.clone().module
    try:
        state = module.state_dict()  # for its layers' version numbers, which torchvision's mnasnet insists on
        if tensors.keys() != state.keys():
            raise RuntimeError
        state.update(tensors)
        module.load_state_dict(state, strict=True)
    except RuntimeError:
        raise UnreadableModelError(f"{path}: its tensors do not fit {subject.architecture}") from None
    return replace(subject, module=module.eval())


def save_trojai_model(subject: Subject, path: Path) -> None:
    """Write a model.pt as the rounds hold them: the whole module on the CPU, in evaluation mode."""
    module = subject.clone().module.cpu().eval().requires_grad_(True)
    write_atomically(path, lambda temporary: torch.save(module, temporary))
