import ast
import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_round import STORED, write_model
from PIL import Image
from toys import PlantedNet, make_subject, planted_images

import trojai_moth
from trojai_moth.core.errors import UnreadableModelError
from trojai_moth.core.images import ImagePool
from trojai_moth.rounds.open_folder import open_folder
from trojai_moth.rounds.poisoned_examples import PoisonedExamples, attack_success, read_poisoned
from trojai_moth.rounds.reading import read_case

ROOT = Path(trojai_moth.__file__).resolve().parents[1]
TRIGGERS = [
    {"trigger_number": 0, "source_class": 1, "target_class": 2},
    {"trigger_number": 1, "source_class": 0, "target_class": 1},
]
NAMES = ["class_1_trigger_0_example_0.png", "class_1_trigger_0_example_1.png", "class_0_trigger_1_example_0.png"]


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("poisoned") / "id-00000000", per_class=2)


@pytest.fixture
def poison(clean, tmp_path):
    """The clean folder's config and model with poisoned example images, by name; returns its case."""

    def poison(names=NAMES, triggers=TRIGGERS, stored=STORED):
        folder = tmp_path / clean.name
        images = folder / "poisoned_example_data"
        images.mkdir(parents=True)
        config = json.loads((clean / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "triggers": triggers}))
        (folder / "model.pt").hardlink_to(clean / "model.pt")
        for number, name in enumerate(names):
            Image.fromarray(np.full((stored, stored, 3), 10 * number, dtype=np.uint8)).save(images / name, "PNG")
        return read_case(folder)

    return poison


def test_victims_come_from_the_names_and_targets_from_the_config(poison):
    poisoned = read_poisoned(poison([*NAMES, "trigger_0.png", "class_0_example_0.png"]))
    assert poisoned.images.y.tolist() == [0, 1, 1] and poisoned.targets.tolist() == [1, 2, 2]
    assert poisoned.pairs == ((0, 1), (1, 2)) and len(poisoned) == 3
    assert poisoned.images.x.shape == (3, 3, 32, 32)
    assert poisoned.images.x[:, 0, 0, 0].mul(255).round().tolist() == [20, 0, 10]


def test_triggers_without_a_number_count_from_0(poison):
    triggers = [{"target_class": trigger["target_class"]} for trigger in TRIGGERS]
    assert read_poisoned(poison(triggers=triggers)).pairs == ((0, 1), (1, 2))


def test_without_triggers_in_the_config_the_published_logits_tell_the_target(poison):
    case = poison([f"class_1_trigger_0_example_{number}.png" for number in range(6)], triggers=None)
    given = [1, 1, 1, 2, 2, 0]  # most still go to their own class, which cannot be the target
    with case.poisoned_logits_file.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Example", "Logits"])
        for number, label in enumerate(given):
            writer.writerow([f"class_1_trigger_0_example_{number}.png", *np.eye(3)[label]])
    assert read_poisoned(case).pairs == ((1, 2),)


def test_a_clean_model_has_none(clean):
    assert read_poisoned(read_case(clean)) is None
    assert attack_success(open_folder(read_case(clean), torch.device("cpu")).subject, None) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"names": ["class_2_trigger_0_example_0.png"]}, "class 2 has target 2"),
        ({"names": ["class_7_trigger_0_example_0.png"]}, "class 7 has target 2"),
        ({"names": ["class_0_trigger_5_example_0.png"]}, "trigger 5 on class 0 has target None"),
        ({"triggers": [{"target_class": 99}]}, "class below 3 is needed"),
        ({"triggers": [{"target_class": True}]}, "class below 3 is needed"),
        ({"triggers": [{"target_class": "1"}]}, "class below 3 is needed"),
        ({"triggers": []}, "lists no triggers and there is no poisoned-example-logits.csv"),
        ({"stored": STORED + 1}, "37 x 37 pixels, but config.json says 36 x 36"),
    ],
)
def test_what_makes_no_sense_is_refused(poison, change, words):
    with pytest.raises(UnreadableModelError, match=words):
        read_poisoned(poison(**change))


def test_success_is_the_share_that_goes_to_the_target():
    """The planted network turns class 0 into 2 by two pixels of its last row; one image of the two has them."""
    images = planted_images(per_class=2)
    x = images.x[images.y == 0].clone()
    x[0, :, 15, :2] = 1.0
    poisoned = _examples(x, victim=0, target=2)
    assert attack_success(make_subject(PlantedNet(backdoor=(0, 2, 3.0))), poisoned) == 0.5
    assert attack_success(make_subject(PlantedNet()), poisoned) == 0.0


def _examples(x, victim, target):
    return PoisonedExamples(ImagePool(x, torch.full((len(x),), victim)), torch.full((len(x),), target))


def test_the_pilot_rounds_published_success_is_reproduced(extra_data):
    folder = extra_data / "pilot-round" / "id-00000001"
    case = read_case(folder)
    poisoned = read_poisoned(case)
    assert poisoned.pairs == ((7, 4),) and len(poisoned) == 10
    published = float((folder / "poisoned-example-accuracy.csv").read_text()) / 100
    assert attack_success(open_folder(case, torch.device("cpu")).subject, poisoned) == pytest.approx(published)


def imports_poisoned(text):
    found = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom | ast.Import)]
    names = [f"{getattr(node, 'module', None) or ''}.{alias.name}" for node in found for alias in node.names]
    return any("poisoned_examples" in name.split(".") for name in names)


def test_no_scanner_or_hardener_can_see_it():
    assert imports_poisoned("from .poisoned_examples import x") and imports_poisoned("from . import poisoned_examples")
    assert imports_poisoned("import trojai_moth.rounds.poisoned_examples")
    assert not imports_poisoned("from .rounds import ModelFolder")
    files = [path for folder in ("trojai_moth", "scanners", "eval") for path in (ROOT / folder).rglob("*.py")]
    users = {path.relative_to(ROOT).parts for path in files if imports_poisoned(path.read_text())}
    assert users and all("eval" in parts[:1] or "cli" in parts[1:2] for parts in users), users
