"""What fuzz.py runs on every input, and the small inputs it starts from; tests replay the kept inputs with these."""

import copy
import csv
import functools
import io
import json
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

Target = Callable[[bytes], None]
Instrument = Callable[..., AbstractContextManager[Any]]

# What an input of the target "model" is, by its first byte.
WHOLE_FILE, PICKLE_IN_A_ZIP, PICKLE_OF_A_MODEL = 0, 1, 2
_CLASSES = 5


def not_instrumented(**_: object) -> AbstractContextManager[Any]:
    """For replaying without the fuzzer."""
    return nullcontext()


def _model_target(instrument: Instrument) -> Target:
    with instrument(include=["trojai_moth.loading"]):
        from trojai_moth.core.errors import UnreadableModelError
        from trojai_moth.loading import inspect_model, load_model, tensors

    assert tensors  # else imported on the way, without the fuzzer's instruments
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "model.pt"

    def whole_file(data: bytes) -> None:
        path.write_bytes(data)
        try:
            load_model(path)
            refused = False
        except UnreadableModelError as error:
            # A cause would mean that no check foresaw this file.
            if error.__cause__ is not None or not str(error).isprintable():
                raise AssertionError(f"not a deliberate refusal: {error!r}") from error
            refused = True
        assert (inspect_model(path).verdict == "refused") is refused
        assert list(path.parent.iterdir()) == [path] and folder

    def target(data: bytes) -> None:
        kind, rest = data[:1], data[1:]
        if kind == bytes([PICKLE_OF_A_MODEL]):
            _structure(rest)
        elif kind == bytes([PICKLE_IN_A_ZIP]):
            whole_file(_zipped(rest))
        else:
            whole_file(rest)

    return target


def _structure(data: bytes) -> None:
    """Everything behind the container, with storages that are whatever the pickle says."""
    from trojai_moth.loading.architectures import build_skeleton
    from trojai_moth.loading.attestation import attest, attest_wrapper
    from trojai_moth.loading.examine import which_network
    from trojai_moth.loading.pickle_machine import run_pickle
    from trojai_moth.loading.refusal import Refusal
    from trojai_moth.loading.structure import find_weights
    from trojai_moth.loading.symbols import storage_claim

    def storage(identity: tuple[object, ...]) -> object:
        if len(identity) != 5:
            raise Refusal("strange")
        return storage_claim(identity[1], identity[2], identity[4])

    try:
        for weights in find_weights(run_pickle(io.BytesIO(data), storage)):
            if weights.wrapper is not None:
                attest_wrapper(weights.wrapper)
            skeleton = build_skeleton(which_network(weights))
            if weights.root is not None:
                attest(weights.root, skeleton)
    except Refusal as refusal:
        assert str(refusal).isprintable(), str(refusal)


def _zipped(pickle: bytes) -> bytes:
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as archive:
        archive.writestr("a/data.pkl", pickle)
        archive.writestr("a/data/0", bytes(48))
        archive.writestr("a/data/1", bytes(12))
        archive.writestr("a/version", "3\n")
    return buffer.getvalue()


def _config_target(instrument: Instrument) -> Target:
    with instrument(include=["trojai_moth", "json"]):
        from trojai_moth.core.errors import MothError
        from trojai_moth.rounds.config_file import read_config

    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "config.json"

    def target(data: bytes) -> None:
        path.write_bytes(data)
        try:
            config = read_config(path)
        except MothError as error:
            assert str(error).isprintable() and folder, str(error)
        else:
            # What is not there is None, and found out later; what is there makes sense.
            assert config.architecture is None or config.architecture
            assert all(n is None or n > 0 for n in (config.classes, config.stored_size, config.size))

    return target


def _metadata_target(instrument: Instrument) -> Target:
    with instrument(include=["trojai_moth", "csv"]):
        from trojai_moth.core.errors import MothError
        from trojai_moth.eval.labels import read_labels
        from trojai_moth.rounds.reading import read_round

    folder = tempfile.TemporaryDirectory()
    root = Path(folder.name)
    model = root / "id-00000000"
    model.mkdir()

    def target(data: bytes) -> None:
        """Up to the first zero byte it is METADATA.csv, the rest a model's ground_truth.csv."""
        metadata, _, truth = data.partition(b"\0")
        (root / "METADATA.csv").write_bytes(metadata)
        (model / "ground_truth.csv").write_bytes(truth)
        for read in (read_round, read_labels):
            try:
                found = read(root)
            except MothError as error:
                assert str(error).isprintable() and folder, str(error)
            else:
                assert isinstance(found, (list, dict))

    return target


