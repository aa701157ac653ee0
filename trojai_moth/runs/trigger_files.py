"""The triggers that a scan found, kept beside its record in the journal, to be looked at; no verdict reads them.

A file MODEL.STAGE.triggers.npz holds arrays of bytes, 255 standing for 1: mask (P, 1, H, W), pattern (P, C, H, W),
image (P, C, H, W), which is the first image of each victim, all as the network reads them; victim (P,), -1 for any
class, and target (P,); bgr, whether the network reads blue before red.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.errors import RunDirectoryError, one_line
from ..core.files import read_bytes, write_atomically
from ..core.images import ImagePool
from ..core.subject import Subject
from ..rounds.samples import Samples
from ..scanners.base import Scanner
from ..triggers.trigger import AnyPair, Trigger

LIMIT_BYTES = 1 << 20
"""A file of one scan takes no more: the last triggers are left out until it fits."""
# Far more than scans keep: sixteen triggers of 512 x 512 pixels take 28 MiB unpacked.
_UNPACKED_BYTES, _LONGEST_SIDE = 64 << 20, 1024
_NUMBERS = ("victim", "target")
_PICTURES: Final = ("mask", "pattern", "image")
_ONE = 255
_ANY = -1


@dataclass(frozen=True)
class KeptTriggers:
    """P triggers: mask (P, 1, H, W), pattern and image (P, C, H, W) as bytes; pairs (victim or None, target)."""

    pairs: tuple[AnyPair, ...]
    mask: NDArray[np.uint8]
    pattern: NDArray[np.uint8]
    image: NDArray[np.uint8]
    bgr: bool


def keep_triggers(record: Path, scanner: Scanner, subject: Subject, samples: Samples) -> None:
    """Write what the scanner showed in its last scan beside the journal's ``record`` of it; nothing where that is none.

    A trigger whose victim has no images, or that is not of the images' size, is left out.
    """
    path, images = _beside(record), samples.train
    kept = [trigger for trigger in scanner.triggers if _fits(trigger, images)]
    content = _within_limit(kept, images, subject.preprocessing.colours == "BGR")
    if content:
        write_atomically(path, lambda temporary: temporary.write_bytes(content))
    else:
        path.unlink(missing_ok=True)  # of a scan whose record was deleted to do it anew


def read_triggers(record: Path) -> KeptTriggers | None:
    """What was kept beside a record, None where nothing was; RunDirectoryError for a damaged file."""
    path = _beside(record)
    if not path.exists():
        return None
    try:
        arrays = _arrays(read_bytes(path, LIMIT_BYTES))
    except Exception as error:  # zip, its compressions and numpy's headers raise whatever they stumble on
        raise RunDirectoryError(
            f"{path}: damaged ({one_line(error)}); delete this file, which no verdict needs"
        ) from None
    victims = [None if victim == _ANY else victim for victim in arrays["victim"].tolist()]
    pairs = tuple(zip(victims, arrays["target"].tolist(), strict=True))
    return KeptTriggers(pairs, arrays["mask"], arrays["pattern"], arrays["image"], bool(arrays["bgr"]))


def _arrays(content: bytes) -> dict[str, NDArray[Any]]:
    """The arrays in a file's content; ValueError for any that do not belong together."""
    arrays = _unpacked(content)
    pairs, side = arrays["victim"].shape, arrays["mask"].shape[2:]
    if len(side) != 2 or not 0 < min(side) <= max(side) <= _LONGEST_SIDE:
        raise ValueError(f"mask is of shape {arrays['mask'].shape}")
    whole = {name: pairs for name in _NUMBERS} | {"bgr": ()}
    for name, shape in whole.items():
        if arrays[name].shape != shape or len(shape) > 1 or arrays[name].dtype.kind not in "iub":
            raise ValueError(f"{name} is {arrays[name].dtype} {arrays[name].shape}")
    channels = arrays["image"].shape[1:2]
    for name, expected in {"mask": (1,), "pattern": channels, "image": channels}.items():
        if arrays[name].dtype != np.uint8 or arrays[name].shape != (*pairs, *expected, *side) or not expected:
            raise ValueError(f"{name} is {arrays[name].dtype} {arrays[name].shape}")
    return arrays


def _unpacked(content: bytes) -> dict[str, NDArray[Any]]:
    """All arrays; ValueError before anything is made that is larger than such a file holds."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.getinfo(f"{name}.npy") for name in (*_NUMBERS, *_PICTURES, "bgr")}
        if sum(info.file_size for info in members.values()) > _UNPACKED_BYTES:
            raise ValueError(f"unpacks to more than {_UNPACKED_BYTES >> 20} MiB")
        # zipfile keeps to the size that a member claims for these two alone.
        if any(info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for info in members.values()):
            raise ValueError("compressed otherwise than by deflate")
        return {name: _array(archive.read(info)) for name, info in members.items()}


def _array(content: bytes) -> NDArray[Any]:
    """An array as numpy saved it; ValueError for one that claims more than its bytes."""
    stream = io.BytesIO(content)
    major, _ = np.lib.format.read_magic(stream)
    header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(stream)
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(content) - stream.tell():
        raise ValueError(f"claims {dtype} {shape} in {len(content)} bytes")
    stream.seek(0)
    found: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    return found


def _beside(record: Path) -> Path:
    """Where the triggers of the scan with this record lie.

    >>> _beside(Path("id-00000001.before.json")).name
    'id-00000001.before.triggers.npz'
    """
    return record.with_suffix(".triggers.npz")


def _fits(trigger: Trigger, images: ImagePool) -> bool:
    return trigger.mask.shape[1:] == images.x.shape[2:] and bool(images.victims(trigger.victim, trigger.target).any())


def _within_limit(triggers: list[Trigger], images: ImagePool, bgr: bool) -> bytes:
    """As many of the first triggers as fit, or nothing."""
    for count in range(len(triggers), 0, -1):
        content = _packed(triggers[:count], images, bgr)
        if len(content) <= LIMIT_BYTES:
            return content
    return b""


def _packed(triggers: Sequence[Trigger], images: ImagePool, bgr: bool) -> bytes:
    first = [int(torch.nonzero(images.victims(trigger.victim, trigger.target))[0]) for trigger in triggers]
    mask = _bytes(torch.stack([trigger.mask for trigger in triggers]))
    # What no mask shows is left-over noise of the search, and does not compress.
    pattern = np.where(mask > 0, _bytes(torch.stack([trigger.pattern for trigger in triggers])), 0).astype(np.uint8)
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        victim=np.array([_ANY if trigger.victim is None else trigger.victim for trigger in triggers]),
        target=np.array([trigger.target for trigger in triggers]),
        mask=mask,
        pattern=pattern,
        image=_bytes(images.x[first]),
        bgr=np.array(bgr),
    )
    return stream.getvalue()


def _bytes(values: Tensor) -> NDArray[np.uint8]:
    whole: NDArray[np.uint8] = (values.nan_to_num().clamp(0, 1) * _ONE).round().to(torch.uint8).cpu().numpy()
    return whole
