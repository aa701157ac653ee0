"""What a hardener may not do: leave weights that cannot be used, or a trace that holds no numbers.

Every check returns None or a few words that complete "the hardener ...".
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch

from ..core.subject import Subject
from ..scanners.checks import is_size
from .trace import HardeningRound


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
