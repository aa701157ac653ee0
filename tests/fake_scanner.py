"""A scanner that says what it is told to."""

import importlib.metadata
import typing

from trojai_moth.core import plugins
from trojai_moth.core.records import Field, record
from trojai_moth.scanners.base import Scanner
from trojai_moth.scanners.result import Candidate, ScanResult


@record
class ScriptSettings:
    """script: model id -> what to say before and after hardening; originals: the sum of a model's own first weights."""

    script: dict[str, str] = Field(default_factory=dict)
    originals: dict[str, float] = Field(default_factory=dict)


class Scripted(Scanner):
    """Says what its script says, knowing a hardened model by its weights alone."""

    name: typing.ClassVar[str] = "scripted"
    settings_type: typing.ClassVar[type] = ScriptSettings

    def scan(self, subject, samples, *, seed):
        before, _, after = self.settings.script.get(subject.model_id, "clean").partition(" ")
        word = before if weight_sum(subject.module) == self.settings.originals[subject.model_id] else after
        if word == "crash":
            raise KeyError("no such\nthing")
        score = {"flagged": 1.0, "clean": -1.0}[word]
        found = Candidate(victim=0, target=1, size=4.0 + score, success=1.0, held_success=0.5, held_images=2,
                          converged=True)  # fmt: skip
        return ScanResult(
            scanner=self.name, outcome=word, score=score, probability=0.5 + score / 4, reason=f"says {word}",
            evidence=(found,),
        )  # fmt: skip


class Entry:
    """An installed entry point of this module."""

    name, value = "scripted", "tests:Scripted"

    def __init__(self, kind=Scripted, **changes):
        self.kind = kind
        vars(self).update(changes)

    def load(self):
        if isinstance(self.kind, Exception):
            raise self.kind
        return self.kind


class _Finder:
    def __init__(self, group, entries):
        self.group, self.entries = group, entries

    def __call__(self, group):
        return self.entries if group == self.group else importlib.metadata.entry_points(group=group)


def install(monkeypatch, *entries, group="trojai_moth.scanners"):
    """Make these the only plugins of their group; other groups stay as they are."""
    monkeypatch.setattr(plugins, "entry_points", _Finder(group, entries))


def weight_sum(module):
    """Of the first layer: the last one has a factor while a scanner looks at it (core/standard_logits.py)."""
    return float(next(iter(module.state_dict().values())).double().sum())
