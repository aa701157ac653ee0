"""What every hardener must do."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..core.errors import MothError, PluginError, SettingsError
from ..core.records import from_json, to_dict, to_json
from ..core.subject import Subject
from ..hardeners.base import Hardener
from ..hardeners.trace import Hardened, HardeningTrace
from ..rounds.samples import Samples
from .contract import BUDGET_S, SEED, PluginContract
from .planted import Failing, NotANumber, around, slow, square_samples, trained_subject
from .surroundings import devices, first_images, odd, on_device, require, require_same, snapshot


class HardenerContract(PluginContract[Hardened]):
    """Subclass it in a test module, under a name that begins with Test, and say which ``hardener``.

    ``settings``: those with which it is quick. A hardener that needs more than three classes of 16 x 16 images
    overrides ``subject`` and ``samples``; every hardening gets fresh ones.
    """

    hardener: ClassVar[type[Hardener]]
    gives: ClassVar[str] = "sets of weights"

    def plugin(self) -> type[Hardener]:
        """The hardener."""
        return self.hardener

    def subject(self) -> Subject:
        """A small convolutional network, trained on the images."""
        return _trained().clone()

    def samples(self) -> Samples:
        """Thirty images of each of its classes, and twenty held back."""
        return square_samples()

    def harden(self, subject: Subject | None = None, samples: Samples | None = None, **how: Any) -> Hardened:
        """A hardening with the contract's seed."""
        return self.run(subject, samples, **how)

    def hardened(self) -> Hardened:
        """The hardened subject, hardened once for all tests of a class."""
        return self.result()

    def same(self, one: Hardened, other: Hardened) -> bool:
        """Whether all weights are the same, to the bit."""
        pairs = zip(_state(one.subject).values(), _state(other.subject).values(), strict=True)
        return all(torch.equal(first, second) for first, second in pairs)

    def test_the_same_seed_gives_the_same_rounds(self) -> None:
        """As the trace tells them."""
        first, second, _ = self._twice()
        require(first.trace.rounds == second.trace.rounds, "the same seed went through other rounds")

    def test_nothing_that_was_given_is_changed(self) -> None:
        """Neither the model, whose modes and gradient flags are odd here, nor the images; the copy is as odd after."""
        subject, samples = odd(self.subject()), self.samples()
        before = snapshot(subject, samples)
        hardened = self.harden(subject, samples).subject
        require_same(before, subject, samples)
        require(hardened.module is not subject.module, "the network given and the hardened one are the same object")
        after = snapshot(hardened, samples)
        require(after.modes == before.modes, "the hardened network is in another mode, training or evaluation")
        require(after.flags == before.flags, "requires_grad of the hardened weights is another")
        require(all(p.grad is None for p in hardened.module.parameters()), "gradients were left on the weights")

    def test_the_weights_fit_and_are_finite(self) -> None:
        """So that they can be saved and loaded in place of the original ones."""
        before, after = _state(self.subject()), _state(self.hardened().subject)
        require(before.keys() == after.keys(), "it changed which weights there are")
        for name, tensor in after.items():
            require(tensor.shape == before[name].shape, f"it changed the shape of {name}")
            require(bool(torch.isfinite(tensor).all()), f"{name} holds numbers that are not finite")

    def test_the_trace_is_whole_and_survives_json(self) -> None:
        """It says who did what with which settings, and what it did to the accuracy."""
        trace, clean = self.hardened().trace, self.samples().clean
        require(from_json(HardeningTrace, to_json(trace)) == trace, "the trace read back from JSON is another one")
        require(trace.hardener == self.hardener.name, f"it signs as {trace.hardener}, not as {self.hardener.name}")
        require(trace.settings == to_dict(self.make().settings), "the trace does not hold the settings")
        require(trace.seed == SEED and trace.seconds > 0, "the trace does not hold the seed and the seconds")
        require(bool(trace.stopped.strip()), "it does not say why it ended")
        after = self.hardened().subject.accuracy(clean.x, clean.y)
        require(trace.accuracy_after == after, f"the trace says accuracy {trace.accuracy_after}, and it is {after}")

    def test_it_hardens_on_every_device(self) -> None:
        """On the CPU and, where there is one, on the accelerator; the weights stay there, the images on the CPU."""
        for device in devices():
            hardened = self.hardened() if device.type == "cpu" else self.harden(on_device(self.subject(), device))
            places = {tensor.device.type for tensor in _state(hardened.subject).values()}
            require(places == {device.type}, f"on {device}: the hardened weights are on {', '.join(sorted(places))}")

    def test_what_is_broken_fails_in_words(self) -> None:
        """A network that fails and one without held-back images are refused; one that gives nan is, or stays finite."""
        for subject, samples, kind in (
            (around(self.subject(), Failing), self.samples(), PluginError),
            (self.subject(), first_images(self.samples(), 0), SettingsError),
        ):
            try:
                self.harden(subject, samples)
            except kind as error:
                require(bool(str(error).strip()), "it fails without a word")
            else:
                raise AssertionError(f"nothing was refused where {kind.__name__} is due")
        try:
            state = _state(self.harden(around(self.subject(), NotANumber)).subject)
        except MothError:
            return
        require(all(bool(torch.isfinite(tensor).all()) for tensor in state.values()), "its weights are not finite")

    def test_it_ends_when_its_time_is_over(self) -> None:
        """On a network that takes longer for one batch than the whole budget."""
        with self.in_time():
            try:
                self.harden(slow(self.subject(), self.samples()), time_budget=BUDGET_S)
            except PluginError as error:
                require(error.kind == "time-out", f"it was given little time, and failed otherwise: {error}")


@lru_cache
def _trained() -> Subject:
    return trained_subject()


def _state(subject: Subject) -> dict[str, Tensor]:
    return dict(subject.module.state_dict())
