"""From a case on disk to a subject that is proved to read its images the way its makers did."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .errors import UnreadableModelError
from .images import ImagePool, list_examples, read_image
from .loading import load_model
from .rounds import Case
from .subject import Subject

# Largest difference of logits, as a share of the image's largest logit. Round 4's own generator wrote its logits under
# half precision (inference.py, feb2021), so files that hold half-precision numbers get that precision's tolerance.
LOGITS_TOLERANCE = 1e-3
HALF_TOLERANCE = 2e-2
# Without published logits the examples' labels must be met this often; a wrong crop or scale rarely manages that.
ACCURACY_FLOOR = 0.5


@dataclass(frozen=True)
class OpenedCase:
    """A loaded subject with its example images.

    raw (N, 3, h, w) uint8 as stored, x = preprocessed, y the labels, names the file names; ``check`` says in words how
    the preprocessing was confirmed.
    """

    subject: Subject
    raw: torch.Tensor
    examples: ImagePool
    names: tuple[str, ...]
    check: str


def open_case(case: Case, device: torch.device) -> OpenedCase:
    """Load the model safely, read its examples and confirm the preprocessing; UnreadableModelError otherwise."""
    loaded = load_model(case.model_file, architecture=case.config.architecture, classes=case.config.classes)
    subject = Subject(
        model_id=case.model_id,
        module=loaded.module.to(device).eval(),
        architecture=loaded.architecture,
        classes=loaded.classes,
        preprocessing=case.config.preprocessing,
        device=device,
        source_sha256=loaded.sha256,
    )
    listed = list_examples(case.examples)
    if not listed:
        raise UnreadableModelError(f"{case.examples}: no images named class_C_example_N.png; examples are needed")
    raw = _read_examples(listed, case)
    y = torch.tensor([label for _, label in listed])
    examples = ImagePool(subject.preprocessing(raw), y)
    names = tuple(path.name for path, _ in listed)
    return OpenedCase(subject, raw, examples, names, confirm_preprocessing(subject, examples, names, case))


def _read_examples(listed: list[tuple[Path, int]], case: Case) -> torch.Tensor:
    stored, classes = case.config.preprocessing.stored_size, case.config.classes
    images = []
    for path, label in listed:
        image = read_image(path)
        if tuple(image.shape[1:]) != (stored, stored):
            raise UnreadableModelError(
                f"{path}: {image.shape[2]} x {image.shape[1]} pixels, but config.json says {stored} x {stored}"
            )
        if label >= classes:
            raise UnreadableModelError(f"{path}: class {label}, but config.json says {classes} classes")
        images.append(image)
    return torch.stack(images)


def confirm_preprocessing(subject: Subject, examples: ImagePool, names: tuple[str, ...], case: Case) -> str:
    """Compare with the published logits, or with the labels where there are none; says what was found."""
    try:
        logits = subject.logits(examples.x).cpu().numpy()
    except RuntimeError as reason:
        raise UnreadableModelError(
            f"{case.model_file}: can not take images of {subject.size} x {subject.size} pixels ({reason!s:.120})"
        ) from None
    if not np.isfinite(logits).all():
        raise UnreadableModelError(f"{case.model_file}: gives logits that are not finite on its own example images")
    accuracy = float((logits.argmax(1) == examples.y.numpy()).mean())
    if not case.logits_file.exists():
        if accuracy < ACCURACY_FLOOR:
            raise UnreadableModelError(
                f"{case.directory}: only {accuracy:.0%} of the example images get their label (at least "
                f"{ACCURACY_FLOOR:.0%} needed) and there is no {case.logits_file.name}; is the model of this folder?"
            )
        return f"no published logits; accuracy on examples {accuracy:.3f}"
    published = read_logits(case.logits_file, subject.classes)
    missing = sorted(set(names) - set(published))
    if missing:
        raise UnreadableModelError(f"{case.logits_file}: has no row for {missing[0]}")
    expected = np.stack([published[name] for name in names])
    error = float((np.abs(logits - expected).max(1) / np.maximum(np.abs(expected).max(1), 1e-6)).max())
    tolerance = HALF_TOLERANCE if _half_precision(expected) else LOGITS_TOLERANCE
    if not error <= tolerance:
        raise UnreadableModelError(
            f"{case.model_file}: does not reproduce {case.logits_file.name}: relative error {error:.2g}, allowed "
            f"{tolerance:g}, accuracy {accuracy:.3f}; the file or its preprocessing is not what the round says"
        )
    return f"published logits reproduced within {error:.1e}"


def _half_precision(values: np.ndarray) -> bool:
    """Whether every number is written as half precision prints it, e.g. 35.6 for 35.59375."""
    with np.errstate(over="ignore"):
        return all(float(str(np.float16(value))) == value for value in values.flat)


def read_logits(path: Path, classes: int) -> dict[str, np.ndarray]:
    """Rows of a logits CSV: file name -> (classes,) float64; its header is 'Example, Logits' whatever the width."""
    rows = {}
    try:
        if not path.is_file():
            raise ValueError("not a regular file")
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file, skipinitialspace=True)
            next(reader, None)
            for row in reader:
                rows[row[0]] = np.array([float(value) for value in row[1:]])
                if len(row) != classes + 1 or not np.isfinite(rows[row[0]]).all():
                    raise ValueError(f"row {row[0]} does not hold {classes} finite numbers")
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise UnreadableModelError(f"{path}: not a logits file ({error})") from None
    return rows
