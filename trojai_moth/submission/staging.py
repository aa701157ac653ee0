"""One model as a folder of its own in scratch, put together from whatever a request points to.

The harness leaves config.json out where it can, calls the examples' folder what it likes, or leaves it out too. What is
missing is taken from the model file, from the models of the training set, or made up, and the log says so.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from ..core.classifier import as_classifier
from ..core.errors import UnreadableModelError
from ..core.images import list_examples
from ..core.subject import Preprocessing, Subject
from ..loading import load_model
from ..loading.load import LoadedModel
from ..rounds.config_file import CaseConfig, read_config
from ..rounds.model_folder import CONFIG_FILE, CONFIG_NAMES, MODEL_FILE, ROUND_4, ModelFolder, find_names
from ..rounds.preprocessing import candidates
from ..rounds.reading import read_case
from .stand_ins import Pictures, make_stand_ins, read_pictures, save_picture, training_side

Note = Callable[[str], None]
# What rounds 2 to 4 store, and crop to 224; for a model of which nothing else is known.
USUAL_STORED: Final = 256
_MODEL_FOLDER: Final = re.compile(r"id-\d+")


@dataclass(frozen=True)
class Sources:
    """What a request points to; everything but the model may be missing or None."""

    model: Path
    examples: Path | None
    training: Path | None
    per_class: int
    seed: int


def stage(sources: Sources, work: Path, note: Note) -> ModelFolder:
    """The model as a case below ``work``; UnreadableModelError if the model itself cannot be used."""
    model = sources.model / MODEL_FILE if sources.model.is_dir() else sources.model
    loaded = load_model(model)
    home = model.parent
    folder = work / "model" / (home.name if _MODEL_FOLDER.fullmatch(home.name) else "active")
    folder.mkdir(parents=True)
    _link(model, folder / MODEL_FILE)
    config = _copy_config(home, folder, note)
    if _labelled(sources.examples, note):
        assert sources.examples is not None
        (folder / ROUND_4.examples).symlink_to(sources.examples.absolute())
        logits = home / find_names(os.listdir(home)).logits
        if logits.is_file() and sources.examples.absolute().parent == home.absolute():
            shutil.copyfile(logits, folder / ROUND_4.logits)
    else:
        _stand_in(folder / ROUND_4.examples, loaded, config, sources, note)
    if (home / ROUND_4.foregrounds).is_dir():
        (folder / ROUND_4.foregrounds).symlink_to((home / ROUND_4.foregrounds).absolute())
    return read_case(folder, own_links=True)


def open_subject(model: Path, given: Pictures, training: Path | None, device: torch.device, note: Note) -> Subject:
    """A model to be asked, whatever its images show: nothing is compared with labels or published logits."""
    model = model / MODEL_FILE if model.is_dir() else model
    loaded = load_model(model)
    config = _config_of(model.parent, note)[1]
    subject = Subject(
        model_id=model.stem,
        module=loaded.module.to(device).eval(),
        architecture=loaded.architecture,
        classes=loaded.classes,
        preprocessing=_reading(config, given, training, note),
        device=device,
        source_sha256=loaded.sha256,
    )
    return subject.reading(subject.preprocessing)


def predicted(loaded: LoadedModel, images: list[np.ndarray], preprocessing: Preprocessing) -> list[int]:
    """What the model says of images (h, w, 3) uint8 of the stored size."""
    labels: list[int] = []
    module = as_classifier(loaded.module, preprocessing.normalisation)
    with torch.no_grad():
        for start in range(0, len(images), 32):
            batch = torch.from_numpy(np.stack(images[start : start + 32])).permute(0, 3, 1, 2)
            labels += module(preprocessing(batch)).argmax(1).tolist()
    return labels


def _config_of(home: Path, note: Note) -> tuple[Path | None, CaseConfig]:
    """A model's configuration; a mitigated model lies in a folder of its own, and its original's one further up."""
    for folder in (home, home.parent):
        for name in CONFIG_NAMES:
            if (folder / name).is_file():
                try:
                    return folder / name, read_config(folder / name)
                except UnreadableModelError as error:
                    note(f"{error}; it is not used")
    note(f"no {CONFIG_FILE}: architecture and classes are taken from the model file")
    return None, CaseConfig()


def _copy_config(home: Path, folder: Path, note: Note) -> CaseConfig:
    path, config = _config_of(home, note)
    if path is not None:
        shutil.copyfile(path, folder / CONFIG_FILE)
    return config


def _labelled(folder: Path | None, note: Note) -> bool:
    """Whether there are examples with labels, at least two of some class, as everything that follows needs."""
    if folder is None or not folder.is_dir():
        note("no folder of example images")
        return False
    try:
        labels = [label for _, label in list_examples(folder)]
    except UnreadableModelError as error:
        note(f"{error}; labels are not used")
        return False
    return len(labels) > len(set(labels))


def _reading(config: CaseConfig, given: Pictures, training: Path | None, note: Note) -> Preprocessing:
    """How images are read, where no labels can tell: the likeliest way for the images there are."""
    stored = config.stored_size or (max(given.raw[0].shape[:2]) if given.raw else None) or training_side(training)
    reading = candidates(config, (stored or USUAL_STORED,) * 2)[0]
    note(f"images are read as {reading.words}, which nothing confirms")
    return reading


def _stand_in(target: Path, loaded: LoadedModel, config: CaseConfig, sources: Sources, note: Note) -> None:
    """Images under round 4's names: those given, and others where they are too few for anything."""
    target.mkdir()
    given = read_pictures(sources.examples, note)
    reading = _reading(config, given, sources.training, note)
    side = reading.stored_size
    usable = [number for number, image in enumerate(given.raw) if image.shape[:2] == (side, side)]
    if len(usable) < len(given.raw):
        note(f"{len(given.raw) - len(usable)} images are not {side} x {side} pixels and are left out")
    images = [given.raw[number] for number in usable]
    said = [given.labels[number] for number in usable]
    guessed = predicted(loaded, images, reading)
    labels = [guess if label is None else label for label, guess in zip(said, guessed, strict=True)]
    made = list(zip(images, labels, strict=True))
    if len(labels) == len(set(labels)):  # no class has two
        note(f"{len(images)} example images: too few to examine a model with")
        made += make_stand_ins(
            loaded.classes, sources.per_class, side, sources.training, sources.seed,
            lambda pictures: predicted(loaded, pictures, reading), note,
        )  # fmt: skip
    for number, (image, label) in enumerate(made):
        save_picture(image, target / f"class_{label}_example_{number}.png")


def _link(source: Path, target: Path) -> None:
    """The same file under another name; a symbolic link would be refused, as it might lead anywhere."""
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copyfile(source, target)
