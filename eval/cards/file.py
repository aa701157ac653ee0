"""Writing into a model card that somebody else has written: what is not ours stays as it is, letter by letter."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from huggingface_hub.utils import yaml_dump

from ...core.errors import SettingsError, one_line
from ...core.files import IrregularFileError, read_bytes, read_text, write_atomically
from .card import METRICS, CardRecord
from .text import HEAT_MAP, PAIRS, SIDE_FILE

KEY, INDEX = "orthogonalization", "model-index"
START, END = "<!-- trojai-moth: class distances -->", "<!-- /trojai-moth: class distances -->"
_CARD_BYTES, _MOST_LEVELS = 1 << 20, 100
# YAML's own errors, and what it lets through of dates and numbers that are none.
_NO_YAML = (yaml.YAMLError, ValueError, OverflowError)
_TOP_KEY = re.compile(r"^([^\s#'\"-][^:]*?)\s*:(?:\s|$)")


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(read_bytes(path)).hexdigest()


def pointers(card: CardRecord, folder: Path) -> dict[str, Any]:
    """The card's YAML key: which files lie beside it, with their hashes, and the figures that matter most."""
    scalars, files = card.scalars(), {"file": SIDE_FILE, "heat_map": HEAT_MAP, "pairs": PAIRS}
    named = {
        name: {"name": file, "sha256": file_hash(folder / file)}
        for name, file in files.items()
        if (folder / file).exists()
    }
    short = {
        "mean": "class_distance_mean",
        "geometric_mean": "class_distance_geometric_mean",
        "minimum": "class_distance_minimum",
    }
    return {
        **named,
        **{name: scalars[metric] for name, metric in short.items() if metric in scalars},
        "unit": "pixels",
        "risk_bound": round(card.bounds.risk_bound, 2),
        "pairs_at_risk": len(card.bounds.at_risk),
        "pairs_measured": len(card.bounds.pairs),
    }


def results(card: CardRecord) -> list[EvalResult]:
    """The scalars as evaluation results."""
    return [
        EvalResult(
            task_type="image-classification",
            dataset_type="trojai-round",
            dataset_name=card.last.data,
            metric_type=name,
            metric_name=METRICS[name],
            metric_value=value,
            metric_args=card.conditions(name),
        )
        for name, value in card.scalars().items()
    ]


def write_card(path: Path, text: str, key: dict[str, Any], own: list[EvalResult], name: str) -> None:
    """Put text, YAML key and results into the card at ``path``, which need not exist yet.

    SettingsError, and the file stays as it was, when it is no card or its markers do not match.
    """
    before = _read(path) if path.exists() else ""
    line = "\r\n" if "\r\n" in before else "\n"
    head, body = _split(before, path)
    known = _parse(head, path)
    index = merged_index(known.get(INDEX), own, name, path)
    new_head = _with_keys(head, {INDEX: index, KEY: key}, known, line)
    content = f"---{line}{new_head}---{line}{_with_section(body, text.replace(chr(10), line), line, path)}"
    _validate(content, path)
    write_atomically(path, lambda temporary: temporary.write_bytes(content.encode()))


def read_key(path: Path) -> dict[str, Any]:
    """The card's YAML key; SettingsError where there is none."""
    key = _parse(_split(_read(path), path)[0], path).get(KEY)
    if not isinstance(key, dict) or not isinstance(key.get("file"), dict):
        raise SettingsError(f"{path}: has no {KEY}; make one with `trojai-moth card`")
    return key


def read_scalars(path: Path) -> dict[str, Any]:
    """The evaluation results of ours that a card states."""
    index = _parse(_split(_read(path), path)[0], path).get(INDEX)
    try:
        found = model_index_to_eval_results(index)[1] if index else []
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SettingsError(f"{path}: its {INDEX} cannot be read ({one_line(error)}); mend it or take it out") from None
    return {result.metric_type: result.metric_value for result in found if result.metric_type in METRICS}


