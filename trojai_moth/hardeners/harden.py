"""Hardening one opened model by name: the API's ``harden``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..core.messages import Progress, silent
from ..core.seeding import derive_seed
from ..rounds.model import Model, On
from ..rounds.samples import Samples
from .base import Hardener
from .registry import make_hardener
from .trace import HardeningTrace
from .weights import load_weights, read_trace


@dataclass(frozen=True, repr=False, kw_only=True)
class HardenedModel(Model):
    """A model with hardened weights: ``origin`` is the one before, ``trace`` how they came to be.

    It is scanned, measured and hardened like any other, on the same images; ``save_weights`` writes it.
    """

    origin: Model
    trace: HardeningTrace

    @property
    def signs(self) -> Sequence[Path]:
        """As of the model before."""
        return self.origin.signs

    def to_harden(self) -> Samples:
        """As of the model before."""
        return self.origin.to_harden()

    def originals(self, on: On) -> list[int] | None:
        """As of the model before."""
        return self.origin.originals(on)

    def __repr__(self) -> str:
        """One line."""
        before, after, _ = self.trace.cost
        cost = f"accuracy {before:.1%} -> {after:.1%}"
        return f"<HardenedModel {self.subject.words}; {self.trace.hardener}, {cost}>"


def harden(
    model: Model,
    hardener: str | Hardener = "moth",
    *,
    settings: Mapping[str, Any] | None = None,
    seed: int | None = None,
    time_budget: float | None = None,
    progress: Progress = silent,
) -> HardenedModel:
    """The model with its class distances enlarged; the given one stays as it is.

    hardener: the name of an installed one (moth: model orthogonalization, Tao et al., IEEE S&P 2022, section V), or a
    hardener object. settings: of that hardener, by name. seed: by default the model's. time_budget: seconds after which
    it is given up. progress is called with a few words now and then.

    Raises SettingsError as :func:`scan` does, and MothError where hardening fails or its time is used up.

    >>> import trojai_moth as tm
    >>> from trojai_moth.testing import trained_subject, square_images
    >>> pool = square_images(20, seed=1)
    >>> model = tm.open_model(trained_subject().module, images=pool.x, labels=pool.y, device="cpu")
    >>> hard = tm.harden(model, "moth", settings={"rounds": 1, "precision": "fp32"})
    >>> hard.trace.hardener, len(hard.trace.rounds)
    ('moth', 2)
    """
    chosen = hardener if isinstance(hardener, Hardener) else make_hardener(hardener, settings or {})
    own = derive_seed(model.seed, "harden") if seed is None else seed
    done = chosen(model.subject, model.to_harden(), seed=own, progress=progress, time_budget=time_budget)
    return HardenedModel(done.subject, model.samples, model.seed, model.data, origin=model, trace=done.trace)


def load_hardened(path: str | Path, model: Model) -> HardenedModel:
    """The model with the hardened weights of a file that :func:`save_weights` wrote; nothing in it is run.

    Raises UnreadableModelError for a damaged file, one without a trace, or weights made from another model. See
    save_weights for an example.
    """
    path = Path(os.path.realpath(path))  # a link that the caller named is followed
    trace = read_trace(path)
    subject = load_weights(path, model.subject, sha256=trace.weights_sha256)
    trace = replace(trace, weights_sha256=None)  # of the file, which may go
    return HardenedModel(subject, model.samples, model.seed, model.data, origin=model, trace=trace)
