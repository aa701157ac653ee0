"""Hardened weights: safetensors with what is needed to rebuild the model, or a TrojAI-style whole module."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .errors import UnreadableModelError
from .files import write_atomically
from .hardener import Hardened
from .subject import Subject

FORMAT = "trojai-moth hardened weights 1"


def save_weights(hardened: Hardened, path: Path) -> None:
    """Write a safetensors file; architecture, classes, the source file's hash and the settings are its metadata."""
    subject = hardened.subject
    metadata = {
        "format": FORMAT,
        "architecture": subject.architecture,
        "classes": str(subject.classes),
        "source_sha256": subject.source_sha256,
        "hardener": hardened.trace.hardener,
        "settings": json.dumps(hardened.trace.settings),
        "seed": str(hardened.trace.seed),
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in subject.module.state_dict().items()}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata))


def load_weights(path: Path, subject: Subject) -> Subject:
    """The subject with hardened weights; UnreadableModelError if they were made from another model or are damaged."""
    try:
        with safe_open(path, framework="pt") as file:
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
