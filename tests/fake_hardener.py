"""Hardeners that do one simple thing to the weights, and say how often they were asked to."""

import typing

import torch

from trojai_moth.core.records import Field, record
from trojai_moth.hardeners.base import Hardener
from trojai_moth.hardeners.trace import HardeningRound


@record
class ScaleSettings:
    """factor: of all weights; error: what to fail with; without: as MOTH has it."""

    factor: float = Field(default=1.0, description="factor of all weights")
    error: str = ""
    without: tuple[typing.Literal["symmetric", "dynamic", "warmup", "scheduler"], ...] = ()


class Scale(Hardener):
    """Multiplies the weights that ``wanted`` names."""

    name: typing.ClassVar[str] = "scale"
    settings_type: typing.ClassVar[type] = ScaleSettings
    calls: typing.ClassVar[list] = []
    wanted: typing.ClassVar[str] = ""

    def harden(self, work, samples, *, seed, progress):
        Scale.calls.append((self.name, self.settings.without, seed))
        progress("round 1/1")
        if self.settings.error == "interrupt":
            raise KeyboardInterrupt
        if self.settings.error:
            raise RuntimeError(self.settings.error)
        with torch.no_grad():
            for name, parameter in work.module.named_parameters():
                if self.wanted in name:
                    parameter.mul_(self.settings.factor)
        done = HardeningRound(number=0, pairs=(), loss=None, learning_rate=0.1, accuracy=1.0, taken_back=False)
        return [done], "scaled"


def named(entry_name, wanted=""):
    """Another such hardener, under this name, that scales the parameters whose names hold ``wanted``."""
    return type(f"Scale_{entry_name}", (Scale,), {"name": entry_name, "wanted": wanted})
