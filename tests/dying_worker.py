"""Questions for worker processes, in a module that those can import by this very name."""

import os
from pathlib import Path


def square(number):
    """The square; 2 leaves a file where DYING_WORKER says, and ends its process."""
    if number == 2:
        (Path(os.environ["DYING_WORKER"]) / str(os.getpid())).touch()
        os._exit(1)
    return number * number


def negative(number):
    return -number
