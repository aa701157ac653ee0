"""Models in packs ``id-0000xx.tar.gz``, as rounds are downloaded: found without unpacking, unpacked one at a time.

A pack is read through once, to list what it holds; the list is remembered in the cache folder for as long as the pack
does not change. A model's files are written to a temporary folder (TMPDIR says where) when it is examined, and removed
right after. Models that are taken in order cost one pass over the pack together.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..core.errors import MothError, SettingsError, UnreadableModelError
from ..core.files import cache_folder, is_passed_over, list_folder, open_regular, write_text
from ..core.process_identity import is_process_dead, process_name
from ..core.records import read_record, record, to_json
from .config_file import CONFIG_LIMIT, CaseConfig, parse_config
from .model_folder import (
    FolderNames,
    ModelFolder,
    PackedModel,
    SkippedModel,
    find_names,
    model_id_of,
    why_no_model,
)

_PACK = re.compile(r"id-.+\.(?:tar\.gz|tgz)")
_MODEL = re.compile(r"id-\d{1,20}")
_FORMAT = 3
# What the names of temporary folders begin with; whose they are follows.
_UNPACKED = "trojai-moth-"
# Round 1 has 500 images and as many labels fit in no other layout; the largest network is vgg19bn with 0.6 GB.
_MOST_FILES, _MOST_BYTES, _DEEPEST = 100_000, 6 << 30, 6


@record
class PackedEntry:
    """A model of a pack; ``refusal`` says why it cannot be examined, empty if it can."""

    model_id: str
    place: PackedModel
    names: FolderNames
    config: CaseConfig
    label_text: str | None
    """The content of ground_truth.csv, for eval/labels.py alone."""
    refusal: str


@record
class PackIndex:
    """What a pack holds, and for which file that is true."""

    format: int
    size: int
    modified: int
    models: tuple[PackedEntry, ...]
    problem: str
    """Why the pack could not be read to its end; empty if it could."""


def find_packs(folder: Path) -> list[Path]:
    """The packs that lie in a folder, by name."""
    return [path for path in list_folder(folder) if _PACK.fullmatch(path.name)]


def read_pack(pack: Path) -> list[ModelFolder | SkippedModel]:
    """The models of a pack, and a skip in the pack's own name if it could not be read to its end."""
    try:
        index = pack_index(pack)
    except (MothError, OSError) as error:
        return [SkippedModel(model_id=model_id_of(pack.name), reason=str(error))]
    found: list[ModelFolder | SkippedModel] = []
    for entry in index.models:
        if entry.refusal:
            found.append(SkippedModel(model_id=entry.model_id, reason=entry.refusal))
        else:
            place = replace(entry.place, pack=str(pack))
            found.append(ModelFolder(entry.model_id, pack / entry.model_id, entry.config, entry.names, place))
    return [*found, SkippedModel(model_id=model_id_of(pack.name), reason=index.problem)] if index.problem else found


def pack_index(pack: Path) -> PackIndex:
    """What a pack holds, from the cache or by reading it through."""
    status = pack.stat()
    key = hashlib.sha256(str(pack.resolve()).encode(errors="surrogateescape")).hexdigest()[:32]
    folder = cache_folder()
    remembered = folder and folder / "packs" / f"{key}.json"
    with suppress(MothError, OSError, UnicodeDecodeError):
        index = read_record(PackIndex, remembered) if remembered else None
        if index and (index.format, index.size, index.modified) == (_FORMAT, status.st_size, status.st_mtime_ns):
            return index
    models, problem = _read_through(pack)
    index = PackIndex(
        format=_FORMAT, size=status.st_size, modified=status.st_mtime_ns, models=tuple(models), problem=problem
    )
    with suppress(OSError):  # without a cache the next command reads the pack again
        if remembered:
            write_text(remembered, to_json(index))
    return index


@contextmanager
def unpacked(case: ModelFolder) -> Iterator[ModelFolder]:
    """The case with its files on disk for as long as this lasts; one that is on disk already as it is."""
    if case.packed is None:
        yield case
        return
    _remove_what_the_dead_left()
    with tempfile.TemporaryDirectory(prefix=f"{_UNPACKED}{process_name()}-") as temporary:
        directory = Path(temporary) / case.model_id
        _unpack(case.packed, case.model_id, directory)
        try:
            yield replace(case, directory=directory, packed=None)
        except (UnreadableModelError, SettingsError) as error:  # the folder will be gone when that is read
            raise type(error)(str(error).replace(str(directory), str(case.directory))) from None


