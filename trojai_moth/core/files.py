"""Files: opened as what anybody may have put there, and written so that no reader ever sees half of one.

Whatever the package reads is opened by :func:`open_regular` or what is built on it: a pipe would be waited for, and a
device may never end. Several processes, also of several machines, may write into one folder: their temporary files have
names of their own, and a reader, or the next run after a power cut, sees the old file or the new one.
"""

from __future__ import annotations

import codecs
import errno
import io
import itertools
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO, TypeVar

from .errors import NoSpaceError, RunDirectoryError, UnreadableModelError
from .process_identity import is_process_dead, process_name

T = TypeVar("T")


PART = ".part"
# What a file system answers that knows no second name for a file.
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
# Room that is left free beside what is to be written: for the journal, which must go on.
_RESERVE_BYTES = 32 << 20
_A_DAY_S = 86400.0
_counter = itertools.count()

TEXT_LIMIT = 64 << 20
"""The most bytes of a table or of JSON that are read; a round of ten thousand models has a tenth of that."""
# What systems and editors leave in folders beside names that begin with a dot or end in a tilde; in lower case.
_LEFT_BEHIND = frozenset({"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "@eadir", "$recycle.bin"})


class IrregularFileError(OSError):
    """What lies there is no regular file, or larger than any such file is; its text is one reason, without the path."""

    def __str__(self) -> str:
        """The reason."""
        return str(self.strerror)


def open_regular(path: str | Path, limit: int | None = None) -> BinaryIO:
    """Open a regular file to read bytes; OSError for anything else, which is not waited for, and above ``limit`` bytes.

    A link is followed: whether one may lead out of its folder is asked when the folder is listed.
    """
    _check_regular(os.stat(path), path, limit)
    # A pipe can take the file's place after that look, so opening must not wait either.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(path, flags), "rb")
    try:
        _check_regular(os.fstat(file.fileno()), path, limit)
    except OSError:
        file.close()
        raise
    return file


def read_bytes(path: str | Path, limit: int = TEXT_LIMIT) -> bytes:
    """The whole content of a regular file; OSError also for one that is larger than ``limit`` bytes."""
    with open_regular(path, limit) as file:
        content = file.read(limit + 1)
    if len(content) > limit:  # it grew, or is one of those that say they are empty
        raise _too_large(path, limit)
    return content


def read_text(path: str | Path, limit: int = TEXT_LIMIT) -> str:
    """The same as text, see :func:`decode_text`; OSError or UnicodeDecodeError."""
    return decode_text(read_bytes(path, limit))


def open_text(path: str | Path, limit: int = TEXT_LIMIT) -> TextIO:
    """The same to read line by line, with line ends as they are, which is what ``csv`` wants."""
    file = open_regular(path, limit)
    beginning = file.read(2)
    file.seek(0)
    return io.TextIOWrapper(file, encoding=_encoding(beginning), newline="")


def decode_text(content: bytes) -> str:
    """UTF-8 without the mark that editors put before it, or UTF-16 with it, which some of Windows' save as "Unicode".

    >>> decode_text("a".encode("utf-8-sig")), decode_text("a".encode("utf-16"))
    ('a', 'a')
    """
    return content.decode(_encoding(content))


def is_utf_16(beginning: bytes) -> bool:
    """Whether text that begins so says that it is UTF-16."""
    return beginning.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))


def _encoding(beginning: bytes) -> str:
    return "utf-16" if is_utf_16(beginning) else "utf-8-sig"


def separator(first_line: str) -> str:
    """What stands between the cells of a table: a comma, or what spreadsheets of other countries write for it.

    >>> separator("a,b"), separator("a;b, in words;c"), separator("a")
    (',', ';', ',')
    """
    return max(",;\t", key=first_line.count)


def _check_regular(status: os.stat_result, path: str | Path, limit: int | None) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise IrregularFileError(errno.EINVAL, "not a regular file", str(path))
    if limit is not None and status.st_size > limit:
        raise _too_large(path, limit)


def _too_large(path: str | Path, limit: int) -> IrregularFileError:
    size = f"{limit >> 20} MiB" if limit >> 20 else f"{limit} bytes"
    return IrregularFileError(errno.EFBIG, f"larger than {size}", str(path))


def is_passed_over(name: str) -> bool:
    """Whether a name is what systems and editors leave in folders, and so no model, image or other file of a round.

    >>> [is_passed_over(name) for name in ("._1.png", ".DS_Store", "__MACOSX", "Thumbs.db", "model.pt~", "model.pt")]
    [True, True, True, True, True, False]
    """
    return name.startswith(".") or name.endswith("~") or name.lower() in _LEFT_BEHIND


