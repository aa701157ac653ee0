"""From a case on disk to a subject that is proved to read its images the way its makers did."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..core.errors import SettingsError, UnreadableModelError
from ..core.files import open_text, separator
from ..core.images import ImagePool, ImageReader, list_examples, read_small
from ..core.seeding import derive_seed
from ..core.subject import Preprocessing, Subject
from ..loading import LoadedModel, load_model
from ..synthesis.compose import as_stored, compose_stored
from .data_settings import DataSettings
from .image_folder import list_labelled, read_stored
from .model_folder import ModelFolder
from .preprocessing import PreprocessingChoice, PreprocessingSearch, candidates


@dataclass(frozen=True)
class OpenedFolder:
    """A loaded subject with its example images, of which there may be none.

    raw (N, 3, h, w) uint8 as stored, x = preprocessed, y the labels, names the file names; ``check`` says in words how
    the preprocessing was confirmed, ``convention`` with which evidence.
    """

    subject: Subject
    raw: torch.Tensor
    examples: ImagePool
    names: tuple[str, ...]
    check: str
    convention: PreprocessingChoice
    note: str = ""
    """What a reader of results must know of how the model was loaded, see LoadedModel."""


def open_folder(case: ModelFolder, device: torch.device, data: DataSettings | None = None) -> OpenedFolder:
    """Load the model safely, read its examples and find out its preprocessing; UnreadableModelError otherwise.

    Where there are no examples, the preprocessing is found on images that ``data`` names; without any of these the
    model is refused. The case must be on disk: see :func:`packs.unpacked`.
    """
    loaded = load_model(case.model_file, architecture=case.config.architecture, classes=case.config.classes)
    listed = list_examples(case.examples)
    if not listed:
        return _open_by_trial(case, loaded, device, data)
    raw = _read_examples(listed, case, loaded.classes)
    y, names = torch.tensor([label for _, label in listed]), tuple(path.name for path, _ in listed)
    tried = candidates(case.config, int(raw.shape[-1]), data.normalisation if data else None)
    subject = _subject(case, loaded, tried[0], device)
    published = _published(case, names, loaded.classes)
    search = PreprocessingSearch(subject, raw, y, names, published, str(case.model_file), case.names.logits)
    found = search.find(tried)
    subject = search.read(found.chosen)
    examples = ImagePool(found.chosen(raw), y)
    return OpenedFolder(subject, raw, examples, names, found.reason, found, note=_note(loaded, subject))


def _open_by_trial(
    case: ModelFolder, loaded: LoadedModel, device: torch.device, data: DataSettings | None
) -> OpenedFolder:
    trial = trial_images(case, loaded.classes, data)
    tried = candidates(case.config, int(trial.raw.shape[-1]), data.normalisation if data else None)
    subject = _subject(case, loaded, tried[0], device)
    where, logits = str(case.model_file), case.names.logits
    search = PreprocessingSearch(subject, trial.raw, trial.y, (), None, where, logits, own=False, images=trial.words)
    found = search.find(tried)
    nothing = ImagePool(torch.empty(0, 3, found.chosen.size, found.chosen.size), torch.empty(0, dtype=torch.long))
    subject = search.read(found.chosen)
    note = _note(loaded, subject)
    return OpenedFolder(subject, trial.raw[:0], nothing, (), found.reason, found, note=note)


def _note(loaded: LoadedModel, subject: Subject) -> str:
    return "; ".join(filter(None, [loaded.note, subject.output.note]))


def _subject(case: ModelFolder, loaded: LoadedModel, preprocessing: Preprocessing, device: torch.device) -> Subject:
    return Subject(
        model_id=case.model_id,
        module=loaded.module.to(device).eval(),
        architecture=loaded.architecture,
        classes=loaded.classes,
        preprocessing=preprocessing,
        device=device,
        source_sha256=loaded.sha256,
    )


def _read_examples(listed: list[tuple[Path, int]], case: ModelFolder, classes: int) -> torch.Tensor:
    stored, images, reader = case.config.stored_size, [], ImageReader()
    for path, label in listed:
        image = reader.read(path)
        said = f"{case.names.config} says" if case.config.stored_size else f"{listed[0][0].name} has"
        stored = stored or max(image.shape[1:])
        if tuple(image.shape[1:]) != (stored, stored):
            raise UnreadableModelError(
                f"{path}: {image.shape[2]} x {image.shape[1]} pixels, but {said} {stored} x {stored}; all must be alike"
            )
        if label >= classes:
            raise UnreadableModelError(
                f"{path}: class {label}, but {case.names.config} says {classes} classes, from 0 on"
            )
        images.append(image)
    return torch.stack(images)


def _published(case: ModelFolder, names: tuple[str, ...], classes: int) -> dict[str, np.ndarray] | None:
    if not case.logits_file.exists():
        return None
    published = read_logits(case.logits_file, classes)
    missing = sorted(set(names) - set(published))
    if missing:
        raise UnreadableModelError(f"{case.logits_file}: has no row for {missing[0]}; add it, or remove the file")
    return published


# Of 1000 classes and ten images each, which no round has.
_LOGITS_LIMIT = 128 << 20
_LONGEST_HEADER = 1000


def read_logits(path: Path, classes: int) -> dict[str, np.ndarray]:
    """Rows of a logits CSV: file name -> (classes,) float64; its header is 'Example, Logits' whatever the width."""
    rows = {}
    try:
        with open_text(path, _LOGITS_LIMIT) as file:
            mark = separator(file.readline(_LONGEST_HEADER))
            file.seek(0)
            # An editor may leave empty lines.
            lines = filter(any, csv.reader(file, delimiter=mark, skipinitialspace=True))
            next(lines, None)
            for row in lines:
                cells = row[:-1] if len(row) == classes + 2 and not row[-1] else row  # a comma at the end of each line
                rows[cells[0]] = np.array([_number(value, mark) for value in cells[1:]])
                if len(cells) != classes + 1 or not np.isfinite(rows[row[0]]).all():
                    raise ValueError(f"row {row[0]} does not hold {classes} finite numbers")
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise UnreadableModelError(f"{path}: not a logits file ({error}); mend it, or remove the file") from None
    return rows


def _number(text: str, mark: str) -> float:
    """Where a semicolon stands between cells, a comma may stand in numbers."""
    return float(text if mark == "," else text.replace(",", "."))


# As many as every candidate is tried on, see rounds/preprocessing.py.
_TRIED = 100
# What rounds store where nothing says so; larger pictures are made smaller.
_USUAL_SIZE = 256


class NoImagesError(UnreadableModelError):
    """A model without example images, where no other images were given either."""


@dataclass(frozen=True)
class TrialImages:
    """raw (N, 3, s, s) uint8 as a round would store them, y (N,) labels; ``words`` say where they come from."""

    raw: Tensor
    y: Tensor
    words: str


def trial_images(case: ModelFolder, classes: int, settings: DataSettings | None) -> TrialImages:
    """About 100 images of the sources that ``settings`` names, real ones before composed ones.

    NoImagesError where it names none but the model's own examples, or composed images of a model without signs;
    SettingsError for a folder that holds no labelled images of these classes.
    """
    sources = settings.sources if settings else ()
    per_class = math.ceil(_TRIED / classes)
    if settings and settings.folder and "folder" in sources:
        return _of_folder(case, Path(settings.folder), classes, per_class)
    signs = case.signs
    if settings and signs and "composed" in sources:
        return _composed(case, signs, per_class, settings)
    offer = "--data composed or --data FOLDER" if signs else "--data FOLDER"
    raise NoImagesError(
        f"{case.examples}: no images named class_C_example_N.png, or N.png with its class in N.json; to find out how "
        f"the model reads images, give labelled images of its classes with {offer}"
    )


def _of_folder(case: ModelFolder, folder: Path, classes: int, per_class: int) -> TrialImages:
    listed = list_labelled(folder, classes)
    by_class = groupby(listed, lambda pair: pair[1])
    chosen = [pair for _, pairs in by_class for pair in islice(pairs, per_class)]
    if len({label for _, label in chosen}) < 2:
        raise SettingsError(f"{folder}: images of one class alone; a scan needs two classes or more")
    stored = _stored_size(case) or min(_USUAL_SIZE, *read_small(chosen[0][0], _USUAL_SIZE).shape[1:])
    y = torch.tensor([label for _, label in chosen])
    return TrialImages(read_stored([path for path, _ in chosen], stored), y, f"images of {folder}")


def _composed(case: ModelFolder, signs: list[Path], per_class: int, settings: DataSettings) -> TrialImages:
    images, y = compose_stored(
        signs,
        per_class=per_class,
        stored_size=_stored_size(case) or _USUAL_SIZE,
        generator=derive_seed(0, case.model_id, "trial images"),
        backgrounds=Path(settings.backgrounds) if settings.backgrounds else None,
    )
    return TrialImages(as_stored(images), y, f"images composed of {case.names.foregrounds}/")


def _stored_size(case: ModelFolder) -> int | None:
    return case.config.stored_size or case.config.size
