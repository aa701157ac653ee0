"""The same question to many items by several processes: answers in order, few of them in memory at a time."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TypeVar

import torch

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
    one at a time; ``lost(item)`` is the answer for one whose process dies again.
    """
    if workers <= 1:
        yield from map(ask, items)
        return
    left, asked = iter(items), deque[Item]()
    while True:
        pool = _pool(workers)
        try:
            yield from _answers(ask, left, pool, _AHEAD * workers, asked)
            return
        except BrokenProcessPool:
            pass
        finally:
            pool.shutdown(cancel_futures=True)
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
        pool, asked = _pool(1), deque[Item]()
        try:
            yield from _answers(ask, left, pool, 1, asked)
            return
        except BrokenProcessPool:
            pass
        finally:
            pool.shutdown(cancel_futures=True)
        yield lost(asked.popleft())


def _pool(workers: int) -> ProcessPoolExecutor:
    # A forked copy of a process that has used torch's threads may wait for ever.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(max_workers=workers, mp_context=context, initializer=_prepare)


def _prepare() -> None:
    torch.set_num_threads(1)
