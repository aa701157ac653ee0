"""What a model file is and asks for, without loading it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..core.records import Field, record
from .container import Container
from .files import open_regular
from .open_file import open_container, take_apart
from .pickle_names import names_asked_for
from .refusal import Refusal, quote, shown, unreadable
from .steady_file import SteadyFile
from .structure import Weights, find_weights, last_length
from .symbols import StorageClaim
from .writer_version import written_by

if TYPE_CHECKING:
    from .examine import Examined

_SHOWN = 5
Verdict = Literal["loadable", "loadable, structure not attested", "refused"]


@record
class Inspection:
    """What is known of a model file; None and "unknown" where the file does not let itself be read that far."""

    file: str
    bytes: int | None = Field(description="length of the file")
    sha256: str | None
    container: str = Field(description="zip, legacy, safetensors or unknown")
    written_by: str = Field(description="the versions of torch that write such a file")
    names: tuple[str, ...] = Field(description="every name that its pickles ask for, in printable characters")
    architecture: str | None = Field(description="TrojAI name of the network that has these weights")
    classes: int | None
    outputs: int | None = Field(
        description="length of its last weight: for an unknown network a guess at its number of classes"
    )
    entries: dict[str, int] = Field(
        description="a checkpoint's entries that are weights, by how many tensors they have"
    )
    first_tensors: tuple[str, ...] = Field(description="names and shapes of its first weights")
    tensors: int | None = Field(description="how many weights it names")
    tensor_bytes: int | None = Field(description="bytes of the storages behind them")
    dtypes: dict[str, int] = Field(description="tensors by number type")
    verdict: Verdict
    reason: str | None = Field(description="why it is refused and what to do, as the rest of a sentence")


def inspect_model(path: str | Path) -> Inspection:
    """Look at a file as :func:`~trojai_moth.loading.load_model` would, without building the model.

    Never raises for what a file is or holds; a refusal is part of the answer.

    >>> import trojai_moth as tm
    >>> found = tm.inspect_model("no-such-file.pt")
    >>> found.verdict, found.container
    ('refused', 'unknown')
    """
    path = Path(path)
    try:
        with open_regular(Path(os.path.realpath(path))) as file:  # a link that the user named is followed
            return _inspect(path, file)
    except Refusal as refusal:
        return _refused(path, str(refusal))
    except OSError as error:
        return _refused(path, unreadable(error))


def _inspect(path: Path, file: SteadyFile) -> Inspection:
    found, reason = _judge(file)
    container, sets = _look(file)
    weights = found.weights if found else max(sets, key=lambda it: len(it.claims), default=None)
    architecture, classes = _network(weights)
    kind = container.kind if container else "unknown"
    return Inspection(
        file=shown(path),
        bytes=file.size,
        sha256=file.sha256,
        container=kind,
        written_by=written_by(kind, container.entries, weights) if container else "unknown",
        names=() if kind == "safetensors" else tuple(_plain(name) for name in names_asked_for(file)),
        architecture=architecture,
        classes=classes,
        outputs=last_length(weights.claims) if weights else None,
        entries={it.entry: len(it.claims) for it in sets if it.entry},
        first_tensors=_first(weights),
        tensors=len(weights.claims) if weights else None,
        tensor_bytes=sum(storage.nbytes for storage in _storages(weights)) if weights else None,
        dtypes=_dtypes(weights),
        verdict="refused" if not found else "loadable" if found.attested else "loadable, structure not attested",
        reason=reason,
    )


def _judge(file: SteadyFile) -> tuple[Examined | None, str | None]:
    """What examine says; a file that is no model is refused before torch is imported for that."""
    try:
        take_apart(file)
        from .examine import examine

        return examine(file), None
    except Refusal as refusal:
        return None, str(refusal)
    except Exception as error:  # as load_model: what no check foresaw cannot be trusted
        return None, unreadable(error)


def _look(file: SteadyFile) -> tuple[Container | None, list[Weights]]:
    """As much of any file as can be taken apart."""
    container = None
    try:
        container = open_container(file, tolerant=True)
        return container, find_weights(container.content, any_class=True)
    except Exception:
        return container, []


def _first(weights: Weights | None) -> tuple[str, ...]:
    claims = list(weights.claims.items())[:_SHOWN] if weights else []
    return tuple(f"{_plain(name)} {claim.shape}" for name, claim in claims)


def _network(weights: Weights | None) -> tuple[str | None, int | None]:
    if not weights or not weights.claims:
        return None, None
    try:
        from .examine import which_network

        variant = which_network(weights)
    except Exception:
        return None, None
    return variant.name, variant.classes


def _storages(weights: Weights | None) -> Iterable[StorageClaim]:
    return {claim.storage for claim in weights.claims.values()} if weights else ()


def _dtypes(weights: Weights | None) -> dict[str, int]:
    counts: dict[str, int] = {}
    for claim in weights.claims.values() if weights else ():
        counts[claim.storage.dtype] = counts.get(claim.storage.dtype, 0) + 1
    return counts


def _plain(name: str) -> str:
    return name if name.isascii() and name.isprintable() and len(name) <= 200 else quote(name, 200)


def _refused(path: Path, reason: str) -> Inspection:
    return Inspection(
        file=shown(path), bytes=None, sha256=None, container="unknown", written_by="unknown", names=(),
        architecture=None, classes=None, outputs=None, entries={}, first_tensors=(),
        tensors=None, tensor_bytes=None, dtypes={}, verdict="refused", reason=reason,
    )  # fmt: skip
