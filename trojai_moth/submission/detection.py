"""Detection: the stages of ``rescan`` on one model, with every probability said as soon as it is known."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from ..core.errors import SettingsError
from ..core.messages import handed_to
from ..core.records import to_dict
from ..eval.results import result_rows
from ..runs.execute import execute
from ..runs.journal import Failure, Journal, ScanRecord
from ..runs.rescan import make_run
from ..runs.run import RescanSettings, Run
from ..scanners.calibration import Calibration, read_calibration
from ..scanners.registry import make_scanner
from ..verdict.learned_rule import LearnedRule, read_rule
from .job import Say, device_of, open_staged, own_settings, with_usable_data
from .metaparameters import DetectSettings

CALIBRATION_FILE: Final = "calibration.json"
RULE_FILE: Final = "rule.json"


def detect(order: Mapping[str, Any], folder: Path, say: Say) -> None:
    """Scan the request's model and, where that flags it and time allows, judge it by evidence.

    What is said last is the probability that ``rescan`` would write, with the same seed and settings. A model that
    cannot
     be judged leaves the preliminary result; a refinement that cannot be made leaves the scanner's.
    """
    settings, run_settings = own_settings("detect", order, say)
    assert isinstance(settings, DetectSettings)
    device = device_of(order, say)
    case = open_staged(order, folder, settings.stand_ins_per_class, settings.seed, "examples", say)
    run_settings = with_usable_data(case, run_settings, say)
    learned = Path(order["learned"]) if order["learned"] else None
    against: str | None = None if settings.verdict == "blind" else "only the scanner was asked"
    run = make_run(
        [case], Journal(folder / "run"), run_settings, device, lambda _: against,
        calibration=_calibration(learned, run_settings, say),
        rule=_rule(learned, run_settings, say) if settings.verdict == "blind" else None,
        allow_fitted=True,
    )  # fmt: skip
    if settings.verdict == "blind" and run.rule is None:
        say(note="no rule was learned with this scanner, these images and settings: fixed bounds decide")
    with handed_to(_Log(say, _ScannerSaid(run, case.model_id, say)), logging.INFO):
        execute(run)
    failure = run.journal.read(case.model_id, "failure", Failure)
    if failure is not None:
        say(note=f"not judged any further: {failure.stage}: {failure.reason}")
        return
    row = result_rows(run.journal, {}).iloc[0]
    if row["probability"] == row["probability"]:  # nan, where the blind verdict could not be given
        say(probability=float(row["probability"]), stage=str(row["verdict"]))


class _ScannerSaid:
    """Says the scanner's probability once, when its record stands in the journal."""

    def __init__(self, run: Run, model_id: str, say: Say) -> None:
        self.run, self.model_id, self.say, self.said = run, model_id, say, False

    def __call__(self) -> None:
        before = None if self.said else self.run.journal.read(self.model_id, "before", ScanRecord)
        if before is not None and before.verdict.probability is not None:
            self.said = True
            self.say(probability=before.verdict.probability, stage=f"scanner, {before.verdict.outcome}")


class _Log(logging.Handler):
    """Messages of a run for the submission's log; after each of them ``then`` is called."""

    def __init__(self, say: Say, then: Callable[[], None]) -> None:
        super().__init__()
        self.say, self.then = say, then

    def emit(self, record: logging.LogRecord) -> None:
        self.say(note=record.getMessage())
        self.then()


def _calibration(learned: Path | None, settings: RescanSettings, say: Say) -> Calibration | None:
    path = learned / CALIBRATION_FILE if learned else None
    if path is None or not path.is_file():
        say(note="no calibration among the learned parameters: the scanner's own probabilities are used")
        return None
    try:
        found = read_calibration(path)
        found.check(settings.scanner, make_scanner(settings.scanner, settings.scanner_options), settings.data)
    except SettingsError as error:
        say(note=f"{error}; the scanner's own probabilities are used")
        return None
    return found


def _rule(learned: Path | None, settings: RescanSettings, say: Say) -> LearnedRule | None:
    """The rule among the learned parameters, if it is there and fits."""
    path = learned / RULE_FILE if learned else None
    if path is None or not path.is_file():
        return None
    try:
        found = read_rule(path)
        found.check(settings.scanner, settings.data.source, to_dict(settings.evidence))
    except SettingsError as error:
        say(note=f"{error}; the package's own rule or its bounds are used")
        return None
    return found
