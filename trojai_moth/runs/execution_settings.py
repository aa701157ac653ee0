"""By whom a run is done: which part by this process, by how many workers, what is kept. No result depends on it."""

from __future__ import annotations

import re
from typing import Literal

from ..core.errors import SettingsError
from ..core.records import Field, record

ExecutorName = Literal["local", "ray"]
KeepWeights = Literal["none", "flagged", "all"]

_SHARD = re.compile(r"(\d{1,6})/(\d{1,6})")


@record
class Shard:
    """Every ``of``-th model of a run, beginning with the ``index``-th, which counts from 1."""

    index: int = Field(default=1, ge=1)
    of: int = Field(default=1, ge=1)

    def numbers(self, models: int) -> range:
        """The places of its models among all of them."""
        return range(self.index - 1, models, self.of)


@record
class ExecutionSettings:
    """How a run is spread over processes and machines."""

    executor: ExecutorName = Field(default="local", description="processes of this machine, or a Ray cluster")
    workers: int | None = Field(
        default=None,
        ge=1,
        description="processes that work at a time; None: one per GPU that may be used, else the command itself",
    )
    address: str | None = Field(default=None, description="of a Ray cluster; None: one is started on this machine")
    shard: Shard = Field(default_factory=Shard)
    keep_weights: KeepWeights = Field(
        default="all", description="hardened weights to keep once their model is finished: of which models"
    )
    deaths: int = Field(
        default=5, ge=1, description="processes that may die at a model before it is not judged instead of tried again"
    )


def parse_shard(text: str) -> Shard:
    """``3/8`` as a shard; SettingsError for anything else."""
    found = _SHARD.fullmatch(text.strip())
    index, of = (int(part) for part in found.groups()) if found else (0, 0)
    if not 1 <= index <= of:
        raise SettingsError(f"--shard {text[:40]}: write I/N with I from 1 to N, e.g. 3/8")
    return Shard(index=index, of=of)