def list_folder(folder: Path) -> list[Path]:
    """What lies in a folder, by name, less what is passed over; nothing where there is no such folder."""
    names = os.listdir(folder) if folder.is_dir() else []
    return [folder / name for name in sorted(names) if not is_passed_over(name)]


def list_closed(folder: Path, *, store: str | None = None) -> list[Path]:
    """The same of a folder of a model, which others made: UnreadableModelError for a link that leads out of it.

    store: another folder, by its real path, that links may lead to.
    """
    found = list_folder(folder)
    refuse_links_out(folder, [path.name for path in found], store=store)
    return found


def refuse_links_out(folder: Path, names: Iterable[str], *, store: str | None = None) -> None:
    """UnreadableModelError for the first of these entries of ``folder`` that is a link leading out of it."""
    homes = [os.path.realpath(folder), *([store] if store else [])]
    for name in sorted(names):
        path = folder / name
        if path.is_symlink() and not any(_is_inside(os.path.realpath(path), home) for home in homes):
            raise UnreadableModelError(
                f"{path}: a link that leads out of its folder; put the file there, as cp -L does"
            )


def _is_inside(path: str, home: str) -> bool:
    return os.path.commonpath([home, path]) == home


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, flush it to disk and put it in place in one step."""
    with _filled(path, write) as temporary:
        os.replace(temporary, path)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, UTF-8."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def publish(path: Path, write: Callable[[Path], object]) -> bool:
    """As :func:`write_atomically`, but only if there is no such file yet; False if another was first.

    Of several who publish at the same time exactly one succeeds. Only on file systems without hard links, such as
    exFAT, two that do so in the same moment may both believe it, and the later file stays.
    """
    with _filled(path, write) as temporary:
        try:
            os.link(temporary, path)
        except OSError as error:
            # NFS may carry a link out, lose the answer and be asked again; the number of names tells the truth.
            if temporary.stat().st_nlink > 1:
                return True
            if isinstance(error, FileExistsError):
                return False
            if error.errno not in _NO_LINKS:
                raise
            if path.exists():
                return False
            os.replace(temporary, path)
    return True


def publish_text(path: Path, text: str) -> bool:
    """Publish a text file, UTF-8; False if another was first."""
    return publish(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


@contextmanager
def _filled(path: Path, write: Callable[[Path], object]) -> Iterator[Path]:
    """A temporary file beside ``path`` with its content on disk; gone afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{process_name()}.{next(_counter)}{PART}")
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def written(path: Path, write: Callable[[], T]) -> T:
    """What ``write`` returns; a disk that is full or cannot be written to is the run's trouble, not the model's."""
    try:
        return write()
    except OSError as error:
        kind = NoSpaceError if error.errno in _NO_SPACE else RunDirectoryError
        raise kind(
            f"{path}: cannot be written ({error.strerror or error}); mend that and give the same command again"
        ) from None


def require_space(folder: Path, needed: int) -> None:
    """NoSpaceError unless so many bytes and a reserve fit on the disk of a folder, which need not be there yet."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if free < needed + _RESERVE_BYTES:
        raise NoSpaceError(
            f"{folder}: no space left: {needed >> 20} MiB and a reserve of {_RESERVE_BYTES >> 20} are needed, "
            f"{free >> 20} free; make room and give the same command again"
        )


def sweep_parts(folder: Path) -> int:
    """Remove temporary files whose writers are dead, and those of other machines that are a day old; how many.

    A day by the file system's own clock, which also says when the folder was last changed.
    """
    if not folder.is_dir():
        return 0
    with os.scandir(folder) as entries:
        parts = [Path(entry.path) for entry in entries if entry.name.endswith(PART) and entry.name.startswith(".")]
    found = {path: _time_of(path) for path in parts}
    changed = folder.stat().st_mtime
    old = {path for path, time in found.items() if time is not None and changed - time > _A_DAY_S}
    swept = [path for path in parts if path in old or _writer_is_dead(path)]
    for path in swept:
        path.unlink(missing_ok=True)
    return len(swept)


def _writer_is_dead(path: Path) -> bool:
    parts = path.name.split(".")
    return len(parts) > 3 and is_process_dead(parts[-3])


def _time_of(path: Path) -> float | None:
    """When it was last written to; None if it has just been removed."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return None


def cache_folder() -> Path | None:
    """``trojai-moth`` in XDG_CACHE_HOME, or in ~/.cache; None, and nothing is remembered, where there is no home.

    A relative path is no answer: it would make a folder called ``~`` or the like wherever a command is started.
    """
    named, home = os.environ.get("XDG_CACHE_HOME", ""), os.path.expanduser("~")
    if os.path.isabs(named):
        return Path(named) / "trojai-moth"
    return Path(home) / ".cache" / "trojai-moth" if os.path.isabs(home) and os.path.isdir(home) else None
