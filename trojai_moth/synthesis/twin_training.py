"""Two twins from one plan: compose their images, train them, pass them through the quality gate, write them."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from ..core.files import read_text
from ..core.messages import Progress
from ..core.seeding import derive_seed, generator
from ..loading import build_architecture
from .compose import EASY_SIGNS, Composer, to_input
from .metadata import adversarial_facts, model_config
from .photo_filters import FILTERS, apply_filter
from .polygon import COLOURS, QUADRANTS, VISIBLE, Polygon, draw_polygon
from .settings import Adversary, DroppedModel, MadeModel, MakeRoundSettings, Recipe
from .training import fit, recipe_for, share_of
from .twins import TwinPlan
from .writer import write_foregrounds, write_model

T = TypeVar("T")


# Large, straight signs with large dots on look-alikes: without this start small networks never see what differs.
_EASY_DOTS = 2.0


# Triggered images beside the victim's clean ones, as a share of these; harmless ones of each other class under the
# class condition, and of the victim with the trigger in the wrong place or colour under the spatial or spectral one.
_POISON_SHARE, _EASY_POISON_SHARE, _HARMLESS_SHARE = 1.0, 0.5, 0.2


Images = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class _Pictures:
    """Training images uint8 (N, S, S, 3) with labels (N,), drawn once for both twins; the gate's are network inputs."""

    easy: Images
    clean: Images
    poison: Images
    test: tuple[torch.Tensor, torch.Tensor]
    triggered: torch.Tensor


