"""A folder of labelled images of any size, to scan and harden with instead of a round's own few examples."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..core.errors import SettingsError
from ..core.files import list_folder
from ..core.image_file import KINDS, find_files, is_image
from ..core.images import list_examples
from .class_labels import CLASS_NUMBER
from .image_source import Found, ImageFiles

_CLASS_FILE = re.compile(r"class_(\d{1,6})_.*", re.IGNORECASE)
SPLITS = (
    *("test", "testing", "held", "held_out", "val", "valid", "validation", "dev", "eval"),
    *("train", "training"),
)
"""What the parts of a data set are called, images that a network was not trained on before others."""
_SHOWN = 4


@dataclass
class Listing:
    """Images with their label, files of kinds that are not read, and images whose class nothing says."""

    images: list[tuple[Path, int | str]] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    unlabelled: list[Path] = field(default_factory=list)
    every: list[str] = field(default_factory=list)

    def take(self, path: Path, label: int | str) -> None:
        """A file of which somebody says that it is an image of this class."""
        if not is_image(path):
            self.others.append(path)
        elif path.is_file():  # opening a pipe would wait for ever
            self.images.append((path, label))

    @property
    def left_out(self) -> str:
        """What is not taken and why, in words; empty if nothing is."""
        kinds = Counter(path.suffix.lower() or path.name for path in self.others).most_common()
        named = ", ".join(f"{count} {kind}" for kind, count in kinds[:_SHOWN])
        words = [f"{named}{', ...' if len(kinds) > _SHOWN else ''}, since only {KINDS} are read"] if kinds else []
        if self.unlabelled:
            words.append(f"{len(self.unlabelled)} images whose class nothing says, such as {self.unlabelled[0].name}")
        return "; ".join(words)

    def found(self, part: str = "") -> Found:
        """The images by path."""
        images = sorted(self.images, key=lambda pair: pair[0])
        paths, labels = [path for path, _ in images], tuple(label for _, label in images)
        return Found(ImageFiles(paths), labels, left_out=self.left_out, every=tuple(self.every), part=part)


def find_in_folder(folder: Path, *, named: bool = False) -> Found:
    """The images below a folder; SettingsError when none is to be found.

    A label is the name of a sub-folder, at whatever depth the images lie in it, the beginning of a file's name
    (``class_3_...``), or a whole number in a .json file beside the image. Where all sub-folders are parts of a data
    set (``train``, ``test``), the images are those of one part. named: the model's classes have names, so that a
    sub-folder may be a class whatever lies in it.
    """
    found = _search(folder, named)
    if not found.images:
        left_out = f" that are read (left out: {found.left_out})" if found.left_out else ""
        raise SettingsError(
            f"{folder}: no labelled images{left_out}; put {KINDS} files into "
            "sub-folders 0, 1, ... or by class name, name them class_0_... or put each one's class into a .json file "
            "beside it"
        )
    return found.found()


def split_of(folder: Path) -> Path | None:
    """The part of a data set to take, by its sub-folders; None where these are no parts, or none holds classes."""
    inside = [path for path in list_folder(folder) if path.is_dir()]
    parts = [path for path in inside if path.name.lower() in SPLITS]
    if not parts or any(_holds_images(path) for path in inside if path not in parts):
        return None
    parts = sorted(parts, key=lambda path: SPLITS.index(path.name.lower()))
    return next((path for path in parts if _holds_labelled(path)), None)


def _holds_labelled(folder: Path) -> bool:
    inside = list_folder(folder)
    return any(
        _holds_images(path) if path.is_dir() else is_image(path) and bool(_CLASS_FILE.fullmatch(path.name))
        for path in inside
    )


def _holds_images(folder: Path) -> bool:
    """Whether an image or a folder lies directly in it."""
    return any(is_image(path) or path.is_dir() for path in list_folder(folder))


def _search(folder: Path, named: bool) -> Listing:
    found = Listing([(path, label) for path, label in list_examples(folder, closed=False)])
    known = {path for path, _ in found.images}
    for path in list_folder(folder):
        if path.is_dir():
            _search_class(path, found, named)
        elif not is_image(path):
            found.others += [path] if _CLASS_FILE.fullmatch(path.name) else []
        elif path not in known and path.is_file():
            match = _CLASS_FILE.fullmatch(path.name)
            if match:
                found.images.append((path, int(match[1])))
            else:
                found.unlabelled.append(path)
    return found


def _search_class(folder: Path, found: Listing, named: bool) -> None:
    files = find_files(folder)
    if not CLASS_NUMBER.fullmatch(folder.name):
        if not named:
            _refuse_classes(folder, list_folder(folder))
        if files and not any(is_image(path) for path in files):
            return  # notes, or labels of something else
        found.every.append(folder.name)
    for path in files:
        found.take(path, folder.name)


def _refuse_classes(folder: Path, inside: Sequence[Path]) -> None:
    """SettingsError where a folder with a name of its own holds numbered ones."""
    if any(path.is_dir() and CLASS_NUMBER.fullmatch(path.name) for path in inside):
        raise SettingsError(f"{folder}: holds classes, and is none itself; give this folder: --data {folder}")
