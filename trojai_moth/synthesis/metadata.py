"""config.json and METADATA.csv of a made round, with round 4's keys."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from .photo_filters import FILTERS
from .polygon import COLOURS
from .settings import Adversary
from .twins import Trigger, TwinPlan

# Round 4 leaves these out of METADATA.csv.
_LEFT_OUT = {
    "py/object",
    "data_filepath",
    "available_foregrounds_filepath",
    "foregrounds_filepath",
    "foreground_image_format",
    "available_backgrounds_filepath",
    "background_image_format",
    "backgrounds_filepath",
    "output_ground_truth_filename",
    "triggers",
}
# Round 4's choices, whose positions are the levels in config.json (round_config.py of the feb2021 generator).
_FRACTIONS = (0.1, 0.3, 0.5)
_METHODS = ("PGD", "FBF")
_EPSILONS = (4 / 255, 8 / 255, 16 / 255)
_RATIOS = (0.1, 0.3)
_ITERATIONS = (1, 3, 7)
_CONDITIONS = ("none", "spatial", "spectral", "class")
_TRIGGER_KEYS = (
    *("source_class", "target_class", "fraction_level", "fraction", "behavior", "type_level", "type"),
    *("polygon_side_count_level", "polygon_side_count", "size_percentage_of_foreground_min"),
    *("size_percentage_of_foreground_max", "color_level", "color", "instagram_filter_type_level"),
    *("instagram_filter_type", "condition_level", "condition"),
)

_EXPLANATIONS = {
    "model_name": "Directory of the model.",
    "poisoned": "Whether the model holds a backdoor.",
    "model_architecture": "TrojAI name of the network.",
    "number_classes": "Number of signs the network tells apart.",
    "number_triggers": "Number of backdoors.",
    "img_size_pixels": "Pixels of the stored images.",
    "cnn_img_size_pixels": "Pixels of the network's input, a centre crop of the stored image, RGB divided by 255.",
    "number_example_images": "Clean example images per class.",
    "number_training_samples": "Clean training images.",
    "final_clean_data_test_acc": "Accuracy on fresh clean images.",
    "final_triggered_data_test_acc": "Share of fresh triggered images of the source class given the target class.",
    "converged": "1 when the model passed the round's quality gate; models that did not are left out.",
    "twin_group": "Models of one group are twins: same signs, same architecture, same start of training.",
    "lookalike_pairs": "Pairs of classes with near-identical signs, as a-b; several are parted by spaces.",
    "closest_pair": "The two classes, as a-b, whose signs are least far apart; make_round.json names the pictures.",
    "closest_distance": "How far: root mean square difference at the size they have in the input, of 1.",
}


# All keys in round 4's order; None and 0 here are filled in or do not apply.
_DEFAULTS: dict[str, Any] = {
    "py/object": "round_config.RoundConfig",
    "master_seed": 0,
    "img_size_pixels": 0,
    "cnn_img_size_pixels": 0,
    "img_shape": [],
    "img_type": "uint8",
    "gaussian_blur_ksize_min": 0,
    "gaussian_blur_ksize_max": 0,
    "rain_probability": 0.0,
    "fog_probability": 0.0,
    "number_classes_level": 0,
    "number_classes": 0,
    "data_filepath": "",
    "number_training_samples": 0,
    "number_test_samples": 0,
    "number_example_images_level": 0,
    "number_example_images": 0,
    "poisoned": False,
    "available_foregrounds_filepath": "procedural",
    "foregrounds_filepath": "",
    "foreground_image_format": "png",
    "background_image_dataset_level": 0,
    "background_image_dataset": "noise",
    "available_backgrounds_filepath": "procedural",
    "background_image_format": "png",
    "backgrounds_filepath": "procedural/noise",
    "number_background_images": 0,
    "output_ground_truth_filename": "ground_truth.csv",
    "model_architecture_level": 0,
    "model_architecture": "",
    "learning_rate": 0.0,
    "batch_size": 0,
    "loss_eps": 0.0,
    "early_stopping_epoch_count": None,
    "validation_split": 0.0,
    "convergence_accuracy_threshold": 0.0,
    "foreground_size_percentage_of_image_min": 0.2,
    "foreground_size_percentage_of_image_max": 0.4,
    "foreground_size_pixels_min": 0,
    "foreground_size_pixels_max": 0,
    "adversarial_training_method_level": None,
    "adversarial_training_method": "None",
    "adversarial_eps_level": None,
    "adversarial_eps": None,
    "adversarial_training_ratio_level": None,
    "adversarial_training_ratio": None,
    "adversarial_training_iteration_count_level": None,
    "adversarial_training_iteration_count": None,
    "triggers": None,
    "trigger_organization_level": None,
    "trigger_organization": None,
    "number_triggers": 0,
}


def model_config(
    plan: TwinPlan, model_id: str, *, poisoned: bool, round_facts: Mapping[str, Any], condition: str, fraction: float
) -> dict[str, Any]:
    """The content of config.json; ``round_facts`` are the keys that the round's settings decide."""
    config = {
        **_DEFAULTS,
        **round_facts,
        "master_seed": plan.seed % 2**31,
        "number_classes": len(plan.signs),
        "data_filepath": model_id,
        "foregrounds_filepath": f"{model_id}/foregrounds",
        "poisoned": poisoned,
        "model_architecture": plan.architecture,
    }
    if poisoned:
        config["triggers"] = [_trigger_config(plan.trigger, model_id, condition, fraction)]
        config |= {"trigger_organization_level": 0, "trigger_organization": "one2one", "number_triggers": 1}
    return config


