"""The truth about a round's models. Only eval and the commands use this, so that no scanner can see it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from ..core.errors import MothError
from ..core.files import is_passed_over, read_text, refuse_links_out
from ..rounds.metadata import MODEL_NAME, MODELS_FOLDER, metadata_file, read_metadata
from ..rounds.model_folder import model_id_of
from ..rounds.packs import find_packs, pack_index
from ..rounds.published.errata import find_errata

_LOG = logging.getLogger(__name__)
_MEANING = MappingProxyType({"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False})
_BLANK = frozenset({"", "nan", "na", "none"})
_TRUTH, _TRUTH_BYTES = "ground_truth.csv", 1000
_SHOWN = 3
_TRUTH_GLOBS = ("id-*", "models/id-*", "groundtruth/id-*")


class _Claim(NamedTuple):
    """What one place says of a model; ``problem``: why that cannot be used, and empty where it can."""

    model: str
    poisoned: bool
    source: Path
    problem: str = ""


def read_labels(round_dir: Path) -> dict[str, bool]:
    """Model id -> poisoned, for every model of ``round_dir`` whose label is known; sorted by id.

    Labels are looked for in ``METADATA.csv`` (columns ``model_name`` and ``poisoned``) and in ``ground_truth.csv`` (one
    0 or 1) of each ``id-*`` folder, which may also lie under ``models/`` or ``groundtruth/``, or of ``round_dir``
    itself when that is one model's folder, and in the packs of a packed round. A round without labels gives an empty
    dict. Models whose published label is known to be wrong have none: see :func:`read_errata`. Nor have those of which
    two places disagree, or one cannot be understood; a warning names them. Raises MothError for a METADATA.csv that is
    no table.
    """
    wrong = read_errata(round_dir)
    labels, problems = _published(round_dir)
    if problems:
        _LOG.warning("%s", _problem_line(problems))
    return {model: poisoned for model, poisoned in labels.items() if model not in wrong}


def read_errata(round_dir: Path) -> dict[str, str]:
    """Model id -> why its published label must not be used; the reasons stand in published/errata.json."""
    return find_errata(round_dir)


def errata_lines(round_dir: Path, models: Collection[str]) -> list[str]:
    """What to tell a user of the errata among these models; nothing for nearly every round."""
    found = {model: reason for model, reason in read_errata(round_dir).items() if model in models}
    return [f"{model}: its label is not used: {reason}." for model, reason in found.items()]


def read_published_labels(round_dir: Path) -> dict[str, bool]:
    """Model id -> poisoned, as published, errata and all; sorted by id."""
    return _published(round_dir)[0]


def _published(round_dir: Path) -> tuple[dict[str, bool], dict[str, str]]:
    """Model id -> poisoned, and of those whose label cannot be used why."""
    claims: dict[str, _Claim] = {}
    problems: dict[str, str] = {}
    places = [round_dir]
    if round_dir.resolve().name == MODELS_FOLDER:  # labels may lie beside the models' folder
        places.append(round_dir.resolve().parent)
    truths = (claim for place in places for claim in (*_ground_truth_claims(place), *_packed_claims(place)))
    for claim in (*_metadata_claims(metadata_file(round_dir)), *truths):
        if claim.problem:
            problems.setdefault(claim.model, claim.problem)
            continue
        first = claims.setdefault(claim.model, claim)
        if first.poisoned != claim.poisoned:
            problems[claim.model] = (
                f"{first.source} says {_word(first.poisoned)} but {claim.source} says {_word(claim.poisoned)}"
            )
    return {model: claims[model].poisoned for model in sorted(claims.keys() - problems.keys())}, problems


def _problem_line(problems: Mapping[str, str]) -> str:
    shown = [f"{model}: {reason}" for model, reason in sorted(problems.items())[:_SHOWN]]
    more = [f"{len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
    those = "it is" if len(problems) == 1 else "they are"
    return (
        f"labels that cannot be used: {'; '.join([*shown, *more])}; {those} not scored, correct the files to have it so"
    )


def _metadata_claims(path: Path) -> Iterator[_Claim]:
    table = read_metadata(path, "poisoned")
    if "poisoned" not in table:
        return
    for number, model, text in table[[MODEL_NAME, "poisoned"]].itertuples():
        yield from _claim(model_id_of(model), text, path, f"{path} row {number}")


def _ground_truth_claims(round_dir: Path) -> Iterator[_Claim]:
    for pattern in (".", *_TRUTH_GLOBS):
        for path in sorted(round_dir.glob(f"{pattern}/{_TRUTH}")):
            own = pattern == "."
            if not own and is_passed_over(path.parent.name):
                continue
            name = model_id_of(round_dir.resolve().name if own else path.parent.name)
            try:
                refuse_links_out(path.parent, [_TRUTH])
                text = read_text(path, _TRUTH_BYTES)
            except MothError as error:
                yield _Claim(name, False, path, str(error))
            except (OSError, UnicodeDecodeError) as error:
                yield _Claim(name, False, path, f"{path} cannot be read ({error})")
            else:
                yield from _claim(name, text, path, str(path))


def _packed_claims(round_dir: Path) -> Iterator[_Claim]:
    folders = [folder for folder in (round_dir, round_dir / MODELS_FOLDER) if folder.is_dir()]
    for pack in (pack for folder in folders for pack in find_packs(folder)):
        with suppress(OSError):  # a pack that cannot be read has no models to label either
            for entry in pack_index(pack).models:
                source = pack / entry.model_id / _TRUTH
                yield from _claim(entry.model_id, entry.label_text or "", source, str(source))


def _claim(model: str, text: str, source: Path, where: str) -> Iterator[_Claim]:
    """What a text says of a model, if anything; cells of a table may be quoted, and empty ones do not count."""
    value = " ".join(text.replace(",", " ").replace('"', " ").split()).lower()
    if value in _MEANING:
        yield _Claim(model, _MEANING[value], source)
    elif value not in _BLANK:
        problem = f"{where}: a label must be True, False, 1 or 0 alone, without a header, not {text.strip()[:40]!r}"
        yield _Claim(model, False, source, problem)


def _word(poisoned: bool) -> str:
    return "poisoned" if poisoned else "clean"
