"""Which images rescan takes where it is not told."""

import shutil
from types import SimpleNamespace

import pytest
from fake_round import write_round

from trojai_moth.core.errors import MissingDependencyError
from trojai_moth.rounds import image_choice as chosen
from trojai_moth.rounds.data_settings import DataSettings
from trojai_moth.rounds.reading import read_round
from trojai_moth.runs.journal import Journal
from trojai_moth.runs.rescan import learned_with
from trojai_moth.synthesis import datagen
from trojai_moth.verdict.judge import SHIPPED
from trojai_moth.verdict.learned_rule import read_rule

from ..cli.test_cli import NEVER, call, sets  # noqa: F401

FEW = ["data.train_per_class=3", "data.held_per_class=2", "scanner.steps=2", "scanner.screen_steps=2"]


@pytest.fixture(scope="module")
def signed(tmp_path_factory):
    return write_round(tmp_path_factory.mktemp("signed") / "round", models=3, per_class=2)


@pytest.fixture
def unsigned(signed, tmp_path):
    folder = shutil.copytree(signed, tmp_path / "round")
    for model in ("id-00000000", "id-00000001"):
        shutil.rmtree(folder / model / "foregrounds")
    return folder


@pytest.fixture
def trojai(monkeypatch):
    """Whether the optional package is there."""

    def there(found):
        def imported():
            if not found:
                raise MissingDependencyError("trojai is needed to compose images")

        monkeypatch.setattr(chosen, "datagen", imported)

    return there


def test_composed_where_most_models_have_signs(signed, trojai):
    trojai(True)
    source, line = chosen.images_for(read_round(signed))
    assert source == "composed" and "--data examples takes those that come with the models" in line


def test_examples_where_most_have_none(unsigned, trojai):
    trojai(True)
    assert chosen.images_for(read_round(unsigned)) == ("examples", chosen._NO_SIGNS)


def test_examples_without_trojai_and_the_line_says_how_to_mend_it(signed, trojai):
    trojai(False)
    source, line = chosen.images_for(read_round(signed))
    assert source == "examples" and "pip install 'trojai-moth[datagen]'" in line


def test_nothing_to_go_by_is_examples(trojai):
    trojai(True)
    assert chosen.images_for([])[0] == "examples"


@pytest.mark.parametrize(
    ("options", "source", "said"),
    [([], "examples", True), (["--data", "examples"], "examples", False), (["--data", "composed"], "composed", False)],
)
def test_rescan_says_what_it_chose_and_keeps_to_what_it_is_told(call, unsigned, tmp_path, options, source, said):  # noqa: F811
    result = call("rescan", unsigned, "--out", "run", "--verdict", "naive", *options, *sets(*FEW, NEVER))
    assert Journal(tmp_path / "run").identity().settings["data"]["source"] == source
    assert ("Images: " in result.output) is said


def test_a_setting_says_it_too(call, signed, tmp_path):  # noqa: F811
    result = call("rescan", signed, "--out", "run", *sets("data.source=examples", *FEW, NEVER), "--verdict", "naive")
    assert result.exit_code == 0 and "Images: " not in result.output
    assert Journal(tmp_path / "run").identity().settings["data"]["source"] == "examples"


@pytest.mark.parametrize(
    ("learned", "rule", "source"),
    [("examples", None, "examples"), ("examples+composed", None, "examples+composed"), ("folder", None, None),
     (None, True, "composed"), (None, None, None)],
)  # fmt: skip
def test_what_was_learned_with_some_images_is_used_with_those(learned, rule, source):
    calibration = learned and SimpleNamespace(data=DataSettings(source=learned))
    assert learned_with(calibration, read_rule(SHIPPED) if rule else None) == source


def test_the_package_is_looked_for_where_images_are_composed():
    assert chosen.datagen is datagen.datagen
