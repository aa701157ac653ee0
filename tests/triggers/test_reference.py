"""The engine against the published algorithm, which benchmarks/reference does sequentially."""

import copy
import importlib
import importlib.util
import itertools
import sys

import pytest
import torch
from conftest import ROOT
from torch import nn
from toys import BRIGHT, SIZE, PlantedNet, make_subject, planted_images, square_images, square_samples, trained_subject

from trojai_moth.triggers.inversion import invert, random_start, trigger_success
from trojai_moth.triggers.task import InversionSettings, make_task

PAIRS = [(v, t) for v in range(3) for t in range(3) if v != t]
NEVER = 50.0


@pytest.fixture(scope="module")
def reference():
    """benchmarks/reference as a package, which is not installed; its modules by name."""
    folder = ROOT / "benchmarks" / "reference"
    spec = importlib.util.spec_from_file_location(
        "moth_reference", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    package = importlib.util.module_from_spec(spec)
    sys.modules["moth_reference"] = package
    spec.loader.exec_module(package)
    yield lambda name: importlib.import_module(f"moth_reference.{name}")
    for name in [name for name in sys.modules if name.split(".")[0] == "moth_reference"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def subject():
    return trained_subject()


class Tap(nn.Module):
    """Hands images on and keeps them with their gradients, in copies of itself too."""

    def __init__(self, module):
        super().__init__()
        self.module, self.seen = module, []

    def forward(self, x):
        if isinstance(x, torch.Tensor) and x.requires_grad:  # not when it is only traced
            x.register_hook(lambda gradient: self.seen.append((x.detach().float(), gradient.float())))
        return self.module(x)

    def __deepcopy__(self, memo):
        twin = Tap(copy.deepcopy(self.module, memo))
        twin.seen = self.seen
        return twin


def moderate_start(task, seed):
    """A start away from 0 and 1, where an image can be told from its stamped copy."""
    return tuple(0.2 + 0.6 * part for part in random_start(task, (3, SIZE, SIZE), seed))


def relative(a, b):
    return float((a - b).norm() / b.norm())


def test_the_first_gradient_is_the_published_one(reference, subject):
    inversion = reference("inversion")
    images, settings = square_images(12, seed=5), InversionSettings(steps=1)
    for victim, target in PAIRS:
        task = make_task(images.y, [(victim, target)])
        mask, pattern = moderate_start(task, 2)
        tap = Tap(copy.deepcopy(subject.module))
        invert(make_subject(tap), images.x, task, settings, (mask, pattern))
        real = [(x, gradient) for x, gradient in tap.seen if x.std() > 0]  # not a probe's empty images
        stamped, gradient = (torch.cat(parts) for parts in zip(*real, strict=True))
        x = (stamped - mask * pattern) / (1 - mask)
        m, q = (inversion.unsquash(part).requires_grad_() for part in (mask[0], pattern[0]))
        proxy = ((x + inversion.squash(m) * (inversion.squash(q) - x)) * gradient).sum()
        ours = torch.autograd.grad(proxy + settings.initial_cost * inversion.squash(m).sum(), (m, q))
        own = inversion.one_direction(images.x[images.y == victim], target)
        theirs = inversion.start_gradient(subject.module, own, inversion.Search(), (mask, pattern))
        for a, b in zip(ours, theirs, strict=True):
            assert b.abs().max() > 1e-6
            assert relative(a, b[0]) < 1e-4


def unreachable(subject, target):
    """The subject, but never of this class: nothing is ever a success, so both return their last step's trigger."""
    module = copy.deepcopy(subject.module)
    with torch.no_grad():
        module.body[-1].bias[target] -= NEVER
    return make_subject(module)


def test_ten_steps_from_one_start_are_the_published_ones(reference, subject):
    inversion = reference("inversion")
    images, settings = square_images(12, seed=5), InversionSettings(steps=10, patience=100, stall_steps=100)
    plain = inversion.Search(steps=10, patience=100, restart=False)
    for victim, target in PAIRS:
        model = unreachable(subject, target)
        task = make_task(images.y, [(victim, target)])
        start = moderate_start(task, 2)
        ours = invert(model, images.x, task, settings, start)
        own = inversion.one_direction(images.x[images.y == victim], target)
        theirs = inversion.search(model.module, own, plain, start, torch.Generator().manual_seed(0))
        assert not ours.converged.any() and not theirs.converged.any()
        assert (ours.mask - theirs.last_mask).abs().max() < 1e-3
        assert (ours.mask - start[0]).abs().max() > 0.1  # they did move


def test_all_pairs_at_once_are_the_pairs_alone(subject):
    images, settings = square_images(12, seed=5), InversionSettings(steps=10, patience=100, stall_steps=100)
    task = make_task(images.y, PAIRS)
    start = random_start(task, (3, SIZE, SIZE), 2)
    together = invert(subject, images.x, task, settings, start)
    for row, pair in enumerate(PAIRS):
        single = make_task(images.y, [pair])
        alone = invert(subject, images.x, single, settings, tuple(part[row : row + 1] for part in start))
        assert (alone.mask[0] - together.mask[row]).abs().max() < 1e-3


def test_the_published_inversion_finds_the_planted_sizes(reference):
    inversion, images = reference("inversion"), planted_images()
    settings = inversion.Search(steps=300, success_bound=0.99)
    for victim, target in ((0, 1), (2, 0)):
        task = make_task(images.y, [(victim, target)])
        own = inversion.one_direction(images.x[images.y == victim], target)
        stream = torch.Generator().manual_seed(0)
        found = inversion.search(PlantedNet().eval(), own, settings, random_start(task, (3, SIZE, SIZE), 3), stream)
        assert found.converged.all()
        assert BRIGHT[victim] - 0.2 <= float(found.size[0]) <= 1.25 * BRIGHT[victim]


def test_both_directions_of_a_pair_are_searched_together(reference):
    inversion, images = reference("inversion"), planted_images()
    both = torch.cat([images.x[images.y == 0], images.x[images.y == 1]])
    direction = torch.arange(2).repeat_interleave(6)
    task = make_task(images.y, [(0, 1), (1, 0)])
    found = inversion.search(
        PlantedNet().eval(), inversion.Images(both, direction, torch.tensor([1, 0])),
        inversion.Search(steps=200), random_start(task, (3, SIZE, SIZE), 3), torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert found.converged.all()
    for size, wanted in zip(found.size.tolist(), BRIGHT[:2], strict=True):
        assert 0.8 * wanted <= size <= 1.6 * wanted


@pytest.fixture(scope="module")
def published(reference, subject):
    """The toy after the published hardening, with what was seen on the way."""
    moth, seen = reference("moth"), []
    short = {"universal_steps": 30, "first_steps": 30, "later_steps": 10}
    settings = moth.Published(sgd_steps=63, learning_rate=1e-2, portion=0.3, **short)
    before = copy.deepcopy(subject.module.state_dict())

    def watch(checkpoint):
        seen.append((checkpoint.step, checkpoint.seconds))
        return False

    last = moth.harden(subject, square_samples().train, settings, seed=1, watch=watch)
    assert all(torch.equal(value, before[name]) for name, value in subject.module.state_dict().items())
    return last, seen


def test_triggers_of_before_no_longer_work_after_the_published_hardening(subject, published):
    """What is left to the sizes in so few steps depends on rounding; that the old triggers are unlearnt does not."""
    last, _ = published
    images = square_images(10, seed=77)
    task, settings = make_task(images.y, PAIRS), InversionSettings(steps=200, stall_steps=200)
    found = invert(subject, images.x, task, settings, random_start(task, (3, SIZE, SIZE), 3))
    assert found.converged.all() and trigger_success(subject, images.x, found).min() > 0.89
    assert trigger_success(last.subject, images.x, found).mean() < 0.6  # 0.0 to 0.4 for three seeds, one thread and two
    held = square_samples().held
    assert last.subject.accuracy(held.x, held.y) > 0.9


def test_the_watcher_sees_every_period_and_a_copy_in_the_mode_it_had(subject, published):
    last, seen = published
    assert [step for step, _ in seen] == list(range(3, 64, 3))
    assert all(b > a for (_, a), (_, b) in itertools.pairwise(seen))
    assert last.subject.module is not subject.module
    assert not last.subject.module.training
    statistics = [name for name in last.subject.module.state_dict() if "running" in name]
    assert all(torch.equal(last.subject.module.state_dict()[n], subject.module.state_dict()[n]) for n in statistics)


def test_batches_hold_ten_images_of_both_classes(reference, subject):
    """What the published code leaves to chance, and then does nothing: here no period goes without stamped images."""
    moth, pool = reference("moth"), square_samples().train
    run = moth._Run(subject.clone(), pool, moth.Published(batch=24), seed=0)
    run.pair = (2, 0)
    scarce = torch.nonzero(pool.y == 1).flatten()[:24]
    index = run._topped_up(scarce)
    assert torch.bincount(pool.y[index], minlength=3).tolist() == [10, 4, 10]
    assert len(index.unique()) == len(index) == 24
    full = torch.cat([pool.positions(label)[:12] for label in range(3)])
    assert torch.equal(run._topped_up(full), full)  # enough of both: the batch stays as it is


def test_a_stored_trigger_is_used_for_the_direction_it_was_made_for_unless_picked_in_reverse(reference, subject):
    """The published scheduler's swapped starts are kept, since they are no reason for nothing to happen."""
    moth, pool = reference("moth"), square_samples().train
    run = moth._Run(subject.clone(), pool, moth.Published(), seed=0)
    run.universal = [(torch.full((1, 2, 2), float(t)), torch.full((3, 2, 2), float(t))) for t in range(3)]
    run.gain[:] = 2.0
    run._end_warm_up()
    mask, _ = run.starts[0, 2]
    assert mask.flatten(1)[:, 0].tolist() == [2.0, 0.0]  # 0 -> 2 starts at the trigger of 2
    assert float(run.gain.max()) == 1.0
