"""A long measurement's results so far, in a file that the next attempt goes on from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from ..core.errors import SettingsError
from ..core.files import write_text
from ..core.images import ImagePool
from ..core.records import read_record, record, to_json
from ..core.subject import Subject
from .distance_records import DistanceSettings, PairDistance, protocol
from .trigger import Pair

# Hexadecimal digits of an image's hash that are kept: enough to tell thousands of images apart.
_IMAGE_DIGITS = 16


def weights_hash(subject: Subject) -> str:
    """SHA-256 of all weights and buffers with their names, the same on every device."""
    digest = hashlib.sha256()
    for name, tensor in sorted(subject.module.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()


def image_hashes(images: ImagePool, classes: int) -> tuple[tuple[str, ...], ...]:
    """The start of the SHA-256 of every image (as float32), per class."""
    found: list[list[str]] = [[] for _ in range(classes)]
    for image, label in zip(images.x.cpu(), images.y.tolist(), strict=True):
        found[label].append(hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest()[:_IMAGE_DIGITS])
    return tuple(map(tuple, found))


@record
class _Saved:
    identity: str
    pairs: tuple[PairDistance, ...]
    seconds: float


@dataclass
class Partial:
    """Pairs that are done, by (victim, target), and the seconds that earlier attempts spent on them."""

    path: Path | None
    identity: str
    pairs: dict[Pair, PairDistance] = field(default_factory=dict)
    seconds_before: float = 0.0

    @classmethod
    def open(
        cls, path: Path | None, weights: str, images: tuple[tuple[str, ...], ...], settings: DistanceSettings
    ) -> Partial:
        """What ``path`` holds, or nothing yet; SettingsError if it was left by another measurement."""
        text = json.dumps([weights, images, protocol(settings)])
        fresh = cls(path, hashlib.sha256(text.encode()).hexdigest())
        if path is None or not path.exists():
            return fresh
        saved = read_record(_Saved, path)
        if saved.identity != fresh.identity:
            raise SettingsError(
                f"{path}: was left by a measurement with other weights, images or settings; repeat that one, give "
                "another --out or delete the file"
            )
        pairs = {(pair.victim, pair.target): pair for pair in saved.pairs}
        return cls(path, fresh.identity, pairs, saved.seconds)

    def save(self, seconds: float) -> None:
        """Write what is done, with the seconds of this attempt."""
        if self.path:
            pairs = tuple(self.pairs[pair] for pair in sorted(self.pairs))
            saved = _Saved(identity=self.identity, pairs=pairs, seconds=self.seconds_before + seconds)
            write_text(self.path, to_json(saved))
