"""How a model reads its images, found by trying: what reproduces its published logits, or gets most examples right.

Rounds differ in the order of colours, in scaling and in cropping, and their folders are renamed on the way, so a name
proves nothing. The order in which candidates are tried is :func:`candidates`'s, and of equals the first one counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import product
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ..core.channels import COLOURS, Normalisation, usual
from ..core.classifier import UnusableNetworkError, find_output, measure_batch_norms
from ..core.errors import UnreadableModelError
from ..core.images import ImagePool
from ..core.outputs import OutputReading
from ..core.records import Field, record
from ..core.subject import Colours, Fit, Preprocessing, Scaling, Subject, colours_of, width_of
from .class_accuracy import class_accuracy
from .config_file import CaseConfig

# Largest difference of logits, as a share of the image's largest logit. Round 4's own generator wrote its logits under
# half precision (inference.py, feb2021), so files that hold half-precision numbers get that precision's tolerance.
LOGITS_TOLERANCE = 1e-3
HALF_TOLERANCE = 2e-2
# Without published logits the examples' labels must be met this often; a wrong crop or scale rarely manages that.
ACCURACY_FLOOR = 0.5
# So many images must be right in another order of classes for that to be said.
_SURELY_MOVED = 0.8
# Accuracies that differ by no more than this on a hundred images do not tell readings apart.
_ALIKE = 0.03
# By more than this a mean and std that are given may not be worse than none.
_WORSE = 0.1
# By how much of an image's spread of logits its class must win more, on average, for one of two readings that get as
# many right to be the better one. Wrongly normalised images are mostly recognised, too, but less surely.
_CLEARER = 0.02
# Images that every candidate is tried on: enough to tell them apart, and round 1 has 500.
_PROBE = 100
# So many of them at a time where batch norms are measured.
_MEASURED = 50
# Networks halve their input five times, and rounds crop to the next size that allows it: 224 of 256, 64 of 72.
_STRIDE = 32
_ORDERS: tuple[Colours, ...] = ("RGB", "BGR")


@record
class PreprocessingTrial:
    """One candidate: the share of example images it gets right, and how far its logits are off; None: not measured."""

    preprocessing: Preprocessing
    accuracy: float | None = None
    logits_error: float | None = None
    lead: float | None = Field(default=None, description="by how much classes win, as a share of the logits' range")
    problem: str = ""

    @property
    def words(self) -> str:
        """E.g. ``BGR, min-max, whole 224: accuracy 0.40``."""
        found = [self.problem] if self.problem else []
        found += [] if self.logits_error is None else [f"error {self.logits_error:.2g}"]
        found += [] if self.accuracy is None else [f"accuracy {self.accuracy:.2f}"]
        return f"{self.preprocessing.words}: {', '.join(found)}"


@record
class PreprocessingChoice:
    """The chosen way to read images and what speaks for it, with the figures of all that were tried."""

    chosen: Preprocessing
    by: Literal["logits", "accuracy"]
    reason: str
    images: int = Field(ge=0, description="images that candidates were compared on")
    images_of: str = Field(default="examples", description="its own examples, or where other images came from")
    tied: tuple[str, ...] = Field(default=(), description="candidates that were as good, or nearly, and less likely")
    readings: tuple[PreprocessingTrial, ...] = ()

    @property
    def accuracy(self) -> float | None:
        """Share of those images that get their label, read the chosen way."""
        return next((one.accuracy for one in self.readings if one.preprocessing == self.chosen), None)


def candidates(
    config: CaseConfig,
    stored: tuple[int, int],
    channels: int = 3,
    said: Normalisation | None = None,
    *,
    cut: bool = False,
) -> list[Preprocessing]:
    """Ways to read images of ``stored`` height and width for an input of so many channels, the likeliest first.

    Sizes: what the configuration says. Where it says no input size, the whole image and then a crop to the next lower
    multiple of 32 pixels; where there is no configuration at all the crop comes first, since rounds without any store
    more than they crop to (224 of 256) except round 1, whose crop is the whole image; so, too, for images that were
    ``cut`` to one size. Then the whole image, the crop and the shrunk image, where not tried yet. For each of them RGB
    before BGR, and /255 before min-max; images of other than three channels have no such orders.

    Then the same in RGB and /255 with the usual means and standard deviations taken off. With ``said``, or where the
    configuration says one, all are with that and no other.
    """
    whole: tuple[Fit, tuple[int, int]] = ("crop", stored)
    crop: tuple[Fit, tuple[int, int]] = ("crop", (_lower(stored[0]), _lower(stored[1])))
    first = whole if config.size is None else ("crop", (config.size, config.width or config.size))
    unsaid = replace(config, normalisation=None) == CaseConfig() or (cut and config.size is None)
    if unsaid and stored[0] % (_STRIDE * 7):  # 224 is whole as it is
        first = crop
    small: tuple[Fit, tuple[int, int]] = ("resize", first[1] if _is_less(first[1], stored) else crop[1])
    fits = list(dict.fromkeys([first, whole, crop, small]))
    orders: tuple[Colours, ...] = _ORDERS if channels == COLOURS else (colours_of(channels),)
    plain = [
        Preprocessing(
            stored_size=stored[0], stored_width=width_of(stored), size=size[0], width=width_of(size),
            channels=channels, fit=fit, colours=colours, scaling=scaling,
        )
        for fit, size in fits
        if fit == "crop" or _is_less(size, stored)
        for colours, scaling in product(orders, get_args(Scaling))
    ]  # fmt: skip
    expected = said or config.normalisation
    if expected:
        return [replace(one, normalisation=expected) for one in plain]
    common = [one for one in plain if (one.colours, one.scaling) == (orders[0], "/255")]
    return plain + [replace(one, normalisation=known) for known in usual(channels).values() for one in common]


def _lower(side: int) -> int:
    """The next lower multiple of 32, or the side itself where there is none."""
    lower = max(_STRIDE, (side - 1) // _STRIDE * _STRIDE)
    return lower if side > _STRIDE and lower < side else side


def _is_less(shape: tuple[int, int], whole: tuple[int, int]) -> bool:
    """Whether an image is smaller than another, and larger in no direction."""
    return shape != whole and shape[0] <= whole[0] and shape[1] <= whole[1]


def default_reading(config: CaseConfig, images: Tensor) -> Preprocessing:
    """The first candidate for these stored images (N, 3, h, w)."""
    return candidates(config, (int(images.shape[2]), int(images.shape[3])))[0]


class PreprocessingSearch:
    """A model's example images and what is published of them; ``where`` and ``logits_name`` are for messages.

    raw (N, 3, h, w) uint8, y (N,), names the file names; ``published`` the logits by file name, or None. Not ``own``:
    these are other labelled images, which ``images`` describes.
    """

    def __init__(
        self,
        subject: Subject,
        raw: Tensor,
        y: Tensor,
        names: tuple[str, ...],
        published: Mapping[str, np.ndarray] | None,
        where: str,
        logits_name: str,
        *,
        own: bool = True,
        images: str = "examples",
    ) -> None:
        self.subject, self.raw, self.y, self.names = subject, raw, y, names
        self.where, self.logits_name = where, logits_name
        self.own, self.images = own, images
        self._output: OutputReading | None = None
        self.expected = None if published is None else np.stack([published[name] for name in names])

    def find(self, tried: list[Preprocessing]) -> PreprocessingChoice:
        """The first candidate that explains the examples best; UnreadableModelError with all figures if none does."""
        return self._by_accuracy(tried) if self.expected is None else self._by_logits(tried)

    def read(self, preprocessing: Preprocessing) -> Subject:
        """The subject fed in this way, with its output and what its batch norms lack found on the images.

        UnusableNetworkError where it cannot be asked about them, or is no classifier of so many classes.
        """
        raw = self.raw[_spread(self.y, _PROBE)]
        read = read_as(self.subject, preprocessing, (preprocessing(part) for part in raw.split(_MEASURED)))
        if self._output is None:  # which is the same however the images are read
            x = preprocessing(raw[:_MEASURED]).to(read.device)
            self._output = find_output(read.module, x, read.classes, self.where)
            self.subject = replace(self.subject, output=self._output)
        return self.subject.reading(preprocessing)

    def _by_logits(self, tried: list[Preprocessing]) -> PreprocessingChoice:
        readings: list[PreprocessingTrial] = []
        tolerance = self.tolerance
        every, probe = torch.arange(len(self.y)), _spread(self.y, _PROBE)
        for preprocessing in tried:
            # The first is right in nearly all rounds; of the others few images say enough to drop them.
            reading = self._measure(preprocessing, every if not readings else probe)
            if readings and reading.logits_error is not None and reading.logits_error <= tolerance:
                reading = self._measure(preprocessing, every)
            readings.append(reading)
            if reading.logits_error is not None and reading.logits_error <= tolerance:
                reason = f"published logits reproduced within {reading.logits_error:.1e}"
                return PreprocessingChoice(
                    chosen=preprocessing, by="logits", reason=reason, images=len(self.y), readings=tuple(readings)
                )
        first = readings[0]
        if first.logits_error is None:
            raise UnreadableModelError(f"{self.where}: {first.problem}{_others(readings)}")
        raise UnreadableModelError(
            f"{self.where}: does not reproduce {self.logits_name}: relative error {first.logits_error:.2g}, allowed "
            f"{tolerance:g}, accuracy {first.accuracy:.3f}; the file or its preprocessing is not what the round says"
            f"{_others(readings)}"
        )

    def _by_accuracy(self, tried: list[Preprocessing]) -> PreprocessingChoice:
        probe = _spread(self.y, _PROBE)
        readings = [self._measure(preprocessing, probe) for preprocessing in tried]
        known = [reading.accuracy for reading in readings if reading.accuracy is not None]
        if not known:
            raise UnreadableModelError(f"{self.where}: {readings[0].problem}{_others(readings)}")
        best = best_trials(readings)
        chosen = best[0].preprocessing
        if max(known) < ACCURACY_FLOOR:
            reason = self._other_order(tried, probe) or self._too_low(max(known), chosen)
            raise UnreadableModelError(reason + _others(readings))
        if all(one.normalisation for one in tried):  # else they were compared with plain ones already
            self._refuse_worse_than_plain(best[0], probe)
        lacking = "no published logits" if self.own else "no example images"
        return PreprocessingChoice(
            chosen=chosen,
            by="accuracy",
            reason=f"{lacking}; accuracy on {self.images} {best[0].accuracy:.3f}",
            images=len(probe),
            images_of=self.images,
            tied=tuple(reading.preprocessing.words for reading in best[1:]),
            readings=tuple(readings),
        )

    def _refuse_worse_than_plain(self, best: PreprocessingTrial, probe: Tensor) -> None:
        """A mean and std that are said alone are tried; where images are clearly better without, they are not its."""
        plain = self._measure(replace(best.preprocessing, normalisation=None), probe)
        if (plain.accuracy or 0.0) > (best.accuracy or 0.0) + _WORSE:
            raise UnreadableModelError(
                f"{self.where}: {best.words}, and without that mean and std {plain.accuracy:.2f}; correct them "
                "(--mean, --std, or the configuration), or leave them out"
            )

    def _other_order(self, tried: list[Preprocessing], probe: Tensor) -> str:
        """Why the images are refused if, read one way, nearly all of each class are taken for another one's; or ""."""
        for preprocessing in tried:
            with suppress(RuntimeError, UnusableNetworkError):
                subject = self.read(preprocessing)
                pool = ImagePool(preprocessing(self.raw[probe]), self.y[probe])
                found = class_accuracy(subject, pool)
                if not (order := found.another_order):
                    continue
                moved = torch.tensor([found.mostly[label] for label in pool.y.tolist()])
                share = class_accuracy(subject, ImagePool(pool.x, moved)).overall
                if share >= _SURELY_MOVED:  # a wrong reading may move classes, too, but not whole ones
                    images = "example images" if self.own else self.images
                    return (
                        f"{self.where}: the classes of the {images} are not in the model's order: it takes {order}, by "
                        f"which {share:.0%} are right, read as {preprocessing.words}; number them as the model does"
                    )
        return ""

    def _too_low(self, accuracy: float, chosen: Preprocessing) -> str:
        images = "example images" if self.own else self.images
        words = (
            f"{self.where}: only {accuracy:.0%} of the {images} get their label (at least {ACCURACY_FLOOR:.0%} needed) "
            f"by {chosen.words}, the best of all tried, and there "
        )
        if self.own:
            question = f"is no {self.logits_name}; is the model of this folder?"
        else:
            question = "are no example images; are these images of the model's classes, in their order?"
        return f"{words}{question} If it expects another mean and std than the usual ones, give --mean and --std"

    @property
    def tolerance(self) -> float:
        """How far logits may be off, by the precision that the published ones are written in."""
        return HALF_TOLERANCE if self.expected is not None and _half_precision(self.expected) else LOGITS_TOLERANCE

    def _measure(self, preprocessing: Preprocessing, index: Tensor) -> PreprocessingTrial:
        x = preprocessing(self.raw[index])
        try:
            logits = self.read(preprocessing).logits(x).cpu().numpy()
        except UnusableNetworkError as reason:
            return PreprocessingTrial(preprocessing=preprocessing, problem=reason.problem)
        except Exception as reason:  # whatever a network raises at images of another size
            height, width = preprocessing.shape[1:]
            said = (str(reason) or type(reason).__name__).splitlines()[0]
            problem = f"cannot take images of {height} x {width} pixels ({said:.120})"
            return PreprocessingTrial(preprocessing=preprocessing, problem=problem)
        if not np.isfinite(logits).all():
            return PreprocessingTrial(
                preprocessing=preprocessing, problem="gives logits that are not finite on its own example images"
            )
        found = _scored(preprocessing, logits, self.y[index].numpy())
        if self.expected is None:
            return found
        expected = self.expected[index.numpy()]
        error = float(
            (np.abs(logits - expected).max(1) / np.maximum(np.abs(expected).max(1), np.finfo(np.float32).tiny)).max()
        )
        return replace(found, lead=None, logits_error=error)


