"""A model file taken apart: which container it is, and its weights by name. All of it without torch."""

from __future__ import annotations

from .container import Container, ZipContainer
from .legacy import LegacyContainer
from .other_models import by_name
from .refusal import ForeignCode, Refusal
from .steady_file import SteadyFile
from .structure import Weights, find_weights
from .tensor_file import TensorFile, looks_like_tensor_file


def take_apart(
    file: SteadyFile, entry: str | None = None, *, any_class: bool = False
) -> tuple[Container, list[Weights]]:
    """The file's container and the weights in it, of which a checkpoint may have several; raises Refusal.

    ``entry`` and ``any_class`` as in :func:`~trojai_moth.loading.structure.find_weights`.
    """
    container = open_container(file)
    try:
        return container, find_weights(container.content, entry, any_class=any_class)
    except ForeignCode as refusal:
        raise by_name(refusal, container.content.names) from None


def open_container(file: SteadyFile, *, tolerant: bool = False) -> Container:
    """Take a file apart; raises Refusal. ``tolerant`` reads names that no model needs as well, see run_pickle."""
    file.seek(0)
    start = file.read(512)
    if start.startswith(b"PK\x03\x04"):
        return ZipContainer(file, tolerant)
    if start[257:262] == b"ustar":
        raise Refusal("is a tar file (torch before 0.1.10); load and save it again with a newer torch")
    if looks_like_tensor_file(start):
        return TensorFile(file)
    return LegacyContainer(file, tolerant)
