"""The process that does a submission's work; what supervises it is :mod:`~trojai_moth.submission.entrypoint`.

It is given one file with the request, says what it finds in lines of JSON on standard output, and may be killed at any
time. Its standard input is held open by who supervises it, and it does not outlive that one.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ..core.files import read_text

Say = Callable[..., None]
_STANDARD_INPUT: Final = 0


def main() -> None:
    """Work off the request in the file that the command line names."""
    end_with_supervisor()
    say = _speaker()
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as the command line does, and for its reason
    status = work(json.loads(read_text(sys.argv[1])), Path(sys.argv[1]).parent, say)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # everything is said; a library that crashes while Python is taken down must not unsay it


def end_with_supervisor() -> None:
    """Kill this process's group once its standard input has come to its end, as when the supervisor was killed.

    Read past Python's buffers: their lock, still held by this thread when the process ends, would abort it.
    """

    def wait() -> None:
        while os.read(_STANDARD_INPUT, 1):
            pass
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


def work(order: dict[str, Any], folder: Path, say: Say) -> int:
    """Do what a request asks; exit code 1 with a word for the log if it cannot be done."""
    from ..core.errors import MothError, one_line  # torch is loaded from here on
    from .configuration import configure
    from .detection import detect
    from .mitigation import mitigate, test

    jobs: dict[str, Callable[..., None]] = {
        "infer": detect, "configure": configure, "mitigate": mitigate, "test": test,
    }  # fmt: skip
    try:
        jobs[order["action"]](order, folder, say)
    except MothError as error:
        say(note=str(error))
        return 1
    except Exception as error:  # it is the log's reader who must be able to tell what happened
        say(note=f"{one_line(error)}; this is a bug, please report it")
        return 1
    return 0


def _speaker() -> Say:
    """Messages go to the real standard output; whatever libraries print goes to standard error."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def say(**message: Any) -> None:
        print(json.dumps(message), file=out, flush=True)

    return say


if __name__ == "__main__":
    main()
