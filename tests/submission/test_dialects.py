"""Every command line that TrojAI's templates and its harness have used."""

from pathlib import Path

import pytest

from trojai_moth.submission.dialects import UsageError, parse

FOUR = [
    "--model_filepath", "m.pt", "--result_filepath", "r.txt", "--scratch_dirpath", "s", "--examples_dirpath", "e",
]  # fmt: skip
# What the harness runs today: EvaluateImageTask's options, without any word before them.
HARNESS = [
    *FOUR, "--metaparameters_filepath", "/metaparameters.json", "--schema_filepath", "/metaparameters_schema.json",
    "--learned_parameters_dirpath", "/learned_parameters", "--round_training_dataset_dirpath", "train",
    "--source_dataset_dirpath", "source",
]  # fmt: skip
MITIGATE = [
    "mitigate", "--model_filepath", "m.pt", "--metaparameters_filepath", "/metaparameters.json", "--schema_filepath",
    "/metaparameters_schema.json", "--dataset", "d", "--scratch_dirpath", "s", "--output_dirpath", "o",
    "--model_output_name", "mitigated.pt", "--round_training_dataset_dirpath", "train",
]  # fmt: skip


def test_round_4_four_options_and_no_word():
    request = parse(FOUR)
    assert request.action == "infer" and request.model == Path("m.pt") and request.result == Path("r.txt")
    assert request.scratch == Path("s") and request.examples == Path("e") and request.training is None


def test_what_the_harness_really_runs_is_infer_without_the_word():
    request = parse(HARNESS)
    assert request.action == "infer" and request.training == Path("train")
    assert request.metaparameters == Path("/metaparameters.json") and request.learned == Path("/learned_parameters")


def test_source_data_set_that_some_leaderboards_add_is_tolerated():
    assert parse(HARNESS).assigned == {"source_dataset_dirpath": "source"}


def test_training_data_set_that_the_harness_may_leave_out_is_optional():
    request = parse(["infer", *HARNESS[: HARNESS.index("--round_training_dataset_dirpath")]])
    assert request.action == "infer" and request.training is None


def test_2022_one_option_per_metaparameter():
    request = parse([*FOUR, "--scanner_steps", "50", "--hardener-rounds=4", "--data_source", "examples", "--flag"])
    assert request.assigned == {"scanner_steps": 50, "hardener_rounds": 4, "data_source": "examples", "flag": True}


def test_2022_configure_mode():
    request = parse(["--configure_mode", "--configure_models_dirpath", "models", "--learned_parameters_dirpath", "l"])
    assert request.action == "configure" and request.configure_models == Path("models") and not request.automatic


def test_baseline_infer_and_configure():
    assert parse(["infer", *HARNESS]).action == "infer"
    words = ["configure", "--scratch_dirpath", "s", "--configure_models_dirpath", "c", "--automatic_configuration"]
    request = parse(words)
    assert request.action == "configure" and request.automatic


def test_mitigation_as_the_harness_says_it_and_as_the_template_declares_it():
    request = parse(MITIGATE)
    assert request.action == "mitigate" and request.dataset == Path("d") and request.output_name == "mitigated.pt"
    template = ["--dataset_dirpath" if word == "--dataset" else word for word in MITIGATE]
    assert parse(template).dataset == Path("d")
    tested = parse(["test", *[word for word in MITIGATE[1:] if word not in ("--model_output_name", "mitigated.pt")]])
    assert tested.action == "test" and tested.output == Path("o")


def test_template_extras_of_mitigation():
    request = parse([*MITIGATE, "--batch_size", "32", "--device", "cpu", "--num_workers", "2"])
    assert request.device == "cpu" and request.assigned == {"batch_size": 32, "num_workers": 2}


def test_unknown_options_and_stray_words_are_kept_for_the_log():
    request = parse(["stray", *FOUR, "--features_filepath", "f.csv", "more"])
    assert request.assigned == {"features_filepath": "f.csv"} and set(request.odd) == {"stray", "more"}


def test_time_budget_under_both_spellings_and_the_last_one_wins():
    assert parse([*FOUR, "--time-budget", "5"]).time_budget == "5"
    assert parse([*FOUR, "--time-budget", "5", "--time_budget", "7"]).time_budget == "7"


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        ([], "infer: give --model_filepath and --result_filepath"),
        (["--model_filepath", "m"], "give --result_filepath"),
        (["configure"], "give --configure_models_dirpath"),
        (["mitigate", "--model_filepath", "m"], "give --output_dirpath"),
        (["test", "--model_filepath", "m", "--output_dirpath", "o"], "give --dataset"),
        (["--model_filepath"], "requires an argument"),
    ],
)
def test_only_what_can_not_be_done_without_is_asked_for(words, missing):
    with pytest.raises(UsageError, match=missing):
        parse(words)


def test_only_model_and_result_are_needed():
    request = parse(["--model_filepath", "m", "--result_filepath", "r"])
    assert request.scratch is request.examples is request.metaparameters is request.learned is None
