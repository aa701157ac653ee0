"""Detection: the stages of ``rescan`` on one model, with every probability said as soon as it is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from ..blind.learned import LearnedRule, read_rule
from ..blind.rule import shipped_rule
from ..calibration import Calibration, read_calibration
from ..errors import SettingsError
from ..eval.results import result_rows
from ..journal import Journal
from ..pipeline import RescanSettings, Run
from ..records import to_dict
from ..run_records import Failure, ScanRecord
from ..scanner import make_scanner
from .job import Say, device_of, open_staged, own_settings, with_usable_data
from .metaparameters import DetectSettings

CALIBRATION_FILE: Final = "calibration.json"
RULE_FILE: Final = "rule.json"


def detect(order: Mapping[str, Any], folder: Path, say: Say) -> None:
    """Scan the request's model and, where that flags it and time allows, judge it by evidence.

    What is said last is the probability that ``rescan`` would write, with the same seed and settings. A model that can
    not be judged leaves the preliminary result; a refinement that can not be made leaves the scanner's.
    """
    settings, run_settings = own_settings("detect", order, say)
    assert isinstance(settings, DetectSettings)
    device = device_of(order, say)
    case = open_staged(order, folder, settings.stand_ins_per_class, settings.seed, "examples", say)
    run_settings = with_usable_data(case, run_settings, say)
    learned = Path(order["learned"]) if order["learned"] else None
    calibration = _calibration(learned, run_settings, say)
    rule = _rule(learned, run_settings, say) if settings.verdict == "blind" else None
    reporter = _Reporter(say)
    against: str | None = None if settings.verdict == "blind" else "only the scanner was asked"
    run = Run(
        [case], run_settings, Journal(folder / "run"), device, lambda _: against, reporter, calibration, rule
    )  # fmt: skip
    reporter.noted = lambda: _say_scan(run, case.model_id, reporter)
    run.execute()
    failure = run.journal.read(case.model_id, "failure", Failure)
    if failure is not None:
        say(note=f"not judged any further: {failure.stage}: {failure.reason}")
        return
    row = result_rows(run.journal, {}).iloc[0]
    if row["probability"] == row["probability"]:  # nan, where the blind verdict could not be given
        say(probability=float(row["probability"]), stage=str(row["verdict"]))


def _say_scan(run: Run, model_id: str, reporter: _Reporter) -> None:
    """The scanner's probability, once its record stands in the journal."""
    before = run.journal.read(model_id, "before", ScanRecord)
    if before is not None and before.verdict.probability is not None and not reporter.scanned:
        reporter.scanned = True
        reporter.say(probability=before.verdict.probability, stage=f"scanner, {before.verdict.outcome}")


class _Reporter:
    """Notes of a run for the log; the first one after the scan lets its probability be said."""

    def __init__(self, say: Say) -> None:
        self.say, self.scanned = say, False
        self.noted: Callable[[], None] = lambda: None

    def model(self, model_id: str, number: int, total: int) -> None:
        """There is only one."""

    def note(self, text: str) -> None:
        """Something worth a line."""
        self.say(note=text)
        self.noted()

    def step(self, text: str) -> None:
        """A sign of life that the log need not keep."""


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
    evidence, path = to_dict(settings.evidence), learned / RULE_FILE if learned else None
    if path is not None and path.is_file():
        try:
            found = read_rule(path)
            found.check(settings.scanner, settings.data.source, evidence)
        except SettingsError as error:
            say(note=f"{error}; the package's own rule or its bounds are used")
        else:
            return found
    shipped = shipped_rule(settings.scanner, settings.data.source, evidence)
    if shipped is None:
        say(note="no rule was learned with this scanner, these images and settings: fixed bounds decide")
    return shipped
