"""By whom the models of a run are examined: this process, several of this machine, or a Ray cluster."""

from __future__ import annotations

from ..run import Run
from .inline import Inline
from .pool import Pool
from .processes import Processes
from .ray_tasks import RayTasks
from .slots import workers_for

__all__ = ["Pool", "make_pool"]


def make_pool(run: Run) -> Pool:
    """The workers that a run asks for."""
    if run.fleet.executor == "ray":
        return RayTasks(run, run.fleet.workers)
    workers = workers_for(run.fleet.workers, run.device)
    if workers == 1 and run.fleet.workers is None:
        return Inline(run)
    return Processes(run, workers)
