"""Tensors by name from a safetensors file of this package's own, with the checks that a model file gets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ..core.errors import UnreadableModelError
from .examine import check_numbers
from .files import open_regular
from .load import read_weights
from .refusal import Refusal, shown, unreadable
from .structure import Weights
from .tensor_file import TensorFile


@dataclass(frozen=True)
class StoredTensors:
    """The tensors of a file, the text that it holds beside them, and the digest of the bytes that they came from."""

    tensors: dict[str, torch.Tensor]
    metadata: dict[str, str]
    sha256: str


def read_tensors(path: Path) -> StoredTensors:
    """Read a safetensors file; UnreadableModelError, and nothing else, for one that is no sound one.

    No link is followed and no pipe waited for; what is cut short, changes meanwhile or holds infinite or undefined
    numbers is refused.
    """
    try:
        with open_regular(path) as file:
            container = TensorFile(file)
            weights = Weights(container.claims, None)
            check_numbers(container, weights)
            return StoredTensors(read_weights(container, weights), container.metadata, file.sha256)
    except Refusal as refusal:
        raise UnreadableModelError(f"{shown(path)}: {refusal}") from None
    except OSError as error:
        raise UnreadableModelError(f"{shown(path)}: {unreadable(error)}") from None
