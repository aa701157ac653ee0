"""What a hardener is: a subject and images in, a changed copy of the subject and the trace of what was done out."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, final

from .audit import Audit, audit
from .device import is_out_of_memory
from .errors import MothError, PluginError, SettingsError, one_line
from .plugin_checks import hardening_problem
from .plugins import load_plugins, make_plugin
from .records import record, to_dict
from .samples import Samples
from .subject import Subject
from .time_budget import OverBudget, check_budget, within

GROUP = "trojai_moth.hardeners"
Progress = Callable[[str], None]


@record
class HardeningRound:
    """What one round did: directed pairs with their trigger sizes (pixels; None where no trigger was found)."""

    number: int
    pairs: tuple[tuple[int | None, int, float | None], ...]
    loss: float | None
    learning_rate: float
    accuracy: float
    taken_back: bool


@record
class HardeningTrace:
    """Everything there is to know afterwards about one hardening.

    accuracy_before, accuracy_after: on the ``held_images`` of ``samples.clean``, which the guard watched; what that
    flatters, ``audit`` does not, where there were images for one. seconds: in a run also those of reading the model and
    its images, where that was still to be done.
    """

    hardener: str
    settings: dict[str, Any]
    seed: int
    data: str
    accuracy_before: float
    accuracy_after: float
    held_images: int
    rounds: tuple[HardeningRound, ...]
    stopped: str
    seconds: float
    audit: Audit | None = None

    @property
    def cost(self) -> tuple[float, float, int]:
        """Accuracy before and after, and on how many images: unseen ones where there were any, else the guarded."""
        if self.audit is not None:
            return self.audit.accuracy_before, self.audit.accuracy_after, self.audit.images
        return self.accuracy_before, self.accuracy_after, self.held_images


@dataclass(frozen=True)
class Hardened:
    """The new subject (the one given is untouched) and the trace of how it came to be."""

    subject: Subject
    trace: HardeningTrace


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
        progress: Progress | None = None,
        time_budget: float | None = None,
    ) -> Hardened:
        """Harden a copy of the subject; SettingsError if there are no images to watch the accuracy on.

        time_budget: seconds after which it is given up, see :mod:`~trojai_moth.time_budget`; None: no limit.
        PluginError, with the kind, if the hardener raises, takes longer or leaves weights that can not be used.
        """
        check_budget(time_budget)
        if len(samples.clean) == 0:
            raise SettingsError("hardening needs held-back images to guard the accuracy: at least 2 per class")
        started = time.perf_counter()
        work, clean = subject.clone(), samples.clean
        told = progress or (lambda _: None)
        with _named_failures(self.name):
            before = work.accuracy(clean.x, clean.y)
            rounds, stopped = within(time_budget, lambda: self.harden(work, samples, seed=seed, progress=told))
            rounds = list(rounds)
            problem = hardening_problem(subject, work, rounds, stopped)
            if problem:
                raise PluginError(f"the hardener {self.name} {problem}", "invalid")
            found = audit(subject, work, samples.unseen, getattr(self.settings, "accuracy_limit", None))
            after = work.accuracy(clean.x, clean.y)
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
    except OverBudget as error:
        raise PluginError(f"the hardener {name} {error}", "time-out") from None
    except MothError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(one_line(error), "out of memory" if is_out_of_memory(error) else "error") from error


def hardeners() -> Mapping[str, type[Hardener]]:
    """Every usable hardener of this installation by name; MothError for two of one name or for none at all."""
    return load_plugins(GROUP, "hardener", Hardener)


def make_hardener(name: str, options: Mapping[str, Any]) -> Hardener:
    """The hardener of this name with these settings; SettingsError lists the names or says which setting is wrong."""
    hardener: Hardener = make_plugin(hardeners(), "hardener", name, options)
    return hardener