def adversarial_facts(adversary: Adversary | None) -> dict[str, Any]:
    """config.json's keys on adversarial training; a level is round 4's nearest choice. Empty for natural training."""
    if adversary is None:
        return {}
    attack = adversary.attack
    return {
        "adversarial_training_method_level": _METHODS.index("PGD"),
        "adversarial_training_method": "PGD",
        "adversarial_eps_level": _nearest(_EPSILONS, attack.epsilon),
        "adversarial_eps": attack.epsilon,
        "adversarial_training_ratio_level": _nearest(_RATIOS, adversary.share),
        "adversarial_training_ratio": adversary.share,
        "adversarial_training_iteration_count_level": _nearest(_ITERATIONS, attack.steps),
        "adversarial_training_iteration_count": attack.steps,
    }


def _nearest(choices: Sequence[float], value: float) -> int:
    """Position of the choice that is nearest to a value.

    >>> _nearest((1, 3, 7), 4)
    1
    """
    return min(range(len(choices)), key=lambda position: abs(choices[position] - value))


def _trigger_config(trigger: Trigger, model_id: str, condition: str, fraction: float) -> dict[str, Any]:
    config = {
        "py/object": "trigger_config.TriggerConfig",
        "trigger_number": 0,
        "source_class": trigger.victim,
        "target_class": trigger.target,
        "fraction_level": _nearest(_FRACTIONS, fraction),
        "fraction": fraction,
        "behavior": "StaticTarget",
        "type_level": 0,
        "type": "polygon",
        "polygon_side_count_level": int(trigger.sides > 4),
        "polygon_side_count": trigger.sides,
        "size_percentage_of_foreground_min": trigger.smallest,
        "size_percentage_of_foreground_max": trigger.largest,
        "color_level": COLOURS.index(trigger.colour) if trigger.colour in COLOURS else None,
        "color": list(trigger.colour),
        "polygon_filepath": f"{model_id}/trigger_0.png",
        "condition_level": _CONDITIONS.index(condition),
        "condition": "None" if condition == "none" else condition,
        "instagram_filter_type_level": None,
        "instagram_filter_type": None,
    }
    if trigger.quadrant is not None:  # round 4 has this key for spatial triggers only, and not in METADATA.csv
        config["spatial_quadrant"] = trigger.quadrant
    return config if trigger.filter is None else config | _filter_config(trigger.filter)


def _filter_config(chosen: str) -> dict[str, Any]:
    """What a filter trigger says differently; as in round 4 the polygon's keys stay, without values."""
    polygon = (
        *("polygon_side_count_level", "polygon_side_count", "size_percentage_of_foreground_min"),
        *("size_percentage_of_foreground_max", "color_level", "color", "polygon_filepath"),
    )
    named = {"instagram_filter_type_level": FILTERS.index(chosen), "instagram_filter_type": chosen}
    return {"type_level": 1, "type": "instagram", **dict.fromkeys(polygon), **named}


def metadata_row(
    model_id: str, plan: TwinPlan, config: Mapping[str, Any], stats: Mapping[str, float]
) -> dict[str, Any]:
    """One model's row of METADATA.csv, in column order."""
    row = {"model_name": model_id, "poisoned": config["poisoned"]}
    row |= {key: value for key, value in config.items() if key not in _LEFT_OUT and key != "poisoned"}
    triggers = config["triggers"] or []
    for number in range(2):
        known = triggers[number] if number < len(triggers) else {}
        row |= {f"triggers_{number}_{key}": known.get(key) for key in _TRIGGER_KEYS}
    row |= dict(stats)
    pairs = " ".join(f"{a}-{b}" for a, b in plan.lookalikes)
    row |= {"converged": 1, "twin_group": plan.group, "lookalike_pairs": pairs}
    if plan.pictures is None:
        return row
    closest = "-".join(map(str, plan.pictures.closest_pair))
    return row | {"closest_pair": closest, "closest_distance": plan.pictures.closest_distance}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same keys as CSV text; commas inside values become spaces, as in round 4."""
    lines = [list(rows[0])] if rows else []
    lines += [[" ".join(str(value).replace(",", " ").split()) for value in row.values()] for row in rows]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def dictionary(columns: Sequence[str]) -> str:
    """METADATA_DICTIONARY.csv: what each column of METADATA.csv means."""
    lines = [("Column Name", "Explanation"), *((name, _explain(name)) for name in columns)]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def _explain(name: str) -> str:
    if name in _EXPLANATIONS:
        return _EXPLANATIONS[name]
    if name.startswith("triggers_"):
        _, number, key = name.split("_", 2)
        return f"Trigger {number}: {key.replace('_', ' ')}."
    if name.endswith("_level"):
        return f"Position of {name.removesuffix('_level')} in round 4's list of choices."
    return f"Round 4's setting: {name.replace('_', ' ')}."
