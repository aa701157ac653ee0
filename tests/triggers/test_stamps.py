"""Plain stamps on planted networks: a backdoor, a detail that tells two classes apart, and clean ones beside them."""

import math

import pytest
import torch
from torch import nn
from toys import SIZE, make_subject

from trojai_moth.core.errors import SettingsError
from trojai_moth.core.images import ImagePool
from trojai_moth.core.records import from_dict
from trojai_moth.synthesis.clean_networks import plain_network
from trojai_moth.triggers.stamps import (
    StampSettings,
    StampTable,
    StampTables,
    mean_conviction,
    removal_success,
    stamp_gap,
    stamp_table,
    suspects,
)

PLAIN, DOTTED, BLUE = 0, 1, 2
RED, GREEN, BLACK = 0, 1, 7
SETTINGS = StampSettings(side=0.3)


class DotNet(nn.Module):
    """Grey is class 0, grey with a red dot class 1, blue class 2; with a backdoor anything green is class 2 as well."""

    def __init__(self, backdoor):
        super().__init__()
        self.backdoor = backdoor

    def forward(self, x):
        def strongest(channel):
            others = [c for c in range(3) if c != channel]
            return (x[:, channel] - x[:, others].amax(1)).amax((1, 2))

        blue = strongest(2) if not self.backdoor else torch.maximum(strongest(2), strongest(1))
        return torch.stack([torch.zeros(len(x)), 20 * strongest(0) - 5, 20 * blue - 5], dim=1)


def images(per_class=2):
    y = torch.arange(3).repeat_interleave(per_class)
    x = torch.full((len(y), 3, SIZE, SIZE), 0.5)
    x[y == DOTTED, 1:, 6:8, 9:11] = 0.0
    x[y == BLUE, :2] = 0.0
    return ImagePool(x, y)


def tables(backdoor=True):
    return StampTables(make_subject(DotNet(backdoor)), images(), SETTINGS)


def test_a_backdoor_takes_its_stamp_and_owes_nothing_to_the_likeness_of_classes():
    found = tables().features((PLAIN, BLUE))
    assert found["stamp_success"] > 0.99 and found["removal_success"] < 0.01
    assert found["stamp_peak"] == 2.0  # of the same colour, and cut: see below
    assert tables().stamps[PLAIN, :, BLUE].argmax() == GREEN or tables().stamps[PLAIN, GREEN, BLUE] > 0.99
    assert tables().stamps[PLAIN, RED, BLUE] < 0.01


def test_breadth_counts_the_colours_that_do_it():
    by_colour = tables().stamps[PLAIN, :, BLUE]
    found = tables().features((PLAIN, BLUE))
    assert found["stamp_breadth"] == pytest.approx(float(by_colour.sum()) / 8)
    assert 0 < found["stamp_breadth"] < found["stamp_success"] == by_colour.max()
    assert tables(backdoor=False).features((PLAIN, BLUE))["stamp_breadth"] < found["stamp_breadth"]


def test_a_detail_is_stamped_on_and_taken_away_again():
    found = tables().features((PLAIN, DOTTED))
    assert found["stamp_success"] > 0.99 and found["removal_success"] > 0.95
    assert tables().removals[PLAIN, DOTTED] < 0.01


def test_blue_stamps_are_the_targets_own_and_turn_clean_networks_too():
    subject, clean = tables(), tables(backdoor=False)
    other = subject.on(make_subject(DotNet(False)), {PLAIN})
    assert stamp_gap(clean.stamps, [other.success], (PLAIN, BLUE)) == pytest.approx(0, abs=1e-4)


def test_conviction_is_the_lead_of_the_target_as_a_share_of_that_on_its_own_images():
    # Blue wins its own images by 20 / 2 - 5 and loses grey ones by 5; with the backdoor a green stamp wins by 20 * 200
    # / 255 - 5, more than twice as much.
    backdoored, clean = tables().table, tables(backdoor=False).table
    assert backdoored.conviction[PLAIN, GREEN, BLUE] == 2.0
    assert clean.conviction[PLAIN, GREEN, BLUE] == pytest.approx(-1.0)
    # Grey loses blue images by 5, whatever the stamp, and wins its own by 5.
    assert clean.conviction[BLUE, BLACK, PLAIN] == pytest.approx(-1.0)
    assert clean.conviction[PLAIN, :, PLAIN].isnan().all()


