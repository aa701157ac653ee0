"""Whether one model of a round can be examined, found out before hours are spent: without a scan, without labels."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import replace

import torch

from ..core.errors import MothError, one_line
from ..core.records import Field, record
from ..loading.own_code import allowing_architectures
from .class_accuracy import ClassAccuracy, class_accuracy
from .data_settings import DataSettings
from .model_folder import ModelFolder, SkippedModel
from .open_folder import NoImagesError, OpenedFolder, open_folder
from .packs import unpacked
from .preprocessing import PreprocessingChoice
from .samples import check_examples, collect_samples

# Composed images of a class that show whether the signs are in the order of the classes.
_TRIED_PER_CLASS = 10
NO_EXAMPLES = "example images"
"""What is called missing where there are none at all."""


@record
class ModelCheck:
    """What is known of one model after it was loaded and asked about its own example images."""

    model_id: str
    problem: str = Field(default="", description="why it cannot be judged; empty if it can")
    architecture: str | None = None
    classes: int | None = None
    size: int | None = None
    width: int | None = Field(default=None, description="of the input, where it is not square")
    channels: int | None = None
    examples: int = 0
    accuracy: float | None = None
    """Share of all example images that are given their label; without any, of the images that stood in for them."""
    least_of: str = Field(default="", description="the classes that fewest images of are given their label, in words")
    convention: PreprocessingChoice | None = None
    missing: tuple[str, ...] = Field(default=(), description="what a round may have and this model has not")
    sha256: str | None = None
    seconds: float = 0.0

    @property
    def usable(self) -> bool:
        """Whether a scan could begin."""
        return not self.problem


def check_model(
    case: ModelFolder | SkippedModel, data: DataSettings | None = None, architectures: Collection[str] = ()
) -> ModelCheck:
    """Load one model and try how it reads its images; whatever goes wrong is the answer, not an exception.

    data: the images that a scan would use. What they name beside the examples is tried too, and stands in for examples
    that are not there. architectures: code that the user named, for a process that has not been told.
    """
    if isinstance(case, SkippedModel):
        return ModelCheck(model_id=case.model_id, problem=case.reason)
    started = time.perf_counter()
    missing: tuple[str, ...] = ()
    try:
        with allowing_architectures(architectures), unpacked(case) as there:
            opened = open_folder(there, torch.device("cpu"), data)
            given = check_examples(there, opened, data or DataSettings()) if len(opened.examples) else None
            if data and (data.sources != ("examples",) or there.config.images):
                _try_images(there, opened, data)
            return _healthy(there, opened, given, started)
    except NoImagesError as error:
        problem, missing = str(error), (NO_EXAMPLES,)
    except MothError as error:
        problem = str(error)
    except Exception as error:  # one model must not end the look at a thousand
        problem = one_line(error)
    seconds = time.perf_counter() - started
    return ModelCheck(model_id=case.model_id, problem=problem, missing=missing, seconds=seconds)


def _try_images(case: ModelFolder, opened: OpenedFolder, data: DataSettings) -> None:
    """Collect a few images as a scan would; MothError where it would be refused then."""
    tried = _TRIED_PER_CLASS if "composed" in data.sources else 1
    collect_samples(case, opened, replace(data, train_per_class=tried, held_per_class=1), 0)


def _healthy(case: ModelFolder, opened: OpenedFolder, given: ClassAccuracy | None, started: float) -> ModelCheck:
    """given: what the model makes of the first examples of each class, if there are any."""
    subject, examples = opened.subject, opened.examples
    if given and sum(given.images) < len(examples):
        given = class_accuracy(subject, examples)
    present, problem = len(set(examples.y.tolist())), ""
    if present == 1:
        problem = f"{case.examples}: images of one class alone; a scan needs two classes or more"
    return ModelCheck(
        model_id=case.model_id,
        problem=problem,
        architecture=subject.architecture,
        classes=subject.classes,
        size=subject.size,
        width=subject.preprocessing.width,
        channels=subject.shape[0],
        examples=len(examples),
        accuracy=given.overall if given else opened.convention.accuracy,
        least_of=given.least_words if given else "",
        convention=opened.convention,
        missing=_missing(case, subject.classes, present),
        sha256=subject.source_sha256,
        seconds=time.perf_counter() - started,
    )


def _missing(case: ModelFolder, classes: int, present: int) -> tuple[str, ...]:
    signs = len(case.signs)
    if case.config.described:
        return ()
    found = {
        "configuration": not case.names.configured,
        "published logits": not case.logits_file.exists(),
        f"foregrounds ({signs} of {classes})" if signs else "foregrounds": signs != classes,
        f"examples of {classes - present} of {classes} classes" if present else NO_EXAMPLES: present < classes,
    }
    return tuple(name for name, lacks in found.items() if lacks)
