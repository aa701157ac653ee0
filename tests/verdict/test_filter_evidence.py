"""Known filters in the blind verdict: what they show of planted networks, and what they keep from being cleared."""

import dataclasses
import functools
import math

import pytest
import torch
from learned_rules import evidence, learned, pair
from toys import make_subject

from trojai_moth.core.errors import MothError
from trojai_moth.core.records import to_dict
from trojai_moth.rounds.samples import Samples
from trojai_moth.synthesis import retrained_copies as retrained_module
from trojai_moth.synthesis.retrained_copies import RetrainSettings
from trojai_moth.triggers.known_filters import FilterTable, filter_success, filter_table, known_filters
from trojai_moth.verdict import evidence as gather_module
from trojai_moth.verdict.evidence import collect_evidence
from trojai_moth.verdict.features import Question
from trojai_moth.verdict.filter_evidence import FILTERS, RELEARNED, FilterCheckSettings, FilterEvidence, filter_evidence
from trojai_moth.verdict.judge import judge

from ..scanners.test_filter import ColourNet, band_images
from ..triggers.test_known_filters import reddening  # noqa: F401
from .test_evidence import SETTINGS, candidate, verdict

NATURAL = {"held_success": 0.25, "stamp_gap": -1.0, "log_size": 0.0}
CLEARS = Question(frozenset({"log_size"}), lambda *_: "cleared")
INJECTED = {"held_success": 1.0, "stamp_gap": 2.0, "log_size": -3.0}


def found(backdoor, *clean):
    own, images = make_subject(ColourNet(backdoor=backdoor)), band_images()
    beside = [filter_success(make_subject(ColourNet(backdoor=other)), images) for other in clean]
    return filter_evidence(filter_table(own, images), FilterCheckSettings(), beside)


def test_the_backdoor_and_its_filter_stand_out_beside_clean_networks(reddening):  # noqa: F811
    shown = found((1, 2), None, None)
    assert (shown.victim, shown.target, shown.filter) == (1, 2, "Red")
    assert shown.success > 0.99 and shown.clean_success < 0.1 and shown.conviction > 0.5
    assert shown.suspicion(FilterCheckSettings()) > FilterCheckSettings().odds


def test_what_clean_networks_do_as_well_says_nothing(reddening):  # noqa: F811
    assert found((1, 2), (1, 2), (1, 2)).odds < 3


def test_odds_are_the_difference_of_log_odds_and_at_most_that_without_clean_networks():
    own, clean = torch.zeros(5, 3, 3), torch.zeros(5, 3, 3)
    own[3, 1, 2], clean[3, 1, 2] = 0.9, 0.2
    own[2, 0, 1], clean[2, 0, 1] = 0.99, 0.95
    clean[3, 0, 2] = 0.99  # of another victim, which says nothing of this one
    plain = FilterCheckSettings(rare=0)
    beside = filter_evidence(FilterTable(own, torch.ones(5, 3, 3)), plain, [clean])
    assert (beside.victim, beside.target, beside.filter) == (1, 2, "Lomo")
    assert beside.odds == pytest.approx(math.log(9) + math.log(4), rel=1e-4)
    alone = filter_evidence(FilterTable(own, torch.ones(5, 3, 3)), plain)
    assert (alone.victim, alone.target) == (0, 1) and alone.clean_success is None
    assert alone.odds == pytest.approx(2 * math.log(99), rel=1e-4) and alone.odds > beside.odds


def test_a_pair_that_is_won_by_little_is_less_suspicious_than_its_odds():
    own, conviction = torch.full((5, 3, 3), 0.01), torch.ones(5, 3, 3)
    own[3, 1, 2], own[2, 0, 1] = 0.9, 0.99
    conviction[3, 1, 2], conviction[2, 0, 1] = 0.5, 0.1
    settings = FilterCheckSettings(weight=3, convinced=0.8, rare=0)
    shown = filter_evidence(FilterTable(own, conviction), settings)
    assert (shown.victim, shown.target) == (1, 2) and shown.conviction == pytest.approx(0.5)

    def suspicion(conviction):
        return dataclasses.replace(shown, conviction=conviction).suspicion(settings) - shown.odds

    assert shown.suspicion(settings) - shown.odds == pytest.approx(3 * math.log(0.5 / 0.8))
    assert suspicion(0.0) == pytest.approx(3 * math.log(0.02 / 0.8))
    assert suspicion(None) == suspicion(0.8) == suspicion(1.0) == 0


