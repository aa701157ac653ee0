"""A file that says the same whenever it is read: what was hashed is what is checked, and what is used."""

from __future__ import annotations

import hashlib
import io
from typing import BinaryIO

from .refusal import Refusal

BLOCK = 64 << 10
CHANGED = "changed while it was read; scan a copy that nobody writes to"


class SteadyFile(io.RawIOBase):
    """An open file that is read through once, for ``sha256``; later readings give those very bytes, or a Refusal.

    Each block is compared with what it was at first, so that no other content can be checked than is used, or be used
    than was hashed, whatever is written to the file in between and whatever times it then shows.
    """

    def __init__(self, raw: BinaryIO, size: int) -> None:
        """Read ``size`` bytes from the start; raises Refusal where there are fewer."""
        self._raw = raw
        self._at = 0
        self._block: tuple[int, bytes] = (-1, b"")
        self._marks: list[bytes] = []
        self.size = size
        whole = hashlib.sha256()
        for start in range(0, size, BLOCK):
            block = raw.read(min(BLOCK, size - start))
            whole.update(block)
            self._marks.append(hashlib.sha256(block).digest())
            if len(block) < min(BLOCK, size - start):
                raise Refusal(CHANGED)
        self.sha256 = whole.hexdigest()
        """Hexadecimal digest of the whole file."""

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The place that is read next."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a place, which may lie behind the end."""
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence])
        return self._at

    def readinto(self, buffer: object) -> int:
        """Fill a buffer as far as the file goes; how much that was."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        wanted = max(0, min(len(view), self.size - self._at))
        done = 0
        while done < wanted:
            number, skip = divmod(self._at, BLOCK)
            piece = self._checked(number)[skip : skip + wanted - done]
            view[done : done + len(piece)] = piece
            done += len(piece)
            self._at += len(piece)
        return done

    def _checked(self, number: int) -> bytes:
        if self._block[0] != number:
            self._raw.seek(number * BLOCK)
            block = self._raw.read(min(BLOCK, self.size - number * BLOCK))
            if hashlib.sha256(block).digest() != self._marks[number]:
                raise Refusal(CHANGED)
            self._block = number, block
        return self._block[1]
