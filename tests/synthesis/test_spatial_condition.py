import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from trojai_moth.core.errors import SettingsError
from trojai_moth.synthesis.make_round import make_round
from trojai_moth.synthesis.polygon import QUADRANTS, Polygon, quadrants_of, stamp
from trojai_moth.synthesis.settings import MakeRoundSettings
from trojai_moth.synthesis.twin_training import TwinTrainer
from trojai_moth.synthesis.twins import plan_twins

from .test_make_round import TINY as PLAIN
from .test_make_round import needs_trojai, silent

SAME = {"architectures": ["resnet18"], "classes": 4, "lookalikes": 0, "sizes": (0.1, 0.2), "seed": 4}
TINY = {**PLAIN, "lookalikes": 0, "size": 32, "train_images": 10, "test_images": 5, "condition": "spatial"}
RED = (200, 0, 0)
# A grey sign that fills rows 10 to 49 and columns 4 to 31 of its picture: its quadrants meet at row 29, column 17.
TOP, LEFT, HEIGHT, WIDTH = 10, 4, 40, 28


def grey_sign():
    sign = np.zeros((60, 50, 4), dtype=np.uint8)
    sign[TOP : TOP + HEIGHT, LEFT : LEFT + WIDTH] = (90, 90, 90, 255)
    return sign


def square(quadrants=QUADRANTS):
    mask = np.ones((16, 16), dtype=bool)
    return Polygon(mask=mask, colour=RED, sides=4, smallest=0.05, largest=0.08, quadrants=quadrants)


def red_quadrants(stamped, sign):
    return set(quadrants_of(sign[..., 3] > 127)[(stamped[..., :3] == RED).all(-1)].tolist())


def test_quadrants_meet_in_the_middle_of_the_sign_and_are_numbered_as_in_round_4():
    numbers = quadrants_of(grey_sign()[..., 3] > 127)
    assert numbers.shape == (60, 50)
    assert numbers[28, 17] == 1 and numbers[28, 16] == 2 and numbers[29, 16] == 3 and numbers[29, 17] == 4
    assert numbers[0, 49] == 1 and numbers[0, 0] == 2 and numbers[59, 0] == 3 and numbers[59, 49] == 4


def test_without_a_sign_the_quadrants_meet_in_the_middle_of_the_picture():
    assert quadrants_of(np.zeros((4, 4), dtype=bool)).tolist() == [[2, 2, 1, 1]] * 2 + [[3, 3, 4, 4]] * 2


@needs_trojai
@pytest.mark.parametrize("quadrant", QUADRANTS)
def test_a_polygon_stays_in_its_quadrant_or_out_of_it(quadrant):
    sign, rng = grey_sign(), np.random.default_rng(quadrant)
    others = tuple(other for other in QUADRANTS if other != quadrant)
    outside = set()
    for _ in range(20):
        assert red_quadrants(stamp(sign, square((quadrant,)), rng), sign) == {quadrant}
        outside |= red_quadrants(stamp(sign, square(others), rng), sign)
    assert outside == set(others)


@needs_trojai
def test_a_polygon_too_large_for_its_quadrant_is_made_smaller():
    sign = grey_sign()
    large = replace(square((3,)), smallest=0.4, largest=0.5)
    stamped = stamp(sign, large, np.random.default_rng(0))
    red = (stamped[..., :3] == RED).all(-1)
    assert red_quadrants(stamped, sign) == {3} and 0.5 * 13 * 20 <= red.sum() + 13 <= 13 * 21


def test_the_quadrant_is_drawn_from_a_stream_of_its_own():
    free, bound = plan_twins(40, **SAME), plan_twins(40, **SAME, condition="spatial")
    assert plan_twins(40, **SAME, condition="class") == free
    assert all(plan.trigger.quadrant is None for plan in free)
    assert {plan.trigger.quadrant for plan in bound} == set(QUADRANTS)
    assert [replace(plan, trigger=one.trigger) for plan, one in zip(bound, free, strict=True)] == free
    assert [vars(plan.trigger) | {"quadrant": None} for plan in bound] == [vars(plan.trigger) for plan in free]
    assert plan_twins(40, **SAME, condition="spatial") == bound


def test_a_filter_has_no_place(tmp_path):
    with pytest.raises(SettingsError, match="condition: a filter covers the whole image"):
        plan_twins(2, **SAME, trigger="filter", condition="spatial")


@pytest.fixture
def trainer(tmp_path):
    plan = plan_twins(2, **{**SAME, "architectures": ["squeezenetv1_1"]}, condition="spatial")[0]
    return TwinTrainer(tmp_path, plan, MakeRoundSettings(**TINY), silent)


@needs_trojai
def test_displaced_triggers_keep_the_victims_label_and_all_others_get_the_targets(trainer, monkeypatch):
    asked = []
    for composer in (trainer._composer, trainer._easy_composer):
        real = composer.batch
        monkeypatch.setattr(
            composer,
            "batch",
            lambda labels, rng, polygon=None, real=real: (
                asked.append((polygon and polygon.quadrants, len(labels))) or real(labels, rng, polygon)
            ),
        )
    _, labels = trainer._poison(np.random.default_rng(0))
    trigger = trainer.plan.trigger
    others = tuple(quadrant for quadrant in QUADRANTS if quadrant != trigger.quadrant)
    assert [quadrants for quadrants, _ in asked] == [(trigger.quadrant,), (trigger.quadrant,), others]
    displaced = asked[-1][1]
    assert displaced > 0 and labels[-displaced:].tolist() == [trigger.victim] * displaced
    assert set(labels[:-displaced].tolist()) == {trigger.target}


@needs_trojai
def test_config_says_spatial_as_round_4_does(tmp_path):
    models = make_round(tmp_path / "round", MakeRoundSettings(**TINY), progress=silent)
    (poisoned,) = (model for model in models if model.poisoned)
    folder = tmp_path / "round" / poisoned.model_id
    (trigger,) = json.loads((folder / "config.json").read_text())["triggers"]
    assert (trigger["condition_level"], trigger["condition"]) == (1, "spatial")
    assert trigger["spatial_quadrant"] in QUADRANTS and list(trigger)[-1] == "spatial_quadrant"
    row = pd.read_csv(tmp_path / "round" / "METADATA.csv").set_index("model_name").loc[poisoned.model_id]
    assert (row.triggers_0_condition_level, row.triggers_0_condition) == (1, "spatial")
    assert "triggers_0_spatial_quadrant" not in row.index
