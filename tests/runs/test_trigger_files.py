"""Triggers that scanners show: kept beside the journal's records, bounded in size, and drawn for the report."""

import base64
import io
import zipfile

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from fake_round import write_model
from PIL import Image
from toys import PlantedNet, make_samples, make_subject, planted_images, planted_samples

from trojai_moth.cli.main import main
from trojai_moth.core.errors import RunDirectoryError
from trojai_moth.core.records import read_record
from trojai_moth.eval.report import trigger_pictures as drawing
from trojai_moth.eval.report.trigger_pictures import PARTS, strip, trigger_pictures
from trojai_moth.runs import trigger_files
from trojai_moth.runs.journal import ScanRecord
from trojai_moth.runs.trigger_files import keep_triggers, read_triggers
from trojai_moth.scanners.base import MOST_SHOWN, Scanner
from trojai_moth.scanners.neural_cleanse import NeuralCleanse, NeuralCleanseSettings
from trojai_moth.scanners.registry import make_scanner
from trojai_moth.triggers.trigger import Trigger, stamp

SIDE = 16


def trigger(victim=2, target=0, size=4, side=SIDE):
    mask = torch.zeros(1, side, side)
    mask[0, 0, :size] = 0.5
    return Trigger(victim, target, mask, torch.full((3, side, side), 0.25))


class Shower(Scanner):
    """Shows what it is given, and judges as it is told."""

    name, settings_type = "shower", NeuralCleanseSettings

    def __init__(self, *triggers, judges=True):
        """Without the base's, as plugins do."""
        self.settings, self.given, self.judges = NeuralCleanseSettings(), triggers, judges

    def scan(self, subject, samples, *, seed):
        for one in self.given:
            self.show(one)
        return self.judged(1.0, "x", []) if self.judges else self.not_judged("why")


def shown(*triggers, **options):
    scanner = Shower(*triggers, **options)
    assert scanner.triggers == ()
    verdict = scanner(make_subject(PlantedNet()), planted_samples(), seed=0)
    return scanner, verdict


@pytest.fixture
def record(tmp_path):
    return tmp_path / "journal" / "id-00000001.before.json"


def keep(record, *triggers, samples=None, subject=None):
    keep_triggers(record, shown(*triggers)[0], subject or make_subject(PlantedNet()), samples or planted_samples())
    return read_triggers(record)


@pytest.mark.parametrize(("name", "settings"), [("neural-cleanse", {"steps": 60}), ("k-arm", {"steps": 60})])
def test_scanners_show_the_triggers_of_their_evidence_in_its_order(name, settings):
    scanner = make_scanner(name, settings)
    verdict = scanner(make_subject(PlantedNet(backdoor=(2, 0, 6.0))), planted_samples(), seed=5)
    found = [candidate for candidate in verdict.evidence if candidate.converged]
    assert found and len(scanner.triggers) == min(len(found), MOST_SHOWN)
    for candidate, one in zip(found, scanner.triggers, strict=False):
        assert (one.victim, one.target) == (candidate.victim, candidate.target)
        assert one.size == pytest.approx(candidate.size, rel=1e-3)


def test_several_scanners_show_what_each_of_them_shows():
    both = make_scanner("neural-cleanse,filter", {"neural-cleanse": {"steps": 60}, "filter": {"steps": 5}})
    alone = NeuralCleanse(NeuralCleanseSettings(steps=60))
    for scanner in (both, alone):
        scanner(make_subject(PlantedNet()), planted_samples(), seed=5)
    assert [one.size for one in both.triggers] == [one.size for one in alone.triggers] != []


def test_what_is_shown_is_bounded_and_of_the_last_scan_alone():
    scanner, _ = shown(*[trigger(size=number) for number in range(MOST_SHOWN + 3)])
    assert [one.size for one in scanner.triggers] == [number / 2 for number in range(MOST_SHOWN)]
    scanner.given = ()
    scanner(make_subject(PlantedNet()), planted_samples(), seed=0)
    assert scanner.triggers == ()
    assert shown(trigger(), judges=False)[0].triggers == ()


def test_what_is_shown_does_not_change_with_the_scanner():
    one = trigger()
    scanner, _ = shown(one)
    one.mask.zero_()
    assert scanner.triggers[0].size == 2.0


def test_a_trigger_of_another_shape_is_the_plugins_mistake():
    _, verdict = shown(Trigger(0, 1, torch.zeros(3, SIDE, SIDE), torch.zeros(3, SIDE, SIDE)))
    assert verdict.skip == "error" and "a mask of (3, 16, 16)" in verdict.reason


