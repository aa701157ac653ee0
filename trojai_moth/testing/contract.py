"""What every plugin must do, whether it scans or hardens."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, ClassVar, Generic, TypeVar

from ..core.records import from_dict
from ..core.subject import Subject
from ..rounds.samples import Samples
from .planted import SLOW_S
from .surroundings import GRACE_S, misleading_folder, move_streams, renamed, require, streams

SEED = 7
# Seconds that a plugin is given for a network on which one batch takes longer.
BUDGET_S = SLOW_S / 3
R = TypeVar("R")


class PluginContract(ABC, Generic[R]):
    """What the contracts of scanners and hardeners share; R is what a plugin gives, ``gives`` the word for it."""

    gives: ClassVar[str]
    settings: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    @abstractmethod
    def plugin(self) -> type[Any]:
        """The plugin's class."""

    @abstractmethod
    def subject(self) -> Subject:
        """A network to work on."""

    @abstractmethod
    def samples(self) -> Samples:
        """Its images."""

    @abstractmethod
    def same(self, one: R, other: R) -> bool:
        """Whether two runs gave the same."""

    def make(self) -> Any:
        """A new plugin with the settings."""
        kind = self.plugin()
        return kind(from_dict(kind.settings_type, dict(self.settings), source=f"settings of {kind.name}"))

    def run(self, subject: Subject | None = None, samples: Samples | None = None, **how: Any) -> R:
        """What a new plugin gives with the contract's seed."""
        found: R = self.make()(subject or self.subject(), samples or self.samples(), seed=SEED, **how)
        return found

    def result(self) -> R:
        """What it gives for the subject, run once for all tests of a class."""
        return self._twice()[0]

    def _twice(self) -> tuple[R, R, bool]:
        """Two results, with the global streams moved in between, and whether the second run left those alone."""
        kind: Any = type(self)
        if "_results" not in vars(kind):
            first = self.run()
            move_streams()
            before = streams()
            kind._results = (first, self.run(), streams() == before)
        found: tuple[R, R, bool] = kind._results
        return found

    @contextmanager
    def in_time(self) -> Iterator[None]:
        """AssertionError when what is done inside, with a time budget of BUDGET_S, takes much longer."""
        started = time.monotonic()
        yield
        seconds = time.monotonic() - started
        require(seconds < GRACE_S, f"it went on for {seconds:.0f} s with a time budget of {BUDGET_S} s")

    def test_the_same_seed_gives_the_same(self) -> None:
        """Whatever the global random streams hold."""
        first, second, _ = self._twice()
        words = f"the same seed gave two {self.gives}: draw from seeding.generator(seed, ...)"
        require(self.same(first, second), words)

    def test_global_random_streams_are_left_alone(self) -> None:
        """What runs next must not depend on whether a plugin ran."""
        require(self._twice()[2], "it drew from a global random stream or seeded one")

    def test_names_and_files_around_say_nothing(self) -> None:
        """The same network under another id, in a folder whose labels mislead, gives the same."""
        expected, subject = self.result(), renamed(self.subject())
        with misleading_folder():
            found = self.run(subject)
        words = f"the {self.gives} depend on the model's id, its file's hash or files around"
        require(self.same(expected, found), words)
