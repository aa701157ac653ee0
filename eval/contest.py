"""Runs the methods of a comparison on one model; every step is saved, so that it can go on after any death."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from .. import __version__
from ..core.device import describe_device
from ..core.errors import MothError, RunDirectoryError, one_line
from ..core.files import write_text
from ..core.images import ImagePool
from ..core.messages import Progress
from ..core.records import to_dict, to_json
from ..core.seeding import derive_seed
from ..core.subject import Subject
from ..hardeners.base import Hardener
from ..hardeners.trace import HardeningTrace
from ..hardeners.weights import load_weights, save_weights
from ..rounds.model_folder import ModelFolder
from ..rounds.open_folder import OpenedFolder
from ..rounds.poisoned_examples import PoisonedExamples, attack_success
from ..rounds.samples import Samples, collect_samples, with_unseen
from ..runs.journal import Journal, RunIdentity
from ..synthesis.pgd import pgd_accuracy
from ..triggers.distance import choose_pairs, measure_distances
from ..triggers.trigger import Pair
from .comparison import ORIGINAL, Comparison, ComparisonSettings, Entry, Judgement, Method, make_table, to_frame
from .csv_text import csv_text


@dataclass(frozen=True)
class Contest:
    """One model, the images that methods may see, the poisoned ones that they may not, and where records lie."""

    case: ModelFolder
    opened: OpenedFolder
    samples: Samples
    poisoned: PoisonedExamples | None
    settings: ComparisonSettings
    out: Path
    progress: Progress

    def run(self, entrants: Sequence[tuple[Method, Hardener]]) -> Comparison:
        """The original and every method in turn; one that fails has a row that says why.

        A row that is saved already is taken as it is; one that failed is tried again. RunDirectoryError if ``out``
        holds another comparison.
        """
        self.journal.open(self._identity())
        entries = [self._original()]
        for method, hardener in entrants:
            entries.append(self._entry(method, hardener))
            self._save(entries)
        return self._save(entries)

    @cached_property
    def journal(self) -> Journal:
        """Where rows, traces and the comparison's identity lie."""
        return Journal(self.out)

    @cached_property
    def judged(self) -> tuple[ImagePool, str]:
        """The images that rows are judged on, and what they are in words.

        Composed images can be had anew, so that not even the accuracy guards have seen them; examples cannot.
        """
        if self.settings.data.source == "composed":
            count = self.settings.judge.fresh_per_class
            data = replace(self.settings.data, train_per_class=1, held_per_class=count)
            fresh = collect_samples(self.case, self.opened, data, derive_seed(self._seed, "judge"))
            return fresh.held, f"{len(fresh.held)} new images ({count} per class) that no method saw"
        held = self.samples.held
        return held, f"{len(held)} held-back images, augmented, that no method trained on but accuracy guards watched"

    @cached_property
    def _audited(self) -> Samples:
        """The images that methods get, with those for the audit, which are not the ones that rows are judged on."""
        seed = derive_seed(self._seed, "images")
        return with_unseen(self.samples, self.case, self.opened, self.settings.data, seed)

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """The directed pairs that changes of distance are taken over."""
        wanted, seed = str(self.settings.judge.pairs), derive_seed(self._seed, "pairs")
        return tuple(choose_pairs(self.judged[0].counts(self._subject.classes), wanted, seed))

    @property
    def injected(self) -> tuple[Pair, ...]:
        """The pairs of the model's own triggers, where it has any."""
        return self.poisoned.pairs if self.poisoned else ()

    @property
    def _seed(self) -> int:
        return derive_seed(self.settings.seed, self.case.model_id)

    @property
    def _subject(self) -> Subject:
        return self.opened.subject

    def _identity(self) -> RunIdentity:
        settings = {**to_dict(self.settings), "source_sha256": self._subject.source_sha256}
        return RunIdentity(version=__version__, models=(self.case.model_id,), settings=settings)

    def _original(self) -> Entry:
        done = self.journal.read(self.case.model_id, ORIGINAL, Entry)
        if done is not None:
            return done
        entry = Entry(method=ORIGINAL, judgement=self._judge(self._subject, ORIGINAL))
        self.journal.write(self.case.model_id, ORIGINAL, entry)
        return entry

    def _entry(self, method: Method, hardener: Hardener) -> Entry:
        done = self.journal.read(self.case.model_id, method.slug, Entry)
        settings = to_dict(hardener.settings)
        if done is not None and done.failure is None:
            self._same_settings(method.slug, done.settings, settings)
            return done
        try:
            entry = self._harden_and_judge(method, hardener)
        except RunDirectoryError:  # damage to the comparison's own records is not the method's failure
            raise
        except MothError as error:
            entry = Entry(method=method.label, settings=settings, failure=str(error))
        except Exception as error:  # one method's failure must not end the table
            entry = Entry(method=method.label, settings=settings, failure=one_line(error))
        self.journal.write(self.case.model_id, method.slug, entry)
        return entry

    def _harden_and_judge(self, method: Method, hardener: Hardener) -> Entry:
        hardened, trace = self._harden(method, hardener)
        return Entry(
            method=method.label,
            settings=trace.settings,
            seconds=trace.seconds,
            stopped=trace.stopped,
            judgement=self._judge(hardened, method.label),
        )

    def _harden(self, method: Method, hardener: Hardener) -> tuple[Subject, HardeningTrace]:
        """Harden, or take up what an interrupted run has hardened; every method has the same images and seed."""
        stage, weights = f"{method.slug}.harden", self.out / "weights" / f"{method.slug}.safetensors"
        done = self.journal.read(self.case.model_id, stage, HardeningTrace)
        if done is not None and weights.exists():
            self._same_settings(stage, done.settings, to_dict(hardener.settings))
            return load_weights(weights, self._subject), done
        label, seed = method.label, derive_seed(self._seed, "harden")
        hardened = hardener(
            self._subject, self._audited, seed=seed, progress=lambda text: self.progress(f"{label}: {text}")
        )
        save_weights(hardened, weights)  # weights first: a journal that says "hardened" must never be without them
        self.journal.write(self.case.model_id, stage, hardened.trace)
        return hardened.subject, hardened.trace

    def _same_settings(self, stage: str, there: dict[str, object], now: dict[str, object]) -> None:
        changed = [key for key in sorted({*there, *now}) if there.get(key) != now.get(key)]
        if changed:
            key = changed[0]
            raise RunDirectoryError(
                f"{self.journal.path(self.case.model_id, stage)}: made with other settings ({key}: "
                f"{there.get(key)!r:.60} there, {now.get(key)!r:.60} now); give another --out or the same settings"
            )

    def _judge(self, subject: Subject, label: str) -> Judgement:
        """Every row with the same images, pairs, starts and attacks, so that only the weights differ."""
        started = time.perf_counter()
        settings, (pool, description) = self.settings, self.judged
        self.progress(f"{label}: accuracy and robustness")
        attacked = pool.first_per_class(settings.judge.robustness_per_class)
        accuracy = subject.accuracy(pool.x, pool.y)
        robustness = pgd_accuracy(subject, attacked, settings.robustness, derive_seed(self._seed, "robustness"))
        self.progress(f"{label}: distances")
        matrix = measure_distances(
            subject,
            pool,
            settings.distance,
            description,
            lambda text: self.progress(f"{label}: distances, {text}"),
            pairs=[*self.pairs, *self.injected],
        )
        return Judgement(
            accuracy=accuracy,
            robustness=robustness,
            attack_success=attack_success(subject, self.poisoned),
            distances=matrix.distances,
            seconds=time.perf_counter() - started,
        )

    def _save(self, entries: Sequence[Entry]) -> Comparison:
        """comparison.json and comparison.csv as far as they are known."""
        comparison = Comparison(
            model_id=self.case.model_id,
            architecture=self._subject.architecture,
            classes=self._subject.classes,
            source_sha256=self._subject.source_sha256,
            version=__version__,
            device=describe_device(self._subject.device),
            data=self.samples.description,
            judged=self.judged[1],
            poisoned_examples=len(self.poisoned) if self.poisoned else 0,
            pairs=self.pairs,
            injected=self.injected,
            settings=self.settings,
            entries=tuple(entries),
            table=make_table(entries, self.pairs, self.injected),
        )
        write_text(self.out / "comparison.json", to_json(comparison))
        write_text(self.out / "comparison.csv", csv_text(to_frame(comparison.table)))
        return comparison
