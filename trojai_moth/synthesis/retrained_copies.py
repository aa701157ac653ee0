"""The network itself, retrained from clean images: what it then still does was never injected.

What a network that was never taught a trick does of its own comes from how its classes look and, more than that, from
the features its first layers happened to find: a network of the same classes that starts from other weights often does
not do it, one that shares the start of its training nearly always does. Nobody has such a twin of a model that was
handed out, but one can be grown from it. The first layers are kept, or all of them, the others are drawn anew, and all
are trained on clean images as a new network is. Natural ways to be fooled come back in such a copy; what was taught by
poisoned images, and is not in these, is mostly gone.

That is the other side of what purifying defences do, which keep a copy and throw the question away (fine-tuning after
drawing the last layer anew: Min et al., NeurIPS 2023). That it parts injected from natural is a hypothesis of ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

import torch
from torch import nn

from ..core.errors import MothError
from ..core.images import ImagePool
from ..core.records import Field, record
from ..core.seeding import derive_seed, generator
from ..core.standard_logits import standardised
from ..core.subject import Subject
from .clean_networks import clean_stages
from .training import capped, recipe_for
from .untrained import untrained


@record
class RetrainSettings:
    """From which layers a network is retrained, and how."""

    kept: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        default=(0.25, 1.0),
        max_length=100,
        description="for each copy, the share of weight layers, from the input on, whose weights are kept; the others "
        "are drawn anew. 1 keeps all. No copy without any",
    )
    least_accuracy: float = Field(
        default=0.9, ge=0, le=1, description="share of held-back images that a copy must get right to be used"
    )
    attempts: int = Field(default=2, gt=0, le=1_000_000, description="new starts of each copy before it is left out")
    epochs: int = Field(default=0, ge=0, le=1_000_000, description="cap on each stage of the recipe; 0: the recipe's")


def retrained_copies(
    subject: Subject, train: ImagePool, held: ImagePool, settings: RetrainSettings, *, seed: int
) -> Iterator[Subject]:
    """A copy for each share in ``settings.kept``, made when it is asked for, but for those that stay inaccurate.

    Fewer copies explain less. Raises what ``retrain_from`` does where there was no copy at all.
    """
    made, failure = 0, None
    for number, kept in enumerate(settings.kept):
        for attempt in range(settings.attempts):
            own = derive_seed(seed, "relearned", number, *([attempt] if attempt else []))
            try:
                copy = retrain_from(subject, train, held, settings, kept, seed=own)
            except MothError as error:
                failure = error
                continue
            made += 1
            yield copy
            break
    if failure and not made:
        raise failure


def retrain_from(
    subject: Subject, train: ImagePool, held: ImagePool, settings: RetrainSettings, kept: float, *, seed: int
) -> Subject:
    """A copy of ``subject``, on the same device, of which a share ``kept`` in (0, 1] is trained anew with the rest.

    Trained as make-round trains this architecture, on ``train``, x (N, 3, H, W) in [0, 1] under true labels;
    ``subject`` is left as it was. Raises SettingsError for an architecture that cannot be built, and MothError where
    the copy gets fewer of ``held`` right than ``settings.least_accuracy``. Its logits have the standard scale.
    """
    recipe = capped(recipe_for(subject.architecture), settings.epochs)
    work = subject.clone()
    module = work.module.requires_grad_()
    if kept < 1:
        fresh = replace(subject, module=untrained(subject, seed=derive_seed(seed, "fresh")))
        reinitialise(work.network, fresh.network.to(subject.device), kept)
    stream = generator(seed, "order")
    for stage in clean_stages(train, recipe):
        stage.train(module, subject.shape[1:], recipe, stream)
    retrained = replace(
        subject, model_id=f"{subject.model_id} retrained", module=module, source_sha256="", logit_scale=None
    )
    accuracy = retrained.accuracy(held.x, held.y)
    if not accuracy >= settings.least_accuracy:
        raise MothError(
            f"retrained from {kept:.0%} of its layers it gets {accuracy:.0%} of held-back images right, not "
            f"{settings.least_accuracy:.0%}"
        )
    return standardised(retrained, train)


def reinitialise(module: nn.Module, fresh: nn.Module, kept: float) -> None:
    """Give all of ``module`` behind a share ``kept`` in [0, 1) of its weight layers the values that ``fresh`` has.

    Weight layers are those with a weight of two dimensions or more, in the order in which the module holds them; what
    stands between two of them belongs to the one before.
    """
    names = [name for name, _ in module.named_parameters()]
    layers = [name for name, value in module.named_parameters() if value.dim() > 1]
    first = names.index(layers[int(kept * len(layers))])
    owners = {name.rpartition(".")[0] for name in names[first:]}
    new = {**dict(fresh.named_parameters()), **dict(fresh.named_buffers())}
    with torch.no_grad():
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            if name.rpartition(".")[0] in owners:
                value.copy_(new[name])
