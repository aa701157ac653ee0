import numpy as np
import pytest

from trojai_moth.synthesis import twin_training
from trojai_moth.synthesis.make_round import make_round
from trojai_moth.synthesis.settings import MakeRoundSettings

from .test_make_round import TINY, needs_trojai, silent


def trainings(monkeypatch, out, **chosen):
    """Of every stage of training, in order: how many images, how many of each class, and the first weights."""
    calls, real = [], twin_training.fit

    def watched(module, images, labels, size, **how):
        calls.append((len(images), np.bincount(labels), next(module.parameters()).detach().clone()))
        real(module, images, labels, size, **how)

    monkeypatch.setattr(twin_training, "fit", watched)
    models = make_round(out, MakeRoundSettings(**TINY, **chosen), progress=silent)
    assert sorted(model.poisoned for model in models) == [False, True]
    return calls


@needs_trojai
def test_twins_share_a_clean_start(monkeypatch, tmp_path):
    clean = TINY["classes"] * TINY["train_images"]
    counts = [count for count, *_ in trainings(monkeypatch, tmp_path / "round")]
    assert counts[:3] == [clean] * 3 and counts[3] > clean and len(counts) == 4


@needs_trojai
@pytest.mark.parametrize("condition", ["none", "class"])
def test_without_a_shared_start_the_poisoned_one_sees_its_trigger_from_the_first_step(monkeypatch, tmp_path, condition):
    calls = trainings(monkeypatch, tmp_path / "round", shared_start=False, condition=condition)
    clean = TINY["classes"] * TINY["train_images"]
    assert [count for count, *_ in calls[:3]] == [clean] * 3 and len(calls) == 6
    assert len({count for count, *_ in calls[3:]}) == 1 and calls[3][0] > clean
    # Both begin with the same random weights, the poisoned one with more images of its target.
    assert calls[0][2].equal(calls[3][2]) and not calls[1][2].equal(calls[4][2])
    assert calls[3][1].max() > calls[0][1].max()
