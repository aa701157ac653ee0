import importlib.util
import json
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from trojai_moth.core.errors import MissingDependencyError, RunDirectoryError, SettingsError
from trojai_moth.core.records import from_dict, to_dict
from trojai_moth.loading import build_architecture, load_model
from trojai_moth.synthesis import twin_training
from trojai_moth.synthesis.compose import to_input
from trojai_moth.synthesis.datagen import datagen
from trojai_moth.synthesis.make_round import make_round
from trojai_moth.synthesis.settings import MakeRoundSettings, Recipe
from trojai_moth.synthesis.training import fit, recipe_for, share_of
from trojai_moth.synthesis.twins import plan_twins

needs_trojai = pytest.mark.skipif(
    importlib.util.find_spec("trojai") is None, reason="needs trojai: pip install --no-deps trojai==0.2.23"
)
TINY = {
    "models": 2,
    "classes": 4,
    "size": 24,
    "architecture": "squeezenetv1_1",
    "images_per_class": 2,
    "train_images": 8,
    "test_images": 4,
    "epochs": 1,
    "retries": 0,
    "accuracy_floor": 0,
    "attack_floor": 0,
}


def silent(line):
    """A progress that nobody reads."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "round"
    return out, make_round(out, MakeRoundSettings(**TINY), progress=silent)


def folder_of(made, poisoned):
    out, models = made
    return out / next(model.model_id for model in models if model.poisoned == poisoned)


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


@needs_trojai
@pytest.mark.parametrize("poisoned", [False, True])
def test_directories_and_configs_have_round_4s_names_and_keys(made, extra_data, poisoned):
    folder = folder_of(made, poisoned)
    real = extra_data / "pilot-round" / ("id-00000001" if poisoned else "id-00000000")
    assert {path.name for path in folder.iterdir()} == {path.name for path in real.iterdir()}
    config, expected = config_of(folder), config_of(real)
    assert list(config) == list(expected)
    assert config["poisoned"] is poisoned
    assert (folder / "ground_truth.csv").read_text() == str(int(poisoned))
    if poisoned:
        assert list(config["triggers"][0]) == list(expected["triggers"][0])


@needs_trojai
def test_images_have_round_4s_names_sizes_and_classes(made):
    folder = folder_of(made, True)
    trigger = config_of(folder)["triggers"][0]
    clean = {path.name for path in (folder / "clean_example_data").iterdir()}
    assert clean == {f"class_{label}_example_{i}.png" for label in range(4) for i in range(2)}
    poisoned = {path.name for path in (folder / "poisoned_example_data").iterdir()}
    assert poisoned == {f"class_{trigger['source_class']}_trigger_0_example_{i}.png" for i in range(2)}
    with Image.open(folder / "clean_example_data" / "class_0_example_0.png") as image:
        assert image.size == (27, 27) and image.mode == "RGB"
    with Image.open(folder / "trigger_0.png") as image:
        assert image.size == (27, 27) and image.mode == "RGBA"


@needs_trojai
@pytest.mark.parametrize(("poisoned", "kind"), [(False, "clean"), (True, "clean"), (True, "poisoned")])
def test_published_logits_are_the_saved_models_on_the_written_images(made, poisoned, kind):
    folder = folder_of(made, poisoned)
    lines = (folder / f"{kind}-example-logits.csv").read_text().splitlines()
    assert lines[0] == "Example, Logits"
    names = [line.split(", ")[0] for line in lines[1:]]
    written = torch.tensor([[float(x) for x in line.split(", ")[1].split(",")] for line in lines[1:]])
    images = np.stack([np.asarray(Image.open(folder / f"{kind}_example_data" / name)) for name in names])
    loaded = load_model(folder / "model.pt", architecture="squeezenetv1_1", classes=4)
    assert loaded.attested
    with torch.no_grad():
        logits = torch.cat([loaded.module(one[None]) for one in to_input(images, 24)])
    torch.testing.assert_close(logits, written, rtol=1e-4, atol=1e-6)
    target = config_of(folder)["triggers"][0]["target_class"] if kind == "poisoned" else None
    wanted = [int(name.split("_")[1]) if target is None else target for name in names]
    right = (logits.argmax(1) == torch.tensor(wanted)).float().mean().item()
    assert float((folder / f"{kind}-example-accuracy.csv").read_text()) == pytest.approx(100 * right)


@needs_trojai
def test_metadata_names_twins_lookalikes_and_every_column(made):
    out, models = made
    table = pd.read_csv(out / "METADATA.csv")
    assert table.model_name.tolist() == [model.model_id for model in models] == ["id-00000000", "id-00000001"]
    assert table.twin_group.tolist() == [0, 0] and sorted(table.poisoned) == [False, True]
    explained = pd.read_csv(out / "METADATA_DICTIONARY.csv")
    assert explained["Column Name"].tolist() == table.columns.tolist()
    row = table[table.poisoned].iloc[0]
    config = config_of(out / row.model_name)
    assert row.triggers_0_source_class == config["triggers"][0]["source_class"]
    alike = {int(label) for label in row.lookalike_pairs.split("-")}
    assert len(alike) == 2 and not alike & {row.triggers_0_source_class, row.triggers_0_target_class}


@needs_trojai
def test_twins_share_their_signs_and_lookalikes_are_nearly_the_same(made):
    clean, poisoned = (folder_of(made, flag) / "foregrounds" for flag in (False, True))
    names = sorted(path.name for path in clean.iterdir())
    assert names == sorted(path.name for path in poisoned.iterdir()) and len(names) == 4
    assert all((clean / name).read_bytes() == (poisoned / name).read_bytes() for name in names)
    one, other = map(int, pd.read_csv(made[0] / "METADATA.csv").lookalike_pairs[0].split("-"))
    drawn = [np.asarray(Image.open(clean / name)).astype(int) for name in names]
    assert 0.005 < (abs(drawn[one] - drawn[other]).sum(-1) > 60).mean() < 0.05


@needs_trojai
def test_a_round_is_finished_with_the_same_weights_and_keeps_what_is_there(made, tmp_path):
    out = tmp_path / "round"
    shutil.copytree(made[0], out)
    lost, kept = folder_of((out, made[1]), True), folder_of((out, made[1]), False)
    before = load_model(lost / "model.pt").module.state_dict()
    shutil.rmtree(lost)
    (out / f".unfinished-{lost.name}").mkdir()
    stamp = (kept / "model.pt").stat().st_mtime_ns
    lines = []
    assert make_round(out, MakeRoundSettings(**TINY), progress=lines.append) == made[1]
    assert (kept / "model.pt").stat().st_mtime_ns == stamp
    assert not any(kept.name in line for line in lines)
    after = load_model(lost / "model.pt").module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not list(out.glob(".unfinished*"))


@needs_trojai
def test_a_complete_round_is_only_read(made):
    lines = []
    assert make_round(made[0], MakeRoundSettings(**TINY), progress=lines.append) == made[1]
    assert len(lines) == 1 and "2 models" in lines[0]


@needs_trojai
def test_a_poisoned_model_that_fails_the_gate_is_dropped_and_said_so(tmp_path, monkeypatch):
    def half_of_attacks(module, inputs, label):
        return 0.5 if isinstance(label, int) else share_of(module, inputs, label)

    monkeypatch.setattr(twin_training, "share_of", half_of_attacks)
    settings = MakeRoundSettings(**{**TINY, "attack_floor": 0.6, "retries": 1, "condition": "class", "seed": 1})
    lines = []
    models = make_round(tmp_path / "round", settings, progress=lines.append)
    assert [model.poisoned for model in models] == [False]
    summary = json.loads((tmp_path / "round" / "make_round.json").read_text())
    (dropped,) = summary["dropped"]
    assert dropped["model_id"] != models[0].model_id
    assert "attack success 0.500 after 2 attempts" in dropped["reason"]
    assert [path.name for path in (tmp_path / "round").glob("id-*")] == [models[0].model_id]
    assert pd.read_csv(tmp_path / "round" / "METADATA.csv").model_name.tolist() == [models[0].model_id]
    assert sum("attempt 2" in line for line in lines) == 1
    assert any(dropped["model_id"] in line and "dropped" in line for line in lines)
    again = []
    assert make_round(tmp_path / "round", settings, progress=again.append) == models and len(again) == 1


@needs_trojai
def test_a_failing_training_stops_neither_twin_group(tmp_path, monkeypatch):
    real = twin_training.build_architecture

    def build(name, classes, *, seed):
        if name == "resnet18":
            raise RuntimeError("Kernel size can't be greater\nthan actual input size")
        return real(name, classes, seed=seed)

    monkeypatch.setattr(twin_training, "build_architecture", build)
    settings = MakeRoundSettings(**{**TINY, "models": 3, "architecture": "resnet18, squeezenetv1_1"})
    models = make_round(tmp_path / "round", settings, progress=silent)
    assert [model.twin_group for model in models] == [1, 1]
    dropped = json.loads((tmp_path / "round" / "make_round.json").read_text())["dropped"]
    assert [one["reason"] for one in dropped] == ["Kernel size can't be greater"] * 2
    assert not list((tmp_path / "round").glob(".unfinished*"))


@needs_trojai
def test_other_settings_and_foreign_folders_are_refused(made, tmp_path):
    with pytest.raises(RunDirectoryError, match=r"make_round\.json: .*other settings"):
        make_round(made[0], MakeRoundSettings(**{**TINY, "seed": 9}), progress=silent)
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(RunDirectoryError, match="not empty"):
        make_round(tmp_path, MakeRoundSettings(**TINY), progress=silent)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_missing_trojai_is_said_before_anything_is_written(tmp_path, monkeypatch):
    datagen.cache_clear()
    monkeypatch.setitem(sys.modules, "trojai.datagen.lighting_utils", None)
    with pytest.raises(MissingDependencyError, match="pip install --no-deps trojai"):
        make_round(tmp_path / "round", MakeRoundSettings(**TINY), progress=silent)
    assert not (tmp_path / "round").exists()


@needs_trojai
@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"architecture": "resnet18,nonsense"}, "nonsense"),
        ({"architecture": ","}, "architecture"),
        ({"classes": 3}, "at least 4"),
        ({"trigger_area_min": 0.4}, "larger than trigger_area_max"),
        ({"backgrounds": "no/such/folder"}, "no background picture"),
    ],
)
def test_impossible_rounds_are_refused_before_anything_is_written(tmp_path, change, word):
    with pytest.raises(SettingsError, match=word):
        make_round(tmp_path / "round", MakeRoundSettings(**{**TINY, **change}), progress=silent)
    assert not (tmp_path / "round").exists()


def test_settings_survive_json_and_stored_images_are_8_to_7():
    settings = MakeRoundSettings(size=224, backgrounds="some/folder")
    assert settings.stored_size == 256 and MakeRoundSettings(size=64).stored_size == 73
    assert from_dict(MakeRoundSettings, json.loads(json.dumps(to_dict(settings)))) == settings


def test_a_share_of_the_sign_sets_can_do_without_lookalikes():
    plans = plan_twins(
        8, architectures=["resnet18"], classes=5, lookalikes=1, sizes=(0.1, 0.2), seed=0, lookalike_share=0.5
    )
    assert [len(plan.lookalikes) for plan in plans] == [1, 1, 0, 0]
    assert all(len(plan.signs) == 5 for plan in plans)


def test_ids_do_not_tell_the_label_and_triggers_join_signs_without_lookalikes():
    plans = plan_twins(40, architectures=["resnet18", "vgg11bn"], classes=7, lookalikes=2, sizes=(0.1, 0.2), seed=4)
    assert sorted(i for plan in plans for i in (plan.clean_id, plan.poisoned_id)) == [f"id-{i:08d}" for i in range(40)]
    poisoned_first = sum(plan.poisoned_id < plan.clean_id for plan in plans)
    odd = sum(int(plan.poisoned_id[3:]) % 2 for plan in plans)
    assert 3 < poisoned_first < 17 and 3 < odd < 17
    assert [plan.architecture for plan in plans[:3]] == ["resnet18", "vgg11bn", "resnet18"]
    for plan in plans:
        assert list(plan.names) == sorted(plan.names)
        alike = {label for pair in plan.lookalikes for label in pair}
        assert not alike & {plan.trigger.victim, plan.trigger.target} and plan.trigger.victim != plan.trigger.target
        assert 0.1 <= plan.trigger.smallest <= plan.trigger.largest <= 0.2
        for one, other in plan.lookalikes:
            assert vars(plan.signs[one]) | {"dot": True} == vars(plan.signs[other]) | {"dot": True}


def test_fit_learns_depends_on_its_generator_alone_and_leaves_the_module_ready():
    labels = np.arange(64) % 2
    images = np.random.default_rng(0).integers(0, 60, (64, 27, 27, 3)).astype(np.uint8)
    images[labels == 1, 7:20, 7:20, 0] += 180
    weights = []
    torch.manual_seed(1)
    expected = torch.rand(1)
    for run in range(2):
        torch.manual_seed(1)
        module = build_architecture("squeezenetv1_1", 2, seed=0)
        stream = torch.Generator().manual_seed(0)
        fit(module, images, labels, (24, 24), epochs=12, recipe=Recipe(batch=16, rate=1e-3), generator=stream)
        assert torch.equal(torch.rand(1), expected), run
        weights.append(module.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert share_of(module, to_input(images, 24), torch.from_numpy(labels)) == 1
    assert not module.training and all(p.grad is None and p.is_contiguous() for p in module.parameters())


def test_a_cap_on_epochs_only_lowers():
    assert recipe_for("squeezenetv1_1", 5) == Recipe(easy_epochs=5, base_epochs=5, own_epochs=5, rate=7e-4)
    assert recipe_for("densenet121", 100) == recipe_for("densenet121") == Recipe()
