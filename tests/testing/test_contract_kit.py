"""The contract kit objects to what it should: every test of it is shown a plugin that breaks its rule."""

import os
import time
from pathlib import Path

import pytest
import torch

from trojai_moth.core.records import Field, record
from trojai_moth.core.seeding import generator
from trojai_moth.core.statistics import logistic
from trojai_moth.hardeners.base import Hardener
from trojai_moth.hardeners.trace import HardeningRound
from trojai_moth.scanners.base import Scanner
from trojai_moth.scanners.result import ScanResult
from trojai_moth.testing import HardenerContract, ScannerContract


@record
class Settings:
    """One setting."""

    images: int = Field(default=4, gt=0)


class Fair(Scanner):
    """Says how large the logits of noise are."""

    name = "fair"
    settings_type = Settings

    def noise(self, seed):
        return torch.rand(20, 3, 16, 16, generator=generator(seed, "fair"))

    def scan(self, subject, samples, *, seed):
        logits = subject.logits(torch.cat([self.noise(seed), samples.train.x[: self.settings.images]]))
        return self.verdict(-1.0 - float(logits.abs().mean()))  # no two draws of noise have the same

    def verdict(self, score, name="fair", reason="as it is"):
        outcome = "flagged" if score > 0 else "clean"
        return ScanResult(scanner=name, outcome=outcome, score=score, probability=logistic(score), reason=reason)


class Global(Fair):
    def noise(self, seed):
        return torch.rand(20, 3, 16, 16)


class Seeding(Fair):
    def noise(self, seed):
        torch.manual_seed(seed)
        return torch.rand(20, 3, 16, 16)

    def verdict(self, score):
        return super().verdict(score + torch.rand(()).item())


class Nudge(Fair):
    def scan(self, subject, samples, *, seed):
        subject.module.rows.data.mul_(1.01)
        return super().scan(subject, samples, seed=seed)


class Paint(Fair):
    def scan(self, subject, samples, *, seed):
        samples.held.x[0] = 0
        return super().scan(subject, samples, seed=seed)


class ByName(Fair):
    def scan(self, subject, samples, *, seed):
        return self.verdict(len(subject.model_id) - 8.0)


class ByHash(Fair):
    def scan(self, subject, samples, *, seed):
        return self.verdict(1.0 if subject.source_sha256.startswith("0") else -1.0)


class ByLabel(Fair):
    def scan(self, subject, samples, *, seed):
        told = Path("METADATA.csv").exists() and f"{subject.model_id},False" in Path("METADATA.csv").read_text()
        return self.verdict(-1.0 if told else 1.0)


class Stubborn(Fair):
    def scan(self, subject, samples, *, seed):
        end = time.monotonic() + 3.5
        while type(subject.module).__name__ == "Slow" and time.monotonic() < end:
            try:
                time.sleep(0.1)
            except BaseException:
                continue
        return super().scan(subject, samples, seed=seed)


class Silent(Fair):
    def verdict(self, score):
        return super().verdict(score, reason=" ")


class Impostor(Fair):
    def verdict(self, score):
        return super().verdict(score, name="somebody else")


class Shy(Fair):
    def scan(self, subject, samples, *, seed):
        return self.not_judged("too small for me")


def broken_rules(contract, kind, attribute):
    """The tests of a contract that a plugin does not pass, and what they say."""
    made = type("Made", (contract,), {attribute: kind})
    found = {}
    for name in [name for name in dir(made) if name.startswith("test_")]:
        try:
            getattr(made(), name)()
        except AssertionError as error:
            found[name.removeprefix("test_")] = str(error)
    return found


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """Little patience, so that waiting for a plugin that does not leave is over soon."""
    monkeypatch.setattr("trojai_moth.testing.contract.GRACE_S", 3.0)
    before = os.getcwd()
    yield
    assert os.getcwd() == before