def read_as(subject: Subject, preprocessing: Preprocessing, batches: Iterable[Tensor]) -> Subject:
    """The subject fed in another way; batch norms without statistics get those of these batches (N, C, H, W)."""
    read = subject.reading(preprocessing)
    measure_batch_norms(read.module, (batch.to(subject.device) for batch in batches))
    return read


def best_trials(readings: Sequence[PreprocessingTrial]) -> list[PreprocessingTrial]:
    """Those with the highest accuracy, or nearly; first the one whose classes win clearly more, or else the likeliest.

    readings: the likeliest first, at least one of them with an accuracy.
    """
    highest = max(one.accuracy for one in readings if one.accuracy is not None)
    best = [one for one in readings if one.accuracy is not None and one.accuracy >= highest - _ALIKE]
    clearest = max(best, key=lambda one: one.lead or 0.0)
    if (clearest.lead or 0.0) <= (best[0].lead or 0.0) + _CLEARER:
        return best
    return [clearest, *(one for one in best if one is not clearest)]


def find_normalisation(subject: Subject, images: ImagePool) -> Normalisation | None:
    """Of none and the usual ones, that by which most images x (N, 3, H, W) in [0, 1] get their labels."""
    few = few_of(images)
    readings = []
    for one in (None, *usual(images.x.shape[1]).values()):
        preprocessing = replace(subject.preprocessing, normalisation=one)
        read = read_as(subject, preprocessing, few.x.split(_MEASURED))
        logits, y = read.logits(few.x).cpu().numpy(), few.y.cpu().numpy()
        if np.isfinite(logits).all():
            readings.append(_scored(preprocessing, logits, y))
        else:
            readings.append(PreprocessingTrial(preprocessing=preprocessing, accuracy=0.0))
    return best_trials(readings)[0].preprocessing.normalisation


