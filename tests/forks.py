"""Programs as processes of their own that need not load torch again: forked from the server that workers come from."""

import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from plain_plans import use_plain_plans

from trojai_moth.runs.workers import processes


class Forked:
    """What ``subprocess.Popen([python, "-m", *words])`` would be; no patches hold there."""

    def __init__(self, *words, cwd=".", environment=None):
        self.args, self._folder = [str(word) for word in words], tempfile.TemporaryDirectory()
        self._streams = [Path(self._folder.name) / name for name in ("out", "err")]
        given = self.args, str(cwd), {**os.environ, **(environment or {})}, self._streams
        self._process = processes._context().Process(target=_become, args=given)
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self):
        """The exit code, negative for a signal; None while it runs."""
        return self._process.exitcode

    def poll(self):
        """The same."""
        return self.returncode

    def communicate(self, timeout=60.0):
        """Its standard output and standard error, once it has ended."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return tuple(stream.read_text() if stream.exists() else "" for stream in self._streams)

    def send_signal(self, number):
        """To the process, unless it has ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self):
        """End it in any case."""
        self._process.kill()


def _become(words, cwd, environment, streams):
    """The program, in its process."""
    for number, stream in enumerate(streams, start=1):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = [os.getcwd(), *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = list(words)
    use_plain_plans(pytest.MonkeyPatch())
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)