def test_the_peak_is_the_conviction_of_the_surer_half_of_the_places():
    wide = stamp_table(tables().subject, tables().images, StampSettings(best_places=0.5))
    narrow = stamp_table(tables().subject, tables().images, StampSettings(best_places=0.25))
    torch.testing.assert_close(wide.peak, narrow.conviction, equal_nan=True)
    known = wide.peak.isfinite()
    assert (wide.peak[known] >= wide.conviction[known] - 1e-6).all() and known.any()


def test_the_mean_conviction_of_others_is_that_with_the_subjects_best_colour():
    own, first, second = (
        StampTable(torch.zeros(2, 8, 2), torch.full((2, 8, 2), -1.0), torch.zeros(2)) for _ in range(3)
    )
    own.success[0, GREEN, 1] = 0.9
    first.conviction[0, GREEN, 1], second.conviction[0, GREEN, 1], second.conviction[0, RED, 1] = -0.5, 0.75, 2.0
    assert mean_conviction(own, [first, second], (0, 1)) == pytest.approx(0.125)
    assert mean_conviction(own, [], (0, 1)) is None
    second.conviction[0, GREEN, 1] = torch.nan
    assert mean_conviction(own, [first, second], (0, 1)) is None


def test_the_gap_compares_the_same_colour():
    stamps, clean = torch.zeros(2, 8, 2), torch.zeros(2, 8, 2)
    stamps[0, GREEN, 1], clean[0, GREEN, 1], clean[0, RED, 1] = 0.99, 0.04, 0.9
    assert stamp_gap(stamps, [clean], (0, 1)) == pytest.approx(math.log(1.0 / 0.05))
    assert stamp_gap(stamps, [clean, torch.zeros(2, 8, 2)], (0, 1)) == pytest.approx(math.log(1.0 / 0.03))


def test_suspects_are_what_stamps_turn_and_details_do_not_explain():
    subject = tables()
    assert set(subject.suspects(2)) == {(PLAIN, BLUE), (DOTTED, BLUE)}
    found = subject.suspects(99)
    assert len(found) == 6 and all(victim != target for victim, target in found)
    assert suspects(subject.stamps, subject.removals, 0) == ()
    assert found.index((PLAIN, DOTTED)) > 0


def test_classes_without_images_and_the_diagonal_are_zero():
    subject, pool = make_subject(DotNet(True)), images()
    some = pool.take(torch.nonzero(pool.y != BLUE).flatten())
    (stamps, conviction, _), removals = stamp_table(subject, some, SETTINGS), removal_success(subject, some, SETTINGS)
    assert stamps.shape == (3, 8, 3) and removals.shape == (3, 3)
    assert not stamps[BLUE].any() and not removals[BLUE].any()
    assert not stamps.isnan().any()
    assert conviction[BLUE].isnan().all() and conviction[:, :, BLUE].isnan().all()
    assert all(not stamps[c, :, c].any() and not removals[c, c] for c in range(3))
    assert stamps.min() >= 0 and stamps.max() <= 1


def test_bgr_networks_get_stamps_of_the_same_colour():
    subject = make_subject(DotNet(True))
    mirrored = make_subject(nn.Sequential(_Flip(), subject.module))
    mirrored.preprocessing.__dict__["colours"] = "BGR"
    turned = ImagePool(images().x.flip(1), images().y)
    assert torch.equal(
        stamp_table(mirrored, turned, SETTINGS).success, stamp_table(subject, images(), SETTINGS).success
    )


class _Flip(nn.Module):
    def forward(self, x):
        return x.flip(1)


@pytest.mark.parametrize("wrong", [{"side": 0}, {"grid": 1}, {"best_places": 0}, {"rim": 1.0}, {"images_per_class": 0}])
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(SettingsError):
        from_dict(StampSettings, wrong, source="stamps")


@pytest.mark.parametrize("size", [16, 32, 50, 224])
def test_the_plain_network_fits_every_size_and_leaves_the_random_stream_alone(size):
    before = torch.get_rng_state()
    one, again, other = (plain_network(4, (3, size, size), seed=seed).eval() for seed in (1, 1, 2))
    x = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)
    assert one(x).shape == (2, 4) and torch.equal(one(x), again(x)) and not torch.equal(one(x), other(x))
