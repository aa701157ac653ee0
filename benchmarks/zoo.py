"""Strangers' classifiers, most of them backdoored: what loads, what scanners say, what hardening leaves of backdoors.

    python benchmarks/zoo.py REAL --out benchmarks/results/zoo.json [--scanners a,b] [--hardeners c,d] [--only NAME,...]

REAL is the folder with ``zoo`` and ``paper`` (benchmarks/zoo_data.py). Every file is loaded as a user would load it, by
``--architecture benchmarks.zoo_networks:NAME``; the paper's Keras files are read by zoo_networks. A fifth of the images
that are used is shown to no scanner and no hardener; accuracy and attack success with the true trigger are measured on
these. The CIFAR-10 images are of the training set, so most of these networks have seen them.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import trojai_moth as tm
from benchmarks import zoo_networks
from benchmarks.record import Record, parser
from benchmarks.zoo_data import ENTRIES, Entry, images
from trojai_moth.core.errors import MothError
from trojai_moth.core.files import write_text
from trojai_moth.core.images import ImagePool
from trojai_moth.core.records import to_dict
from trojai_moth.core.subject import Subject
from trojai_moth.eval.report.markdown import table
from trojai_moth.rounds.model import Model

SCANNERS = ("neural-cleanse", "k-arm", "stamps", "filter")
HARDENERS = ("nc-unlearn", "moth", "universal", "pairwise", "uap", "pgd", "nad", "seam", "i-bau", "ft-sam")
# Images of each class that a model is given, and those that only the figures are of.
_GIVEN, _UNSEEN = 240, 60
_SQUEEZENETS = ("headout", "art", "leaforia")
_OTHERS = ("cyber-pdf-dec2022", "rl-lavaworld-jul2023", "rl-colorful-memory-sep2024")


def split(pool: ImagePool, seed: int) -> tuple[ImagePool, ImagePool]:
    """Images that a model is given, and others."""
    stream = torch.Generator().manual_seed(seed)
    parts: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    for label in sorted(set(pool.y.tolist())):
        own = pool.positions(label)
        own = own[torch.randperm(len(own), generator=stream)]
        parts[0].append(own[:_GIVEN])
        parts[1].append(own[_GIVEN : _GIVEN + _UNSEEN])
    return pool.take(torch.cat(parts[0])), pool.take(torch.cat(parts[1]))


class Visit:
    """One classifier of the zoo with its images."""

    def __init__(self, entry: Entry, folder: Path, seed: int) -> None:
        self.entry, self.file = entry, folder / entry.path
        self.given, self.unseen = split(images(entry, folder), seed)
        self.stamp, self.seed = entry.stamp(folder), seed

    def open(self) -> Model:
        """As a user would."""
        entry = self.entry
        reading = {} if entry.mean == (0.0,) else {"mean": entry.mean, "std": entry.std}
        if self.file.suffix == ".h5":
            module = zoo_networks.paper_resnet20(self.file)
            return tm.wrap(module, self.given.x, self.given.y, device="cpu", seed=self.seed)
        name = f"benchmarks.zoo_networks:{entry.architecture}"
        return tm.open_model(
            self.file, images=self.given.x, labels=self.given.y, architecture=name, device="cpu", seed=self.seed,
            settings=reading,
        )  # fmt: skip

    def figures(self, subject: Subject) -> dict[str, float | None]:
        """Accuracy, and the share of images of other classes that get their target with the true trigger on."""
        x, y = self.unseen.x, self.unseen.y
        found: dict[str, float | None] = {"accuracy": subject.accuracy(x, y), "attack_success": None}
        if self.stamp and self.entry.targets:
            wanted = torch.tensor(self.entry.targets)[y]
            moved = wanted != y
            found["attack_success"] = subject.accuracy(self.stamp(x[moved]), wanted[moved])
        return found


def loading(visit: Visit) -> dict[str, Any]:
    """Whether a file loads and what its network does."""
    started = time.perf_counter()
    try:
        model = visit.open()
    except MothError as error:
        return {"loads": False, "line": str(error)}
    return {
        "loads": True,
        "seconds": round(time.perf_counter() - started, 1),
        "read_as": model.subject.preprocessing.words,
        "output": model.subject.output.words,
        **visit.figures(model.subject),
        "table_success": visit.entry.expected_success,
        "clean": visit.entry.clean,
        "patch": visit.entry.patch,
    }


def scanning(visit: Visit, scanner: str) -> dict[str, Any]:
    """What one scanner says."""
    model = visit.open()
    result = tm.scan(model, scanner)
    best = result.evidence[0] if result.evidence else None
    targets = visit.entry.targets
    right = None
    if best is not None and targets:
        wanted = set(targets) if best.victim is None else {targets[best.victim]}
        right = best.target in wanted
    return {
        "outcome": result.outcome,
        "score": result.score,
        "reason": result.reason,
        "smallest": to_dict(best) if best else None,
        "true_target": right,
        "clean": visit.entry.clean,
        "seconds": round(result.seconds, 1),
    }


def hardening(visit: Visit, hardener: str) -> dict[str, Any]:
    """What one hardener leaves of the backdoor, and what it costs."""
    model = visit.open()
    before = visit.figures(model.subject)
    started = time.perf_counter()
    hardened = tm.harden(model, hardener)
    minutes = (time.perf_counter() - started) / 60
    return {
        "before": before,
        "after": visit.figures(hardened.subject),
        "minutes": round(minutes, 2),
        "stopped": hardened.trace.stopped,
    }


def odd_files(folder: Path) -> dict[str, str]:
    """What is said of files without images: stock networks of unknown classes, and what is no image classifier."""
    said = {}
    for place, names, suffix in (("squeezenet", _SQUEEZENETS, ".pth"), ("trojai-other", _OTHERS, ".pt")):
        for name in names:
            found = tm.inspect_model(folder / "zoo" / place / f"{name}{suffix}")
            said[f"{place}/{name}"] = f"{found.verdict}: {found.reason or found.architecture}"
    return said


def main() -> None:
    """Run what is asked for and not done yet."""
    options = parser(__doc__)
    options.add_argument("real", type=Path)
    options.add_argument("--scanners", default=",".join(SCANNERS))
    options.add_argument("--hardeners", default=",".join(HARDENERS))
    options.add_argument("--only", default="", help="names of classifiers, with commas between them")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    # What is done in one call and in several is the same record.
    lists = {name: vars(chosen).pop(name).split(",") for name in ("scanners", "hardeners", "only")}
    asked = {name: [part for part in parts if part] for name, parts in lists.items()}
    record = Record("zoo", chosen, dated=True, given_per_class=_GIVEN, unseen_per_class=_UNSEEN)
    record.part("files without images", lambda: odd_files(chosen.real))
    entries = [entry for entry in ENTRIES if not asked["only"] or entry.name in asked["only"]]
    kinds: list[tuple[str, list[str], Callable[..., dict[str, Any]]]] = [
        ("load", [""], lambda visit, _: loading(visit)), ("scan", asked["scanners"], scanning),
        ("harden", asked["hardeners"], hardening),
    ]  # fmt: skip
    for kind, ways, measure in kinds:
        for way in ways:
            for entry in entries:
                if kind == "harden" and entry.targets is None:
                    continue
                name = " ".join(filter(None, (kind, way, entry.name)))
                record.part(name, lambda e=entry, w=way, m=measure: m(Visit(e, chosen.real, chosen.seed), w))
    record.finish(**summary(record.data["parts"]))
    text = tables(record.data["parts"])
    write_text(
        record.path.with_suffix(".md"),
        f"# Strangers' networks\n\nMade from {record.path.name} by benchmarks/zoo.py.\n\n{text}\n",
    )
    print(text)


def summary(parts: dict[str, Any]) -> dict[str, Any]:
    """Counts by scanner and by hardener, of what was measured."""
    found: dict[str, Any] = {}
    for scanner in SCANNERS:
        own = {name: part for name, part in parts.items() if name.startswith(f"scan {scanner} ")}
        loads = {name: parts[f"load {name.rpartition(' ')[2]}"] for name in own}
        patch = [name for name in own if loads[name]["patch"] and not loads[name]["clean"]]
        clean = [name for name in own if loads[name]["clean"]]
        flagged = [name for name in own if own[name]["outcome"] == "flagged"]
        found[scanner] = {
            "patches flagged with their true target": [
                sum(own[it]["true_target"] is True for it in patch if it in flagged),
                len(patch),
            ],
            "clean flagged": [sum(it in flagged for it in clean), len(clean)],
        }
    return found


def tables(parts: dict[str, Any]) -> str:
    """The record as two Markdown tables: what each scanner says, and what each hardener leaves."""
    names = [entry.name for entry in ENTRIES if f"load {entry.name}" in parts]
    scanners = [way for way in SCANNERS if any(name.startswith(f"scan {way} ") for name in parts)]
    hardeners = [way for way in HARDENERS if any(name.startswith(f"harden {way} ") for name in parts)]
    scans = [
        [name, *given(parts[f"load {name}"]), *(said(parts.get(f"scan {way} {name}")) for way in scanners)]
        for name in names
    ]
    left = [[name, *(cost(parts.get(f"harden {way} {name}")) for way in hardeners)] for name in names]
    first = table(["network", "accuracy", "attack success", *scanners], scans)
    second = table(["attack success left, accuracy, minutes", *hardeners], [row for row in left if any(row[1:])])
    return f"{first}\n\n{second}"


def given(load: dict[str, Any]) -> list[str]:
    """Accuracy and attack success of a network as it came."""
    attack = load["attack_success"]
    return [f"{load['accuracy']:.1%}", "" if attack is None else f"{attack:.1%}"]


def said(scan: dict[str, Any] | None) -> str:
    """A scanner's verdict, its pair and seconds."""
    if scan is None:
        return ""
    if scan["outcome"] != "flagged":
        return f"{scan['outcome']} ({scan['seconds']:.0f} s)"
    pair, right = (
        scan["smallest"],
        {True: "the true target", False: "**another target**", None: ""}[scan["true_target"]],
    )
    words = [f"{'any' if pair['victim'] is None else pair['victim']}->{pair['target']}", *filter(None, [right])]
    return f"flagged {', '.join(words)} ({scan['seconds']:.0f} s)"


def cost(part: dict[str, Any] | None) -> str:
    """What a hardener leaves of the backdoor, the change of accuracy in points, and minutes."""
    if part is None:
        return ""
    points = 100 * (part["after"]["accuracy"] - part["before"]["accuracy"])
    return f"{part['after']['attack_success']:.1%}, {points:+.1f}, {part['minutes']:.1f}"


if __name__ == "__main__":
    main()