def _saved(value: object, **options: Any) -> bytes:
    torch.save(value, buffer := io.BytesIO(), **options)
    return buffer.getvalue()


def _pickle_of(value: object) -> bytes:
    with zipfile.ZipFile(io.BytesIO(_saved(value))) as archive:
        return archive.read("archive/data.pkl")


def _model_seeds() -> Iterator[bytes]:
    from trojai_moth.loading import build_architecture

    small = nn.Sequential(nn.Linear(4, 3)).eval()
    for value in (small, small.state_dict(), {"state_dict": small.state_dict(), "epoch": 1}, nn.DataParallel(small)):
        yield bytes([WHOLE_FILE]) + _saved(value)
        yield bytes([WHOLE_FILE]) + _saved(value, _use_new_zipfile_serialization=False)
        yield bytes([PICKLE_IN_A_ZIP]) + _pickle_of(value)
    yield bytes([WHOLE_FILE]) + save(small.state_dict(), {"a": "b"})
    stock = build_architecture("squeezenetv1_1", _CLASSES).eval()
    for value in (stock, stock.state_dict(), nn.DataParallel(stock)):
        yield bytes([PICKLE_OF_A_MODEL]) + _pickle_of(value)


def _config_seeds() -> Iterator[bytes]:
    keys = {"model_architecture": "resnet18", "number_classes": 5, "img_size_pixels": 72, "cnn_img_size_pixels": 64}
    yield json.dumps({"py/object": "round_config.RoundConfig", **keys}).encode()
    yield json.dumps({key.upper(): value for key, value in keys.items()}, indent=1).encode()
    yield json.dumps({"py/object": "x", "py/state": {**keys, "triggers": [{"target_class": 1}]}}).encode()


def _metadata_seeds() -> Iterator[bytes]:
    yield b"model_name,poisoned\nid-00000000,True\nid-00000001,False\n\x001\n"
    yield b'\xef\xbb\xbfmodel_name,"poisoned"\r\n"id-00000000",0\r\n\x000'
    yield b"model_name,poisoned,model_architecture\nid-00000000,,resnet18\n\x00"


# What an input of a target of records is, by its second byte: the file as it is, or edits of a sound one.
RAW, EDITED = 0, 1
# What an edit puts in place of a value; the last one takes the key away.
_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2**40, 2**62, -(2**63), 0.5, -0.0, 1e308, -1e308, 5e-324, float("nan"), float("inf"),
    float("-inf"), "", "0", "=1+1", "-x", "\x1b[31m", "\u2028", "</script>", "../..", "id-00000000", "x" * 200,
    "before", "not judged", [], [[]], [None], [0, 1], {}, {"": None}, {"a": {"b": {}}}, ...,
)  # fmt: skip


def edited(sound: Any, edits: bytes) -> bytes:
    """JSON of a sound record with some of its values changed: three bytes an edit, two for the place, one for what.

    What is no record stays as it is.
    """
    if isinstance(sound, bytes):
        return sound
    root = {"": copy.deepcopy(sound)}
    for at in range(0, min(len(edits), 24) - 2, 3):
        places = list(_places(root))
        holder, key = places[int.from_bytes(edits[at : at + 2], "big") % len(places)]
        value = _VALUES[edits[at + 2] % len(_VALUES)]
        if value is not ...:
            holder[key] = copy.deepcopy(value)
        elif holder is not root:
            del holder[key]
    return json.dumps(root[""]).encode()


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    for key in keys:
        yield node, key
        yield from _places(node[key])


