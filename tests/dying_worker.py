"""Questions for worker processes, in a module that those can import by this very name."""

import os
import time
from pathlib import Path

from trojai_moth.core.process_identity import process_name


def square(number):
    """The square; 2 leaves a file where DYING_WORKER says, and ends its process."""
    if number == 2:
        (Path(os.environ["DYING_WORKER"]) / str(os.getpid())).touch()
        os._exit(1)
    return number * number


def slow(folder):
    """Leave a file with this process's name in the folder, and take longer than any test."""
    (Path(folder) / process_name()).touch()
    time.sleep(600)


def negative(number):
    return -number
