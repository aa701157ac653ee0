"""The harness's command lines against a submission folder, as it would run them, without a network or a home."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from ..core.errors import SettingsError
from ..core.files import read_bytes
from ..core.records import Field, read_json, record
from .predictions import PRELIMINARY
from .rules import LEARNED, METAPARAMETERS, SCHEMA, Finding
from .supervise import CRASHED, STANDS

# Names of example folders that are never copied for a run: they are ground truth.
_TRUTH: Final = ("poisoned*", "*poisoned*", "ground_truth.csv", "METADATA.csv", "trigger_*", "stats.json")
# A pickle of protocol 0 that calls os.system when it is loaded.
_HOSTILE: Final = "cos\nsystem\n(S'touch {canary}'\ntR."
# What would lead a call to another Python than its own.
_LEAKS: Final = ("HOME", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
_MODELS: Final = ("run-broken-model", "run-hostile-model")
_MITIGATIONS: Final = ("run-mitigate", "run-template")
_SEE_LOG: Final = "run it by hand and see its log"
# A call may take this much longer than its budget, for starting and ending.
GRACE_S: Final = 30.0

CALLS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "run-round-4": "round 4's four options, without a sub-command",
        "run-2022": "2022's options, with one for a metaparameter",
        "run-infer": "the baseline's infer",
        "run-harness": "what the harness runs: the options without infer, a source data set, no training data set",
        "run-bare": "model and result alone, with no examples folder",
        "run-broken-model": "a model file that is no model gives 0.5 and exit code 0",
        "run-hostile-model": "a model file that is a program is not run, and gives 0.5 and a line in the log",
        "run-mitigate": "mitigate, as the harness says it, and test of what it wrote",
        "run-template": "mitigate and test with --dataset_dirpath and the options of NIST's template",
    }
)
"""Rule -> what is run; each must end in time, with exit code 0 and a result as the harness reads it."""
ANSWERS: Final = "answers"
"""Rule: of the calls with a model, some give more than the preliminary answer."""
# In the log of an entry point, whatever its exit code: the work ended otherwise than it should.
_CRASHES: Final = (CRASHED, "Traceback (most recent call last)", "this is a bug")
# The same, which is as it should be only where there is no model to work on.
_FAILED: Final = STANDS.format("failed")


@record
class Replay:
    """One call: how long it took, and what was wrong, if anything."""

    rule: str
    seconds: float = Field(ge=0)
    result: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Isolation:
    """How calls are kept from the network: a prefix for their commands, variables, and both in words."""

    prefix: tuple[str, ...]
    environment: Mapping[str, str]
    words: str


def isolation() -> Isolation:
    """A network namespace of its own where the system allows one, else proxies that lead nowhere."""
    unshare = shutil.which("unshare")
    if unshare and subprocess.run([unshare, "-rn", "true"], capture_output=True, check=False).returncode == 0:
        return Isolation((unshare, "-rn"), {}, "without a network (unshare -rn)")
    nowhere = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
    return Isolation((), nowhere, "with proxies that lead nowhere, since unshare cannot be used here")


@dataclass(frozen=True)
class Player:
    """Runs calls against ``folder`` with ``model``, a model's folder, in ``work``; ``budget`` seconds for each.

    ``program``: runs an image, which has its files at its root; else the folder's entry point is run with ``python``.
    """

    folder: Path
    model: Path | None
    work: Path
    budget: float
    isolated: Isolation
    program: tuple[str, ...] = ()
    python: Path = Path(sys.executable)

    def play(self, kind: str) -> Iterator[Replay]:
        """Every call of a detector or a mitigation that is possible with what is at hand, each as it comes."""
        for name in CALLS:
            if (name in _MITIGATIONS) != (kind == "mitigate") and name not in _MODELS:
                continue
            if self.model is None and name not in _MODELS:
                continue
            if kind != "mitigate":
                yield self._detection(name)
            else:
                yield self._refused_mitigation(name) if name in _MODELS else self._mitigation(name)

    def _detection(self, rule: str) -> Replay:
        active, scratch = self._active(rule)
        result = active / "result.txt"
        status, seconds, log = self._run(self._words(rule, active, scratch, result))
        text = read_bytes(result).decode(errors="replace") if result.exists() else ""
        findings = [*self._ending(rule, status, seconds, log), *result_findings(rule, text)]
        if rule in _MODELS and not findings and not _is_preliminary(text):
            findings.append(Finding(rule=rule, what=f"a broken model gave {text.strip()}", mend="leave 0.5 in place"))
        findings += self._refusal(rule, active, log)
        if any(scratch.iterdir()):
            findings.append(Finding(rule=rule, what="something was left in scratch", mend="remove it at the end"))
        return Replay(rule=rule, seconds=seconds, result=text.strip(), findings=tuple(findings))

    @property
    def _place(self) -> Path:
        return Path("/") if self.program else self.folder

    def _image(self) -> list[str]:
        """The options that say where the submission's own files lie."""
        place = self._place
        return ["--metaparameters_filepath", str(place / METAPARAMETERS), "--schema_filepath", str(place / SCHEMA)]

    def _words(self, rule: str, active: Path, scratch: Path, result: Path) -> list[str]:
        model = ["--model_filepath", str(active / "model.pt"), "--result_filepath", str(result)]
        if rule == "run-bare":
            return model
        four = [*model, "--scratch_dirpath", str(scratch), "--examples_dirpath", str(_examples(active))]
        image = [*self._image(), "--learned_parameters_dirpath", str(self._place / LEARNED)]
        training = ["--round_training_dataset_dirpath", str(active.parent / "no-training-set")]
        return {
            "run-round-4": four,
            "run-2022": [*four, *training, *image, "--seed", "0"],
            "run-infer": ["infer", *four, *training, *image],
            "run-harness": [*four, *image, "--source_dataset_dirpath", str(active.parent / "source")],
        }.get(rule, [*four, *image])

    def _refusal(self, rule: str, active: Path, log: str) -> list[Finding]:
        """What is wrong with how a hostile file was met."""
        if rule != "run-hostile-model":
            return []
        found = (
            []
            if log.strip()
            else [Finding(rule=rule, what="the log does not say why", mend="say why there is no result")]
        )
        if (active / "it-ran").exists():
            found.append(Finding(rule=rule, what="the model file's program was run", mend="read model files as data"))
        return found

    def _mitigation(self, rule: str) -> Replay:
        active, scratch = self._active(rule)
        output, dataset = active / "output", "--dataset_dirpath" if rule == "run-template" else "--dataset"
        output.mkdir()
        extra = ["--batch_size", "8", "--num_workers", "0", "--device", "cpu"] if rule == "run-template" else []
        common = [*self._image(), "--scratch_dirpath", str(scratch), "--output_dirpath", str(output), *extra]
        first = ["mitigate", "--model_filepath", str(active / "model.pt"), dataset, str(_examples(active)), *common]
        status, seconds, log = self._run([*first, "--model_output_name", "mitigated.pt"])
        findings, made = self._ending(rule, status, seconds, log), output / "mitigated.pt"
        if not made.is_file():
            findings.append(_nothing_written(rule, "mitigated.pt", log))
        tested = str(made if made.is_file() else active / "model.pt")
        status, more, log = self._run(["test", "--model_filepath", tested, dataset, str(_examples(active)), *common])
        findings += self._ending(rule, status, more, log)
        text, found = _logits(rule, output / "results.json", log)
        return Replay(rule=rule, seconds=seconds + more, result=text, findings=(*findings, *found))

    def _refused_mitigation(self, rule: str) -> Replay:
        active, scratch = self._active(rule)
        words = ["mitigate", "--model_filepath", str(active / "model.pt"), "--output_dirpath", str(active / "output")]
        status, seconds, log = self._run([*words, "--scratch_dirpath", str(scratch)])
        findings = (*self._ending(rule, status, seconds, log), *self._refusal(rule, active, log))
        return Replay(rule=rule, seconds=seconds, result="nothing written", findings=findings)

    def _active(self, rule: str) -> tuple[Path, Path]:
        """The folders active and scratch, as the harness fills and empties them."""
        active, scratch = self.work / rule / "active", self.work / rule / "container-scratch"
        scratch.mkdir(parents=True)
        if rule in _MODELS or self.model is None:
            active.mkdir()
            text = _HOSTILE.format(canary=active / "it-ran") if rule == "run-hostile-model" else "this is no model"
            (active / "model.pt").write_text(text)
        else:
            shutil.copytree(self.model, active, ignore=shutil.ignore_patterns(*_TRUTH))
        return active, scratch

    def _run(self, words: Sequence[str]) -> tuple[int | None, float, str]:
        """Exit code (None: it did not end), seconds, and the log."""
        program = self.program or (str(self.python), str(self.folder / "entrypoint.py"))
        command = [*self.isolated.prefix, *program, *words, "--time_budget", f"{self.budget:g}"]
        environment = {name: value for name, value in os.environ.items() if name not in _LEAKS}
        environment |= self.isolated.environment
        started = time.monotonic()
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, env=environment, cwd=self.work, check=False,
                stdin=subprocess.DEVNULL, timeout=self.budget + GRACE_S,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return None, time.monotonic() - started, ""
        return done.returncode, time.monotonic() - started, done.stdout + done.stderr

    def _ending(self, rule: str, status: int | None, seconds: float, log: str) -> list[Finding]:
        if status is None:
            return [Finding(rule=rule, what=f"still ran after {seconds:.0f} s", mend="keep to --time_budget")]
        if status:
            return [Finding(rule=rule, what=f"exit code {status}: {_end_of(log)}", mend=_SEE_LOG)]
        bad = _CRASHES if rule in _MODELS else (*_CRASHES, _FAILED)
        if any(words in log for words in bad):
            return [Finding(rule=rule, what=f"the work ended badly: {_end_of(log)}", mend=_SEE_LOG)]
        return []


