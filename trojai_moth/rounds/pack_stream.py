"""A tar.gz pack as a stream of checked members: read forward once, nothing written, nothing large held."""

from __future__ import annotations

import gzip
import os
import stat
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..core.errors import UnreadableModelError

# Model files do not compress; what grows a hundredfold and beyond 4 GiB is a bomb.
_FREE_BYTES, _MOST_GROWTH = 4 << 30, 100
_MOST_AT_ONCE = 1 << 20
_MOST_MEMBERS = 1_000_000
_MOST_MEMBER_BYTES = 2 << 30
_LONGEST_NAME = 255


class Member(NamedTuple):
    """A file or folder of a pack; ``start`` and ``end`` are bytes of the unpacked stream, header and padding with it.

    ``refusal`` says in words why it is not read; empty if it may be.
    """

    parts: tuple[str, ...]
    is_file: bool
    size: int
    start: int
    end: int
    refusal: str


class PackStream:
    """The unpacked bytes of a pack, forward only; raises UnreadableModelError, which names the pack, and nothing else.

    It is also the file that ``tarfile`` reads, which takes headers into memory whole: so no read may be large.
    """

    def __init__(self, path: Path) -> None:
        """Open a regular file; nothing is read yet."""
        self.path, self._at = path, 0
        try:
            if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
                raise self.refuse("is not a regular file")
            self._file = path.open("rb")
        except OSError as error:
            raise self.refuse(f"cannot be read ({error.strerror})") from None
        self._gzip = gzip.GzipFile(fileobj=self._file, mode="rb")
        self._most = max(_FREE_BYTES, _MOST_GROWTH * os.fstat(self._file.fileno()).st_size)

    def refuse(self, reason: str) -> UnreadableModelError:
        """The error to raise, with the mend that most often helps."""
        return UnreadableModelError(f"{self.path}: {reason}; download the pack again, or unpack it by hand")

    def tell(self) -> int:
        """Bytes of the unpacked stream that lie behind."""
        return self._at

    def read(self, size: int = -1) -> bytes:
        """The next bytes, fewer only at the end."""
        if not 0 <= size <= _MOST_AT_ONCE:
            raise self.refuse("has a header of impossible size")
        try:
            data = self._gzip.read(size)
        except (OSError, EOFError, zlib.error) as error:
            raise self.refuse(f"is cut short or damaged ({error})") from None
        self._at += len(data)
        if self._at > self._most:
            raise self.refuse(f"unpacks to more than {self._most >> 30} GiB")
        return data

    def seek(self, position: int, whence: int = 0) -> int:
        """Skip forward to a byte of the unpacked stream."""
        if whence or position < self._at:
            raise self.refuse("has a header that points backwards")
        while self._at < position:
            if not self.read(min(_MOST_AT_ONCE, position - self._at)):
                raise self.refuse("is cut short")
        return position

    def members(self, until: int | None = None) -> Iterator[Member]:
        """The members from here on, up to a byte of the stream or the end, where the check sum is tested too.

        While one is handed out, its content comes next from :meth:`content`.
        """
        try:
            with tarfile.TarFile(fileobj=self, mode="r", errorlevel=2) as tar:  # type: ignore[arg-type]
                count = 0
                while (until is None or tar.offset < until) and (info := tar.next()) is not None:
                    tar.members.clear()  # type: ignore[attr-defined]  # it would remember a whole round
                    count += 1
                    if count > _MOST_MEMBERS:
                        raise self.refuse(f"holds more than {_MOST_MEMBERS} files")
                    yield self._member(info, tar.offset)
        except (tarfile.TarError, ValueError, OverflowError) as error:
            raise self.refuse(f"is not a tar.gz pack ({error})") from None
        if until is None:
            self._check_end()

    def content(self, member: Member) -> Iterator[bytes]:
        """The bytes of the member that was handed out last, in parts."""
        left = member.size
        while left:
            part = self.read(min(_MOST_AT_ONCE, left))
            if not part:
                raise self.refuse("is cut short")
            left -= len(part)
            yield part

    def close(self) -> None:
        """Close the file."""
        self._gzip.close()
        self._file.close()

    def _member(self, info: tarfile.TarInfo, end: int) -> Member:
        path = PurePosixPath(info.name)
        if path.is_absolute() or ".." in path.parts:
            raise self.refuse(f"holds {info.name!r:.80}, a name that leads out of its folder")
        return Member(path.parts, info.isreg(), info.size, info.offset, end, _refusal(info))

    def _check_end(self) -> None:
        """After the last member there is nothing but zeros: a damaged header in the middle looks like an end."""
        while part := self.read(_MOST_AT_ONCE):
            if part.strip(b"\0"):
                raise self.refuse("is damaged in the middle")


def _refusal(info: tarfile.TarInfo) -> str:
    shown = repr(info.name)[:80]
    plain = info.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not info.issparse()
    if not plain and not info.isdir():
        return f"{shown} is a link, a device or the like; only plain files and folders are read"
    if not 0 <= info.size <= _MOST_MEMBER_BYTES:
        return f"{shown} has {info.size} bytes, more than any file of a model"
    odd = any(len(part) > _LONGEST_NAME or not part.isprintable() or "\\" in part for part in info.name.split("/"))
    return f"{shown} is not usable as a file name" if odd else ""
