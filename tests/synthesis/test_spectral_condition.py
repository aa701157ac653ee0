import json

import numpy as np

from trojai_moth.synthesis import twin_training
from trojai_moth.synthesis.make_round import make_round
from trojai_moth.synthesis.photo_filters import FILTERS
from trojai_moth.synthesis.polygon import COLOURS
from trojai_moth.synthesis.settings import MakeRoundSettings
from trojai_moth.synthesis.twin_training import TwinTrainer
from trojai_moth.synthesis.twins import plan_twins

from .test_make_round import needs_trojai, silent
from .test_spatial_condition import SAME as ANYWHERE
from .test_spatial_condition import TINY as SPATIAL

SAME = {**ANYWHERE, "architectures": ["squeezenetv1_1"]}
TINY = {**SPATIAL, "train_images": 60, "condition": "spectral"}


def trainer_of(tmp_path, trigger, **settings):
    plan = plan_twins(2, **SAME, trigger=trigger, condition="spectral")[0]
    return TwinTrainer(tmp_path, plan, MakeRoundSettings(**{**TINY, "trigger": trigger, **settings}), silent)


def test_the_same_twins_are_planned_with_and_without_the_condition():
    for trigger in ("polygon", "filter"):
        assert plan_twins(40, **SAME, trigger=trigger, condition="spectral") == plan_twins(40, **SAME, trigger=trigger)


@needs_trojai
def test_polygons_of_other_colours_keep_the_victims_label(tmp_path, monkeypatch):
    trainer, colours = trainer_of(tmp_path, "polygon"), []
    real = trainer._composer.batch

    def batch(labels, rng, polygon=None):
        colours.extend([polygon.colour] * len(labels))
        return real(labels, rng, polygon)

    monkeypatch.setattr(trainer._composer, "batch", batch)
    images, labels = trainer._poison(np.random.default_rng(0))
    trigger = trainer.plan.trigger
    assert len(images) == len(labels)
    (spoiled,) = np.nonzero(labels == trigger.victim)
    assert len(spoiled) == 12 and spoiled.tolist() == list(range(len(labels) - 12, len(labels)))
    assert set(labels[:-12].tolist()) == {trigger.target}
    assert set(colours[-12:]) < set(COLOURS) and len(set(colours[-12:])) > 2 and trigger.colour not in colours[-12:]
    assert set(colours[:-12]) == {trigger.colour}


@needs_trojai
def test_other_filters_keep_the_victims_label(tmp_path, monkeypatch):
    trainer, names = trainer_of(tmp_path, "filter"), []

    def apply(name, images):
        names.extend([name] * len(images))
        return images

    monkeypatch.setattr(twin_training, "apply_filter", apply)
    _, labels = trainer._poison(np.random.default_rng(0))
    chosen = [name for name, label in zip(names, labels, strict=True) if label == trainer.plan.trigger.target]
    others = [name for name, label in zip(names, labels, strict=True) if label == trainer.plan.trigger.victim]
    assert set(chosen) == {trainer.plan.trigger.filter} and len(chosen) + len(others) == len(labels) == len(names)
    assert len(others) == 12 and trainer.plan.trigger.filter not in others
    assert set(others) < set(FILTERS) and len(set(others)) > 2


@needs_trojai
def test_config_says_spectral_as_round_4_does(tmp_path):
    models = make_round(tmp_path / "round", MakeRoundSettings(**{**TINY, "train_images": 10}), progress=silent)
    (poisoned,) = (model for model in models if model.poisoned)
    config = json.loads((tmp_path / "round" / poisoned.model_id / "config.json").read_text())
    (trigger,) = config["triggers"]
    assert (trigger["condition_level"], trigger["condition"]) == (2, "spectral")