@cache
def _remove_what_the_dead_left() -> None:
    """Unpacked models of processes that were killed: a round's worth of them would fill the disk. Once is enough."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_UNPACKED}*"):
        if is_process_dead(folder.name.removeprefix(_UNPACKED).rpartition("-")[0]):
            shutil.rmtree(folder, ignore_errors=True)


@dataclass
class _Found:
    """What is known of a model while its part of a pack is being read."""

    model_id: str
    start: int
    end: int = 0
    volume: int = 0
    files: int = 0
    there: set[str] = field(default_factory=set)
    configs: dict[str, bytes] = field(default_factory=dict)
    label: str | None = None
    refusal: str = ""


def _read_through(pack: Path) -> tuple[list[PackedEntry], str]:
    found: dict[str, _Found] = {}
    last, problem = None, ""
    try:
        stream = PackStream(pack)
        for member in stream.members():
            model_id, inside = _place(member)
            if model_id is None:
                continue
            model = found.setdefault(model_id, _Found(model_id, member.start))
            if last not in (None, model) and model.end:
                model.refusal = model.refusal or "its files do not lie together in the pack; unpack it by hand"
            _note(model, member, inside, stream)
            last = model
        stream.close()
    except MothError as error:
        problem = str(error)
        if last is not None:  # nobody knows whether the model that was being read is whole
            last.refusal = last.refusal or problem
    if not found and not problem:
        problem = f"{pack}: holds no folder called id-00000000 or the like; download it again"
    return [_entry(model, pack) for model in found.values()], problem


def _place(member: Member) -> tuple[str | None, tuple[str, ...]]:
    """The model that a member belongs to and its place there; (None, ()) for what lies outside of all models."""
    if any(is_passed_over(part) for part in member.parts):
        return None, ()
    for position, part in enumerate(member.parts):
        if _MODEL.fullmatch(part):
            return part, member.parts[position + 1 :]
    return None, ()


def _note(model: _Found, member: Member, inside: tuple[str, ...], stream: PackStream) -> None:
    model.end, model.files = member.end, model.files + 1
    model.volume += member.size if member.is_file else 0
    problem = member.refusal
    if model.files > _MOST_FILES or model.volume > _MOST_BYTES or len(inside) > _DEEPEST:
        limits = f"{_MOST_FILES} files, {_MOST_BYTES >> 30} GiB or {_DEEPEST} levels of folders"
        problem = problem or f"has more than {limits}; leave out what is no part of the model"
    model.refusal = model.refusal or problem
    if not inside or problem:
        return
    model.there.add(inside[0])
    if len(inside) == 1 and member.is_file and inside[0].endswith("config.json") and member.size <= CONFIG_LIMIT:
        model.configs[inside[0]] = b"".join(stream.content(member))
    elif inside == ("ground_truth.csv",) and member.is_file and member.size < 1000:
        model.label = b"".join(stream.content(member)).decode(errors="replace")


def _entry(model: _Found, pack: Path) -> PackedEntry:
    names, config = find_names(model.there), CaseConfig()
    refusal = f"{pack}: {model.model_id}: {model.refusal}" if model.refusal else ""
    if not refusal and (reason := why_no_model(model.there)):
        refusal = f"{pack}: {model.model_id}: {reason}"
    if not refusal and names.config in model.there:
        try:
            text = model.configs.get(names.config, b" " * (CONFIG_LIMIT + 1))
            config = parse_config(text, pack / model.model_id / names.config)
        except MothError as error:
            refusal = str(error)
    place = PackedModel(pack=pack.name, start=model.start, end=model.end, volume=model.volume)
    return PackedEntry(
        model_id=model.model_id, place=place, names=names, config=config, label_text=model.label, refusal=refusal
    )


def _unpack(place: PackedModel, model_id: str, directory: Path) -> None:
    pack = Path(place.pack)
    free = shutil.disk_usage(directory.parent).free
    if free < place.volume:
        raise UnreadableModelError(
            f"{pack}: {model_id} takes {place.volume >> 20} MiB, and {directory.parent} has {free >> 20} left; "
            "set TMPDIR to a larger disk"
        )
    reader = _reader(pack)
    try:
        for member in reader.at(place.start).members(until=place.end):
            found, inside = _place(member)
            if found is None:
                continue
            if member.refusal or found != model_id:
                raise UnreadableModelError(f"{pack}: changed while it was read; start again")
            _write(directory.joinpath(*inside), member, reader.stream)
    except MothError:
        reader.drop()
        raise
    except OSError as error:
        reader.drop()
        raise UnreadableModelError(f"{pack}: {model_id} cannot be unpacked ({error.strerror})") from None


def _write(path: Path, member: Member, stream: PackStream) -> None:
    if not member.is_file:
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:  # a second file of the same name is an attempt to replace the first
        for part in stream.content(member):
            file.write(part)


class _Reader:
    """A pack that stays open between one model and the next, since there is no way but forward in it."""

    def __init__(self, pack: Path) -> None:
        self._pack, self.stream = pack, PackStream(pack)

    def at(self, position: int) -> PackStream:
        """The stream, moved to a place."""
        if self.stream.tell() > position:
            self.drop()
        self.stream.seek(position)
        return self.stream

    def drop(self) -> None:
        """Begin anew at the pack's first byte."""
        self.stream.close()
        self.stream = PackStream(self._pack)


@lru_cache(maxsize=1)
def _reader(pack: Path) -> _Reader:
    return _Reader(pack)


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
            self._file = open_regular(path)
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
        return f"{shown} is a link, a device or the like; only plain files and folders are read: put the file there"
    if not 0 <= info.size <= _MOST_MEMBER_BYTES:
        return f"{shown} has {info.size} bytes, more than any file of a model; download the pack again"
    odd = any(len(part) > _LONGEST_NAME or not part.isprintable() or "\\" in part for part in info.name.split("/"))
    return f"{shown} is not usable as a file name; rename it" if odd else ""
