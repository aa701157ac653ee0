"""The public API as a notebook uses it: what it returns, what that looks like, and what it refuses."""

import dataclasses
from types import FunctionType

import pytest
import torch
from toys import BRIGHT, PlantedNet, planted_images, square_images, trained_subject

import trojai_moth as tm
from trojai_moth.core.errors import SettingsError, UnreadableModelError

POOL = planted_images(10)
# What plugins are made of has its examples in docs/plugins.md, and weights that are read in those that are written.
ELSEWHERE = ("Field", "generator", "record", "load_weights")
QUICK = {"steps": 60, "precision": "fp32"}


def planted(**changes):
    return tm.open_model(PlantedNet(), **{"images": POOL.x, "labels": POOL.y, "device": "cpu"} | changes)


@pytest.fixture(scope="module")
def model():
    net = PlantedNet(backdoor=(0, 2, 4.0))
    return tm.open_model(net, images=POOL.x, labels=POOL.y, device="cpu")


@pytest.fixture(scope="module")
def result(model):
    return tm.scan(model, "neural-cleanse", settings={"steps": 100, "precision": "fp32"})


def test_every_public_name_is_documented_and_every_function_has_an_example():
    for name in set(tm.__all__) - {"__version__"}:
        text = getattr(tm, name).__doc__ or ""
        assert text.strip(), name
        ours = isinstance(getattr(tm, name), FunctionType) and name not in ELSEWHERE
        assert not ours or ">>>" in text, name


def test_own_images_are_split_by_class_and_the_same_again(model):
    assert torch.equal(planted().samples.train.x, model.samples.train.x)
    assert torch.bincount(model.samples.train.y).tolist() == [7] * 3
    assert torch.bincount(model.samples.held.y).tolist() == [3] * 3
    assert not torch.equal(planted(seed=1).samples.train.x, model.samples.train.x)
    assert model.accuracy == 1.0 and model.classes == 3 and model.name == "PlantedNet"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": None}, "needs images= and labels="),
        ({"images": POOL.x[0]}, r"images of shape \(3, 16, 16\)"),
        ({"labels": POOL.y[1:]}, r"give \(N, C, H, W\)"),
        ({"images": POOL.x * 255}, r"in \[0, 1\]"),
        ({"labels": POOL.y + 1}, "labels go to 3, but the network has 3 classes"),
        ({"settings": {"colour": 1}}, "settings: colour"),
    ],
)
def test_images_that_do_not_fit_are_one_line(changes, words):
    with pytest.raises(SettingsError, match=words):
        planted(**changes)


def test_what_is_no_model_is_one_line(tmp_path):
    with pytest.raises(SettingsError, match="belong to a module"):
        tm.open_model(tmp_path, images=POOL.x, labels=POOL.y, device="cpu")
    with pytest.raises(UnreadableModelError, match=r"no model\.pt in it"):
        tm.open_model(tmp_path, device="cpu")
    with pytest.raises(SettingsError, match="--scanner no-such-scanner: not installed"):
        tm.scan(planted(), "no-such-scanner")


def test_a_scan_is_one_line_a_table_and_html(model, result):
    assert result.flagged and repr(result).startswith("<ScanResult flagged by neural-cleanse, probability 0.")
    assert "\n" not in repr(result) + repr(model) + repr(model.samples) + repr(model.subject)
    frame = result.to_frame()
    assert (frame.victim[0], frame.target[0]) == (0, 2) and len(frame) == len(result.evidence)
    assert "<table" in result._repr_html_() and "PlantedNet" in model._repr_html_()


def test_only_what_is_flagged_is_judged(model, result):
    with pytest.raises(SettingsError, match="PlantedNet is not flagged"):
        tm.judge(model, dataclasses.replace(result, outcome="clean", score=-1.0))
    verdict = tm.judge(model, result)
    assert verdict.outcome in ("kept", "not judged") and verdict.reason


def test_distances_are_a_matrix_to_look_at(tmp_path):
    model = planted()
    matrix = tm.distances(model, pairs=[(1, 2), (0, 1)], fast=True)
    frame = matrix.to_frame()
    assert list(zip(frame.victim, frame.target, strict=True)) == [(0, 1), (1, 2)]
    assert frame.distance.tolist() == pytest.approx([BRIGHT[0], BRIGHT[1]], rel=0.2)
    figure = matrix.plot(tmp_path / "matrix.png")
    assert "PlantedNet" in figure.get_suptitle() and (tmp_path / "matrix.png").stat().st_size > 1000
    assert repr(matrix).startswith("<DistanceMatrix PlantedNet: 2 pairs, mean ") and "<table" in matrix._repr_html_()
    with pytest.raises(SettingsError, match="--pairs 9->0"):
        tm.distances(model, pairs="9->0")


def test_hardened_weights_are_a_model_again(tmp_path):
    pool = square_images(20, seed=1)
    model = tm.open_model(trained_subject().module, images=pool.x, labels=pool.y, device="cpu")
    said = []
    hard = tm.harden(model, "moth", settings={"rounds": 1, "precision": "fp32"}, progress=said.append)
    assert said and hard.trace.hardener == "moth" and hard.samples is model.samples and hard.origin is model
    assert len(hard.trace.to_frame()) == 2 and "moth, accuracy" in repr(hard)
    before, after = (one.subject.module.state_dict() for one in (model, hard))
    assert any(not torch.equal(before[name], after[name]) for name in before)
    tm.save_weights(hard, tmp_path / "hard.safetensors")
    again = tm.load_weights(tmp_path / "hard.safetensors", model)
    assert again.trace == hard.trace
    assert all(torch.equal(tensor, again.subject.module.state_dict()[name]) for name, tensor in after.items())
    assert tm.scan(again, settings=QUICK).outcome != "not judged"
    with pytest.raises(UnreadableModelError, match="another model file"):
        tm.load_weights(tmp_path / "hard.safetensors", planted())
