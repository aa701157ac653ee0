"""Cards: what others wrote stays, hostile names stay text, and a card that no longer holds is found out."""

import hashlib
import json
import shutil

import pytest
import torch
import yaml
from click.testing import CliRunner
from PIL import Image

pytest.importorskip("huggingface_hub")

from fake_round import write_round
from huggingface_hub import ModelCard
from safetensors.torch import save_file

from trojai_moth.cli.main import main
from trojai_moth.cli.model import open_model
from trojai_moth.core.records import from_json
from trojai_moth.eval.cards.card import METRICS, CardRecord
from trojai_moth.eval.cards.file import END, KEY, START

FEW = ["--set", "data.train_per_class=6", "--set", "data.held_per_class=6"]
QUICK = [*FEW, "--set", "bounds.steps=3", "--set", "bounds.images_per_class=2", "--set", "bounds.scenes=1"]
DISTANCE = ["--set", "distance.steps=3", "--set", "distance.images_per_class=2", "--set", "distance.seeds=[1]"]
AUTHORS = """---
# what we think of licences
license: "cc-by-4.0"
tags: [signs,   'yes']
model-index:
- name: ours
  results:
  - task: {type: image-classification}
    dataset: {name: Signs, type: signs}
    metrics:
    - {type: accuracy, value: 0.5}
custom_key:
  nested: [1, 2]
---
# Signs

Written by hand:  two spaces, & a <b>tag</b>.
"""


