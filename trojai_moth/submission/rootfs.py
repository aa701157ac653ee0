"""A recipe's steps in a root file system of one's own, where there is no Apptainer to build an image with.

%files, %post and %test run in a copy of a base such as debootstrap makes, then %runscript for every call: with the root
read-only, as an image is, an empty folder for temporary files, no network, and nothing of the host but the folder
of the calls. What Apptainer itself does, fetching and converting the base image, is not proved by that.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from ..core.errors import MothError, SettingsError
from .folder import Recipe
from .replay import Replay
from .rules import Finding

STEPS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "recipe-files": "%files: all that is copied into the image is there",
        "recipe-post": "%post: installs everything without a network, from the wheels in the folder",
        "recipe-test": "%test: the image holds what the harness reads, and the package loads",
    }
)
"""Rule -> the step of the recipe that is run."""
_SCRIPTS: Final = ".recipe"
# As a Docker image of Python has it.
_PATH: Final = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
_CLEAN: Final = ("env", "-i", f"PATH={_PATH}", "HOME=/", "LANG=C.UTF-8")
# Arguments: the root, rw or ro, the folder that is bound, then the command.
_ENTER: Final = """set -e
root=$1 mode=$2 bound=$3; shift 3
mount --bind "$root" "$root"
mkdir -p "$root/proc" "$root/dev" "$root/tmp"
mount -t proc proc "$root/proc"
for node in null zero full random urandom; do
    test -e "$root/dev/$node" || : > "$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
mount -t tmpfs tmpfs "$root/tmp"
if test "$mode" = ro; then
    mkdir -p "$root$bound"
    mount --bind "$bound" "$root$bound"
    mount -o remount,ro,bind "$root"
fi
exec chroot "$root" "$@"
"""


@dataclass(frozen=True)
class Rootfs:
    """A copy of ``base`` in ``root`` that a submission's recipe is carried out in."""

    root: Path
    folder: Path
    recipe: Recipe

    def build(self) -> Iterator[Replay]:
        """Carry out %files, %post and %test, each as it comes; what comes after a step that fails is not tried."""
        for rule, step in (("recipe-files", self._files), ("recipe-post", self._post), ("recipe-test", self._test)):
            started = time.monotonic()
            result, finding = step()
            found = () if finding is None else (Finding(rule=rule, what=finding, mend="correct the recipe"),)
            yield Replay(rule=rule, seconds=time.monotonic() - started, result=result, findings=found)
            if found:
                return

    def program(self, bound: Path) -> tuple[str, ...]:
        """The command that runs %runscript with the words after it; only ``bound`` can be written to."""
        return (*enter(self.root, "ro", bound), "/bin/sh", f"/{_SCRIPTS}/runscript")

    def _files(self) -> tuple[str, str | None]:
        for source, place in self.recipe.files:
            here, there = self.folder / source, self.root / place.lstrip("/")
            if not here.exists():
                return "", f"{source} is not in the folder"
            there.parent.mkdir(parents=True, exist_ok=True)
            if here.is_dir():
                shutil.copytree(here, there, dirs_exist_ok=True)
            else:
                shutil.copyfile(here, there)
        scripts, environment = self.root / _SCRIPTS, self.recipe.sections.get("environment", "")
        scripts.mkdir()
        for name in ("runscript", "test"):
            (scripts / name).write_text(f"{environment}\n{self.recipe.sections.get(name, '')}", encoding="utf-8")
        (scripts / "post").write_text(self.recipe.sections["post"], encoding="utf-8")
        return f"{len(self.recipe.files)} copied", None

    def _post(self) -> tuple[str, str | None]:
        done = self._inside(["/bin/sh", "-ex", f"/{_SCRIPTS}/post"], "rw")
        return "" if done.returncode else "exit code 0", _words(done)

    def _test(self) -> tuple[str, str | None]:
        done = self._inside(["/bin/sh", f"/{_SCRIPTS}/test"], "ro")
        lines = done.stdout.strip().splitlines()
        return lines[-1] if lines else "", _words(done)

    def _inside(self, command: Sequence[str], mode: Literal["ro", "rw"]) -> subprocess.CompletedProcess[str]:
        words = [*enter(self.root, mode, self.root.parent / "nothing"), *_CLEAN, *command]
        return subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def prepare(base: Path, folder: Path, recipe: Recipe, root: Path) -> Rootfs:
    """Copy the base and give it the Python in /usr/local that a Docker image of Python has.

    SettingsError if the folder has no wheelhouse, or the base no Python; MothError where namespaces are not allowed.
    """
    if "--no-index" not in recipe.sections["post"].partition("requirements.txt")[0]:
        raise SettingsError("--rootfs runs %post without a network; make the folder with container --wheelhouse")
    (root.parent / "nothing").mkdir(parents=True)
    done = subprocess.run(["cp", "-a", f"{base}/.", str(root)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise MothError(f"{base}: cannot be copied ({_words(done)}); free some space, or be root")
    if not (root / "usr/local/bin/python3").exists():
        command = [*enter(root, "rw", root), *_CLEAN, "python3", "-m", "venv", "/usr/local"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SettingsError(
                f"{base}: no Python can be set up in it ({_words(done)}); make it with "
                f"debootstrap --variant=minbase --include=python3,python3-venv"
            )
    return Rootfs(root, folder, recipe)


def enter(root: Path, mode: Literal["ro", "rw"], bound: Path) -> tuple[str, ...]:
    """The command that runs what follows it in a root, in namespaces of its own and without a network."""
    own = () if os.geteuid() == 0 else ("--map-root-user",)
    words = ("unshare", *own, "--mount", "--net", "--pid", "--fork", "--kill-child")
    if subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        raise MothError("--rootfs needs namespaces (unshare --mount --net --pid), which are not allowed here")
    return (*words, "/bin/sh", "-c", _ENTER, "enter", str(root), mode, str(bound))


def _words(done: subprocess.CompletedProcess[str]) -> str | None:
    """What a command that failed said last; None if it did not fail."""
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return f"exit code {done.returncode}: {' | '.join(lines[-2:]):.300}" if done.returncode else None
