"""The one place where a user's own code is imported: because the user named it, never because a file did.

Nothing but :func:`allowing_architectures` turns it on, with the names that stand on the command line or in a Python
program; no configuration, round or environment variable can.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from ..core.errors import SettingsError, one_line
from .refusal import quote

_allowed: ContextVar[frozenset[str]] = ContextVar("architectures", default=frozenset())
_HOW = "--architecture package.module:factory"


@contextmanager
def allowing_architectures(names: Iterable[str]) -> Iterator[None]:
    """Inside, exactly these ``package.module:factory`` names may be imported.

    Any other name among them says that the user gave it, and not a round's configuration: then a whole module of an
    unknown class is read as data for a stock network as well.
    """
    token = _allowed.set(_allowed.get() | frozenset(names))
    try:
        yield
    finally:
        _allowed.reset(token)


def allowed_architectures() -> frozenset[str]:
    """What :func:`allowing_architectures` was given, for a process that works for this one."""
    return _allowed.get()


@contextmanager
def folder_on_path() -> Iterator[None]:
    """Modules are also looked for in the folder one stands in, as a program there does, after all installed ones."""
    before = list(sys.path)
    sys.path.append(os.getcwd())
    try:
        yield
    finally:
        sys.path[:] = before


def is_code_name(name: str) -> bool:
    """Whether a name has the form of ``package.module:factory``."""
    module, colon, factory = name.partition(":")
    return bool(colon) and all(part.isidentifier() for part in (*module.split("."), *factory.split(".")))


def import_factory(name: str) -> Callable[..., Any]:
    """What a ``package.module:factory`` names; SettingsError where that was not allowed, or is no callable."""
    if name not in allowed_architectures():
        raise SettingsError(
            f"architecture {quote(name)} is code, which no file decides to import; name it on the command line, "
            f"--architecture {quote(name)[1:-1]}"
        )
    if not is_code_name(name):
        raise SettingsError(f"architecture {quote(name)} is no name of code; write {_HOW}")
    place, _, attribute = name.partition(":")
    importlib.invalidate_caches()
    try:
        with folder_on_path():
            found: Any = importlib.import_module(place)
        for part in attribute.split("."):
            found = getattr(found, part)
    except ModuleNotFoundError as error:
        mend = f"give the command in the folder of {quote((error.name or place).partition('.')[0])}, or install it"
        raise SettingsError(f"architecture {quote(name)} cannot be imported: {one_line(error)}; {mend}") from error
    except (Exception, SystemExit) as error:  # whatever a stranger's module does when it is imported
        raise SettingsError(
            f"architecture {quote(name)} cannot be imported: {one_line(error)}; mend that code"
        ) from error
    if not callable(found) or (hasattr(found, "state_dict") and not isinstance(found, type)):
        raise SettingsError(
            f"architecture {quote(name)} makes no network; name a function or class that does, as in {_HOW}"
        )
    return found  # type: ignore[no-any-return]