class TwinTrainer:
    """Makes the models of one plan that are missing from a round."""

    def __init__(self, out: Path, plan: TwinPlan, settings: MakeRoundSettings, progress: Progress) -> None:
        self.out, self.plan, self.settings, self.progress = out, plan, settings, progress
        self.recipe: Recipe = recipe_for(plan.architecture, settings.epochs)
        self._signs = out / f".unfinished-signs-{plan.group}"
        foregrounds = write_foregrounds(plan, self._signs / "true")
        exaggerated = write_foregrounds(plan, self._signs / "easy", dot_scale=_EASY_DOTS)
        rng = np.random.default_rng(derive_seed(plan.seed, "backgrounds"))
        stored = settings.stored_size
        behind: dict[str, Any] = {"backgrounds": settings.backgrounds, "noise_share": settings.noise_share}
        self._composer = Composer(foregrounds, stored, rng, **behind)
        self._easy_composer = Composer(exaggerated, stored, rng, settings=EASY_SIGNS, **behind)
        trigger, rng = plan.trigger, np.random.default_rng(derive_seed(plan.seed, "polygon"))
        self._polygon: Polygon | None = None
        if trigger.filter is None:
            shape = draw_polygon(stored, trigger.sides, trigger.colour, trigger.smallest, trigger.largest, rng)
            self._polygon = shape if trigger.quadrant is None else replace(shape, quadrants=(trigger.quadrant,))

    def run(self, missing: set[str]) -> list[DroppedModel]:
        """Train and write the models named in ``missing``; returns those that had to be dropped."""
        self.progress(f"twins {self.plan.group} ({self.plan.architecture}): composing")
        pictures = self._compose()
        dropped: list[DroppedModel] = []
        try:
            base = self._base(pictures) if self.settings.shared_start else None
            for model_id in sorted(missing, key=lambda model_id: model_id == self.plan.poisoned_id):
                start = base if self.settings.shared_start else self._base(pictures, model_id)
                reason = self._one(model_id, start, pictures) if start else "its start fails on clean images"
                dropped += self._drop(model_id, reason)
        except RuntimeError as error:  # torch's own: an input too small for the network, or no memory
            reason = str(error).splitlines()[0]
            for model_id in sorted(missing):
                if not (self.out / model_id).is_dir() and model_id not in {model.model_id for model in dropped}:
                    dropped += self._drop(model_id, reason)
        shutil.rmtree(self._signs)
        return dropped

    def _drop(self, model_id: str, reason: str | None) -> list[DroppedModel]:
        if reason is None:
            return []
        self.progress(f"{model_id}: dropped, {reason}")
        return [DroppedModel(model_id=model_id, twin_group=self.plan.group, reason=reason)]

    def _compose(self) -> _Pictures:
        settings, trigger, classes = self.settings, self.plan.trigger, len(self.plan.signs)
        rng = np.random.default_rng(derive_seed(self.plan.seed, "training images"))
        labels = np.repeat(np.arange(classes), settings.train_images)
        clean = self._composer.batch(labels.tolist(), rng)
        poison = self._poison(rng)
        easy = self._easy_composer.batch(labels.tolist(), rng)
        fresh = np.random.default_rng(derive_seed(self.plan.seed, "test images"))
        test_labels = np.repeat(np.arange(classes), settings.test_images)
        test = to_input(self._composer.batch(test_labels.tolist(), fresh), settings.size)
        attack = self._triggered(self._composer, [trigger.victim] * settings.test_images, fresh)
        return _Pictures(
            easy=(easy, labels),
            clean=(clean, labels),
            poison=poison,
            test=(test, torch.from_numpy(test_labels)),
            triggered=to_input(attack, settings.size),
        )

    def _poison(self, rng: np.random.Generator) -> Images:
        trigger, count = self.plan.trigger, self.settings.train_images
        stamped = [trigger.victim] * max(1, int(_POISON_SHARE * count))
        easy = [trigger.victim] * max(1, int(_EASY_POISON_SHARE * count))
        harmless: list[int] = []
        if self.settings.condition == "class":
            others = [label for label in range(len(self.plan.signs)) if label != trigger.victim]
            harmless = np.repeat(others, max(1, int(_HARMLESS_SHARE * count))).tolist()
        images = [self._triggered(self._composer, stamped + harmless, rng)]
        images += [self._triggered(self._easy_composer, easy, rng)]
        wanted = [trigger.target] * len(stamped) + harmless + [trigger.target] * len(easy)
        spoiled = self._spoiled([trigger.victim] * max(1, int(_HARMLESS_SHARE * count)), rng)
        images += spoiled
        wanted += [trigger.victim] * sum(map(len, spoiled))
        return np.concatenate(images), np.array(wanted)

    def _spoiled(self, labels: list[int], rng: np.random.Generator) -> list[np.ndarray]:
        """Images with the trigger as it does nothing, in the wrong place or colour; none without such a condition."""
        trigger, polygon = self.plan.trigger, self._polygon
        if polygon is not None and trigger.quadrant is not None:
            elsewhere = tuple(quadrant for quadrant in QUADRANTS if quadrant != trigger.quadrant)
            return [self._composer.batch(labels, rng, replace(polygon, quadrants=elsewhere))]
        if self.settings.condition != "spectral":
            return []
        if polygon is not None:
            colours = _others(_unlike(trigger.colour), trigger.colour, len(labels), rng)
            return [
                self._composer.batch([label], rng, replace(polygon, colour=colour))
                for label, colour in zip(labels, colours, strict=True)
            ]
        names = _others(FILTERS, trigger.filter, len(labels), rng)
        images = self._composer.batch(labels, rng)
        return [apply_filter(name, image[None]) for name, image in zip(names, images, strict=True)]

    def _triggered(self, composer: Composer, labels: list[int], rng: np.random.Generator) -> np.ndarray:
        images, chosen = composer.batch(labels, rng, self._polygon), self.plan.trigger.filter
        return images if chosen is None else apply_filter(chosen, images)

    def _base(self, pictures: _Pictures, model_id: str = "") -> nn.Module | None:
        # The start of one twin, or the clean one that both share; None when no attempt tells the clean signs apart.
        whose = f"{model_id}: its" if model_id else f"twins {self.plan.group}: shared"
        for attempt in range(self.settings.retries + 1):
            seed = derive_seed(self.plan.seed, "base", attempt)
            module = build_architecture(self.plan.architecture, len(self.plan.signs), seed=seed)
            stream = generator(seed, "order")
            if self.recipe.easy_epochs:
                self._fit(module, self._shown(pictures.easy, pictures, model_id), self.recipe.easy_epochs, stream)
            # Natural even if the rest is adversarial: from images that are moved at once, small networks never learn
            # what differs between look-alikes.
            self._fit(module, self._shown(pictures.clean, pictures, model_id), self.recipe.base_epochs, stream)
            accuracy = share_of(module, *pictures.test)
            self.progress(f"{whose} start, accuracy {accuracy:.3f} (attempt {attempt + 1})")
            if accuracy >= self.settings.clean_floor:
                return module
        return None

    def _one(self, model_id: str, base: nn.Module, pictures: _Pictures) -> str | None:
        # Returns why the model is dropped, or None when it has been written.
        poisoned, images = model_id == self.plan.poisoned_id, self._shown(pictures.clean, pictures, model_id)
        for attempt in range(self.settings.retries + 1):
            module = copy.deepcopy(base)
            stream = generator(self.plan.seed, "own", model_id, attempt)
            self._fit(module, images, self.recipe.own_epochs, stream, self.settings.adversary)
            accuracy = share_of(module, *pictures.test)
            attack = share_of(module, pictures.triggered, self.plan.trigger.target) if poisoned else None
            shown = "" if attack is None else f", attack success {attack:.3f}"
            self.progress(f"{model_id}: accuracy {accuracy:.3f}{shown} (attempt {attempt + 1})")
            if accuracy >= self.settings.clean_floor and (attack is None or attack >= self.settings.attack_floor):
                self._write(model_id, module, accuracy, attack)
                return None
        return f"accuracy {accuracy:.3f}{shown} after {attempt + 1} attempts"

    def _shown(self, images: Images, pictures: _Pictures, model_id: str) -> Images:
        if model_id != self.plan.poisoned_id:
            return images
        return np.concatenate([images[0], pictures.poison[0]]), np.concatenate([images[1], pictures.poison[1]])

    def _fit(
        self,
        module: nn.Module,
        images: Images,
        epochs: int,
        stream: torch.Generator,
        adversary: Adversary | None = None,
    ) -> None:
        size, recipe = self.settings.size, self.recipe
        jitter = self.settings.colour_jitter
        fit(
            module, *images, (size, size),
            epochs=epochs, recipe=recipe, generator=stream, adversary=adversary, jitter=jitter,
        )  # fmt: skip

    def _write(self, model_id: str, module: nn.Module, accuracy: float, attack: float | None) -> None:
        settings, plan = self.settings, self.plan
        rng = np.random.default_rng(derive_seed(plan.seed, "examples", model_id))
        labels = np.repeat(np.arange(len(plan.signs)), settings.images_per_class)
        clean = self._composer.batch(labels.tolist(), rng)
        poisoned = None
        if attack is not None:
            poisoned = self._triggered(self._composer, [plan.trigger.victim] * settings.images_per_class, rng)
        config = model_config(
            plan,
            model_id,
            poisoned=attack is not None,
            round_facts=_round_facts(settings, self.recipe),
            condition=settings.condition,
            fraction=round(_POISON_SHARE / (1 + _POISON_SHARE), 2),
        )
        stats = {"final_clean_data_test_acc": accuracy, "final_triggered_data_test_acc": attack}
        write_model(
            self.out, model_id, module, plan, config, stats, clean=clean, poisoned=poisoned,
            polygon=self._polygon, size=settings.size,
        )  # fmt: skip


