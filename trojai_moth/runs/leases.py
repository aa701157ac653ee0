"""Who is at work on which model: one small file per model in work, on a file system that several machines share.

A lease is made by exclusive creation, so just one of several gets it. Its holder counts up a number in it, the
heartbeat, through the open file. Whoever waits for it looks again and again, and calls it expired when the content has
not changed for long enough by the observer's *own* monotonic clock: neither another machine's clock nor a jump of one's
own matters, and an observer that slept does not count its sleep. A holder of the same machine whose process is gone
need not be waited for.

To take over is to create the *next* lease, ``MODEL.2.lease`` after ``MODEL.1.lease``, again exclusively; the number
thus says how many have died at this model. A holder that was only slow sees the next one and knows that it has lost.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..core.files import open_regular, written
from ..core.process_identity import is_process_dead, process_name
from ..core.records import LONGEST_S, Field, record

SUFFIX = ".lease"
# An observer that looks less often than this many times per term does not count the time between two looks in full.
_LOOKS = 8
# A lease says less; what is there instead of one need not be read whole.
_LONGEST = 1024


@record
class LeaseTerms:
    """How leases are kept alive and given up."""

    expiry: float = Field(
        default=90.0, gt=0, le=LONGEST_S, description="seconds without a heartbeat after which a lease is void"
    )
    beats: int = Field(default=9, ge=3, le=1000, description="heartbeats in that time")


@dataclass(frozen=True)
class Standing:
    """A lease as it lies there: how many were before it, and its content."""

    path: Path
    generation: int
    content: str

    @property
    def owner(self) -> str:
        """Its maker's name, see :mod:`~trojai_moth.core.process_identity`; empty if it says nothing yet."""
        return self.content.partition("\n")[0]

    @property
    def host(self) -> str:
        """The machine of that process, for people."""
        return self.content.split("\n")[1] if self.content.count("\n") > 1 else "?"


class Lease:
    """A lease that this process holds; a thread keeps it alive until it is released."""

    def __init__(self, path: Path, descriptor: int, generation: int, terms: LeaseTerms) -> None:
        """Take over an open file that was just created, and begin to beat."""
        self.path, self.generation = path, generation
        self._file, self._pause, self._count = descriptor, terms.expiry / terms.beats, 0
        self._token = secrets.token_hex(8)
        self._over = threading.Event()
        self._write()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    @property
    def held(self) -> bool:
        """Whether it is still ours: nobody has taken over, and it is there."""
        return not self._successor().exists() and self._token in _content(self.path)

    def release(self) -> None:
        """Stop beating and remove it, unless somebody else has taken over."""
        self._over.set()
        self._thread.join()
        with suppress(OSError):
            if self._token in _content(self.path):
                self.path.unlink(missing_ok=True)
        os.close(self._file)

    def _successor(self) -> Path:
        model_id = self.path.name.rsplit(".", 2)[0]
        return self.path.with_name(f"{model_id}.{self.generation + 1}{SUFFIX}")

    def _write(self) -> None:
        # Through the open file and always as long: a lease that was taken away is not brought back by this.
        text = f"{process_name()}\n{socket.gethostname()}\n{self._token} {self._count:012d}\n"
        os.pwrite(self._file, text.encode(), 0)

    def _beat(self) -> None:
        while not self._over.wait(self._pause):
            self._count += 1
            with suppress(OSError):  # a file system that is away for a while: the lease may expire, which is right
                self._write()


class Leases:
    """The leases of one run."""

    def __init__(self, folder: Path, terms: LeaseTerms | None = None) -> None:
        """Use this folder, which is made when the first lease is."""
        self.folder, self.terms = folder, terms or LeaseTerms()

    def standing(self, model_id: str) -> Standing | None:
        """The lease that counts for a model, if there is one."""
        return self.all({model_id}).get(model_id)

    def all(self, of: Collection[str] | None = None) -> dict[str, Standing]:
        """The lease that counts for each model that has one; only those ``of`` some models, if these are given."""
        latest: dict[str, tuple[int, Path]] = {}
        for model_id, generation, path in self._files():
            if generation > latest.get(model_id, (0, path))[0] and (of is None or model_id in of):
                latest[model_id] = (generation, path)
        found = {key: Standing(path, number, _content(path)) for key, (number, path) in latest.items()}
        return {key: standing for key, standing in found.items() if standing.content or standing.path.exists()}

    def acquire(self, model_id: str, expired: str | None = None) -> Lease | None:
        """The lease, or None while somebody else has it.

        What is there is taken over if its holder is certainly dead, or if its content is still ``expired``, what was
        found unchanged for too long.
        """
        there = self.standing(model_id)
        if there and not (is_process_dead(there.owner) or there.content == expired):
            return None
        generation = there.generation + 1 if there else 1
        path = self.folder / f"{model_id}.{generation}{SUFFIX}"
        lease = written(path, lambda: self._create(path, generation))
        if lease is None:
            return None
        # Between the look and the creation others may have come and gone.
        others = [standing for standing in self._of(model_id) if standing.path != path]
        if any(other.generation > generation or there is None or other.content != there.content for other in others):
            lease.release()
            return None
        for other in others:
            other.path.unlink(missing_ok=True)
        return lease

    def _create(self, path: Path, generation: int) -> Lease | None:
        """A new lease, or None if there is one already; one that cannot be written to the end is not left there."""
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        except FileExistsError:
            return None
        try:
            return Lease(path, descriptor, generation, self.terms)
        except OSError:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise

    def sweep(self, wanted: Callable[[str], bool]) -> None:
        """Remove what dead holders left behind at the models that are wanted to be free of them."""
        for model_id, standing in self.all().items():
            if is_process_dead(standing.owner) and wanted(model_id):
                standing.path.unlink(missing_ok=True)

    def _of(self, model_id: str) -> list[Standing]:
        return [Standing(path, number, _content(path)) for name, number, path in self._files() if name == model_id]

    def _files(self) -> list[tuple[str, int, Path]]:
        try:
            names = [name for name in os.listdir(self.folder) if name.endswith(SUFFIX)]
        except FileNotFoundError:
            return []
        parts = [(name, *name.removesuffix(SUFFIX).rpartition(".")) for name in names]
        return [
            (model_id, int(number), self.folder / name) for name, model_id, _, number in parts if number.isdecimal()
        ]


class LeaseWatch:
    """Tells leases that have expired from those that live, by looking at them again and again."""

    def __init__(self, expiry: float, clock: Callable[[], float] = time.monotonic) -> None:
        """expiry: seconds of ``clock``, which need not be anybody else's, without a change."""
        self._expiry, self._clock = expiry, clock
        self._seen: dict[str, tuple[str, float, float]] = {}

    def expired(self, model_id: str, standing: Standing) -> bool:
        """Whether it has not changed for that long, this look included."""
        now = self._clock()
        content, last, unchanged = self._seen.get(model_id, ("", now, 0.0))
        if content != standing.content:
            unchanged = 0.0
        else:
            unchanged += min(max(0.0, now - last), self._expiry / _LOOKS)
        self._seen[model_id] = (standing.content, now, unchanged)
        return unchanged >= self._expiry


def _content(path: Path) -> str:
    """What a lease says; empty if it has just been made or removed."""
    try:
        with open_regular(path) as file:
            return file.read(_LONGEST).decode(errors="replace")
    except OSError:
        return ""
