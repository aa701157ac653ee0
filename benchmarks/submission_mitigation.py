"""A round's models mitigated by a generated submission with full settings, tested by it, and scored for fidelity.

    python benchmarks/submission_mitigation.py ROUND --work FOLDER --out benchmarks/results/submission_mitigation.json

As the harness does it, each call a process of its own: every model is mitigated with half of its clean example images,
then it and the result are tested on the other half and on its poisoned example images. Fidelity is computed by
``trojai-moth score``'s code, attack and accuracy before being those of the original model on the same images.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from record import Record, parser

from trojai_moth.core.images import list_examples
from trojai_moth.core.records import to_dict
from trojai_moth.eval.labels import read_labels
from trojai_moth.rounds.model_folder import ModelFolder
from trojai_moth.rounds.poisoned_examples import read_poisoned
from trojai_moth.rounds.reading import read_round
from trojai_moth.submission.fidelity import CLEAN_BEFORE, LABELS_FILE, POISONED_BEFORE, hit_rate, score_fidelity

ENTRY = "entrypoint.py"


def main() -> None:
    """Mitigate, test twice, score."""
    options = parser(__doc__)
    options.add_argument("round", type=Path)
    options.add_argument("--work", type=Path, required=True, help="folder for the submission and the calls")
    chosen = options.parse_args()
    record = Record("submission_mitigation", chosen, round=chosen.round.resolve().name)
    folder, truth, results = (chosen.work / name for name in ("submission", "truth", "results"))
    if not folder.exists():
        run([sys.executable, "-m", "trojai_moth", "container", "mitigate", str(folder)])
    for part in (truth, results):
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
    labels = read_labels(chosen.round)
    for case in read_round(chosen.round):
        if isinstance(case, ModelFolder):
            found = record.part(case.model_id, lambda c=case: mitigated(c, folder, chosen.work))
            write_truth(truth, case.model_id, labels[case.model_id], found)
            (results / f"{case.model_id}.json").write_text(json.dumps(found["after"]), encoding="utf-8")
    scored = score_fidelity(results, truth, labels)
    record.finish(**to_dict(scored), seconds=[part["seconds"] for part in record.data["parts"].values()])
    print(f"fidelity {scored.corrected:.3f} by its formula, {scored.nist:.3f} as the harness computes it")


def mitigated(case: ModelFolder, folder: Path, work: Path) -> dict[str, Any]:
    """Logits of the original and of the mitigated model on the images that were not hardened on."""
    place = work / "calls" / case.model_id
    shutil.rmtree(place, ignore_errors=True)
    for name in ("output", "dataset", "test", "scratch"):
        (place / name).mkdir(parents=True)
    for name in ("model.pt", "config.json"):
        shutil.copyfile(case.directory / name, place / name)
    labels = {}
    for label, path, number in examples(case):
        shutil.copyfile(path, place / ("test" if number % 2 else "dataset") / path.name)
        if number % 2:
            labels[path.name] = {"clean": label, "poisoned": None}
    for path, target in triggered(case):
        shutil.copyfile(path, place / "test" / path.name)
        labels[path.name] = {"clean": None, "poisoned": target}
    began = time.perf_counter()
    call(folder, place, "mitigate", "model.pt", "dataset", ["--model_output_name", "mitigated.pt"])
    seconds = round(time.perf_counter() - began, 1)
    return {
        "seconds": seconds,
        "labels": labels,
        "before": tested(folder, place, "model.pt"),
        "after": tested(folder, place, "output/mitigated.pt"),
    }


def examples(case: ModelFolder) -> list[tuple[int, Path, int]]:
    """(class, file, number) of every clean example image, numbered within its class."""
    counted: dict[int, int] = {}
    found = []
    for path, label in list_examples(case.examples):
        counted[label] = counted.get(label, -1) + 1
        found.append((label, path, counted[label]))
    return found


def triggered(case: ModelFolder) -> list[tuple[Path, int]]:
    """Poisoned example images with what their trigger is to make of them."""
    known = read_poisoned(case)
    if known is None:
        return []
    target = dict(known.pairs)
    files = sorted(case.poisoned_examples.glob("class_*.png"))
    return [(path, target[int(path.name.split("_")[1])]) for path in files]  # class_VICTIM_trigger_...


def tested(folder: Path, place: Path, model: str) -> dict[str, list[float]]:
    """The logits that the submission's test command gives."""
    call(folder, place, "test", model, "test", [])
    file = place / "output" / "results.json"
    logits: dict[str, list[float]] = json.loads(file.read_text(encoding="utf-8"))
    file.unlink()
    return logits


def call(folder: Path, place: Path, action: str, model: str, dataset: str, more: list[str]) -> None:
    """One command of the harness."""
    place, folder = place.absolute(), folder.absolute()
    words = [sys.executable, str(folder / ENTRY), action, "--model_filepath", str(place / model)]
    words += ["--metaparameters_filepath", str(folder / "metaparameters.json")]
    words += ["--schema_filepath", str(folder / "metaparameters_schema.json"), "--dataset", str(place / dataset)]
    words += ["--scratch_dirpath", str(place / "scratch"), "--output_dirpath", str(place / "output"), *more]
    run(words)


def write_truth(truth: Path, model_id: str, poisoned: bool, found: dict[str, Any]) -> None:
    """The labels of one model's test images, and its line in METADATA.csv."""
    (truth / model_id).mkdir()
    (truth / model_id / LABELS_FILE).write_text(json.dumps(found["labels"]), encoding="utf-8")
    table, before = truth / "METADATA.csv", found["before"]
    if not table.exists():
        table.write_text(f"model_name,poisoned,{CLEAN_BEFORE},{POISONED_BEFORE}\n", encoding="utf-8")
    rates = [hit_rate(before, found["labels"], kind) for kind in ("clean", "poisoned")]
    with table.open("a", encoding="utf-8") as file:
        file.write(f"{model_id},{poisoned},{rates[0]},{rates[1]}\n")


def run(words: list[str]) -> None:
    """A command that has to succeed."""
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stderr[-2000:]}")


if __name__ == "__main__":
    main()
