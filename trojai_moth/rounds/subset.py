"""``--subset``: some of a round's models, by ids, a file of ids, a published list, or a question to METADATA.csv."""

from __future__ import annotations

import ast
import json
import os
import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

import pandas as pd

from ..core.errors import SettingsError
from ..core.files import read_text
from .metadata import MODEL_NAME, metadata_file, typed_metadata
from .model_folder import ModelFolder, SkippedModel
from .published import __name__ as _PUBLISHED

_ID = re.compile(r"id-\d{1,20}|\d{1,8}")
_LONGEST_QUERY = 1000
_LONGEST_FILE = 1 << 20
_SHOWN, _SHOWN_CHARACTERS = 3, 80
# All that a query may be made of. No calls, attributes, subscripts, @ or arithmetic: there is nothing in it to run.
_ALLOWED = (
    *(ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.BinOp, ast.BitAnd, ast.BitOr),
    *(ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn),
    *(ast.Name, ast.Load, ast.Constant, ast.List, ast.Tuple),
)


def choose(
    cases: Sequence[ModelFolder | SkippedModel], subset: str | None, round_dir: Path
) -> list[ModelFolder | SkippedModel]:
    """The cases that a subset names, in the round's order; all of them for None.

    ``subset`` is the name of a published list, a file with ids, ids with commas between them (``id-00000003,7``), or a
    query over METADATA.csv (``number_classes > 20 and model_architecture == "resnet18"``). SettingsError when it cannot
     be understood, names a model that is not in the round, or leaves none. Of a published list, which holds a whole
    round's models, those are taken that are there.
    """
    if subset is None:
        return list(cases)
    present = [case.model_id for case in cases]
    if subset in published_subsets():
        wanted = set(published_subsets()[subset])
    elif os.path.isfile(subset):
        wanted = _present(_read_ids(Path(subset)), present, subset)
    elif ids := _ids(subset, present):
        wanted = _present(ids, present, subset)
    else:
        wanted = query(metadata_file(round_dir), subset)
    chosen = [case for case in cases if case.model_id in wanted]
    if not chosen:
        raise SettingsError(f"--subset {_shown(subset)}: none of the round's {len(present)} models is in it")
    return chosen


@cache
def published_subsets() -> Mapping[str, tuple[str, ...]]:
    """Name -> model ids of the lists that come with the package; what they are is in published/subsets.json."""
    data = json.loads((files(_PUBLISHED) / "subsets.json").read_text(encoding="utf-8"))
    return {name: tuple(entry["models"]) for name, entry in data.items()}


def query(metadata: Path, text: str) -> set[str]:
    """Names of the models that a question to METADATA.csv picks; only comparisons of its columns can be asked."""
    if not metadata.is_file():
        raise SettingsError(
            f"--subset {_shown(text)}: neither ids, a file, nor {', '.join(published_subsets())}; and {metadata}, "
            "which a query asks, is missing"
        )
    frame = typed_metadata(metadata)
    check_query(text, set(map(str, frame.columns)))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picked = frame.query(text, engine="python", local_dict={}, global_dict={})
    except Exception as error:  # pandas raises whatever comparing its columns raises
        raise SettingsError(f"--subset {_shown(text)}: cannot be asked ({str(error).splitlines()[0]:.120})") from None
    if not isinstance(picked, pd.DataFrame):
        raise SettingsError(f"--subset {_shown(text)}: picks no rows; write a comparison, e.g. number_classes > 20")
    return set(picked[MODEL_NAME].astype(str))


def check_query(text: str, columns: Collection[str]) -> None:
    """SettingsError unless the text is made of comparisons of these columns with constants, and, or, not."""
    if len(text) > _LONGEST_QUERY:
        raise SettingsError(f"--subset: a query of {len(text)} characters; at most {_LONGEST_QUERY}")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise SettingsError(
            f"--subset {_shown(text)}: neither ids, a file, nor {', '.join(published_subsets())}, and not a query like "
            "number_classes > 20"
        ) from None
    for node in ast.walk(tree):
        if not isinstance(node, _ALLOWED):
            raise SettingsError(
                f"--subset {_shown(text)}: {type(node).__name__.lower()} is not allowed in a query; compare "
                "columns with ==, !=, <, <=, >, >=, in, not in, and join that with and, or, not"
            )
        if isinstance(node, ast.Name) and node.id not in columns:
            raise SettingsError(
                f"--subset {_shown(text)}: METADATA.csv has no column {node.id:.40}; it has "
                f"{', '.join(sorted(name for name in columns if name.isprintable()))}"
            )


def _shown(text: str) -> str:
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[:_SHOWN_CHARACTERS])


def _ids(text: str, present: Collection[str]) -> list[str]:
    """The ids in a list with commas or spaces; none if anything in it is neither a model nor looks like an id."""
    words = re.split(r"[\s,]+", text.strip(" ,\n\t"))
    known = all(word in present or _ID.fullmatch(word) for word in words)
    return [word if word in present else _full(word) for word in words] if known else []


def _full(word: str) -> str:
    return f"id-{int(word):08d}" if word.isdigit() else word


def _read_ids(path: Path) -> list[str]:
    try:
        text = read_text(path, _LONGEST_FILE)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"--subset {path}: cannot be read as a list of ids ({error})") from None
    lines = (line.partition("#")[0] for line in text.splitlines())
    ids = [word for line in lines for word in re.split(r"[\s,]+", line) if word]
    wrong = next((word for word in ids if not _ID.fullmatch(word)), None)
    if wrong or not ids:
        raise SettingsError(f"--subset {path}: {wrong or ''!r:.60} is not a model id; write one id a line")
    return [_full(word) for word in ids]


def _present(ids: Sequence[str], present: Collection[str], source: str) -> set[str]:
    missing = sorted(set(ids) - set(present))
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise SettingsError(f"--subset {_shown(source)}: not in the round: {', '.join(missing[:_SHOWN])}{more}")
    return set(ids)