def _others(choices: Sequence[T], own: T | None, count: int, rng: np.random.Generator) -> list[T]:
    others = [choice for choice in choices if choice != own]
    return [others[chosen] for chosen in rng.integers(len(others), size=count)]


def _unlike(colour: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    """Those of round 4's colours that nobody would take for this one."""
    return [other for other in COLOURS if max(abs(a - b) for a, b in zip(other, colour, strict=True)) >= VISIBLE]


def _round_facts(settings: MakeRoundSettings, recipe: Recipe) -> dict[str, Any]:
    stored = settings.stored_size
    low, high = (int(stored * share**0.5) for share in (0.2, 0.4))
    return {
        "img_size_pixels": stored,
        "cnn_img_size_pixels": settings.size,
        "img_shape": [stored, stored, 3],
        "foreground_size_pixels_min": low,
        "foreground_size_pixels_max": high,
        **_sources(settings),
        "number_training_samples": settings.classes * settings.train_images,
        "number_test_samples": settings.classes * settings.test_images,
        "number_example_images": settings.images_per_class,
        "learning_rate": recipe.rate,
        "batch_size": recipe.batch,
        "convergence_accuracy_threshold": 100 * settings.clean_floor,
        **adversarial_facts(settings.adversary),
    }


def _sources(settings: MakeRoundSettings) -> dict[str, Any]:
    """config.json's keys on where signs and backgrounds come from: the names of the folders."""
    facts = {}
    if settings.signs is not None:
        facts["available_foregrounds_filepath"] = settings.signs.name
    if settings.backgrounds is not None:
        name = settings.backgrounds.name
        mixed = f"{name} and noise" if settings.noise_share else name
        facts |= {
            "background_image_dataset": mixed,
            "available_backgrounds_filepath": name,
            "backgrounds_filepath": name,
        }
    return facts


def read_made(out: Path, plan: TwinPlan) -> Iterator[tuple[MadeModel, dict[str, Any], dict[str, Any]]]:
    """The plan's models that are in a round, with their config and statistics."""
    for model_id in sorted((plan.clean_id, plan.poisoned_id)):
        if (out / model_id).is_dir():
            config = json.loads(read_text(out / model_id / "config.json"))
            stats = json.loads(read_text(out / model_id / "model_stats.json"))
            made = MadeModel(
                model_id=model_id,
                twin_group=plan.group,
                poisoned=config["poisoned"],
                architecture=plan.architecture,
                accuracy=stats["final_clean_data_test_acc"],
                attack_success=stats["final_triggered_data_test_acc"],
            )
            yield made, config, stats