def test_kept_triggers_come_back_with_an_image_of_the_victim(record):
    kept = keep(record, trigger(2, 0), trigger(None, 1))
    assert record.with_name("id-00000001.before.triggers.npz").is_file() and kept.pairs == ((2, 0), (None, 1))
    assert kept.mask[0, 0, 0, :5].tolist() == [128, 128, 128, 128, 0] and not kept.bgr
    assert kept.pattern[0, :, 0, :5].tolist() == [[64, 64, 64, 64, 0]] * 3  # what no mask shows is left out
    images = planted_samples().train
    for row, label in ((0, 2), (1, 0)):
        expected = (images.x[images.positions(label)[0]] * 255).round().to(torch.uint8)
        assert np.array_equal(kept.image[row], expected.numpy())


def test_nothing_shown_nothing_kept_and_nothing_old_left(record):
    keep(record, trigger())
    assert keep(record) is None and read_triggers(record) is None and list(record.parent.iterdir()) == []


def test_what_can_not_be_shown_on_an_image_is_left_out(record):
    images = planted_images()
    few = make_samples(images.take(images.positions(0)), images)
    assert keep(record, trigger(2, 0), trigger(0, 1), trigger(0, 2, side=8), samples=few).pairs == ((0, 1),)


def test_a_file_has_a_limit(record, monkeypatch):
    triggers = [trigger(size=number) for number in (3, 4, 5)]
    whole = len(keep(record, *triggers).pairs)
    monkeypatch.setattr(trigger_files, "LIMIT_BYTES", next(record.parent.iterdir()).stat().st_size - 1)
    assert (whole, len(keep(record, *triggers).pairs)) == (3, 2)
    monkeypatch.setattr(trigger_files, "LIMIT_BYTES", 10)
    assert keep(record, *triggers) is None


@pytest.mark.parametrize("spoil", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"x" * 99])
def test_a_damaged_file_is_named_with_its_mend(record, spoil):
    keep(record, trigger())
    (path,) = record.parent.iterdir()
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(RunDirectoryError, match=r"before\.triggers\.npz: damaged .*delete this file"):
        read_triggers(record)


@pytest.mark.parametrize("change", [{"mask": np.zeros((1, 1, 3, 3))}, {"image": np.zeros((2, 3, 16, 16), np.uint8)}])
def test_arrays_that_do_not_belong_together_are_damage(record, change):
    keep(record, trigger())
    (path,) = record.parent.iterdir()
    arrays = {**np.load(path), **change}
    np.savez(path, **arrays)
    with pytest.raises(RunDirectoryError, match="damaged"):
        read_triggers(record)


def spoiled_by(change):
    """The file with one array's bytes as ``change`` makes them of the sound ones."""

    def spoil(path, name="pattern"):
        with zipfile.ZipFile(path) as archive:
            content = {info.filename: archive.read(info) for info in archive.infolist()}
        content[f"{name}.npy"] = change(content[f"{name}.npy"])
        with zipfile.ZipFile(path, "w") as archive:
            for member, data in content.items():
                archive.writestr(member, data)

    return spoil


def flip(path):
    """A run of bytes within a compressed member, which only its decompression finds."""
    data = bytearray(path.read_bytes())
    at = data.index(b"pattern.npy") + 60
    data[at : at + 30] = b"\xff" * 30
    path.write_bytes(data)


def packed(method):
    def pack(path):
        with zipfile.ZipFile(path) as archive:
            content = {info.filename: archive.read(info) for info in archive.infolist()}
        with zipfile.ZipFile(path, "w", method) as archive:
            for member, data in content.items():
                archive.writestr(member, data)

    return pack


def saved(array):
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def claims(shape):
    """A header that says so, with the bytes of a small array behind it."""
    return lambda content: content.replace(b"(1, 3, 16, 16)", shape.encode().ljust(14))


