"""Mitigation: harden the model with the images at hand, and give a model's logits for a folder of images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from ..core.errors import UnreadableModelError
from ..core.files import write_text
from ..core.seeding import derive_seed
from ..hardeners.registry import make_hardener
from ..hardeners.weights import save_trojai_model
from ..rounds.open_folder import open_folder
from ..rounds.samples import collect_samples, with_unseen
from .job import Say, device_of, open_staged, own_settings, with_usable_data
from .staging import open_subject
from .stand_ins import read_pictures

RESULTS_FILE: Final = "results.json"
# Seconds kept for writing the model after hardening is given up or done.
_WRITING_S: Final = 20.0


def mitigate(order: Mapping[str, Any], folder: Path, say: Say) -> None:
    """Harden the request's model and write the whole module where the harness looks for it.

    One clean image, many or none: what is missing is stood in for. If nothing can be written, the harness tests the
    original model.
    """
    settings, run = own_settings("mitigate", order, say)
    device = device_of(order, say)
    case = open_staged(order, folder, settings.stand_ins_per_class, settings.seed, "dataset", say)
    run = with_usable_data(case, run, say)
    opened = open_folder(case, device, run.data)
    seed = derive_seed(settings.seed, case.model_id)
    images = derive_seed(seed, "images")
    samples = collect_samples(case, opened, run.data, images)
    samples = with_unseen(samples, case, opened, run.data, images)
    hardener = make_hardener(run.hardener, run.hardener_options)
    left = None if order["seconds"] is None else max(order["seconds"] - _WRITING_S, order["seconds"] / 2)
    hardened = hardener(opened.subject, samples, seed=derive_seed(seed, "harden"), time_budget=left)
    target = Path(order["output"]) / order["output_name"]
    save_trojai_model(hardened.subject, target)
    before, after, count = hardened.trace.cost
    say(note=f"{target.name}: accuracy {before:.3f} -> {after:.3f} on {count} held-back images")


def test(order: Mapping[str, Any], folder: Path, say: Say) -> None:
    """Write results.json: the logits, one per class, of every image of the folder by its file name."""
    device = device_of(order, say)
    pictures = read_pictures(Path(order["dataset"]), lambda text: say(note=text))
    training = Path(order["training"]) if order["training"] else None
    subject = open_subject(Path(order["model"]), pictures, training, device, lambda text: say(note=text))
    found: dict[str, list[float]] = {}
    for name, image in zip(pictures.names, pictures.raw, strict=True):
        if min(image.shape[:2]) < subject.size:
            say(note=f"{name}: smaller than the model's input of {subject.size} pixels; left out")
            continue
        raw = torch.from_numpy(image).permute(2, 0, 1)[None]
        row = subject.logits(subject.preprocessing(raw))[0].tolist()
        if len(row) != subject.classes:
            raise UnreadableModelError(f"{order['model']}: gives {len(row)} logits for {subject.classes} classes")
        found[name] = row
    write_text(Path(order["output"]) / RESULTS_FILE, json.dumps(found))
    say(note=f"{RESULTS_FILE}: logits of {len(found)} images, {subject.classes} classes")
