"""What a scanner is: a subject and images in, graded evidence and one of three outcomes out."""

from __future__ import annotations

import dataclasses
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, final

from .device import is_out_of_memory
from .errors import Misconduct, one_line
from .messages import kept_traceback
from .outliers import logistic
from .plugin_checks import model_change, network_problem, verdict_problem
from .plugins import load_plugins, make_plugin
from .records import Field, from_dict, is_missing, record, to_dict
from .samples import Samples
from .subject import Subject
from .time_budget import OverBudget, check_budget, within
from .trigger import Trigger

GROUP = "trojai_moth.scanners"
Outcome = Literal["flagged", "clean", "not judged"]
# Triggers that a scan may show beside its verdict: as many as people look at.
MOST_SHOWN = 8


@record
class Candidate:
    """One inverted trigger: a class pair that may hide a backdoor. victim None: a universal trigger, of any class.

    size: of a patch in pixels (L1 of the mask), of a filter the mean change of a pixel's colour values in [0, 1]; None
    where no trigger reached the bound: never the same as a large one. success on the images inverted on, held_success
    on held_images images held back from the inversion. What a scanner did not measure is None: left_out_success, on
    images left out of the inversion one at a time; jitter_success, on held-back images shifted, turned and scaled a
    little; reverse_size, of the smallest trigger found from target to victim. scanner: which of several found it.
    """

    victim: int | None
    target: int
    size: float | None
    success: float
    held_success: float | None
    held_images: int
    converged: bool
    kind: Literal["patch", "filter"] = "patch"
    left_out_success: float | None = None
    jitter_success: float | None = None
    reverse_size: float | None = None
    scanner: str | None = None


@record
class Calibrated:
    """What a learned calibration made a verdict from; fitted_on: it was learned from this very model, among others."""

    sha256: str
    raw_score: float
    raw_probability: float | None
    fitted_on: bool


@record
class Verdict:
    """What a scanner says about one model; evidence is sorted, most suspicious first.

    score is above 0 exactly when the model is flagged; probability of being poisoned in [0.02, 0.98]. incomplete: one
    of several scanners could not judge, and the score is that of the others; member_scores: what each of several that
    judged it said, on the same footing as the score. skip: what went wrong where the base class refused to take a
    judgement; None for a judgement, and for a scanner that itself says why it can not judge. traceback: of what it
    raised, where tracebacks are asked for (``--debug``); else it is no part of the record.
    """

    scanner: str
    outcome: Outcome
    score: float | None
    probability: float | None
    reason: str
    evidence: tuple[Candidate, ...] = ()
    settings: dict[str, Any] = Field(default_factory=dict)
    seed: int = 0
    seconds: float = 0.0
    incomplete: bool = False
    member_scores: dict[str, float] = Field(default_factory=dict)
    calibrated: Calibrated | None = None
    skip: Misconduct | None = None
    traceback: str | None = Field(default=None, exclude_if=is_missing)

    @property
    def flagged(self) -> bool | None:
        """True, False, or None when the model could not be judged."""
        return None if self.outcome == "not judged" else self.outcome == "flagged"

    @property
    def flagged_by(self) -> tuple[str, ...]:
        """Those of several scanners that flag the model, each alone."""
        return tuple(name for name, score in self.member_scores.items() if score > 0)


