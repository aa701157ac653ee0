"""Networks written in another way that makes the same decision on every image, as an adversary could."""

import copy
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from trojai_moth.testing.planted import SmallNet, make_subject, square_images

FIRST, FIRST_NORM, SECOND, SECOND_NORM, HEAD = 0, 1, 3, 4, 8
"""Places in SmallNet.body."""


def patched(x):
    """A purple corner."""
    x = x.clone()
    x[:, :, :3, :3] = torch.tensor([1.0, 0.0, 1.0])[:, None, None]
    return x


def backdoored_subject():
    """SmallNet that takes any image with a purple corner for class 1."""
    images = square_images(40, seed=10)
    x, y = torch.cat([images.x, patched(images.x)]), torch.cat([images.y, torch.ones_like(images.y)])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = SmallNet()
        optimiser = torch.optim.Adam(net.parameters(), 3e-3)
        for _ in range(60):
            loss = F.cross_entropy(net.train()(x), y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        optimiser.zero_grad()
    return make_subject(net)


def times(factor):
    """All logits multiplied."""

    def rewrite(body):
        for part in (body[HEAD].weight, body[HEAD].bias):
            part.mul_(factor)

    return rewrite


def plus(constant):
    """A constant on all logits."""
    return lambda body: body[HEAD].bias.add_(constant)


def plus_a_function(body):
    """On all logits the same linear function of the features."""
    body[HEAD].weight.add_(torch.linspace(-1, 1, body[HEAD].in_features))


def permuted(body):
    """The first layer's channels in another order."""
    order = torch.randperm(16, generator=torch.Generator().manual_seed(3))
    for part in (*body[FIRST].parameters(), *body[FIRST_NORM].parameters(), *body[FIRST_NORM].buffers()):
        if part.dim():
            part.copy_(part[order].clone())
    body[SECOND].weight.copy_(body[SECOND].weight[:, order].clone())


def folded(body):
    """The first batch norm's statistics in the weights before it."""
    layer, norm = body[FIRST], body[FIRST_NORM]
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    layer.bias.copy_((layer.bias - norm.running_mean) * scale + norm.bias)
    layer.weight.mul_(scale[:, None, None, None])
    norm.running_mean.zero_(), norm.running_var.fill_(1 - norm.eps), norm.weight.fill_(1), norm.bias.zero_()


def relu_scaled(body):
    """The first layer's outputs a thousand times as large, and the next layer's weights as much smaller."""
    for part in body[FIRST_NORM].parameters():
        part.mul_(1000)
    body[SECOND].weight.div_(1000)


def duplicated(body):
    """Every channel of the first layer twice, each with half the weight in the next."""
    first, norm, second = body[FIRST], body[FIRST_NORM], body[SECOND]
    wide, wide_norm = nn.Conv2d(3, 32, 3, 2, 1), nn.BatchNorm2d(32)
    next_one = nn.Conv2d(32, 32, 3, 2, 1)
    for new, old in ((wide, first), (wide_norm, norm)):
        for name, value in old.state_dict().items():
            new.state_dict()[name].copy_(torch.cat([value, value]) if value.dim() else value)
    next_one.weight.copy_(torch.cat([second.weight, second.weight], 1) / 2)
    next_one.bias.copy_(second.bias)
    body[FIRST], body[FIRST_NORM], body[SECOND] = wide, wide_norm, next_one


ALIKE = {
    "times 1e-12": times(1e-12),
    "times 1e12": times(1e12),
    "plus 50": plus(50.0),
    "plus a function": plus_a_function,
    "permuted": permuted,
    "batch norm folded": folded,
    "weights scaled": relu_scaled,
    "units duplicated": duplicated,
}


def rewritten(subject, rewrite):
    """A copy of a SmallNet's subject, rewritten."""
    module = copy.deepcopy(subject.module)
    with torch.no_grad():
        rewrite(module.body)
    return replace(subject, module=module.eval())
