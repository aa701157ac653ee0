"""What a scanner is: a subject and images in, graded evidence and one of three outcomes out."""

from __future__ import annotations

import dataclasses
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, final

from ..core.device import is_out_of_memory
from ..core.errors import Misconduct, one_line
from ..core.messages import kept_traceback
from ..core.records import from_dict, to_dict
from ..core.standard_logits import UnusableLogits, standardised
from ..core.statistics import logistic
from ..core.subject import Subject
from ..core.time_limit import TimeLimitExceeded, check_budget, run_with_time_limit
from ..rounds.samples import Samples
from ..triggers.trigger import Trigger
from .checks import model_change, verdict_problem
from .result import Candidate, ScanResult

# Triggers that a scan may show beside its verdict: as many as people look at.
MOST_SHOWN = 8


class Scanner(ABC):
    """Base of all scanners. A scanner never sees a label of poisoning or a path: only a subject and its images."""

    name: ClassVar[str]
    settings_type: ClassVar[type]
    for_described: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Settings, where not given, for networks that are no round's: all kinds of backdoors must be looked for."""
    _shown: tuple[Trigger, ...] = ()

    def __init__(self, settings: Any = None) -> None:
        """Take a record of settings_type; the defaults without one."""
        self.settings = settings if settings is not None else self.settings_type()

    @final
    def __call__(
        self, subject: Subject, samples: Samples, *, seed: int, time_budget: float | None = None
    ) -> ScanResult:
        """Scan a copy, and turn what goes wrong into a verdict of "not judged" with the reason: never into "clean".

        time_budget: seconds after which the scan is given up, see :mod:`~trojai_moth.core.time_limit`; None: no limit.
        SettingsError if it is not positive. The subject stays as it is, whatever the scanner does.
        """
        check_budget(time_budget)
        started, self._shown = time.perf_counter(), ()
        verdict = self._checked(subject, samples, seed, time_budget)
        if verdict.flagged is None:
            self._shown = ()
        settings, seconds = to_dict(self.settings), time.perf_counter() - started
        return from_dict(ScanResult, {**to_dict(verdict), "settings": settings, "seed": seed, "seconds": seconds})

    @abstractmethod
    def scan(self, subject: Subject, samples: Samples, *, seed: int) -> ScanResult:
        """Examine ``samples.train`` and ``samples.held``; derive randomness with seeding.generator(seed, ...).

        The subject's logits have a standard scale (core/standard_logits.py), whatever its file gives.
        """

    @property
    def triggers(self) -> tuple[Trigger, ...]:
        """Triggers that the last scan showed, on the CPU; none of a model that it could not judge."""
        return self._shown

    def show(self, trigger: Trigger) -> None:
        """Keep a trigger to be looked at; no part of the verdict. Call it in ``scan``, in the order of the evidence.

        Those after the first MOST_SHOWN are dropped. ValueError for a mask that is not (1, H, W) or a pattern that is
        not (C, H, W).
        """
        mask, pattern = (part.detach().cpu().clone() for part in (trigger.mask, trigger.pattern))
        side = mask.shape[1:]
        if tuple(mask.shape) != (1, *side) or tuple(pattern.shape[1:]) != side:
            raise ValueError(f"a trigger with a mask of {tuple(mask.shape)} and a pattern of {tuple(pattern.shape)}")
        if len(self._shown) < MOST_SHOWN:
            self._shown = (*self._shown, Trigger(trigger.victim, trigger.target, mask, pattern))

    def _checked(self, subject: Subject, samples: Samples, seed: int, time_budget: float | None) -> ScanResult:
        try:
            verdict = run_with_time_limit(time_budget, lambda: self._scanned(subject, samples, seed))
            problem = verdict_problem(verdict, subject.classes)
            if problem:
                return self._skipped("invalid", f"the scanner {problem}")
        except TimeLimitExceeded as error:
            return self._skipped("time-out", f"the scanner {error}")
        except (Exception, SystemExit) as error:  # a scanner is a plugin, and a crash must not end as 1, "flagged"
            kind: Misconduct = "out of memory" if is_out_of_memory(error) else "error"
            return self._skipped(kind, " ".join(one_line(error).split()), kept_traceback(error))
        return verdict

    def _scanned(self, subject: Subject, samples: Samples, seed: int) -> ScanResult:
        try:
            given = standardised(subject, samples.train)
        except UnusableLogits as error:
            return self._skipped("invalid", f"the network {error.problem}")
        work = given.clone()
        with work.frozen():
            verdict = self.scan(work, samples, seed=seed)
            changed = model_change(given.module, work.module)
        return self._skipped("changed the model", f"the scanner {changed}") if changed else verdict

    def _skipped(self, skip: Misconduct, reason: str, traceback: str | None = None) -> ScanResult:
        return dataclasses.replace(self.not_judged(reason), skip=skip, traceback=traceback)

    def judged(self, score: float, reason: str, evidence: Sequence[Candidate]) -> ScanResult:
        """The verdict by a score: flagged above 0; the probability is a plain logistic curve, not calibrated."""
        return ScanResult(
            scanner=self.name,
            outcome="flagged" if score > 0 else "clean",
            score=score,
            probability=logistic(score),
            reason=reason,
            evidence=tuple(evidence),
        )

    def not_judged(self, reason: str) -> ScanResult:
        """The verdict for a model that could not be examined."""
        return ScanResult(scanner=self.name, outcome="not judged", score=None, probability=None, reason=reason)
