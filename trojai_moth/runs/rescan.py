"""``rescan`` without its command and without labels: settings, images, calibration and rule are chosen, and it is done.

Results with the round's labels joined are :func:`trojai_moth.eval.rescan.rescan`'s: nothing here ever sees a label.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..core.device import prepare_process, resolve_device
from ..core.errors import SettingsError
from ..core.learned_file import refuse_fitted
from ..core.messages import Progress, silent
from ..core.records import from_dict, to_dict
from ..rounds.image_choice import images_for
from ..rounds.model_folder import ModelFolder, SkippedModel
from ..rounds.model_hashes import file_hashes
from ..rounds.reading import read_round
from ..rounds.subset import choose
from ..scanners.calibration import Calibration, read_calibration
from ..verdict.judge import shipped_rule
from ..verdict.learned_rule import LearnedRule, read_rule
from .execute import execute
from .execution_settings import ExecutionSettings
from .journal import Journal
from .leases import LeaseTerms
from .run import RescanSettings, Run, go_on

_LOG = logging.getLogger(__name__)

_NAIVE = (
    "A cleared model may be a hardened Trojan: hardening erases injected backdoors too, and the naive verdict does not "
    "tell them apart."
)
_BOUNDS = (
    "No rule was learned with this scanner, these images and settings, so fixed bounds on plain stamps decide, whose "
    "safety was not measured for them: a cleared model may be a Trojan. Learn a rule with calibrate-rule and give it "
    "with --rule."
)
_NO_RULE = (
    "No rule was learned with networks and images like these, so no flag is taken back: a flagged model may have a "
    "natural backdoor or an injected one. Learn a rule with calibrate-rule and give it with --rule."
)
_OWN_RULE = (
    "The package's own rule decided. Of flagged models never seen before it cleared 22 of 26 clean ones and 0 of "
    "24 poisoned ones, too few to promise more. It knows patches of one colour and round 4's five filters: a cleared "
    "model may hide another kind of trigger."
)


def run_round(
    round_dir: Path,
    out: Path,
    settings: RescanSettings,
    *,
    may_harden: Callable[[str], str | None],
    choose_images: bool = False,
    subset: str | None = None,
    calibration: Path | None = None,
    rule: Path | None = None,
    allow_fitted: bool = False,
    fleet: ExecutionSettings | None = None,
    leases: LeaseTerms | None = None,
    device: str = "auto",
    progress: Progress = silent,
    check: Callable[[], None] = go_on,
) -> Run:
    """Examine a round's models as far as the run directory ``out`` does not hold them yet; the run that was done.

    choose_images: take those that calibration or rule were learned with, else those that suit the round, whatever the
    settings say. The other arguments and the errors are those of :func:`trojai_moth.eval.rescan.rescan`;
    ``may_harden`` and ``check`` those of :class:`~trojai_moth.runs.run.Run`.
    """
    target = resolve_device(device)
    prepare_process(target)
    cases = choose(read_round(round_dir), subset, round_dir)
    learned = read_calibration(calibration) if calibration else None
    given = read_rule(rule) if rule else None
    if choose_images:
        source = _images(cases, learned_with(learned, given))
        settings = replace(settings, data=replace(settings.data, source=source))
    run = make_run(
        cases, Journal(out, leases), settings, target, may_harden,
        calibration=learned, rule=given, allow_fitted=allow_fitted, fleet=fleet, progress=progress, check=check,
    )  # fmt: skip
    execute(run)
    return run


def make_run(
    cases: Sequence[ModelFolder | SkippedModel],
    journal: Journal,
    settings: RescanSettings,
    device: torch.device,
    may_harden: Callable[[str], str | None],
    *,
    calibration: Calibration | None = None,
    rule: LearnedRule | None = None,
    allow_fitted: bool = False,
    fleet: ExecutionSettings | None = None,
    progress: Progress = silent,
    check: Callable[[], None] = go_on,
) -> Run:
    """A run that is not begun yet, with the package's own rule where none is given and that one fits.

    SettingsError when calibration or rule were learned from one of these models, unless that is allowed.
    """
    if not allow_fitted and (calibration or rule):
        files = file_hashes(cases)
        if calibration:
            refuse_fitted(calibration, files)
        if rule:
            refuse_fitted(rule, files)
    if settings.verdict != "blind":
        rule = None
    elif rule is None:
        rule = shipped_rule(settings.scanner, settings.data.source, to_dict(settings.evidence))
    return Run(
        list(cases), settings, journal, device, may_harden,
        calibration=calibration, rule=rule, fleet=fleet or ExecutionSettings(), progress=progress, check=check,
    )  # fmt: skip


def read_settings(given: Mapping[str, Any], *, has_rule: bool = False) -> tuple[RescanSettings, bool]:
    """A run's settings from fields of :class:`RescanSettings`, and whether these say which images.

    data: also a source of images, as a word. verdict: where it is not said, blind, or naive where labels decide.
    SettingsError for what is unknown, out of bounds, or does not go together.
    """
    data, harden = given.get("data"), given.get("harden", "flagged")
    if isinstance(data, str):
        data = {} if data == "auto" else {"source": data}
    images_are_said = not isinstance(data, Mapping | type(None)) or "source" in (data or {})
    chosen = {**given, "data": data or {}, "verdict": chosen_verdict(harden, given.get("verdict"), has_rule=has_rule)}
    return from_dict(RescanSettings, chosen), images_are_said


def chosen_verdict(harden: str, verdict: str | None, *, has_rule: bool) -> str:
    """The verdict that is asked for, by default blind where no labels decide; SettingsError for what does not fit."""
    chosen = verdict or ("naive" if harden == "clean-only" else "blind")
    if chosen == "blind" and harden == "clean-only":
        raise SettingsError("--harden clean-only: goes by labels, so nothing is left to judge; use --verdict naive")
    if has_rule and chosen != "blind":
        raise SettingsError("--rule: belongs to the blind verdict; leave out --verdict naive and --harden clean-only")
    return chosen


def learned_with(calibration: Calibration | None, rule: LearnedRule | None) -> str | None:
    """Their source of images; None where there is neither, or a folder, which only the user can name."""
    source = calibration.data.source if calibration else rule.data if rule else ""
    return source if source and "folder" not in source.split("+") else None


def caveats(settings: RescanSettings, rule: LearnedRule | None, *, own: bool, described: bool = False) -> list[str]:
    """What to say of how it was decided beside the results; own: no rule was given, so ``rule`` is the package's.

    described: all models are no round's.
    """
    if settings.verdict == "blind":
        if rule is None and described:
            return [_NO_RULE]
        return [_BOUNDS] if rule is None else [_OWN_RULE] if own else []
    return [] if settings.harden == "clean-only" else [_NAIVE]


def _images(cases: Sequence[ModelFolder | SkippedModel], source: str | None) -> str:
    """The images that a calibration or a rule was learned with, else those that suit the round; a line says which."""
    chosen, line = (source, f"Images: {source}, as learned with.") if source else images_for(cases)
    _LOG.info("%s", line)
    return chosen
