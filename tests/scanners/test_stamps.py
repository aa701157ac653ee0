"""The stamp scanner on planted networks: a backdoor is flagged, a detail or a colour of the classes is not."""

import pytest
import torch
from toys import make_samples, make_subject

from trojai_moth.core.errors import SettingsError
from trojai_moth.core.images import ImagePool
from trojai_moth.scanners import stamps as module
from trojai_moth.scanners.registry import make_scanner
from trojai_moth.scanners.stamps import Stamps, StampScanSettings
from trojai_moth.triggers.stamps import StampBounds

from ..triggers.test_stamps import BLUE, DOTTED, PLAIN, SETTINGS, DotNet, images


@pytest.fixture
def clean(monkeypatch):
    """The clean network is the planted one without its backdoor."""
    monkeypatch.setattr(module, "train_surrogate", lambda *_, **__: make_subject(DotNet(False)))


def scan(backdoor=True, pool=None, **changes):
    pool = pool or images()
    scanner = Stamps(StampScanSettings(**{"stamps": SETTINGS} | changes))
    return scanner(make_subject(DotNet(backdoor)), make_samples(pool, pool), seed=1)


def only(*labels):
    pool = images()
    wanted = torch.isin(pool.y, torch.tensor(labels))
    return pool.take(torch.nonzero(wanted).flatten())


def test_a_backdoor_is_flagged_with_its_pair(clean):
    verdict = scan(pool=only(PLAIN, BLUE))
    best = verdict.evidence[0]
    assert verdict.outcome == "flagged" and (best.victim, best.target) == (PLAIN, BLUE)
    assert best.success > 0.99 and best.size == pytest.approx(3.14159 * (0.15 * 16) ** 2, rel=1e-3)
    assert "0->2 turns with a plain stamp" in verdict.reason


def test_a_detail_that_tells_classes_apart_is_not(clean):
    verdict = scan(backdoor=False, pool=only(PLAIN, DOTTED))
    assert verdict.outcome == "clean" and verdict.score < 0


def test_what_turns_clean_networks_too_is_not():
    def verdict(backdoor, monkeypatch):
        monkeypatch.setattr(module, "train_surrogate", lambda *_, **__: make_subject(DotNet(backdoor)))
        return scan(pool=only(PLAIN, BLUE))

    with pytest.MonkeyPatch.context() as patch:
        alike, unlike = verdict(True, patch), verdict(False, patch)
    assert alike.outcome == "clean" and unlike.outcome == "flagged"
    assert "gap to clean networks 0.0" in alike.reason


def test_no_clean_network_leaves_two_bounds(monkeypatch):
    monkeypatch.setattr(module, "train_surrogate", lambda *_, **__: None)
    verdict = scan(pool=only(PLAIN, BLUE))
    assert verdict.outcome == "flagged" and "no clean network was asked" in verdict.reason
    assert scan(pool=only(PLAIN, BLUE), clean_networks=0).score == verdict.score


def test_breadth_is_a_bound_where_it_is_asked_for():
    """One colour in eight turns the victim."""
    plain = scan(pool=only(PLAIN, BLUE), clean_networks=0)
    asked = [scan(pool=only(PLAIN, BLUE), clean_networks=0, bounds=StampBounds(breadth=b)) for b in (0.02, 0.9)]
    assert plain.outcome == "flagged" and [one.outcome for one in asked] == ["flagged", "clean"]


def test_no_network_is_trained_for_pairs_that_no_gap_could_make_suspicious(monkeypatch):
    monkeypatch.setattr(module, "train_surrogate", None)
    assert scan(pool=only(PLAIN, BLUE), bounds=StampBounds(success=0.999)).outcome == "clean"


def test_one_class_and_outputs_that_are_no_numbers_are_not_judged():
    assert scan(pool=only(PLAIN)).outcome == "not judged"
    subject = make_subject(DotNet(True))
    subject.module.forward = lambda x: torch.full((len(x), 3), float("nan"))
    verdict = Stamps(StampScanSettings(stamps=SETTINGS))(subject, make_samples(images(), images()), seed=0)
    assert verdict.outcome == "not judged"


def test_settings_are_checked_by_name():
    with pytest.raises(SettingsError, match="bound"):
        make_scanner("stamps", {"bound": 1})


def test_images_are_left_alone(clean):
    pool = images()
    before = ImagePool(pool.x.clone(), pool.y.clone())
    scan(pool=pool)
    assert torch.equal(pool.x, before.x)