def test_what_few_networks_give_way_to_untaught_counts_more():
    own, settings = torch.full((5, 3, 3), 0.01), FilterCheckSettings(rare=2)
    names = list(known_filters())
    own[names.index("Toaster"), 0, 1], own[names.index("Lomo"), 1, 2] = 0.99, 0.95
    table = FilterTable(own, torch.ones(5, 3, 3))
    shown, plain = filter_evidence(table, settings), filter_evidence(table, FilterCheckSettings(rare=0))
    assert (shown.filter, plain.filter) == ("Lomo", "Toaster")
    assert shown.suspicion(settings) == pytest.approx(shown.odds + 2)
    assert plain.suspicion(settings) == pytest.approx(plain.odds)


def spares(others, name="Toaster", success=0.6):
    """The evidence of a network of five classes that one filter turns from 1 to 2, and what is left of the others."""
    own = torch.full((5, 5, 5), 0.02)
    own.diagonal(dim1=1, dim2=2).fill_(0.3)
    at = list(known_filters()).index(name)
    own[at].diagonal().copy_(torch.tensor([others, 0.1, 0.9, others, others]))
    own[at, 1, 2] = success
    return filter_evidence(FilterTable(own, torch.full((5, 5, 5), 0.2)), FilterCheckSettings())


def test_a_filter_that_turns_one_class_and_spares_the_others_is_suspicious_however_weak():
    settings, shown = FilterCheckSettings(), spares(0.97)
    assert (shown.victim, shown.target, shown.filter) == (1, 2, "Toaster") and shown.spared == pytest.approx(0.97)
    assert shown.filter_margin_gap(settings) < settings.odds < shown.suspicion(settings)
    above = min(math.log(0.6 / 0.4), math.log(0.97 / 0.03) - math.log(9))
    assert shown.suspicion(settings) == pytest.approx(settings.choosy + above, rel=1e-4)
    assert settings.choosy == settings.odds  # kept where both bounds are met
    assert spares(0.97, success=0.4).suspicion(settings) < settings.odds
    assert spares(0.8).suspicion(settings) < settings.odds
    assert spares(0.97, name="Nashville").single_class_score(settings) == -math.inf
    assert dataclasses.replace(shown, spared=None).single_class_score(settings) == -math.inf


def beside_copies(success, others, copy_success, copy_others, conviction=0.5):
    """What copies leave unexplained of Toaster from 1 to 2, by the success for the pair and the other classes' own."""
    own, copy, at = torch.full((5, 5, 5), 0.02), torch.full((5, 5, 5), 0.02), list(known_filters()).index("Toaster")
    for table, pair_success, spared in ((own, success, others), (copy, copy_success, copy_others)):
        table[at].diagonal().copy_(torch.tensor([spared, 0.02, 0.9, spared, spared]))
        table[at, 1, 2] = pair_success
    clean = torch.full((5, 5, 5), 0.01)
    shares = torch.zeros(5, 5, 5)
    shares[at, 1, 2] = conviction
    return filter_evidence(FilterTable(own, shares), FilterCheckSettings(), [clean], [copy / 2, copy])


def test_what_retrained_copies_do_as_well_lowers_the_suspicion():
    settings = FilterCheckSettings()
    explained, alone = beside_copies(0.97, 0.5, 0.96, 0.5), beside_copies(0.97, 0.5, 0.02, 0.5)
    assert explained.filter_margin_gap(settings) == alone.filter_margin_gap(settings) > settings.odds
    assert explained.suspicion(settings) < settings.odds < alone.suspicion(settings)
    strict = dataclasses.replace(settings, room=9.0)
    assert explained.suspicion(strict) == max(
        explained.filter_margin_gap(strict), explained.single_class_score(strict)
    )  # never more
    shown = alone.unexplained
    assert (shown.victim, shown.target, shown.filter, shown.explained) == (1, 2, "Toaster", pytest.approx(0.02))
    odds = math.log(0.97 / 0.03) + math.log(0.98 / 0.02)
    assert shown.odds == pytest.approx(odds, rel=1e-4)
    assert shown.suspicion(settings) == pytest.approx(odds + 2 * math.log(0.5) + settings.room, rel=1e-4)