DAMAGE = {
    "a flipped run of bytes": flip,
    "an array of objects": spoiled_by(lambda _: saved(np.array([print], dtype=object))),
    "a huge claimed shape": spoiled_by(claims("(9999, 3, 9999, 99999)")),
    "a negative shape": spoiled_by(claims("(-1,3,16,16)")),
    "a shape that is none": spoiled_by(claims("('a', 3)")),
    "a header of brackets": spoiled_by(lambda content: content[:10] + b"(" * 100 + content[110:]),
    "no header": spoiled_by(lambda _: b""),
    "an array in a bomb": spoiled_by(lambda _: bytes(80 << 20)),
    "bzip2": packed(zipfile.ZIP_BZIP2),
    "lzma": packed(zipfile.ZIP_LZMA),
    "a larger file than any": lambda path: path.write_bytes(path.read_bytes() + bytes(2 << 20)),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_hostile_files_are_one_line_and_left_out_of_the_report(record, damage, caplog):
    keep(record, trigger())
    (path,) = record.parent.iterdir()
    damage(path)
    with pytest.raises(RunDirectoryError, match=r"before\.triggers\.npz: damaged .*delete this file") as refused:
        read_triggers(record)
    assert str(refused.value).isprintable() and len(str(refused.value)) < 700
    assert trigger_pictures({"a": {"before": record}}) == ({}, 0)
    assert [str(refused.value)] == caplog.messages


def pixels(uri):
    head, _, data = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def test_a_strip_shows_image_mask_trigger_and_what_it_does(record):
    kept = keep(record, trigger(2, 0))
    drawn = pixels(strip(kept, 0))
    assert drawn.shape == (SIDE, SIDE * len(PARTS) + 2 * (len(PARTS) - 1), 3)
    image, mask, lone, stamped = (drawn[:, (SIDE + 2) * part : (SIDE + 2) * part + SIDE] for part in range(4))
    images = planted_samples().train
    x = images.x[images.positions(2)[0]]
    assert np.abs(image / 255 - x.permute(1, 2, 0).numpy()).max() < 0.003
    assert mask[0, :5, 0].tolist() == [128, 128, 128, 128, 0] and lone[5, 5].tolist() == [128] * 3
    one = trigger()
    assert np.abs(stamped / 255 - stamp(x, one.mask, one.pattern).permute(1, 2, 0).numpy()).max() < 0.01


def test_colours_are_shown_as_people_see_them(record):
    subject = make_subject(PlantedNet())
    swapped = make_subject(PlantedNet())
    object.__setattr__(swapped, "preprocessing", type(subject.preprocessing)(stored_size=16, size=16, colours="BGR"))
    x = torch.zeros(3, 3, SIDE, SIDE)
    x[:, 0] = 1.0
    images = type(planted_images())(x, torch.tensor([2, 2, 0]))
    samples = make_samples(images, images)
    for own, colour in ((subject, [255, 0, 0]), (swapped, [0, 0, 255])):
        assert pixels(strip(keep(record, trigger(), samples=samples, subject=own), 0))[8, 3].tolist() == colour


def test_a_page_has_room_for_so_much(record, monkeypatch, tmp_path):
    keep(record, *[trigger(size=number) for number in range(6)])
    missing = tmp_path / "none.after.json"
    scans = {name: {"before": record, "after": missing} for name in ("a", "b", "c")}
    found, left_out = trigger_pictures(scans)
    assert list(found) == ["a", "b", "c"] and left_out == 0 and list(found["a"]) == ["before"]
    assert [line[:2] for line in found["a"]["before"]] == [[2, 0]] * drawing.MOST_PAIRS
    size = sum(len(line[2]) for line in found["a"]["before"])
    monkeypatch.setattr(drawing, "LIMIT_BYTES", 2 * size + 1)
    found, left_out = trigger_pictures(scans)
    assert (list(found), left_out) == (["a", "b"], 1)


def test_a_run_keeps_triggers_beside_its_records_and_the_report_shows_them(tmp_path):
    model = write_model(tmp_path / "id-00000000", per_class=2)
    quick = {
        "data.source": "examples",
        "scanner.screen_steps": 2,
        "scanner.steps": 2,
        "scanner.success_bound": 0.01,
        "data.train_per_class": 4,
        "data.held_per_class": 4,
        **{f"hardener.{name}": 1 for name in ("rounds", "turns", "first_steps", "warmup_steps", "sgd_steps")},
    }
    sets = [part for name, value in quick.items() for part in ("--set", f"{name}={value}")]
    call = ["rescan", str(model), "--out", str(tmp_path / "run"), "--verdict", "naive"]
    result = CliRunner().invoke(main, [*call, *sets])
    assert result.exit_code in (0, 1), result.output
    record = tmp_path / "run" / "journal" / "id-00000000.before.json"
    evidence = read_record(ScanRecord, record).verdict.evidence
    assert read_triggers(record).pairs == tuple((found.victim, found.target) for found in evidence if found.converged)
    assert CliRunner().invoke(main, ["report", str(tmp_path / "run")]).exit_code == 0
    assert "data:image/png" in (tmp_path / "run" / "report.html").read_text()
