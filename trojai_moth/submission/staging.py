"""One model as a folder in round 4's layout, put together in scratch from whatever a request points to.

The harness leaves config.json out where it can, calls the examples' folder what it likes, or leaves it out too. What is
missing is taken from the model file, from the models of the training set, or made up, and the log says so.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image

from ..errors import UnreadableModelError
from ..images import EXAMPLE_NAME
from ..loading import load_model
from ..loading.load import LoadedModel
from ..rounds import CONFIG_FILE, MODEL_FILE, Case, read_case, read_config
from ..subject import Preprocessing, Subject
from .stand_ins import Pictures, make_stand_ins, read_pictures

Note = Callable[[str], None]
# Round 4 stores 256 pixels and crops to 224; other sizes are taken as they are.
ROUND_4_STORED: Final = 256
ROUND_4_SIZE: Final = 224
_MODEL_FOLDER: Final = re.compile(r"id-\d+")


@dataclass(frozen=True)
class Sources:
    """What a request points to; everything but the model may be missing or None."""

    model: Path
    examples: Path | None
    training: Path | None
    per_class: int
    seed: int


def stage(sources: Sources, work: Path, note: Note) -> Case:
    """The model as a case below ``work``; UnreadableModelError if the model itself can not be used."""
    model = sources.model / MODEL_FILE if sources.model.is_dir() else sources.model
    loaded = load_model(model)
    home = model.parent
    folder = work / "model" / (home.name if _MODEL_FOLDER.fullmatch(home.name) else "active")
    folder.mkdir(parents=True)
    _link(model, folder / MODEL_FILE)
    given = read_pictures(sources.examples, note)
    preprocessing = _write_config(folder, home, loaded, given, sources.training, note)
    real = _write_examples(folder, given, loaded, preprocessing, sources, note)
    for name in ("clean-example-logits.csv", "foregrounds"):
        if (home / name).exists() and (real or name == "foregrounds"):
            (folder / name).symlink_to((home / name).absolute())
    return read_case(folder)


def open_subject(model: Path, given: Pictures, training: str | None, device: torch.device, note: Note) -> Subject:
    """A model to be asked, whatever its images show: nothing is compared with labels or published logits."""
    model = model / MODEL_FILE if model.is_dir() else model
    loaded = load_model(model)
    own = _own_config(_config_of(model.parent), note)
    return Subject(
        model_id=model.stem,
        module=loaded.module.to(device).eval(),
        architecture=loaded.architecture,
        classes=loaded.classes,
        preprocessing=own or _sizes(given, None if training is None else Path(training), note),
        device=device,
        source_sha256=loaded.sha256,
    )


def _config_of(home: Path) -> Path:
    """A mitigated model lies in a folder of its own, and the original with its config.json one further up."""
    return home.parent / CONFIG_FILE if not (home / CONFIG_FILE).exists() else home / CONFIG_FILE


def _write_config(
    folder: Path, home: Path, loaded: LoadedModel, given: Pictures, training: Path | None, note: Note
) -> Preprocessing:
    """The model's own config.json where it has a usable one, else what can be found out."""
    path = _config_of(home)
    own = _own_config(path, note)
    if own is not None:
        shutil.copyfile(path, folder / CONFIG_FILE)
        return own
    sizes = _sizes(given, training, note)
    plain = {"model_architecture": loaded.architecture, "number_classes": loaded.classes}
    data = {**plain, "img_size_pixels": sizes.stored_size, "cnn_img_size_pixels": sizes.size}
    (folder / CONFIG_FILE).write_text(json.dumps(data), encoding="utf-8")
    return sizes


def _own_config(path: Path, note: Note) -> Preprocessing | None:
    try:
        return read_config(path).preprocessing
    except UnreadableModelError as error:
        note(f"{error}; architecture and classes are taken from the model file")
        return None


def _sizes(given: Pictures, training: Path | None, note: Note) -> Preprocessing:
    for path in _training_configs(training):
        try:
            return read_config(path).preprocessing
        except UnreadableModelError:
            continue
    stored = int(given.raw[0].shape[0]) if given.raw else ROUND_4_STORED
    size = ROUND_4_SIZE if stored == ROUND_4_STORED else stored
    note(f"input size: {stored} pixels cropped to {size}, {'by the examples' if given.raw else 'as in round 4'}")
    return Preprocessing(stored_size=stored, size=size)


def _training_configs(training: Path | None) -> list[Path]:
    if training is None:
        return []
    return [path for pattern in ("models/id-*", "id-*") for path in sorted(training.glob(f"{pattern}/{CONFIG_FILE}"))]


def _write_examples(
    folder: Path, given: Pictures, loaded: LoadedModel, preprocessing: Preprocessing, sources: Sources, note: Note
) -> bool:
    """Examples under round 4's names; True if they are all the model's own and under their own names."""
    target = folder / "clean_example_data"
    target.mkdir()
    fits = preprocessing.stored_size
    usable = [number for number, image in enumerate(given.raw) if image.shape[:2] == (fits, fits)]
    if len(usable) < len(given.raw):
        note(f"{len(given.raw) - len(usable)} example images are not {fits} pixels wide and high and are left out")
    images = [given.raw[number] for number in usable]
    guessed = predicted(loaded, images, preprocessing)
    labels = [
        given.labels[n] if given.labels[n] is not None else guess for n, guess in zip(usable, guessed, strict=True)
    ]
    labels = [label if label is not None and 0 <= label < loaded.classes else None for label in labels]
    made = _complete(images, labels, loaded, preprocessing, sources, note)
    names = [given.names[number] for number in usable]
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        own = names[number] if EXAMPLE_NAME.search(names[number]) else f"class_{label}_example_{number}.png"
        _save(image, target / own)
    for number, (image, label) in enumerate(made):
        _save(image, target / f"class_{label}_example_{100_000 + number}.png")
    return not made and all(EXAMPLE_NAME.search(name) for name in names)


def _complete(
    images: list[np.ndarray], labels: list[int], loaded: LoadedModel, preprocessing: Preprocessing, sources: Sources,
    note: Note,
) -> list[tuple[np.ndarray, int]]:  # fmt: skip
    """Images to add so that classes have at least two, labelled with what the model itself says of them."""
    counts = np.bincount(labels or [0], minlength=loaded.classes)
    if (counts >= 2).any():
        return []
    note(f"{len(images)} example images: too few to examine a model with")
    return make_stand_ins(
        loaded.classes, sources.per_class, preprocessing.stored_size, sources.training, sources.seed,
        lambda pictures: predicted(loaded, pictures, preprocessing), note,
    )  # fmt: skip


def predicted(loaded: LoadedModel, images: list[np.ndarray], preprocessing: Preprocessing) -> list[int]:
    """What the model says of images (h, w, 3) uint8 of the stored size."""
    labels: list[int] = []
    with torch.no_grad():
        for start in range(0, len(images), 32):
            batch = torch.from_numpy(np.stack(images[start : start + 32])).permute(0, 3, 1, 2)
            labels += loaded.module(preprocessing(batch)).argmax(1).tolist()
    return labels


def _link(source: Path, target: Path) -> None:
    """The same file under another name; a symbolic link would be refused, as it might lead anywhere."""
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copyfile(source, target)


def _save(image: np.ndarray, path: Path) -> None:
    Image.fromarray(image).save(path, format="PNG")