def test_classes_that_only_the_network_itself_spares_were_taught_to_be():
    settings = FilterCheckSettings()
    taught, knew = beside_copies(0.97, 0.8, 0.96, 0.3), beside_copies(0.97, 0.8, 0.96, 0.9)
    assert taught.suspicion(settings) > settings.odds > knew.suspicion(dataclasses.replace(settings, room=0.5))
    gain, odds = math.log(4) - math.log(3 / 7), math.log(0.97 / 0.03) - math.log(24)
    expected = odds + settings.unexplained_weight * math.log(0.5) + settings.room + settings.gain * gain
    assert taught.unexplained.suspicion(settings) == pytest.approx(expected, rel=1e-4)
    weak = beside_copies(0.8, 0.8, 0.75, 0.3)  # turned less than surely: what is spared does not count
    assert weak.unexplained.suspicion(settings) < settings.odds
    unknown = dataclasses.replace(taught.unexplained, spared=None)
    assert unknown.suspicion(settings) == pytest.approx(expected - settings.gain * gain, abs=1e-4)


def test_of_two_classes_none_is_spared():
    own = torch.full((5, 2, 2), 0.9)
    assert filter_evidence(FilterTable(own, torch.ones(5, 2, 2)), FilterCheckSettings()).spared is None


def test_classes_without_images_are_not_said_to_be_turned():
    own = torch.full((5, 4, 4), 0.02)
    own.diagonal(dim1=1, dim2=2).fill_(0.94)
    own[:, 3] = 0
    own[0, 0, 1] = 0.6
    assert filter_evidence(FilterTable(own, torch.ones(5, 4, 4)), FilterCheckSettings()).spared == pytest.approx(0.94)


@pytest.mark.parametrize("broken", [0, 1])
def test_outputs_that_are_not_finite_are_no_evidence(broken):
    tables = [torch.full((5, 2, 2), 0.5), torch.full((5, 2, 2), 0.5)]
    tables[broken][1, 0, 1] = float("nan")
    with pytest.raises(MothError, match="not finite"):
        filter_evidence(FilterTable(*tables), FilterCheckSettings())


RED = FilterEvidence(victim=1, target=2, filter="Kelvin", success=0.999, clean_success=0.02, odds=9.0)


def judged(*pairs, rule=None, **facts):
    return judge(dataclasses.replace(evidence(*pairs), **facts), rule)


def test_a_filter_keeps_what_patches_would_clear():
    without = judged(pair(**NATURAL), rule=learned())
    assert without.cleared
    kept = judged(pair(**NATURAL), rule=learned(), filter=RED)
    assert kept.outcome == "kept" and kept.pair == (1, 2) and kept.rule == FILTERS
    assert kept.score >= kept.threshold and kept.probability > 0.8
    assert "1->2 still looks injected" in kept.reason and "photo filter Kelvin" in kept.reason
    spared = dataclasses.replace(RED, conviction=0.05, spared=0.99)
    kept = judged(pair(**NATURAL), rule=learned(), filter=spared)
    assert kept.outcome == "kept" and "photo filter Kelvin does it, and spares the other classes" in kept.reason
    weak = dataclasses.replace(RED, conviction=0.05)
    assert judged(pair(**NATURAL), rule=learned(), filter=weak) == without


def test_by_bounds_too_and_by_the_bound_that_the_run_was_given():
    natural = pair(stamp_success=0.2, removal_success=0.9)
    assert judged(natural).cleared and judged(natural, filter=RED).outcome == "kept"
    settings = {FILTERS: to_dict(FilterCheckSettings(odds=9.5))}
    assert judged(natural, filter=RED, settings=settings).cleared


def test_what_could_not_be_tried_is_not_cleared():
    found = judged(pair(**NATURAL), rule=learned(), skipped={FILTERS: "no clean network"})
    assert found.outcome == "not judged" and "no clean network" in found.reason and found.probability is None


def test_what_is_kept_anyway_stays_as_it_is():
    kept = judged(pair(**INJECTED), rule=learned())
    assert kept.outcome == "kept" and judged(pair(**INJECTED), rule=learned(), filter=RED) == kept


@pytest.fixture
def colours():
    images = band_images()
    return Samples(images, images, images, "bands")


def gathered(backdoor, colours, **changes):
    subject = make_subject(ColourNet(backdoor=backdoor))
    settings = dataclasses.replace(SETTINGS, **changes)
    return collect_evidence(subject, colours, verdict(candidate(0, 1)), settings, seed=3, question=CLEARS)