def call(*arguments):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    torch.set_flush_denormal(False)
    return result


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model, hardened weights, and a card that was written into what others wrote."""
    folder = tmp_path_factory.mktemp("card")
    model = write_round(folder / "round", per_class=4) / "id-00000000"
    opened = open_model(model_path=model, data="examples", backgrounds=None, assignments=(), seed=0, device="cpu")
    tensors = {name: tensor.clone() for name, tensor in opened.opened.subject.module.state_dict().items()}
    tensors["classifier.1.weight"] *= 0.8
    save_file(tensors, folder / "w.safetensors", {"source_sha256": opened.opened.subject.source_sha256})
    (folder / "README.md").write_text(AUTHORS)
    result = call(
        "card", model, "--into", folder / "README.md", "--weights", folder / "w.safetensors", *DISTANCE, *QUICK
    )
    assert result.exit_code == 0, result.output
    assert "of 6 class pairs at risk" in result.stdout
    return folder


@pytest.fixture
def copied(made, tmp_path):
    for path in made.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
    return tmp_path


def head(folder):
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


def test_what_others_wrote_stays_letter_by_letter(made):
    text = (made / "README.md").read_text()
    assert "# what we think of licences\nlicense: \"cc-by-4.0\"\ntags: [signs,   'yes']\n" in text
    assert "custom_key:\n  nested: [1, 2]\n" in text
    assert "# Signs\n\nWritten by hand:  two spaces, & a <b>tag</b>.\n" in text
    assert text.count(START) == text.count(END) == 1


def test_the_card_is_one_that_the_hub_reads(made):
    card = ModelCard.load(made / "README.md")
    found = {result.metric_type: result for result in card.data.eval_results}
    record = from_json(CardRecord, (made / "class_distances.json").read_text())
    assert {name: found[name].metric_value for name in METRICS if name in found} == record.scalars()
    assert found["accuracy"].metric_value == 0.5
    assert found["class_distance_mean"].metric_args["seeds"] == [1]
    for name, change in zip(
        ("class_distance_mean_change", "class_distance_geometric_mean_change", "class_distance_minimum_change"),
        (record.gain.mean, record.gain.geometric, record.gain.smallest),
        strict=True,
    ):
        low, high = found[name].metric_args["interval_95"]
        assert (low, high) == pytest.approx((change.low, change.high), abs=1e-4)
        assert change.words in (made / "README.md").read_text()
    assert found["accuracy_before_hardening"].metric_args is None
    assert record.gain and record.after and len(record.bounds.pairs) == 6 and record.labels == ("0", "1", "2")


def test_the_key_points_to_files_with_their_hashes(made):
    key = head(made)[KEY]
    assert key["pairs_measured"] == 6 and key["unit"] == "pixels"
    for name in ("file", "heat_map", "pairs"):
        data = (made / key[name]["name"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == key[name]["sha256"]
        assert f"]({key[name]['name']})" in (made / "README.md").read_text()
    with Image.open(made / "class_pairs.png") as picture:
        assert picture.format == "PNG" and picture.height > picture.width / 2
    assert not list(made.glob("*.partial.json"))


def test_a_second_card_takes_the_place_of_the_first(copied, made, monkeypatch):
    monkeypatch.setattr("trojai_moth.eval.distance_bounds.measures.train_surrogate", lambda subject, *_, **__: subject)
    before = (copied / "README.md").read_text()
    text = before.replace("Written by hand", "Rewritten by hand").replace(END, f"{END}\n\nAfterword")
    (copied / "README.md").write_bytes(text.replace("\n", "\r\n").encode())
    distances = from_json(CardRecord, (made / "class_distances.json").read_text()).before
    (copied / "names.txt").write_text("stop $x$\n<b>give way</b>\nroundabout\n")
    (copied / "b.json").write_text(json.dumps(json.loads((made / "class_distances.json").read_text())["before"]))
    result = call(
        "card", made / "round" / "id-00000000", "--into", copied / "README.md", "--before", copied / "b.json",
        "--labels", copied / "names.txt", "--surrogate", *QUICK, "--set", "bounds.success_bound=0.01",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    again = (copied / "README.md").read_bytes().decode()
    assert again.count(START) == 1 and again.endswith("Afterword\r\n") and "Rewritten by hand" in again
    assert again.replace("\r\n", "").count("\n") == 0
    record = from_json(CardRecord, (copied / "class_distances.json").read_text())
    assert record.labels == ("stop $x$", "<b>give way</b>", "roundabout")
    assert "Class 0 (stop" in again and "(roundabout)" in again and "<b>give" not in again
    assert any(pair.surrogate is not None for pair in record.bounds.pairs)
    assert any("the surrogate is right about" in note for note in record.bounds.notes)
    assert record.after is None and record.before == distances  # given, so not measured again
    assert "class_distance_mean_change" not in {
        r.metric_type for r in ModelCard.load(copied / "README.md").data.eval_results
    }


def test_verify_measures_again(made):
    arguments = (made / "README.md", made / "round" / "id-00000000", "--weights", made / "w.safetensors")
    result = call("card", "verify", *arguments, "--pick", 1)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("ok: ") == 7 and result.stdout.count("->") == 3
    wrong = call("card", "verify", *arguments[:2])
    assert wrong.exit_code == 2 and "give its --weights" in wrong.stderr


def test_verify_finds_out_what_was_changed(copied, made):
    model = made / "round" / "id-00000000"
    with (copied / "class_distances.png").open("ab") as file:
        file.write(b" ")
    result = call("card", "verify", copied / "README.md", model)
    assert result.exit_code == 1 and "WRONG: class_distances.png: changed since the card" in result.stdout
    shutil.copy(made / "class_distances.png", copied)
    text = (copied / "README.md").read_text()
    mean = head(copied)[KEY]["pairs_measured"]
    assert mean == 6
    (copied / "README.md").write_text(
        text.replace("type: class_distance_mean\n      value: ", "type: class_distance_mean\n      value: 9")
    )
    result = call("card", "verify", copied / "README.md", model)
    assert result.exit_code == 1 and "other than in the side file: class_distance_mean" in result.stdout


def test_verify_finds_a_distance_that_is_not_so(copied, made):
    file = copied / "class_distances.json"
    old, data = hashlib.sha256(file.read_bytes()).hexdigest(), json.loads(file.read_text())
    data["after"]["distances"] = [[None if d is None else 9 * d for d in row] for row in data["after"]["distances"]]
    file.write_text(json.dumps(data))
    text = (copied / "README.md").read_text()
    (copied / "README.md").write_text(text.replace(old, hashlib.sha256(file.read_bytes()).hexdigest()))
    arguments = (copied / "README.md", made / "round" / "id-00000000", "--weights", made / "w.safetensors")
    result = call("card", "verify", *arguments, "--pairs", 6)
    assert result.exit_code == 1 and result.stdout.count("WRONG: ") == result.stdout.count(" pixels and now ") > 0


def test_diff_says_what_changed(made, copied):
    file = copied / "class_distances.json"
    data = json.loads(file.read_text())
    for row in data["after"]["distances"]:
        row[:] = [None if size is None else 2 * size for size in row]
    data["after"]["mean"] = 1000.0
    file.write_text(json.dumps(data))
    result = call("card", "diff", made / "README.md", file)
    assert result.exit_code == 0, result.output
    assert "pairs, with 95 % intervals: mean +100% (+100% to +100%), geometric mean +100% (" in result.stdout
    assert "smallest +100% (+100% to +100%)\n" in result.stdout
    assert (
        "class_distance_mean" in result.stdout
        and "1000" in result.stdout
        and "At risk in B only: none" in result.stdout
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{START}\nno end\n", "markers"),
        (f"{END}\n{START}\n", "markers"),
        ("---\na: [1\n---\n", "YAML cannot be read"),
        ("---\n- a\n---\n", "not a list of keys"),
        ("---\nmodel-index: 5\n---\n", "model-index is not a list"),
    ],
)
def test_a_card_that_can_not_be_edited_stays_as_it_is(copied, text, words):
    from trojai_moth.core.errors import SettingsError
    from trojai_moth.eval.cards.file import results, write_card

    record = from_json(CardRecord, (copied / "class_distances.json").read_text())
    (copied / "x.md").write_text(text)
    with pytest.raises(SettingsError, match=words):
        write_card(copied / "x.md", "text", {}, results(record), "name")
    assert (copied / "x.md").read_text() == text


def test_mistakes_are_one_line(made, tmp_path):
    model = made / "round" / "id-00000000"
    (tmp_path / "none.md").write_text("# Nothing\n")
    (tmp_path / "b.json").write_text(json.dumps(json.loads((made / "class_distances.json").read_text())["before"]))
    for arguments, words in (
        (("verify", tmp_path / "none.md", model), "has no orthogonalization"),
        ((model, "--after", tmp_path / "b.json"), "--after: needs the hardened weights"),
        (
            (model, "--before", tmp_path / "b.json", "--seed", 7, "--into", tmp_path / "c.md"),
            "measured on other images",
        ),
    ):
        result = call("card", *arguments)
        assert result.exit_code == 2 and words in result.stderr and "Traceback" not in result.output
    assert not (tmp_path / "c.md").exists()
