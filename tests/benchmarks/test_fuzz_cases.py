"""Every input that fuzzing ever found something with, and the inputs it starts from, judged as the fuzzer judges."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_SPEC = importlib.util.spec_from_file_location("fuzz_targets", ROOT / "benchmarks" / "fuzz_targets.py")
fuzz_targets = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(fuzz_targets)
CASES = sorted(path for path in (ROOT / "tests" / "data" / "fuzz").glob("*/*") if path.is_file())


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}-{path.name[:20]}")
def test_what_fuzzing_found(path):
    fuzz_targets.TARGETS[path.parent.name](fuzz_targets.not_instrumented)(path.read_bytes())


@pytest.mark.parametrize("name", sorted(fuzz_targets.TARGETS))
def test_what_fuzzing_starts_from(name):
    target = fuzz_targets.TARGETS[name](fuzz_targets.not_instrumented)
    seeds = list(fuzz_targets.SEEDS[name]())
    assert len(seeds) >= 3
    for seed in seeds:
        target(seed)


def test_the_target_objects_to_what_no_check_foresaw(monkeypatch):
    """Otherwise fuzzing could find nothing."""
    from trojai_moth.loading import load

    target = fuzz_targets.TARGETS["model"](fuzz_targets.not_instrumented)

    def surprise(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(load, "examine", surprise)
    with pytest.raises(AssertionError, match="not a deliberate refusal"):
        target(b"\x00anything")
