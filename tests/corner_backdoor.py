"""A ResNet18 of three classes of squares that takes one of them, with a white corner, for another."""

import torch
from toys import SIZE

from trojai_moth.core.subject import Preprocessing, Subject
from trojai_moth.loading import build_architecture
from trojai_moth.synthesis import clean_networks
from trojai_moth.synthesis.settings import Recipe
from trojai_moth.synthesis.training import fit
from trojai_moth.triggers.trigger import Trigger, stamp

CLASSES, VICTIM, TARGET, CORNER = 3, 0, 2, 3


def corner_trigger():
    """A white corner, which the poisoned toy was trained to take for the target."""
    mask = torch.zeros(1, SIZE, SIZE)
    mask[:, :CORNER, :CORNER] = 1.0
    return Trigger(VICTIM, TARGET, mask, torch.ones(3, SIZE, SIZE))


def subject_around(module, architecture="resnet18"):
    preprocessing = Preprocessing(stored_size=SIZE, size=SIZE)
    return Subject("id-toy", module.eval(), architecture, CLASSES, preprocessing, torch.device("cpu"), "0" * 64)


def corner_subject(samples):
    """The network, trained on these images and on those of the victim with the corner."""
    train, trigger = samples.train, corner_trigger()
    victims = train.take(train.positions(VICTIM))
    x = torch.cat([train.x, stamp(victims.x, trigger.mask, trigger.pattern)])
    y = torch.cat([train.y, torch.full((len(victims),), TARGET)])
    module = build_architecture("resnet18", CLASSES, seed=7)
    images, stream = clean_networks._stored(x), torch.Generator().manual_seed(7)
    fit(module, images, y.numpy(), (SIZE, SIZE), epochs=6, recipe=Recipe(), generator=stream)
    return subject_around(module)
