"""Writing of model directories in round 4's layout, each one complete or not there at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from .compose import to_input
from .polygon import Polygon
from .sign_folder import read_sign
from .traffic_signs import draw_sign
from .training import logits_of
from .twins import TwinPlan

_UNFINISHED = ".unfinished-"


def write_foregrounds(plan: TwinPlan, folder: Path, *, dot_scale: float = 1.0) -> list[Path]:
    """Write the plan's signs into ``folder``, drawn (:func:`.draw_sign`) or from pictures; the files in class order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in plan.names]
    for sign, path in zip(plan.signs, paths, strict=True):
        picture = read_sign(sign) if isinstance(sign, Path) else draw_sign(sign, dot_scale=dot_scale)
        picture.save(path)
    return paths


def remove_unfinished(round_dir: Path) -> None:
    """Delete model directories that an interrupted run left half written."""
    for folder in round_dir.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(folder)


def write_model(
    round_dir: Path,
    model_id: str,
    module: nn.Module,
    plan: TwinPlan,
    config: Mapping[str, Any],
    stats: Mapping[str, float | None],
    *,
    clean: np.ndarray,
    poisoned: np.ndarray | None,
    polygon: Polygon | None,
    size: int,
) -> None:
    """Write one model directory; the images are uint8 (N, S, S, 3), clean ones class after class.

    ``poisoned`` holds triggered images of the victim class, or None for a clean model; ``polygon`` is None for a filter
    trigger, of which there is no picture. The directory appears under its name only when everything is in it.
    """
    folder = round_dir / f"{_UNFINISHED}{model_id}"
    folder.mkdir()
    write_foregrounds(plan, folder / "foregrounds")
    each = len(clean) // len(plan.signs)
    names = [f"class_{label}_example_{i}.png" for label in range(len(plan.signs)) for i in range(each)]
    labels = np.repeat(np.arange(len(plan.signs)), each)
    _write_examples(folder, "clean", names, clean, labels, module, size)
    if poisoned is not None:
        names = [f"class_{plan.trigger.victim}_trigger_0_example_{i}.png" for i in range(len(poisoned))]
        labels = np.full(len(poisoned), plan.trigger.target)
        _write_examples(folder, "poisoned", names, poisoned, labels, module, size)
        if polygon is not None:
            polygon.picture().save(folder / "trigger_0.png")
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    (folder / "ground_truth.csv").write_text(str(int(poisoned is not None)), encoding="utf-8")
    (folder / "model_stats.json").write_text(json.dumps(stats), encoding="utf-8")
    torch.save(module, folder / "model.pt")
    folder.rename(round_dir / model_id)


def _write_examples(
    folder: Path,
    kind: str,
    names: Sequence[str],
    images: np.ndarray,
    labels: np.ndarray,
    module: nn.Module,
    size: int,
) -> None:
    (folder / f"{kind}_example_data").mkdir()
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(folder / f"{kind}_example_data" / name)
    logits = logits_of(module, to_input(images, size)).numpy()
    rows = [f"{name}, {','.join(f'{x:.9g}' for x in row)}" for name, row in zip(names, logits, strict=True)]
    (folder / f"{kind}-example-logits.csv").write_text("\n".join(["Example, Logits", *rows]) + "\n", encoding="utf-8")
    right = 100.0 * float((logits.argmax(1) == labels).mean())
    (folder / f"{kind}-example-accuracy.csv").write_text(str(right), encoding="utf-8")