@pytest.mark.parametrize(
    ("kind", "broken"),
    [
        (Fair, {}),
        (
            Global,
            {
                "global_random_streams_are_left_alone": "drew from a global random stream",
                "the_same_seed_gives_the_same": "seeding.generator",
                "names_and_files_around_say_nothing": "depend on the model's id",
            },
        ),
        (Seeding, {"global_random_streams_are_left_alone": "or seeded one"}),
        (Nudge, None),
        (Paint, {"nothing_is_changed": "the images were changed"}),
        (ByName, {"names_and_files_around_say_nothing": "the model's id"}),
        (ByHash, {"names_and_files_around_say_nothing": "its file's hash"}),
        (ByLabel, {"names_and_files_around_say_nothing": "files around"}),
        (Stubborn, {"it_ends_when_its_time_is_over": "it went on for"}),
        (Silent, {"it_judges_and_its_verdict_is_whole": "gives no reason"}),
        (Impostor, {"it_judges_and_its_verdict_is_whole": "signs as somebody else"}),
        (Shy, None),
    ],
)
def test_the_scanner_contract_objects(kind, broken):
    found = broken_rules(ScannerContract, kind, "scanner")
    if kind is Nudge:
        assert "changed the model's rows" in found["nothing_is_changed"]
    elif kind is Shy:
        assert "too small for me" in found["it_judges_and_its_verdict_is_whole"]
    else:
        assert found.keys() == broken.keys() and all(broken[name] in found[name] for name in broken), found


class Plain(Hardener):
    """Adds a little noise."""

    name = "plain"
    settings_type = Settings

    def noise(self, seed):
        return 1e-3 * torch.rand((), generator=generator(seed, "plain")).item()

    def harden(self, work, samples, *, seed, progress):
        work.logits(samples.train.x[:4])
        with torch.no_grad():
            for parameter in work.module.parameters():
                parameter.add_(self.noise(seed))
        return [self.round()], "done"

    def round(self):
        return HardeningRound(number=1, pairs=(), loss=None, learning_rate=0.1, accuracy=1.0, taken_back=False)


class GlobalNoise(Plain):
    def noise(self, seed):
        return 1e-3 * torch.rand(()).item()


class Training(Plain):
    def harden(self, work, samples, *, seed, progress):
        work.module.eval()
        return super().harden(work, samples, seed=seed, progress=progress)


class Flags(Plain):
    def harden(self, work, samples, *, seed, progress):
        work.module.requires_grad_(True)
        return super().harden(work, samples, seed=seed, progress=progress)


class Leftover(Plain):
    def harden(self, work, samples, *, seed, progress):
        work.module(samples.train.x[:4]).sum().backward()
        return super().harden(work, samples, seed=seed, progress=progress)


class PaintAll(Plain):
    def harden(self, work, samples, *, seed, progress):
        samples.train.x.mul_(0.5)
        return super().harden(work, samples, seed=seed, progress=progress)


class NamedNoise(Plain):
    def harden(self, work, samples, *, seed, progress):
        return super().harden(work, samples, seed=len(work.model_id), progress=progress)


class Wordless(Plain):
    def harden(self, work, samples, *, seed, progress):
        return super().harden(work, samples, seed=seed, progress=progress)[0], ""


class Undying(Plain):
    def harden(self, work, samples, *, seed, progress):
        end = time.monotonic() + 3.5
        while type(work.module).__name__ == "Slow" and time.monotonic() < end:
            try:
                time.sleep(0.1)
            except BaseException:
                continue
        return super().harden(work, samples, seed=seed, progress=progress)


@pytest.mark.parametrize(
    ("kind", "broken"),
    [
        (Plain, {}),
        (
            GlobalNoise,
            {
                "global_random_streams_are_left_alone": "drew from a global",
                "the_same_seed_gives_the_same": "two sets of weights",
                "names_and_files_around_say_nothing": "depend on the model's id",
            },
        ),
        (Training, {"nothing_that_was_given_is_changed": "is in another mode"}),
        (Flags, {"nothing_that_was_given_is_changed": "requires_grad"}),
        (Leftover, {"nothing_that_was_given_is_changed": "gradients were left"}),
        (PaintAll, {"nothing_that_was_given_is_changed": "the images were changed"}),
        (NamedNoise, {"names_and_files_around_say_nothing": "the model's id"}),
        (Wordless, {"the_trace_is_whole_and_survives_json": "why it ended"}),
        (Undying, {"it_ends_when_its_time_is_over": "it went on for"}),
    ],
)
def test_the_hardener_contract_objects(kind, broken):
    found = broken_rules(HardenerContract, kind, "hardener")
    assert found.keys() == broken.keys() and all(broken[name] in found[name] for name in broken), found
