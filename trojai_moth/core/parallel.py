"""The same question to many items by several processes: answers in order, few of them in memory at a time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import Connection, wait
from typing import TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")

# Questions that wait in a worker's queue: enough to keep it busy, few enough to keep memory flat.
_AHEAD = 3


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ordered_parallel_map(
    ask: Callable[[Item], Answer], items: Iterable[Item], workers: int, lost: Callable[[Item], Answer]
) -> Iterator[Answer]:
    """``ask(item)`` for every item, in order, by so many processes of one thread each; one worker is this process.

    ``ask`` must be a module's function. Where a process dies, the items that it might have been at are asked once more,
    one at a time; ``lost(item)`` is the answer for one whose process dies again. No process outlives this one.
    """
    if workers <= 1:
        yield from map(ask, items)
        return
    left, asked = iter(items), deque[Item]()
    while True:
        try:
            with _pool(workers) as pool:
                yield from _answers(ask, left, pool, _AHEAD * workers, asked)
            return
        except BrokenProcessPool:
            pass
        yield from _one_by_one(ask, iter(list(asked)), lost)
        asked.clear()


def _answers(
    ask: Callable[[Item], Answer], left: Iterator[Item], pool: ProcessPoolExecutor, ahead: int, asked: deque[Item]
) -> Iterator[Answer]:
    """Answers until there are no items left or a process dies; ``asked`` are the items that have none yet."""
    waiting: deque[Future[Answer]] = deque()

    def put(items: Iterable[Item]) -> None:
        for item in items:
            asked.append(item)  # first, so that it is not lost when the pool turns out to be broken
            waiting.append(pool.submit(ask, item))

    put(islice(left, ahead))
    while waiting:
        answer = waiting.popleft().result()
        asked.popleft()
        yield answer
        put(islice(left, 1))


def _one_by_one(
    ask: Callable[[Item], Answer], left: Iterator[Item], lost: Callable[[Item], Answer]
) -> Iterator[Answer]:
    """Answers by one process that is given one item at a time, so that it is known whose fault it is if it dies."""
    while True:
        asked = deque[Item]()
        try:
            with _pool(1) as pool:
                yield from _answers(ask, left, pool, 1, asked)
            return
        except BrokenProcessPool:
            pass
        yield lost(asked.popleft())


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that end with this block however it ends, and with this process whatever becomes of it."""
    # A forked copy of a process that has used torch's threads may wait for ever.
    context = multiprocessing.get_context("spawn")
    theirs, ours = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(max_workers=workers, mp_context=context, initializer=_prepare, initargs=(theirs,))
    try:
        yield pool
    finally:
        ours.close()
        pool.shutdown(cancel_futures=True)
        theirs.close()


def _prepare(end: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the asking process too, and that one decides
    threading.Thread(target=_end_with_asker, args=(end,), daemon=True).start()
    import torch  # in whoever asks it may not be needed

    torch.set_num_threads(1)


def _end_with_asker(end: Connection) -> None:
    """Whoever asks sends nothing; its end of the pipe is closed when it wants no answers any more, or was killed."""
    wait([end])
    os._exit(1)
