import json

import numpy as np
import pytest
import torch
from torch import nn
from toys import make_subject

from trojai_moth.core.images import ImagePool
from trojai_moth.core.records import from_dict, to_dict
from trojai_moth.rounds.open_folder import open_folder
from trojai_moth.rounds.poisoned_examples import read_poisoned
from trojai_moth.rounds.reading import read_case
from trojai_moth.synthesis import twin_training
from trojai_moth.synthesis.compose import to_input
from trojai_moth.synthesis.make_round import make_round
from trojai_moth.synthesis.metadata import adversarial_facts
from trojai_moth.synthesis.pgd import pgd_accuracy
from trojai_moth.synthesis.settings import Adversary, MakeRoundSettings, PgdSettings, Recipe
from trojai_moth.synthesis.training import fit

from .test_make_round import TINY, needs_trojai

SIZE = 24
ATTACK = PgdSettings(epsilon=0.1, steps=3, step=0.06)


def faint_images(count, seed):
    """Two classes told apart by a faint edge of 0.1, and by a bright square of 0.5 with 1 in 8 wrong."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    images = rng.uniform(80, 100, (count, 27, 27, 3))
    images[labels == 1, :, :14] += 25
    square = np.where(np.arange(count) % 16 < 2, 1 - labels, labels)
    images[square == 1, 8:19, 8:19] += 120
    return images.clip(0, 255).astype(np.uint8), labels


def trained(adversary, state=0):
    torch.manual_seed(state)
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 2))
    nn.init.zeros_(module[1].weight)
    nn.init.zeros_(module[1].bias)
    images, labels = faint_images(256, seed=0)
    stream = torch.Generator().manual_seed(0)
    recipe = Recipe(batch=32, rate=1e-2)
    fit(module, images, labels, (SIZE, SIZE), epochs=15, recipe=recipe, generator=stream, adversary=adversary)
    return module


def robustness(module):
    images, labels = faint_images(64, seed=1)
    pool = ImagePool(to_input(images, SIZE), torch.from_numpy(labels))
    return pgd_accuracy(make_subject(module, classes=2, size=SIZE), pool, ATTACK, seed=0)


def test_adversarial_training_makes_robust_what_natural_training_does_not():
    natural, adversarial = trained(None), trained(Adversary(attack=ATTACK))
    assert robustness(adversarial) > robustness(natural) + 0.25
    assert not adversarial.training
    assert all(p.grad is None and p.requires_grad and p.is_contiguous() for p in adversarial.parameters())
    again = trained(Adversary(attack=ATTACK), state=5).state_dict()
    assert all(torch.equal(again[name], value) for name, value in adversarial.state_dict().items())


def test_the_asked_share_of_each_batch_is_moved_within_its_box(monkeypatch):
    seen = []

    def spy(subject, pool, settings, stream):
        assert settings is ATTACK
        seen.append(len(pool))
        return pool.x

    monkeypatch.setattr("trojai_moth.synthesis.training.pgd", spy)
    trained(Adversary(share=0.25, attack=ATTACK))
    assert set(seen) == {8} and len(seen) == 15 * 256 // 32


def test_the_way_of_all_steps_is_the_papers_whatever_their_number():
    for steps in (1, 2, 7):
        attack = MakeRoundSettings(training="adversarial", adversarial_steps=steps).adversary.attack
        assert attack.steps == steps and attack.steps * attack.step == pytest.approx(7 * 2 / 255)
        assert attack.epsilon == 8 / 255
    assert MakeRoundSettings().adversary is None


def test_the_floor_of_accuracy_is_that_of_the_training():
    chosen = {"accuracy_floor": 0.9, "adversarial_accuracy_floor": 0.6}
    assert MakeRoundSettings(**chosen).clean_floor == 0.9
    settings = MakeRoundSettings(training="adversarial", **chosen)
    assert settings.clean_floor == 0.6
    assert from_dict(MakeRoundSettings, json.loads(json.dumps(to_dict(settings)))) == settings


def test_config_says_it_as_round_4_does():
    assert adversarial_facts(None) == {}
    facts = adversarial_facts(Adversary(share=0.3, attack=PgdSettings(epsilon=16 / 255, steps=3, step=0.1)))
    assert facts == {
        "adversarial_training_method_level": 0, "adversarial_training_method": "PGD",
        "adversarial_eps_level": 2, "adversarial_eps": 16 / 255,
        "adversarial_training_ratio_level": 1, "adversarial_training_ratio": 0.3,
        "adversarial_training_iteration_count_level": 1, "adversarial_training_iteration_count": 3,
    }  # fmt: skip


@needs_trojai
def test_each_twin_is_trained_adversarially_after_their_shared_start(tmp_path, monkeypatch):
    stages, gates = [], []

    def spy(module, images, labels, size, *, adversary, **rest):
        stages.append(adversary)
        fit(module, images, labels, size, adversary=adversary, **rest)

    monkeypatch.setattr(twin_training, "fit", spy)
    chosen = {
        **TINY,
        "training": "adversarial",
        "adversarial_steps": 1,
        "adversarial_accuracy_floor": 0,
        "accuracy_floor": 1,
    }
    settings = MakeRoundSettings(**chosen)
    models = make_round(tmp_path / "round", settings, progress=gates.append)
    assert len(models) == 2  # by the floor of adversarial training; the other one cannot be met
    assert stages == [None, None, settings.adversary, settings.adversary]
    for model in models:
        folder = tmp_path / "round" / model.model_id
        config = json.loads((folder / "config.json").read_text())
        assert config["adversarial_training_method"] == "PGD" and config["adversarial_training_iteration_count"] == 1
        case = read_case(folder)
        poisoned = read_poisoned(case)
        assert (poisoned is not None) == model.poisoned
        if poisoned:  # what is written is what is read
            trigger = config["triggers"][0]
            assert poisoned.pairs == ((trigger["source_class"], trigger["target_class"]),)
        open_folder(case, torch.device("cpu"))
    assert "PGD" in (tmp_path / "round" / "METADATA.csv").read_text()
