"""What a plugin may not do: change the model it examines, or return what is no number or no record.

Every check returns None or a few words that complete "the scanner ..." or "the hardener ...".
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..core.statistics import PROBABILITY_FLOOR
from .result import Candidate, ScanResult


def model_change(original: nn.Module, frozen: nn.Module) -> str | None:
    """How a copy that was given in evaluation mode, without weight gradients, differs from the original."""
    before, after = _tensors(original), _tensors(frozen)
    if before.keys() != after.keys():
        return "changed which weights the model has"
    for name, tensor in before.items():
        if not _same(tensor, after[name]):
            return f"changed the model's {name}"
    if any(part.training for part in frozen.modules()):
        return "left the model in training mode"
    if any(parameter.requires_grad for parameter in frozen.parameters()):
        return "left the model's weights with gradients on"
    return None


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Weights and all buffers, those that are not saved with the model among them."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _same(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype or one.device != other.device:
        return False
    if torch.equal(one, other):
        return True
    return bool(((one == other) | ((one != one) & (other != other))).all())  # nan is the same as nan here


def verdict_problem(verdict: Any, classes: int) -> str | None:
    """What is wrong with a scanner's verdict on a model of so many classes, whoever is to blame."""
    if not isinstance(verdict, ScanResult):
        return f"returned {type(verdict).__name__}, not a ScanResult"
    problem = _judgement_problem(verdict)
    if problem:
        return problem
    for candidate in verdict.evidence:
        problem = _candidate_problem(candidate, classes)
        if problem:
            return f"{problem} in its evidence"
    return None


def _judgement_problem(verdict: ScanResult) -> str | None:
    if verdict.outcome == "not judged":
        return None if verdict.score is None and verdict.probability is None else "judges and does not judge"
    if verdict.score is None or not math.isfinite(verdict.score):
        return f"gave the score {verdict.score}"
    if verdict.flagged != (verdict.score > 0):
        return f"says {verdict.outcome} but gave the score {verdict.score}"
    floor, probability = PROBABILITY_FLOOR, verdict.probability
    if probability is None or not floor <= probability <= 1 - floor:
        return f"gave the probability {probability}, which is not within {floor} and {1 - floor}"
    return None


def _candidate_problem(candidate: Candidate, classes: int) -> str | None:
    for name in ("size", "reverse_size"):
        if not is_size(getattr(candidate, name)):
            return f"gave the {name} {getattr(candidate, name)}"
    for name in ("success", "held_success", "left_out_success", "jitter_success"):
        value = getattr(candidate, name)
        if value is not None and not 0 <= value <= 1:
            return f"gave the {name} {value}"
    labels = (candidate.target, candidate.target if candidate.victim is None else candidate.victim)
    if not all(0 <= label < classes for label in labels):
        return f"named the pair {candidate.victim}->{candidate.target} of {classes} classes"
    return f"gave {candidate.held_images} held images" if candidate.held_images < 0 else None


def is_size(value: float | None) -> bool:
    """Whether a trigger may have this size: none, or a finite number of at least 0."""
    return value is None or 0 <= value < math.inf
