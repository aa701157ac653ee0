"""What a hardener is: a subject and images in, a changed copy of the subject and the trace of what was done out."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, final

import torch

from ..core.device import is_out_of_memory
from ..core.errors import MothError, PluginError, SettingsError, one_line
from ..core.messages import Progress, silent
from ..core.records import to_dict
from ..core.standard_logits import as_published, standardised
from ..core.subject import Subject
from ..core.time_limit import TimeLimitExceeded, check_budget, run_with_time_limit
from ..rounds.samples import Samples
from ..scanners.checks import is_size
from .accuracy_guard import Audit, audit
from .trace import Hardened, HardeningRound, HardeningTrace


class Hardener(ABC):
    """Base of all hardeners. A hardener never sees a label of poisoning or a path: only a subject and its images."""

    name: ClassVar[str]
    settings_type: ClassVar[type]

    def __init__(self, settings: Any = None) -> None:
        """Take a record of settings_type; the defaults without one."""
        self.settings = settings if settings is not None else self.settings_type()

    @final
    def __call__(
        self,
        subject: Subject,
        samples: Samples,
        *,
        seed: int,
        progress: Progress = silent,
        time_budget: float | None = None,
    ) -> Hardened:
        """Harden a copy of the subject; SettingsError if there are no images to watch the accuracy on.

        time_budget: seconds after which it is given up, see :mod:`~trojai_moth.core.time_limit`; None: no limit.
        PluginError, with the kind, if the hardener raises, takes longer or leaves weights that cannot be used.
        """
        check_budget(time_budget)
        if len(samples.clean) == 0:
            raise SettingsError("hardening needs held-back images to guard the accuracy: at least 2 per class")
        started = time.perf_counter()
        clean = samples.clean
        with _named_failures(self.name):

            def hardened() -> tuple[Subject, Subject, tuple[list[HardeningRound], str]]:
                given = standardised(subject, samples.train)
                work = given.clone()
                return given, work, self.harden(work, samples, seed=seed, progress=progress)

            given, work, (rounds, stopped) = run_with_time_limit(time_budget, hardened)
            rounds = list(rounds)
            problem = hardening_problem(given, work, rounds, stopped)
            if problem:
                raise PluginError(f"the hardener {self.name} {problem}", "invalid")
            found = audit(given, work, samples.unseen, getattr(self.settings, "accuracy_limit", None))
            before, after = (one.accuracy(clean.x, clean.y) for one in (given, work))
            work = as_published(work, subject)
        trace = HardeningTrace(
            hardener=self.name,
            settings=to_dict(self.settings),
            seed=seed,
            data=samples.description,
            accuracy_before=before,
            accuracy_after=after,
            held_images=len(clean),
            rounds=tuple(rounds),
            stopped=_reason(stopped, found),
            audit=found,
            seconds=time.perf_counter() - started,
        )
        return Hardened(work, trace)

    @abstractmethod
    def harden(
        self, work: Subject, samples: Samples, *, seed: int, progress: Progress
    ) -> tuple[list[HardeningRound], str]:
        """Change the weights of ``work``, which is a copy, in place; return what each round did and why it ended.

        Train on ``samples.train``; watch the accuracy on ``samples.clean`` and ``samples.held``, which are not for
        training. Derive randomness with seeding.generator(seed, ...). ``progress`` takes a word now and then.
        """


def _reason(stopped: str, found: Audit | None) -> str:
    if found is None or found.share == 1:
        return stopped
    return f"{stopped}; on unseen images it cost too much, and {found.share:.0%} of the way was kept"


@contextmanager
def _named_failures(name: str) -> Iterator[None]:
    """What a hardener fails with, as a PluginError; what it says in our own words, and Ctrl-C, pass through."""
    try:
        yield
    except TimeLimitExceeded as error:
        raise PluginError(f"the hardener {name} {error}", "time-out") from None
    except MothError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(one_line(error), "out of memory" if is_out_of_memory(error) else "error") from error


def hardening_problem(given: Subject, work: Subject, rounds: Iterable[Any], stopped: Any) -> str | None:
    """What is wrong with what a hardener left in ``work``, a copy of ``given``, or with what it says it did."""
    before, after = given.module.state_dict(), work.module.state_dict()
    if before.keys() != after.keys():
        return "changed which weights the model has"
    for name, tensor in after.items():
        if (tensor.shape, tensor.dtype, tensor.device) != (before[name].shape, before[name].dtype, before[name].device):
            return f"changed the shape, kind or device of {name}"
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            return f"left numbers in {name} that are not finite"
    if not isinstance(stopped, str):
        return f"returned {type(stopped).__name__} as the reason why it ended"
    return next((problem for problem in map(_round_problem, rounds) if problem), None)


def _round_problem(done: Any) -> str | None:
    if not isinstance(done, HardeningRound):
        return f"returned {type(done).__name__}, not a HardeningRound"
    if not (math.isfinite(done.accuracy) and math.isfinite(done.learning_rate)):
        return f"gave the accuracy {done.accuracy} and the learning rate {done.learning_rate} in round {done.number}"
    # What was taken back may well have been taken back because its loss ran away.
    if done.loss is not None and not math.isfinite(done.loss) and not done.taken_back:
        return f"gave the loss {done.loss} in round {done.number}"
    if not all(is_size(size) for _, _, size in done.pairs):
        return f"gave a trigger size that is no number in round {done.number}"
    return None