def preliminary_only(calls: Sequence[Replay]) -> list[Finding]:
    """The finding that no call with a model gave an answer of its own."""
    given = [call for call in calls if call.rule in CALLS and call.rule not in (*_MODELS, *_MITIGATIONS)]
    if not given or not all(_is_preliminary(call.result) for call in given):
        return []
    what = f"all {len(given)} calls with the model left the preliminary {PRELIMINARY}, so that it is not examined"
    return [Finding(rule=ANSWERS, what=what, mend=f"{_SEE_LOG}, or give more --time-budget")]


def _is_preliminary(result: str) -> bool:
    return not result_findings(ANSWERS, result) and float(result) == PRELIMINARY


def _end_of(log: str) -> str:
    lines = [line for line in log.splitlines() if line.strip()]
    return f"{' | '.join(lines[-3:]):.300}"


def result_findings(rule: str, text: str) -> list[Finding]:
    """What is wrong with a result file's text; one float in (0, 1) on one line is right."""
    mend = "write one number between 0 and 1 on one line"
    if text.count("\n") > 1 or len(text.split()) != 1:
        return [Finding(rule=rule, what=f"the result is {text!r:.60}, not one number on one line", mend=mend)]
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        return [Finding(rule=rule, what=f"the result is {text.strip():.60}, not a number in (0, 1)", mend=mend)]
    return []


def _logits(rule: str, path: Path, log: str) -> tuple[str, list[Finding]]:
    if not path.is_file():
        return "", [_nothing_written(rule, path.name, log)]
    try:
        data = read_json(path)
        widths = {len(row) for row in data.values() if all(math.isfinite(value) for value in row)}
    except (OSError, SettingsError, AttributeError, TypeError):
        widths = set()
    if len(widths) != 1:
        mend = "write {file name: [logits]} with as many finite logits as classes"
        return "", [Finding(rule=rule, what=f"{path.name} holds rows of {sorted(widths)} logits", mend=mend)]
    return f"{len(data)} images, {widths.pop()} logits", []


def _nothing_written(rule: str, name: str, log: str) -> Finding:
    return Finding(rule=rule, what=f"{name} was not written: {_end_of(log)}", mend=_SEE_LOG)


def _examples(active: Path) -> Path:
    """The folder of examples that is there, under whatever name; the harness's name if there is none."""
    names = ("mitigate-example-data", "clean-example-data", "clean_example_data", "example_data")
    return next((active / name for name in names if (active / name).is_dir()), active / "clean-example-data")
