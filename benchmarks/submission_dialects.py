"""A round run model by model through a generated entry point in every dialect, scored, beside what rescan says.

    python benchmarks/submission_dialects.py ROUND --work FOLDER --out benchmarks/results/submission_dialects.json

Every call is a process of its own with an emptied scratch folder and a copy of the model without ground truth, under
the model's own name, so that it draws the same random numbers as rescan. ``--settings tiny`` finds nothing and takes
seconds: what is compared is the way, not the verdict; ``short`` scans nearly as by default and hardens and judges so.
"""

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from record import Record, parser

from trojai_moth.core.records import to_dict
from trojai_moth.eval.labels import read_labels
from trojai_moth.eval.results import read_results
from trojai_moth.submission.predictions import Prediction
from trojai_moth.submission.replay import Player, isolation
from trojai_moth.submission.scoring import score

DIALECTS = ("run-round-4", "run-2022", "run-infer", "run-harness")
# Every pair is suspicious, so that all models are hardened and judged by evidence.
TINY = {
    "data_train_per_class": 4, "data_held_per_class": 3, "scanner_steps": 2, "scanner_screen_steps": 2,
    "scanner_screen_keep": 1, "scanner_success_bound": 0.01, "scanner_pair_bound": 1e6, "scanner_precision": "fp32",
    "hardener_rounds": 1, "hardener_pairs_per_round": 1, "hardener_turns": 1, "hardener_first_steps": 2,
    "hardener_warmup_steps": 2, "hardener_sgd_steps": 1, "hardener_recovery_steps": 1, "hardener_batch": 6,
    "hardener_success_bound": 0.01, "hardener_warmup_bound": 0.01, "hardener_largest_share": 1.0,
    "hardener_accuracy_limit": 1.0, "hardener_precision": "fp32", "evidence_steps": 2, "evidence_candidates": 1,
    "evidence_precision": "fp32",
}  # fmt: skip
# A scan that finds what is there, and as little of what comes after as in TINY.
SHORT = {key: value for key, value in TINY.items() if not key.startswith("scanner")} | {
    "scanner_screen_keep": 2, "scanner_steps": 60, "scanner_precision": "fp32",
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {"tiny": TINY, "short": SHORT, "default": {}}


def main() -> None:
    """Write the folder, run every model in every dialect, then rescan, and write the record."""
    options = parser(__doc__)
    options.add_argument("round", type=Path)
    options.add_argument("--work", type=Path, required=True, help="folder for the submission and the calls")
    options.add_argument("--settings", choices=SETTINGS, default="default")
    options.add_argument("--models", type=int, default=0, help="only so many, the first ones; 0: all")
    options.add_argument("--verdict", choices=["scanner", "blind"], default="blind")
    known = options.parse_args()
    values = {**SETTINGS[known.settings], "verdict": known.verdict}
    record = Record("submission_dialects", known, round=known.round.resolve().name, values=values)
    labels = read_labels(known.round)
    models = sorted(labels)[: known.models or None]
    folder = submission(known.work / "submission", values)
    found: dict[str, dict[str, float]] = {}
    for dialect in DIALECTS:
        found[dialect] = {
            model: record.part(
                f"{dialect} {model}", lambda d=dialect, m=model: call(known.work, folder, known.round / m, d)
            )["probability"]
            for model in models
        }
    own = record.part("rescan", lambda: rescan(known.work, known.round, models, values, known.verdict))
    scores = {
        name: to_dict(score([Prediction(model_id=m, value=p) for m, p in each.items()], labels))
        for name, each in found.items()
    }
    gaps = [abs(found[dialect][model] - own[model]) for dialect in DIALECTS for model in models]
    record.finish(largest_difference_from_rescan=max(gaps), rescan=own, dialects=found, scores=scores)
    print(f"largest difference from rescan over {len(gaps)} calls: {max(gaps):.2g}")


def submission(out: Path, values: dict[str, Any]) -> Path:
    """The folder that ``trojai-moth container detect`` writes."""
    if not out.exists():
        words = [word for name, value in values.items() for word in ("--set", f"{name}={json.dumps(value)}")]
        run(["container", "detect", str(out), *words])
    return out


def call(work: Path, folder: Path, model: Path, dialect: str) -> dict[str, Any]:
    """One model in one dialect, as the harness calls it."""
    place = work / "calls" / model.name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    isolated, before = isolation(), processor_seconds()
    played = Named(folder.absolute(), model, place.absolute(), 3000.0, isolated).play_one(dialect)
    if played.findings:
        raise SystemExit(f"{dialect} {model.name}: {played.findings[0].what}")
    spent = processor_seconds() - before
    return {
        "probability": float(played.result), "seconds": round(played.seconds, 1),
        "processor_seconds": round(spent, 1), "isolation": isolated.words,
    }  # fmt: skip


def processor_seconds() -> float:
    """Of all calls until now."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Named(Player):
    """A player whose active folder has the model's own name."""

    def play_one(self, dialect: str) -> Any:
        """One call."""
        return self._detection(dialect)

    def _active(self, rule: str) -> tuple[Path, Path]:
        active, scratch = super()._active(rule)
        assert self.model is not None
        return active.rename(active.with_name(self.model.name)), scratch


def rescan(work: Path, root: Path, models: list[str], values: dict[str, Any], verdict: str) -> dict[str, float]:
    """What rescan says of the same models: the probability of its own results, or of its first scan."""
    chosen, out = work / "round", work / "run"
    for model in models:
        if not (chosen / model).exists():
            shutil.copytree(root / model, chosen / model)
    words = [word for name, value in values.items() if name != "verdict" for word in ("--set", dotted(name, value))]
    kind = "blind" if verdict == "blind" else "naive"
    run(
        ["rescan", str(chosen), "--out", str(out), "--verdict", kind, "--data", "examples", "--device", "cpu", *words],
        allowed=(0, 1, 2),
    )
    rows = read_results(out / "results.csv").set_index("model")
    column = "probability" if verdict == "blind" else "probability_before"
    return {model: float(rows[column].fillna(rows["probability_before"])[model]) for model in models}


def dotted(name: str, value: Any) -> str:
    """A metaparameter as --set of rescan has it."""
    group, _, field = name.partition("_")
    return f"{group}.{field}={json.dumps(value)}"


def run(words: list[str], allowed: tuple[int, ...] = (0,)) -> None:
    """A command of the package in a process of its own."""
    done = subprocess.run([sys.executable, "-m", "trojai_moth", *words], capture_output=True, text=True, check=False)
    if done.returncode not in allowed:
        raise SystemExit(done.stdout + done.stderr)


if __name__ == "__main__":
    main()