def test_evidence_says_what_filters_do_with_clean_networks_only_where_these_matter(reddening, colours, monkeypatch):  # noqa: F811
    trained = []

    def clean(subject, *_, seed, **__):
        trained.append(seed)
        return make_subject(ColourNet())

    monkeypatch.setattr(gather_module, "train_surrogate", clean)
    found = gathered((1, 2), colours)
    assert (found.filter.victim, found.filter.target) == (1, 2) and found.filter.clean_success is not None
    assert len(trained) == SETTINGS.clean_networks and FILTERS in found.stage_seconds
    none = gathered(None, colours)
    assert none.filter.clean_success is None and none.filter.odds < FilterCheckSettings().odds
    assert len(trained) == SETTINGS.clean_networks


def test_copies_are_retrained_where_a_filter_would_keep_the_flag(reddening, colours, monkeypatch):  # noqa: F811
    monkeypatch.setattr(gather_module, "train_surrogate", lambda *_, **__: make_subject(ColourNet()))
    asked = []

    def retrained(subject, train, held, settings, kept, *, seed, backdoor=(1, 2)):
        asked.append((kept, seed))
        return make_subject(ColourNet(backdoor=backdoor))

    monkeypatch.setattr(retrained_module, "retrain_from", retrained)
    own, both = FilterCheckSettings(room=0), RetrainSettings(kept=(0.5, 1.0))
    natural = gathered((1, 2), colours, relearning=both, filters=own)
    assert [kept for kept, _ in asked] == [0.5]  # it explains enough
    assert gathered((1, 2), colours, relearning=both, filters=own, complete=True).filter == natural.filter
    assert [kept for kept, _ in asked] == [0.5, 0.5, 1.0] and asked[0] == asked[1] and asked[1][1] != asked[2][1]
    assert (
        natural.filter.suspicion(own) < own.odds < natural.filter.filter_margin_gap(own)
        and RELEARNED in natural.stage_seconds
    )
    assert gathered(None, colours, relearning=both).filter.unexplained is None and len(asked) == 3
    monkeypatch.setattr(retrained_module, "retrain_from", functools.partial(retrained, backdoor=None))
    injected = gathered((1, 2), colours, relearning=both).filter
    assert injected.unexplained.explained < 0.1 and injected.suspicion(own) > own.odds


def test_where_no_copy_can_be_retrained_the_flag_stays(reddening, colours, monkeypatch):  # noqa: F811
    def fails(*_, **__):
        raise MothError("no copy")

    monkeypatch.setattr(gather_module, "train_surrogate", lambda *_, **__: make_subject(ColourNet()))
    monkeypatch.setattr(retrained_module, "retrain_from", fails)
    found, own = gathered((1, 2), colours, relearning=RetrainSettings()), FilterCheckSettings()
    assert found.skipped[RELEARNED] == "no copy" and FILTERS not in found.skipped
    assert found.filter.unexplained is None and found.filter.suspicion(own) > own.odds


def test_without_clean_networks_the_stage_failed_and_nothing_is_cleared(reddening, colours, monkeypatch):  # noqa: F811
    monkeypatch.setattr(gather_module, "train_surrogate", lambda *_, **__: None)
    found = gathered((1, 2), colours)
    assert found.filter is None and "no clean network" in found.skipped[FILTERS]


def test_what_patches_keep_needs_no_filters(colours):
    kept = Question(frozenset({"log_size"}), lambda *_: "kept")
    subject = make_subject(ColourNet())
    found = collect_evidence(subject, colours, verdict(candidate(0, 1)), SETTINGS, seed=3, question=kept)
    assert found.filter is None and FILTERS not in found.stage_seconds


def test_several_scanners_of_which_one_saw_a_filter_are_not_judged_by_patches(colours):
    both = dataclasses.replace(
        verdict(candidate(0, 1, scanner="k-arm"), candidate(1, 2, size=0.1, kind="filter", scanner="filter")),
        member_scores={"k-arm": -1.0, "filter": 1.0},
    )
    subject = make_subject(ColourNet())
    assert not collect_evidence(subject, colours, both, SETTINGS, seed=3, question=CLEARS).candidates
    patch = dataclasses.replace(both, member_scores={"k-arm": 1.0, "filter": -1.0})
    assert collect_evidence(subject, colours, patch, SETTINGS, seed=3, question=CLEARS).candidates
