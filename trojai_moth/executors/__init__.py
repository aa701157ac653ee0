"""By whom the models of a run are examined: this process, several of this machine, or a Ray cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .inline import Inline
from .pool import Pool
from .slots import workers_for

if TYPE_CHECKING:
    from ..pipeline import Run

__all__ = ["Pool", "make_pool"]


def make_pool(run: Run) -> Pool:
    """The workers that a run asks for."""
    # Imported here, since they need the whole pipeline, which needs this.
    if run.fleet.executor == "ray":
        from .ray_tasks import RayTasks

        return RayTasks(run, run.fleet.workers)
    workers = workers_for(run.fleet.workers, run.device)
    if workers == 1 and run.fleet.workers is None:
        return Inline(run)
    from .processes import Processes

    return Processes(run, workers)
