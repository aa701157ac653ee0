"""That no number can be set so large that it is found out about when memory or patience is over."""

import dataclasses
import typing

import pytest
from click.testing import CliRunner

from trojai_moth.cli.main import main
from trojai_moth.cli.options import parse_assignments, record_fields
from trojai_moth.core.errors import SettingsError
from trojai_moth.eval.comparison import ComparisonSettings
from trojai_moth.eval.distance_bounds.bounds import BoundSettings
from trojai_moth.hardeners.registry import hardeners, make_hardener
from trojai_moth.runs.run import RescanSettings
from trojai_moth.scanners.registry import make_scanner, scanners
from trojai_moth.synthesis.settings import MakeRoundSettings

ROOTS = [RescanSettings, ComparisonSettings, BoundSettings, MakeRoundSettings]
ROOTS += [plugin.settings_type for plugin in (*hardeners().values(), *scanners().values())]


def kinds(annotation):
    """All types that an annotation is made of."""
    return {annotation}.union(*(kinds(part) for part in typing.get_args(annotation)))


def numbers(cls):
    """Name and bounds of every number among a record's settings and those within them."""
    for name, info in record_fields(cls).items():
        parts = kinds(info.annotation)
        for part in parts:
            if dataclasses.is_dataclass(part):
                yield from numbers(part)
        if parts & {int, float} and not any(typing.get_origin(part) is tuple for part in parts):
            yield f"{cls.__name__}.{name}", {key for bound in info.metadata for key in dataclasses.asdict(bound)}


def test_every_number_has_two_bounds():
    found = dict(pair for cls in ROOTS for pair in numbers(cls))
    assert len(found) > 100
    assert {name for name, bounds in found.items() if not (bounds & {"le", "lt"} and bounds & {"ge", "gt"})} == set()


@pytest.mark.parametrize(
    "words",
    [
        ("--set", "data.train_per_class=1000000000"),
        ("--set", "data.train_per_class=1e9"),
        ("--set", "scanner" + ".x" * 2000 + "=1"),
        ("--seed", "9" * 30),
        ("--scanner-budget", "1e300"),
    ],
)
def test_an_absurd_number_is_one_line(tmp_path, words):
    answer = CliRunner().invoke(main, ["rescan", str(tmp_path), "--out", str(tmp_path / "out"), *words])
    line = answer.output.splitlines()[-1]
    assert answer.exit_code == 2 and line.startswith("Error: ") and "bug" not in line and len(line) < 500
    assert words[0] in line or "train_per_class" in line


@pytest.mark.parametrize("value", ["9" * 5000, "1e9", "NaN", "Infinity", "[" * 90000, "null", '"\\ud800"'])
@pytest.mark.parametrize(
    ("make", "group", "name"),
    [(make_scanner, "scanner", "steps"), (make_hardener, "hardener", "rounds")],
)
def test_what_is_no_number_of_steps_is_one_line(make, group, name, value):
    options = parse_assignments([f"{group}.{name}={value}"], [group])[group]
    with pytest.raises(SettingsError, match=name) as refused:
        make({"scanner": "neural-cleanse", "hardener": "moth"}[group], options)
    assert str(refused.value).isprintable() and len(str(refused.value)) < 500
