"""Networks run in the plain way: which is fastest depends on what else the machine does, and rounding on that."""

import torch

from trojai_moth.triggers import engine
from trojai_moth.triggers.execution_plan import Plan


def use_plain_plans(patch):
    """For as long as ``patch`` holds; its ``setattr`` is used."""
    torch.set_num_threads(1)
    patch.setattr(engine, "find_plan", lambda device, precision, batches, run: Plan(batch=batches[0]))
