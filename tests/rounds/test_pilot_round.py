"""Models that NIST's own round-4 generator and torch 1.7 made: 64 pixels, stored at 72, squeezenet1_1."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from trojai_moth.rounds.data_settings import DataSettings
from trojai_moth.rounds.model_folder import ModelFolder
from trojai_moth.rounds.open_folder import open_folder
from trojai_moth.rounds.reading import read_case, read_round
from trojai_moth.rounds.samples import collect_samples, with_unseen

OWN = Path(__file__).parents[1] / "data" / "pilot-round" / "id-00000004"


def open_checked(case):
    assert isinstance(case, ModelFolder), case
    opened = open_folder(case, torch.device("cpu"))
    assert opened.check.startswith("published logits reproduced within")
    assert float(opened.check.split()[-1]) < 1e-5  # written by torch 1.7, read by today's
    return opened


def test_a_model_written_by_torch_1_7_reproduces_its_published_logits():
    opened = open_checked(read_case(OWN))
    assert opened.subject.architecture == "squeezenetv1_1" and opened.subject.classes == 7
    assert opened.examples.x.shape == (21, 3, 64, 64) and opened.raw.shape == (21, 3, 72, 72)


def test_every_model_of_the_whole_round_reproduces_its_logits(extra_data):
    cases = read_round(extra_data / "pilot-round")
    assert len(cases) == 7
    for case in cases:
        open_checked(case)


def test_sorted_foregrounds_are_the_class_order():
    pytest.importorskip("trojai", reason="composing needs trojai: pip install --no-deps trojai==0.2.23")
    case = read_case(OWN)
    opened = open_checked(case)
    settings = DataSettings(source="composed", train_per_class=10, held_per_class=5)
    samples = collect_samples(case, opened, settings, seed=0)
    assert len(samples.train) == 70 and len(samples.held) == 35
    # The model never saw these compositions; a wrong order of seven signs would be right in one of seven at best.
    assert opened.subject.accuracy(samples.train.x, samples.train.y) > 0.95


def test_images_for_the_audit_are_new_and_the_same_for_the_same_seed():
    pytest.importorskip("trojai", reason="composing needs trojai: pip install --no-deps trojai==0.2.23")
    case = read_case(OWN)
    opened = open_checked(case)
    settings = DataSettings(source="composed", train_per_class=2, held_per_class=2, unseen_images=15)
    plain = collect_samples(case, opened, settings, seed=0)
    first, second = (with_unseen(plain, case, opened, settings, seed=0) for _ in range(2))
    assert plain.unseen is None and first.train is plain.train
    assert len(first.unseen) == 21 and torch.equal(first.unseen.x, second.unseen.x)  # three of each of seven classes
    for pool in (first.train, first.held):
        assert not (first.unseen.x[:, None] == pool.x).flatten(2).all(2).any()
    assert opened.subject.accuracy(first.unseen.x, first.unseen.y) > 0.9
    for without in (replace(settings, unseen_images=0), replace(settings, source="examples")):
        assert with_unseen(plain, case, opened, without, seed=0) is plain
