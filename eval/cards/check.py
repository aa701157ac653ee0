"""Two checks of cards: whether one says what its files and its model say, and how two differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ...core.errors import SettingsError
from ...core.records import read_record, record
from ...triggers.distance_records import DistanceMatrix
from ...triggers.trigger import SIZE_FLOOR, Pair
from ..gain import Gain, check_comparable, gains, pair_changes
from .card import CardRecord
from .file import KEY, file_hash, read_key, read_scalars

LARGEST = 5


@record
class Finding:
    """One thing that was checked."""

    ok: bool
    text: str


@record
class CardDifference:
    """Card B beside card A; scalars (name, A, B), pairs (victim, target, A, B) with the largest change first."""

    scalars: tuple[tuple[str, float | str | None, float | str | None], ...]
    now_at_risk: tuple[Pair, ...]
    no_longer_at_risk: tuple[Pair, ...]
    pairs: tuple[tuple[int, int, float | None, float | None], ...]
    gain: Gain
    notes: tuple[str, ...]


def side_file(path: Path) -> Path:
    """The class_distances.json of a card, or ``path`` itself where it is one; SettingsError for a name elsewhere."""
    if path.suffix == ".json":
        return path
    name = read_key(path)["file"].get("name")
    if not isinstance(name, str) or Path(name).name != name:
        raise SettingsError(f"{path}: {KEY} names {name!r:.60}, which is not a file beside it")
    return path.parent / name


def read_card(path: Path) -> CardRecord:
    """The record behind a card or its side file."""
    file = side_file(path)
    if not file.is_file():
        raise SettingsError(f"{file}: missing; the card {path} points to it")
    return read_record(CardRecord, file)


def check_files(path: Path) -> list[Finding]:
    """The hashes of all files that the card points to, and its evaluation results against its side file."""
    key, findings = read_key(path), []
    for entry in (value for value in key.values() if isinstance(value, dict)):
        name, expected = entry.get("name"), entry.get("sha256")
        file = path.parent / str(name)
        if not isinstance(name, str) or Path(name).name != name or not file.is_file():
            findings.append(Finding(ok=False, text=f"{name}: not beside the card"))
        else:
            same = file_hash(file) == expected
            findings.append(Finding(ok=same, text=f"{name}: {'hash as stated' if same else 'changed since the card'}"))
    if all(finding.ok for finding in findings):
        stated, known = read_scalars(path), read_card(path).scalars()
        wrong = [name for name in {**known, **stated} if stated.get(name) != known.get(name)]
        text = f"other than in the side file: {', '.join(wrong)}" if wrong else "as in the side file"
        findings.append(Finding(ok=not wrong, text=f"evaluation results: {text}"))
    return findings


def compare_pairs(stated: DistanceMatrix, again: DistanceMatrix, tolerance: float) -> list[Finding]:
    """Every pair of ``again`` beside what was stated; tolerance: largest |ln ratio| that rounding may explain."""
    findings = []
    for victim, target in ((pair.victim, pair.target) for pair in again.pairs):
        old, new = stated.distances[victim][target], again.distances[victim][target]
        words = " and now ".join("no trigger" if size is None else f"{size:.1f} pixels" for size in (old, new))
        findings.append(Finding(ok=_near(old, new, tolerance), text=f"{victim}->{target}: stated {words}"))
    return findings


def _near(old: float | None, new: float | None, tolerance: float) -> bool:
    if old is None or new is None:
        return old is new
    return abs(math.log(max(new, SIZE_FLOOR) / max(old, SIZE_FLOOR))) <= tolerance


def difference(one: CardRecord, other: CardRecord, names: tuple[str, str]) -> CardDifference:
    """What card ``other`` says that ``one`` does not; SettingsError for other numbers of classes."""
    first, second = one.last, other.last
    if first.classes != second.classes:
        raise SettingsError(
            f"{names[0]} and {names[1]}: {first.classes} and {second.classes} classes; nothing to compare"
        )
    notes = []
    try:
        check_comparable(first, second, names)
    except SettingsError as error:
        notes.append(str(error))
    if first.source_sha256 != second.source_sha256:
        notes.append("the cards are of different model files")
    ours, theirs = one.scalars(), other.scalars()
    shared = _shared(first, second)
    risk = [{(pair.victim, pair.target) for pair in card.bounds.at_risk} for card in (one, other)]
    changes = sorted(pair_changes(first.distances, second.distances, shared), key=lambda c: -_change(c.before, c.after))
    return CardDifference(
        scalars=tuple((name, ours.get(name), theirs.get(name)) for name in {**ours, **theirs}),
        now_at_risk=tuple(sorted(risk[1] - risk[0])),
        no_longer_at_risk=tuple(sorted(risk[0] - risk[1])),
        pairs=tuple((c.victim, c.target, c.before, c.after) for c in changes[:LARGEST]),
        gain=gains(first.distances, second.distances, pairs=shared),
        notes=tuple(notes),
    )


def _shared(first: DistanceMatrix, second: DistanceMatrix) -> Sequence[Pair]:
    measured = [{(pair.victim, pair.target) for pair in matrix.pairs} for matrix in (first, second)]
    return sorted(measured[0] & measured[1])


def _change(before: float | None, after: float | None) -> float:
    if before is None or after is None:
        return 0.0 if before is after else math.inf
    return abs(math.log(max(after, SIZE_FLOOR) / max(before, SIZE_FLOOR)))