class _Files:
    """A folder of sound files of which an input changes one: first byte which, second RAW or EDITED, then the rest."""

    def __init__(self, files: Mapping[str, Any]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.root, self._files = Path(self._folder.name) / "there", files
        self._sound = {name: edited(value, b"") for name, value in files.items()}
        for name, content in self._sound.items():
            self._write(name, content)

    def _write(self, name: str, content: bytes) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def read(self, data: bytes, look: Callable[[Path], None]) -> None:
        """``look`` at the folder with one file changed; MothError in one line is what may come of it."""
        from trojai_moth.core.errors import MothError

        name = list(self._files)[(data[0] if data else 0) % len(self._files)]
        kind, rest = data[1:2], data[2:]
        text = isinstance(self._files[name], bytes) or kind != bytes([EDITED])
        self._write(name, rest if text else edited(self._files[name], rest))
        try:
            look(self.root)
        except MothError as error:
            assert str(error).isprintable() and len(str(error)) < 4000, repr(error)
        finally:
            self._write(name, self._sound[name])


@functools.cache
def _scan(flagged: bool) -> Any:
    from trojai_moth.core.subject import Preprocessing
    from trojai_moth.rounds.preprocessing import PreprocessingChoice
    from trojai_moth.runs.journal import ScanRecord
    from trojai_moth.scanners.result import Candidate, ScanResult

    found = Candidate(
        victim=1, target=2, size=5.0, success=0.9, held_success=0.8, held_images=9, converged=True, scanner="a-plugin"
    )
    score = 0.5 if flagged else -0.5
    verdict = ScanResult(
        scanner="neural-cleanse", outcome="flagged" if flagged else "clean", score=score, probability=0.5 + score / 2,
        reason="1->2 turns with 5 pixels", evidence=(found,), member_scores={"a": score},
    )  # fmt: skip
    reading = PreprocessingChoice(
        chosen=Preprocessing(stored_size=32, size=32), by="accuracy", reason="as stored", images=9
    )
    return ScanRecord(
        architecture="resnet18", classes=3, sha256="ab" * 32, check="no logits", convention=reading, data="examples",
        accuracy=0.9, device="cpu", verdict=verdict, seconds=1.5, note="note",
    )  # fmt: skip


@functools.cache
def _evidence() -> Any:
    from trojai_moth.verdict.features import BlindEvidence, PairFeatures

    pair = PairFeatures(
        victim=1, target=2, size=5.0, log_size=1.6, held_success=0.8, stamp_success=0.4, stamp_peak=0.1,
        stamp_breadth=0.2, removal_success=0.3, stamp_gap=0.5, clean_conviction=0.1,
    )  # fmt: skip
    return BlindEvidence(
        candidates=(pair,), classes=3, images_per_class=9, pairs_measured=6, censored=0.1, accuracy_before=0.9
    )


def _run_files() -> dict[str, Any]:
    """A run of three models: one taken to the end, one that failed, one that was left alone."""
    from trojai_moth.core.records import to_dict
    from trojai_moth.hardeners.trace import HardeningRound, HardeningTrace
    from trojai_moth.runs.journal import Failure, NotHardened, RunIdentity
    from trojai_moth.verdict.judge import judge

    done = HardeningRound(number=0, pairs=((1, 2, 5.0),), loss=0.1, learning_rate=1e-4, accuracy=0.9, taken_back=False)
    trace = HardeningTrace(
        hardener="moth", settings={"rounds": 1}, seed=1, data="examples", accuracy_before=0.9, accuracy_after=0.89,
        held_images=30, rounds=(done,), stopped="done", seconds=9.0,
    )  # fmt: skip
    settings = {"scanner": "neural-cleanse", "harden": "flagged", "verdict": "blind", "data": {"source": "examples"}}
    models = tuple(f"id-{number:08d}" for number in range(3))
    first, second, third = (f"journal/{model}" for model in models)
    records: dict[str, Any] = {
        "run.json": RunIdentity(version="0.0", models=models, settings=settings),
        f"{first}.before.json": _scan(True),
        f"{first}.harden.json": trace,
        f"{first}.after.json": _scan(False),
        f"{first}.evidence.json": _evidence(),
        f"{first}.blind.json": judge(_evidence()),
        f"{second}.failure.json": Failure(stage="load", reason="no model.pt", seconds=0.1, kind="unreadable"),
        f"{third}.before.json": _scan(True),
        f"{third}.not-hardened.json": NotHardened(reason="its label says poisoned"),
    }
    files = {name: to_dict(record) for name, record in records.items()}
    words = b"0123456789ab-1234-5678\na-host\nabcdef 000000000001\n"
    return files | {
        "results.csv": b"model,label\nid-00000000,True\nid-00000001,\n",
        f"leases/{models[2]}.1.lease": words,
        f"leases/{models[2]}.watch": b"before 60\nTimeout (0:01:00)!\n",
        "finished/id-00000000": b"",
    }


def _run_target(instrument: Instrument) -> Target:
    with instrument(include=["trojai_moth"]):
        from trojai_moth.core.records import to_json
        from trojai_moth.eval.csv_text import csv_text, plain_cell
        from trojai_moth.eval.report.export import export_tables
        from trojai_moth.eval.report.markdown import to_markdown
        from trojai_moth.eval.report.page import render_page
        from trojai_moth.eval.report.run_view import read_view
        from trojai_moth.runs.journal import Journal
        from trojai_moth.runs.status import run_status
        from trojai_moth.runs.watchdog import take_word

    files = _Files(_run_files())

    def whole(root: Path) -> None:
        view = read_view(root)
        to_markdown(view.rows, view.summary).encode()
        for table in export_tables(view).values():
            for row in csv.reader(io.StringIO(csv_text(table))):
                assert all(plain_cell(cell) == cell for cell in row), row
        page = render_page(view)
        page.encode()
        found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
        assert found is not None
        json.loads(found[1], parse_constant={}.__getitem__)  # NaN and Infinity, which a browser does not know

    def counted(root: Path) -> None:
        to_json(run_status(Journal(root))).encode()
        take_word(root / "leases" / "id-00000002.watch")

    def target(data: bytes) -> None:
        files.read(data, whole)
        files.read(data, counted)

    return target


def _rule_record() -> dict[str, Any]:
    from trojai_moth.verdict.judge import SHIPPED

    rule: dict[str, Any] = json.loads(SHIPPED.read_text(encoding="utf-8"))
    rule["provenance"]["models"] = rule["provenance"]["models"][:2]
    return rule


def _rule_target(instrument: Instrument) -> Target:
    with instrument(include=["trojai_moth"]):
        from trojai_moth.core.records import to_json
        from trojai_moth.verdict.judge import judge
        from trojai_moth.verdict.learned_rule import read_rule

    files = _Files({"rule.json": _rule_record()})

    def look(root: Path) -> None:
        verdict = judge(_evidence(), read_rule(root / "rule.json"), sha256="ab" * 32)
        to_json(verdict).encode()
        assert verdict.reason.isprintable()

    return lambda data: files.read(data, look)


def _calibration_record() -> dict[str, Any]:
    from trojai_moth.core.records import to_dict
    from trojai_moth.rounds.data_settings import DataSettings
    from trojai_moth.scanners.calibration import settings_fingerprint
    from trojai_moth.scanners.registry import make_scanner

    settings = to_dict(make_scanner("neural-cleanse", {}).settings)
    estimate = {"value": 0.5, "low": 0.4, "high": 0.6}
    names = ("cross_entropy", "brier", "roc_auc", "true_positive_rate", "false_positive_rate", "same_verdict")
    quality = {**dict.fromkeys(names, estimate), "balanced_accuracy": 0.5}
    model = {"model_id": "id-00000000", "sha256": "ab", "group": "a", "poisoned": True, "fold": 0, "scores": [0.5]}
    return {
        "format": 1, "scanner": "neural-cleanse", "scanner_settings": settings,
        "settings_sha256": settings_fingerprint("neural-cleanse", settings), "data": to_dict(DataSettings()),
        "method": "monotone", "curve": {"kind": "monotone", "scores": [0.0, 1.0], "probabilities": [0.1, 0.9]},
        "threshold": 0.2, "max_false_positive_rate": None, "false_positive_bound": None,
        "metrics": {"scanner": quality, "learned": quality, "cross_entropy_change": estimate, "score_deviation": None},
        "provenance": {
            "round": "round", "seeds": [0], "clean": 1, "poisoned": 1, "folds": 2, "split_sha256": "cd",
            "versions": {"torch": "2"}, "models": [model], "left_out": [{"model_id": "id-00000001", "reason": "why"}],
        },
    }  # fmt: skip


def _calibration_target(instrument: Instrument) -> Target:
    with instrument(include=["trojai_moth"]):
        from trojai_moth.rounds.data_settings import DataSettings
        from trojai_moth.scanners.calibration import read_calibration
        from trojai_moth.scanners.checks import verdict_problem
        from trojai_moth.scanners.registry import make_scanner

    files, scanner = _Files({"calibration.json": _calibration_record()}), make_scanner("neural-cleanse", {})

    def look(root: Path) -> None:
        calibration = read_calibration(root / "calibration.json")
        for flagged in (True, False):
            judged = calibration.judge(_scan(flagged).verdict, "ab")
            assert verdict_problem(judged, 3) is None and judged.reason.isprintable(), judged
        calibration.check("neural-cleanse", scanner, DataSettings())

    return lambda data: files.read(data, look)


def _plans_target(instrument: Instrument) -> Target:
    with instrument(include=["trojai_moth"]):
        from trojai_moth.core.records import to_dict
        from trojai_moth.triggers.execution_plan import Plan, PlanBook

    plan = to_dict(Plan(threads=2))
    files = _Files({"plans.json": {"plans": {"a network": plan, "another": plan}}})

    def look(root: Path) -> None:
        found = PlanBook(root / "plans.json").get("a network", Plan)
        assert 0 < found.threads <= 4096 and 0 < found.batch <= 1_000_000

    return lambda data: files.read(data, look)


def _card_files() -> dict[str, Any]:
    """A card, ours and somebody else's text around it, with its side file."""
    from trojai_moth.core.records import to_dict
    from trojai_moth.eval.cards.card import Origin, Outcome, make_record
    from trojai_moth.eval.cards.text import SIDE_FILE
    from trojai_moth.eval.distance_bounds.bounds import BoundSettings, combine
    from trojai_moth.rounds.data_settings import DataSettings
    from trojai_moth.triggers.distance_records import DistanceMatrix, DistanceSettings, PairDistance

    pairs = tuple(
        PairDistance(victim=v, target=1 - v, images=9, sizes=(5.0,), distance=5.0, l1=15.0, spread=None) for v in (0, 1)
    )
    matrix = DistanceMatrix(
        model_id="id-00000000", architecture="resnet18", classes=2, source_sha256="ab", weights_sha256="cd",
        version="0", torch="2", device="cpu", data="examples", settings=DistanceSettings(seeds=(1,)), images=(9, 9),
        image_sha256=(("a",), ("b",)), distances=((None, 5.0), (5.0, None)), pairs=pairs, censored=0, mean=5.0,
        mean_l1=15.0, geometric_mean=5.0, minimum=5.0, spread=None, warnings=(), seconds=1.0,
    )  # fmt: skip
    more: dict[str, Any] = {"weights_sha256": "", "seed": 0, "data": "", "features": "", "notes": ()}
    bounds = combine(matrix, matrix, {"pasted": {(0, 1): 3.0}}, area=32 * 32, settings=BoundSettings(), **more)
    record = make_record(matrix, matrix, bounds, Outcome(), Origin(data=DataSettings(), on="held", seed=0), (32, 32))
    card = f"""---
license: mit  # a comment
orthogonalization:
  file: {{name: {SIDE_FILE}, sha256: ab}}
model-index:
- name: id-00000000
  results:
  - task: {{type: image-classification}}
    dataset: {{name: examples, type: trojai-round}}
    metrics:
    - {{type: class_distance_mean, value: 5.0, name: mean}}
    - {{type: theirs, value: 1}}
---
# Theirs
"""
    return {"README.md": card.encode(), SIDE_FILE: to_dict(record)}


def _card_target(instrument: Instrument) -> Target:
    with instrument(include=["trojai_moth", "yaml"]):
        from trojai_moth.eval.cards.check import check_files, difference, read_card
        from trojai_moth.eval.cards.file import pointers, results, write_card
        from trojai_moth.eval.cards.text import SIDE_FILE, card_text

    files = _Files(_card_files())

    def look(root: Path) -> None:
        card = root / "README.md"
        read, sound = read_card(card), read_card(root / SIDE_FILE)
        assert all(finding.text.isprintable() for finding in check_files(card))
        difference(read, sound, ("one", "other"))
        write_card(card, card_text(sound), pointers(sound, root), results(sound), "id-00000000")

    def target(data: bytes) -> None:
        before = (files.root / "README.md").read_bytes()
        files.read(data, look)
        (files.root / "README.md").write_bytes(before)

    return target


def _triggers_target(instrument: Instrument) -> Target:
    with instrument(include=["trojai_moth", "zipfile"]):
        from trojai_moth.eval.report.trigger_pictures import strip
        from trojai_moth.runs.trigger_files import read_triggers

    files = _Files({"id-00000000.before.triggers.npz": b""})

    def look(root: Path) -> None:
        kept = read_triggers(root / "id-00000000.before.json")
        assert kept is not None
        for row in range(min(len(kept.pairs), 2)):
            strip(kept, row)

    def target(data: bytes) -> None:
        """RAW: the whole file. EDITED: which array by the first byte, then its file, the others sound."""
        kind, rest = data[:1], data[1:]
        if kind == bytes([EDITED]):
            arrays = dict(_arrays())
            name = list(arrays)[(rest[0] if rest else 0) % len(arrays)]
            rest = _npz({**arrays, name: rest[1:]})
        files.read(bytes([0, RAW]) + rest, look)

    return target


@functools.cache
def _arrays() -> dict[str, bytes]:
    side = 4
    arrays = {
        "victim": np.array([-1]), "target": np.array([1]), "bgr": np.array(True),
        "mask": np.full((1, 1, side, side), 255, np.uint8), "pattern": np.zeros((1, 3, side, side), np.uint8),
        "image": np.zeros((1, 3, side, side), np.uint8),
    }  # fmt: skip
    return {name: _saved_array(array) for name, array in arrays.items()}


def _saved_array(array: Any) -> bytes:
    np.save(buffer := io.BytesIO(), array)
    return buffer.getvalue()


def _npz(members: Mapping[str, bytes]) -> bytes:
    with zipfile.ZipFile(buffer := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def _triggers_seeds() -> Iterator[bytes]:
    yield from (bytes([RAW]) + _npz(_arrays()), b"")
    for place, content in enumerate(_arrays().values()):
        yield bytes([EDITED, place]) + content
    for odd in (np.array([None]), np.zeros((0, 3, 4, 4), np.uint8), np.zeros(3, "V7,i4")):
        yield bytes([EDITED, 3]) + _saved_array(odd)


def _seeds_of(files: Callable[[], Mapping[str, Any]]) -> Callable[[], Iterator[bytes]]:
    """Every file as it is, and some edits of each that is JSON."""

    def seeds() -> Iterator[bytes]:
        for place, value in enumerate(files().values()):
            yield bytes([place, RAW]) + edited(value, b"")
            if not isinstance(value, bytes):
                yield from (bytes([place, EDITED, 0, at, at * 7]) for at in range(2))
        yield bytes([0, RAW]) + b"[" * 5000

    return seeds


TARGETS: dict[str, Callable[[Instrument], Target]] = {
    "calibration": _calibration_target,
    "card": _card_target,
    "config": _config_target,
    "metadata": _metadata_target,
    "model": _model_target,
    "plans": _plans_target,
    "rule": _rule_target,
    "run": _run_target,
    "triggers": _triggers_target,
}
SEEDS: dict[str, Callable[[], Iterator[bytes]]] = {
    "calibration": _seeds_of(lambda: {"": _calibration_record()}),
    "card": _seeds_of(_card_files),
    "config": _config_seeds,
    "metadata": _metadata_seeds,
    "model": _model_seeds,
    "plans": _seeds_of(lambda: {"": {"plans": {"a network": {"threads": 2}, "another": {}}}}),
    "rule": _seeds_of(lambda: {"": _rule_record()}),
    "run": _seeds_of(_run_files),
    "triggers": _triggers_seeds,
}
