"""Models that are no image classifiers, by the names that they mention: TrojAI has rounds of other kinds as well."""

from __future__ import annotations

import re
from collections.abc import Collection

from .refusal import Refusal, quote
from .symbols import Name

_CLASSES = (
    (r"archs\.Net\d+", "a classifier of PDF malware of TrojAI"),
    (
        r"(trojai_rl|gym|gymnasium|minigrid|gym_minigrid|torch_ac|stable_baselines3)\..+",
        "a reinforcement-learning agent",
    ),
    (r"torchvision\.models\.detection\..+", "an object detector"),
    (r"torchvision\.models\.segmentation\..+", "a network that segments images"),
    (r"torchvision\.models\.video\..+", "a classifier of videos"),
    (r"transformers\..+For(ObjectDetection|ImageSegmentation)", "an object detector or a network that segments images"),
    (r"transformers\.models\.[a-z]*(bert|gpt|llama|t5|electra|bart)[a-z0-9_]*\..+", "a language model"),
    (
        r"transformers\..+For(CausalLM|MaskedLM|QuestionAnswering|SequenceClassification|TokenClassification)",
        "a language model",
    ),
)
"""Dotted names of classes, and what a file that mentions one is."""
_TENSORS = (
    (("state_emb.", "actor.", "critic."), "a reinforcement-learning agent of TrojAI"),
    (("actor.", "critic."), "a reinforcement-learning agent"),
    (("rpn.", "roi_heads."), "an object detector"),
    (("word_embeddings.",), "a language model"),
)
"""Beginnings of parts of weights' names that all occur, and what a file that has them is."""
_MEND = "give a model that maps images to classes"


def by_name(refusal: Refusal, classes: Collection[Name], tensors: Collection[str] = ()) -> Refusal:
    """Why a file is refused: what it is where the names in it tell that it is no image classifier, else as it was."""
    other = _other(classes, tensors)
    return type(refusal)(f"is {other}, not an image classifier; {_MEND}") if other else refusal


def _other(classes: Collection[Name], tensors: Collection[str]) -> str:
    for beginnings, what in _TENSORS:
        starts = [re.compile(rf"(.*\.)?{re.escape(beginning)}") for beginning in beginnings]
        firsts = [next(filter(start.match, tensors), "") for start in starts]
        if all(firsts):
            return f"{what} (it has weights called {' and '.join(map(quote, firsts))})"
    for symbol in classes:
        for pattern, what in _CLASSES:
            if re.fullmatch(pattern, str(symbol)[:200]):
                return f"{what} (it asks for {quote(symbol, 100)[1:-1]})"
    return ""