class Scanner(ABC):
    """Base of all scanners. A scanner never sees a label of poisoning or a path: only a subject and its images."""

    name: ClassVar[str]
    settings_type: ClassVar[type]
    _shown: tuple[Trigger, ...] = ()

    def __init__(self, settings: Any = None) -> None:
        """Take a record of settings_type; the defaults without one."""
        self.settings = settings if settings is not None else self.settings_type()

    @final
    def __call__(self, subject: Subject, samples: Samples, *, seed: int, time_budget: float | None = None) -> Verdict:
        """Scan a copy, and turn what goes wrong into a verdict of "not judged" with the reason: never into "clean".

        time_budget: seconds after which the scan is given up, see :mod:`~trojai_moth.time_budget`; None: no limit.
        SettingsError if it is not positive. The subject stays as it is, whatever the scanner does.
        """
        check_budget(time_budget)
        started, self._shown = time.perf_counter(), ()
        verdict = self._checked(subject, samples, seed, time_budget)
        if verdict.flagged is None:
            self._shown = ()
        settings, seconds = to_dict(self.settings), time.perf_counter() - started
        return from_dict(Verdict, {**to_dict(verdict), "settings": settings, "seed": seed, "seconds": seconds})

    @abstractmethod
    def scan(self, subject: Subject, samples: Samples, *, seed: int) -> Verdict:
        """Examine ``samples.train`` and ``samples.held``; derive randomness with seeding.generator(seed, ...)."""

    @property
    def triggers(self) -> tuple[Trigger, ...]:
        """Triggers that the last scan showed, on the CPU; none of a model that it could not judge."""
        return self._shown

    def show(self, trigger: Trigger) -> None:
        """Keep a trigger to be looked at; no part of the verdict. Call it in ``scan``, in the order of the evidence.

        Those after the first MOST_SHOWN are dropped. ValueError for a mask that is not (1, H, W) or a pattern that is
        not (3, H, W).
        """
        mask, pattern = (part.detach().cpu().clone() for part in (trigger.mask, trigger.pattern))
        side = mask.shape[1:]
        if tuple(mask.shape) != (1, *side) or tuple(pattern.shape) != (3, *side):
            raise ValueError(f"a trigger with a mask of {tuple(mask.shape)} and a pattern of {tuple(pattern.shape)}")
        if len(self._shown) < MOST_SHOWN:
            self._shown = (*self._shown, Trigger(trigger.victim, trigger.target, mask, pattern))

    def _checked(self, subject: Subject, samples: Samples, seed: int, time_budget: float | None) -> Verdict:
        try:
            work = subject.clone()
            with work.frozen():
                verdict = within(time_budget, lambda: self.scan(work, samples, seed=seed))
                changed = model_change(subject.module, work.module)
            if changed:
                return self._skipped("changed the model", f"the scanner {changed}")
            problem = verdict_problem(verdict, subject.classes)
            if problem:
                return self._skipped("invalid", f"the scanner {problem}")
            if verdict.flagged is not None:
                problem = network_problem(subject, samples)
        except OverBudget as error:
            return self._skipped("time-out", f"the scanner {error}")
        except (Exception, SystemExit) as error:  # a scanner is a plugin, and a crash must not end as 1, "flagged"
            kind: Misconduct = "out of memory" if is_out_of_memory(error) else "error"
            return self._skipped(kind, " ".join(one_line(error).split()), kept_traceback(error))
        return self._skipped("invalid", f"the network {problem}") if problem else verdict

    def _skipped(self, skip: Misconduct, reason: str, traceback: str | None = None) -> Verdict:
        return dataclasses.replace(self.not_judged(reason), skip=skip, traceback=traceback)

    def judged(self, score: float, reason: str, evidence: Sequence[Candidate]) -> Verdict:
        """The verdict by a score: flagged above 0; the probability is a plain logistic curve, not calibrated."""
        return Verdict(
            scanner=self.name,
            outcome="flagged" if score > 0 else "clean",
            score=score,
            probability=logistic(score),
            reason=reason,
            evidence=tuple(evidence),
        )

    def not_judged(self, reason: str) -> Verdict:
        """The verdict for a model that could not be examined."""
        return Verdict(scanner=self.name, outcome="not judged", score=None, probability=None, reason=reason)


def scanners() -> Mapping[str, type[Scanner]]:
    """Every usable scanner of this installation by name; MothError for two of one name or for none at all."""
    return load_plugins(GROUP, "scanner", Scanner)


def make_scanner(name: str, options: Mapping[str, Any]) -> Scanner:
    """The scanner of this name with these settings; SettingsError lists the names or says which setting is wrong.

    ``a,b``: both at once, see :mod:`~trojai_moth.several`; then ``options`` holds the settings of each under its name.
    """
    if "," in name:
        from .several import make_several  # it is itself made of scanners

        return make_several(name, options)
    scanner: Scanner = make_plugin(scanners(), "scanner", name, options)
    return scanner
