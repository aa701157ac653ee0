"""Programs as processes of their own that need not load torch again: copies of the process that the tests run in.

In a copy only the thread goes on that made it, so torch must have no threads of its own: in tests it has none. What a
test has patched holds in the copy too.
"""

import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import suppress


class Forked:
    """As ``subprocess.Popen([python, "-m", *words])`` would be, and ends with ``with``."""

    def __init__(self, *words, cwd=".", environment=None):
        self.args, self.returncode = [str(word) for word in words], None
        self._streams = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")  # noqa: SIM115
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os._exit(self._become(cwd, environment or {}))

    def _become(self, cwd, environment):
        """The program, in the copy; its exit code."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for stream, number in zip(self._streams, (1, 2), strict=True):
            os.dup2(stream.fileno(), number)
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode) for number, mode in ((0, "r"), (1, "w"), (2, "w")))
        os.chdir(cwd)
        os.environ.update(environment)
        sys.path[:0] = [os.getcwd(), *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
        sys.argv = list(self.args)
        code = 1
        try:
            runpy.run_module(self.args[0], run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        with suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        return code

    def poll(self):
        """The exit code, negative for a signal; None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout):
        """The exit code; subprocess.TimeoutExpired where it is not there in so many seconds."""
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(0.01)
        return self.returncode

    def communicate(self, timeout=60.0):
        """Its standard output and standard error, once it has ended."""
        self.wait(timeout)
        for stream in self._streams:
            stream.seek(0)
        return tuple(stream.read() for stream in self._streams)

    def send_signal(self, number):
        """To the process, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        """End it in any case."""
        self.send_signal(signal.SIGKILL)