def merged_index(there: Any, own: list[EvalResult], name: str, path: Path) -> list[Any]:
    """A model-index with our results renewed and all others as they were."""
    if there is not None and not _is_index(there):
        raise SettingsError(f"{path}: its {INDEX} is not a list of models with results; mend it or take it out")
    fresh = eval_results_to_model_index(name, own)[0]["results"]
    entries = [{**entry, "results": _others(entry)} for entry in there or []]
    home = next((entry for entry in entries if entry.get("name") == name), None)
    if home is None:
        home = {"name": name, "results": []}
        entries.append(home)
    home["results"] = [*home["results"], *fresh]
    return [entry for entry in entries if entry["results"]]


def _is_index(there: Any) -> bool:
    """Whether it is a list of models with lists of results with lists of metrics, any of them left out."""
    metrics = _parts(_parts(there, "results"), "metrics")
    return metrics is not None and all(isinstance(metric, dict) for metric in metrics)


def _parts(entries: Any, name: str) -> list[Any] | None:
    """All that stands under a name in a list of mappings; None where it is no such list, or no list stands there."""
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return None
    lists = [entry.get(name) or [] for entry in entries]
    return [part for own in lists for part in own] if all(isinstance(own, list) for own in lists) else None


def _others(entry: dict[str, Any]) -> list[Any]:
    kept: list[Any] = []
    for result in entry.get("results") or []:
        metrics = [metric for metric in result.get("metrics") or [] if metric.get("type") not in METRICS]
        if metrics:
            kept.append({**result, "metrics": metrics})
    return kept


def _read(path: Path) -> str:
    try:
        return read_text(path, _CARD_BYTES)
    except IrregularFileError as error:
        raise SettingsError(f"{path}: {error}, which no card is") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: not a text file in UTF-8") from None


def _split(content: str, path: Path) -> tuple[str, str]:
    """The YAML between the dashes, and the rest."""
    match = REGEX_YAML_BLOCK.search(content)
    return (match.group(2), content[match.end() :]) if match else ("", content)


def _parse(head: str, path: Path) -> dict[str, Any]:
    try:
        _refuse_traps(head, path)
        data = yaml.safe_load(head)
    except _NO_YAML as error:
        raise SettingsError(f"{path}: its YAML cannot be read ({' '.join(str(error).split())[:120]})") from None
    if data is not None and not isinstance(data, dict):
        raise SettingsError(f"{path}: its YAML is not a list of keys")
    return data or {}


def _refuse_traps(head: str, path: Path) -> None:
    """SettingsError for YAML that a few lines of are gigabytes, or hours, when it is built."""
    depth = 0
    for event in yaml.parse(head):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise SettingsError(f"{path}: its YAML repeats a value by *name; write the value out")
        if depth > _MOST_LEVELS:
            raise SettingsError(f"{path}: its YAML cannot be read (nested deeper than {_MOST_LEVELS} levels)")


def _with_keys(head: str, new: dict[str, Any], known: dict[str, Any], line: str) -> str:
    """The YAML with these top-level keys renewed, its comments and order kept wherever that can be done."""
    kept: list[str] = []
    skipping = False
    for text in head.splitlines():
        match = _TOP_KEY.match(text)
        if match:
            skipping = match[1] in new
        elif skipping and text.startswith("#"):
            skipping = False
        if not skipping and (text.strip() or kept):
            kept.append(text)
    own = yaml_dump(new, sort_keys=False, line_break=line)
    joined = "".join(text + line for text in kept) + own
    wanted = {**known, **new}
    try:
        same = yaml.safe_load(joined) == wanted
    except _NO_YAML:
        same = False
    return joined if same else yaml_dump(wanted, sort_keys=False, line_break=line)


def _with_section(body: str, text: str, line: str, path: Path) -> str:
    section = f"{START}{line}{text}{line}{END}"
    counts, first, last = (body.count(START), body.count(END)), body.find(START), body.find(END)
    if counts == (0, 0):
        gap = "" if not body else line if body.endswith(line) else 2 * line
        return f"{body}{gap}{section}{line}"
    if counts != (1, 1) or last < first:
        raise SettingsError(f"{path}: the markers {START} and {END} do not match; leave one of each, or take both out")
    return body[:first] + section + body[last + len(END) :]


def _validate(content: str, path: Path) -> None:
    """What huggingface_hub itself checks without a network: that it reads the card back, results and all."""
    try:
        card = ModelCard(content)
        if not getattr(card.data, "eval_results", None):
            raise ValueError("the evaluation results got lost")
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"{path}: huggingface_hub does not accept the card ({error})") from None
