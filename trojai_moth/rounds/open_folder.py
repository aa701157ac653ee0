"""From a case on disk to a subject that is proved to read its images the way its makers did."""

from __future__ import annotations

import csv
import math
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..core.channels import COLOURS
from ..core.classifier import classes_of, find_output
from ..core.errors import UnreadableModelError
from ..core.files import open_text, separator
from ..core.images import ImagePool, ImageReader, list_examples
from ..core.seeding import derive_seed
from ..core.subject import Preprocessing, Subject
from ..loading import LoadedModel, load_model
from ..synthesis.compose import as_stored, compose_stored
from .config_file import CaseConfig
from .data_settings import DataSettings
from .labelled_images import LabelledImages, look_at, open_labelled
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
    """What a reader of results must know of how the model was loaded, see LoadedModel, and how its output is read."""
    class_names: tuple[str, ...] | None = None
    """A name for every class, where the model's description or its images say them."""


def open_folder(case: ModelFolder, device: torch.device, data: DataSettings | None = None) -> OpenedFolder:
    """Load the model safely, read its examples and find out its preprocessing; UnreadableModelError otherwise.

    Where there are no examples, the preprocessing is found on images that ``data`` names; without any of these the
    model is refused. The case must be on disk: see :func:`packs.unpacked`.
    """
    config = case.config
    loaded = load_model(
        case.model_file,
        architecture=config.architecture,
        classes=config.classes,
        channels=config.channels,
        entry=(data.entry if data else None) or config.entry,
    )
    if not loaded.counted:
        loaded = replace(loaded, classes=_count_classes(case, loaded, data))
    listed = [] if config.described else list_examples(case.examples)
    if not listed:
        return _open_by_trial(case, loaded, device, data)
    raw = _read_examples(listed, case, loaded.classes)
    y, names = torch.tensor([label for _, label in listed]), tuple(path.name for path, _ in listed)
    tried = candidates(config, _sides(raw), _channels(loaded, config), data.normalisation if data else None)
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
    channels = _channels(loaded, case.config)
    tried = candidates(case.config, _sides(trial.raw), channels, data.normalisation if data else None, cut=trial.cut)
    subject = _subject(case, loaded, tried[0], device)
    where, logits = str(case.model_file), case.names.logits
    search = PreprocessingSearch(subject, trial.raw, trial.y, (), None, where, logits, own=False, images=trial.words)
    found = search.find(tried)
    nothing = ImagePool(torch.empty(0, *found.chosen.shape), torch.empty(0, dtype=torch.long))
    subject, names = search.read(found.chosen), trial.names
    note = _note(loaded, subject)
    return OpenedFolder(subject, trial.raw[:0], nothing, (), found.reason, found, note=note, class_names=names)


def _note(loaded: LoadedModel, subject: Subject) -> str:
    return "; ".join(filter(None, [loaded.note, subject.output.note]))


def _count_classes(case: ModelFolder, loaded: LoadedModel, data: DataSettings | None) -> int:
    """By the output for grey of the size that is said, that the images have, or that is usual; else what it was.

    Of several outputs, the one with a number for each class of the images.
    """
    config, place, network = case.config, _place(case, data), loaded.module
    shape, classes = look_at(Path(place)) if place is not None else (None, None)
    shapes = [(config.size, config.width or config.size)] if config.size else []
    shapes += [*([shape] if shape else []), *((side, side) for side in _USUAL_SIDES)]
    for height, width in shapes:
        grey = torch.full((2, _channels(loaded, config), height, width), 0.5)
        for count in (None, classes):
            with suppress(Exception), torch.no_grad():  # whatever a network raises at images of another size
                return classes_of(network, grey, find_output(network, grey, count))
    return loaded.classes


def _place(case: ModelFolder, data: DataSettings | None) -> str | None:
    """Where labelled images lie that are no round's examples."""
    return data.folder if data and data.folder and "folder" in data.sources else case.config.images


def _sides(raw: Tensor) -> tuple[int, int]:
    """Height and width."""
    return int(raw.shape[2]), int(raw.shape[3])


def _channels(loaded: LoadedModel, config: CaseConfig) -> int:
    """Channels of the input: what is said, or else what the first convolution takes; 3 where there is none."""
    layers = (part for part in loaded.module.modules() if isinstance(part, nn.Conv2d))
    first = next(layers, None)
    return config.channels or (first.in_channels if first else COLOURS)


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
# Sides of images that networks are made for, the usual ones first.
_USUAL_SIDES = (32, 28, 224, 64, 48, 96, 128, 256, 299)
# What rounds store where nothing says so; larger pictures are made smaller.
_USUAL_SIZE = 256
# By which the shown square is larger than the input that is cut out of it, for networks of ImageNet.
_MORE = _USUAL_SIZE / 224


class NoImagesError(UnreadableModelError):
    """A model without example images, where no other images were given either."""


@dataclass(frozen=True)
class TrialImages:
    """raw (N, C, h, w) uint8 as a round would store them, y (N,) labels; ``words`` say where they come from."""

    raw: Tensor
    y: Tensor
    words: str
    names: tuple[str, ...] | None = None
    """Of the classes, where they are known."""
    cut: bool = False
    """Whether they were larger than this, of several sizes, as photographs are."""


def trial_images(case: ModelFolder, classes: int, settings: DataSettings | None) -> TrialImages:
    """About 100 images of the sources that ``settings`` names, real ones before composed ones.

    NoImagesError where it names none but the model's own examples, or composed images of a model without signs;
    SettingsError for a folder that holds no labelled images of these classes.
    """
    sources = settings.sources if settings else ("examples",)
    per_class = math.ceil(_TRIED / classes)
    if settings and settings.folder and "folder" in sources:
        return _of_folder(case, Path(settings.folder), classes, per_class)
    if case.config.images is not None and "examples" in sources:
        return _of_folder(case, Path(case.config.images), classes, per_class)
    signs = case.signs
    if settings and signs and "composed" in sources:
        return _composed(case, signs, per_class, settings)
    offer = "--data composed or --data FOLDER" if signs else "--data FOLDER"
    raise NoImagesError(
        f"{case.examples}: no images named class_C_example_N.png, or N.png with its class in N.json; to find out how "
        f"the model reads images, give labelled images of its classes with {offer}"
    )


def _of_folder(case: ModelFolder, folder: Path, classes: int, per_class: int) -> TrialImages:
    images = open_labelled(folder, classes, case.config.class_names)
    chosen, y = images.first_of_each(classes, per_class)
    shape = _stored_shape(case, images, chosen[0])
    raw, cut = images.read(chosen, shape), images.shape != shape
    return TrialImages(raw, y, f"images of {folder}", images.names or case.config.class_names, cut)


def _stored_shape(case: ModelFolder, images: LabelledImages, first: int) -> tuple[int, int]:
    """Height and width that images of a folder are brought to before they are read in one way or another.

    A round's are square. Others are taken as they are where they have one size, and photographs of several sizes as
    networks of ImageNet are shown them: a square somewhat larger than the input, of which the middle is cut out.
    """
    config, side = case.config, _stored_size(case)
    if not config.described:
        square = side or min(_USUAL_SIZE, *images.shape_of(first))
        return square, square
    whole = images.shape
    if side is None:
        if whole is not None and max(whole) <= _USUAL_SIZE:
            return whole
        square = min(_USUAL_SIZE, *images.shape_of(first))
        return square, square
    wanted = (side, config.width or side)
    if config.width not in (None, side) or whole == wanted or min(images.shape_of(first)) <= side:
        return wanted
    return (round(side * _MORE),) * 2


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
