"""The truth about a round's models. Only eval and the commands use this, so that no scanner can see it."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from ..core.errors import MothError
from ..rounds.metadata import MODEL_NAME, MODELS_FOLDER, metadata_file, read_metadata
from ..rounds.packs import find_packs, pack_index
from ..rounds.published.errata import find_errata

_MEANING = MappingProxyType({"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False})
_BLANK = frozenset({"", "nan", "na", "none"})
_TRUTH_GLOBS = ("id-*", "models/id-*", "groundtruth/id-*")


class _Claim(NamedTuple):
    model: str
    poisoned: bool
    source: Path


def read_labels(round_dir: Path) -> dict[str, bool]:
    """Model id -> poisoned, for every model of ``round_dir`` whose label is known; sorted by id.

    Labels are looked for in ``METADATA.csv`` (columns ``model_name`` and ``poisoned``) and in ``ground_truth.csv`` (one
    0 or 1) of each ``id-*`` folder, which may also lie under ``models/`` or ``groundtruth/``, or of ``round_dir``
    itself when that is one model's folder, and in the packs of a packed round. A round without labels gives an empty
    dict. Models whose published label is known to be wrong have none: see :func:`read_errata`. Raises MothError when
    two places disagree or one cannot be understood.
    """
    wrong = read_errata(round_dir)
    return {model: poisoned for model, poisoned in read_published_labels(round_dir).items() if model not in wrong}


def read_errata(round_dir: Path) -> dict[str, str]:
    """Model id -> why its published label must not be used; the reasons stand in published/errata.json."""
    return find_errata(round_dir)


def errata_lines(round_dir: Path, models: Collection[str]) -> list[str]:
    """What to tell a user of the errata among these models; nothing for nearly every round."""
    found = {model: reason for model, reason in read_errata(round_dir).items() if model in models}
    return [f"{model}: its label is not used: {reason}." for model, reason in found.items()]


def read_published_labels(round_dir: Path) -> dict[str, bool]:
    """Model id -> poisoned, as published, errata and all; sorted by id."""
    claims: dict[str, _Claim] = {}
    places = [round_dir]
    if round_dir.resolve().name == MODELS_FOLDER:  # labels may lie beside the models' folder
        places.append(round_dir.resolve().parent)
    truths = (claim for place in places for claim in (*_ground_truth_claims(place), *_packed_claims(place)))
    for claim in (*_metadata_claims(metadata_file(round_dir)), *truths):
        first = claims.setdefault(claim.model, claim)
        if first.poisoned != claim.poisoned:
            raise MothError(
                f"{first.source} says {claim.model} is {_word(first.poisoned)} but {claim.source} says "
                f"{_word(claim.poisoned)}; correct or delete one of them"
            )
    return {model: claims[model].poisoned for model in sorted(claims)}


def _metadata_claims(path: Path) -> Iterator[_Claim]:
    table = read_metadata(path, "poisoned")
    if "poisoned" not in table:
        return
    for number, model, text in table[[MODEL_NAME, "poisoned"]].itertuples():
        poisoned = _parse(text, f"{path} row {number}")
        if poisoned is not None:
            yield _Claim(model, poisoned, path)


def _ground_truth_claims(round_dir: Path) -> Iterator[_Claim]:
    for pattern in (".", *_TRUTH_GLOBS):
        for path in sorted(round_dir.glob(f"{pattern}/ground_truth.csv")):
            if not path.is_file():
                continue
            cells = [cell for row in _csv_rows(path) for cell in row if cell.strip()]
            if len(cells) > 1:
                raise MothError(f"{path} must hold a single 0 or 1 and no header")
            poisoned = _parse(cells[0] if cells else "", str(path))
            if poisoned is not None:
                name = round_dir.resolve().name if pattern == "." else path.parent.name
                yield _Claim(name, poisoned, path)


def _packed_claims(round_dir: Path) -> Iterator[_Claim]:
    folders = [folder for folder in (round_dir, round_dir / MODELS_FOLDER) if folder.is_dir()]
    for pack in (pack for folder in folders for pack in find_packs(folder)):
        with suppress(OSError):  # a pack that cannot be read has no models to label either
            for entry in pack_index(pack).models:
                source = pack / entry.model_id / "ground_truth.csv"
                poisoned = _parse(entry.label_text or "", str(source))
                if poisoned is not None:
                    yield _Claim(entry.model_id, poisoned, source)


def _csv_rows(path: Path) -> list[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MothError(f"{path} cannot be read as CSV text: {error}") from None


def _parse(text: str, where: str) -> bool | None:
    value = text.strip().lower()
    if value in _BLANK:
        return None
    if value not in _MEANING:
        raise MothError(f"{where}: a label must be True, False, 1 or 0, not {text[:40]!r}")
    return _MEANING[value]


def _word(poisoned: bool) -> str:
    return "poisoned" if poisoned else "clean"