def _scored(preprocessing: Preprocessing, logits: np.ndarray, y: np.ndarray) -> PreprocessingTrial:
    """How many of these finite logits (N, classes) are right by labels y (N,), and by how much."""
    accuracy = float((logits.argmax(1) == y).mean())
    return PreprocessingTrial(preprocessing=preprocessing, accuracy=accuracy, lead=_mean_lead(logits, y))


def _mean_lead(logits: np.ndarray, y: np.ndarray) -> float:
    """Mean of (own logit - largest other) / (largest - smallest), in [-1, 1], whatever the logits' scale."""
    own = np.take_along_axis(logits, y[:, None], 1)[:, 0]
    others = logits.copy()
    np.put_along_axis(others, y[:, None], -np.inf, 1)
    spread = np.maximum(logits.max(1) - logits.min(1), np.finfo(logits.dtype).tiny)
    return float(((own - others.max(1)) / spread).mean())


def _others(readings: list[PreprocessingTrial]) -> str:
    """The figures of every candidate, as the end of a message; nothing where all have one and the same problem."""
    if len({reading.problem for reading in readings}) == 1 and readings[0].problem:
        return ""
    return " [tried: " + "; ".join(reading.words for reading in readings) + "]"


def few_of(images: ImagePool) -> ImagePool:
    """At most 100 of the images, of all classes as far as that goes: what a network is asked about to know it."""
    return images.take(_spread(images.y.cpu(), _PROBE))


def _spread(y: Tensor, most: int) -> Tensor:
    """At most ``most`` indices, in order: of every class its first image, then its second, and so on."""
    if len(y) <= most:
        return torch.arange(len(y))
    rank = torch.zeros(len(y), dtype=torch.long)
    for label in set(y.tolist()):
        own = torch.nonzero(y == label).flatten()
        rank[own] = torch.arange(len(own))
    return torch.sort(torch.argsort(rank, stable=True)[:most]).values


def _half_precision(values: np.ndarray) -> bool:
    """Whether every number is written as half precision prints it, e.g. 35.6 for 35.59375."""
    with np.errstate(over="ignore"):
        return all(float(str(np.float16(value))) == value for value in values.flat)
