"""The rules on evidence whose verdict is known, learned and by bounds, and the sentences that they give."""

import math
from dataclasses import replace

import pytest
from learned_rules import TERMS, evidence, learned, pair

from trojai_moth.core.errors import SettingsError
from trojai_moth.core.files import write_text
from trojai_moth.core.learned_file import refuse_fitted
from trojai_moth.core.records import from_dict, from_json, to_dict, to_json
from trojai_moth.core.statistics import logistic
from trojai_moth.triggers.stamps import StampBounds
from trojai_moth.verdict.judge import judge, score_pairs
from trojai_moth.verdict.learned_rule import MOST_FEATURES, STANDARD_LIMIT, LearnedRule, Term, read_rule
from trojai_moth.verdict.records import MOST_NAMED, Verdict
from trojai_moth.verdict.threshold_rule import FALLBACK_BOUNDS

INJECTED = {"held_success": 1.0, "stamp_gap": 2.0, "log_size": -3.0}
NATURAL = {"held_success": 0.25, "stamp_gap": -1.0, "log_size": 0.0}
WITHIN = {"stamp_success": 0.99, "stamp_breadth": 0.4, "removal_success": 0.0, "stamp_gap": 2.0}
BEYOND = {"stamp_success": 0.2, "stamp_breadth": 0.1, "removal_success": 0.9, "stamp_gap": 0.1}


class TestLearned:
    def test_the_score_is_the_sum_of_weighted_standardised_values(self):
        verdict = judge(evidence(pair(**INJECTED)), learned(intercept=0.3))
        assert verdict.score == pytest.approx(0.3 + 1 * 2.0 + 0.5 * 2.0 + -2 * -1.0)
        assert verdict.outcome == "kept" and verdict.pair == (4, 2) and not verdict.missing
        assert verdict.probability == pytest.approx(logistic(verdict.score)) and verdict.threshold == 0.0

    def test_natural_evidence_clears(self):
        verdict = judge(evidence(pair(**NATURAL)), learned())
        assert verdict.score == pytest.approx(-1 - 0.5 - 1)
        assert verdict.cleared and verdict.probability < 0.1

    def test_clearing_needs_every_candidate_to_be_natural(self):
        assert judge(evidence(pair(**NATURAL), pair(0, 1, **NATURAL)), learned()).cleared
        mixed = judge(evidence(pair(**NATURAL), pair(0, 1, **INJECTED)), learned())
        assert mixed.outcome == "kept" and mixed.pair == (0, 1)

    def test_the_order_of_candidates_does_not_matter(self):
        pairs = [pair(**NATURAL), pair(0, 1, **INJECTED), pair(1, 2, held_success=0.9)]
        assert judge(evidence(*pairs), learned()) == judge(evidence(*reversed(pairs)), learned())

    def test_a_score_at_the_threshold_keeps(self):
        top = judge(evidence(pair(**NATURAL)), learned()).score
        assert judge(evidence(pair(**NATURAL)), learned(threshold=top)).outcome == "kept"
        assert judge(evidence(pair(**NATURAL)), learned(threshold=math.nextafter(top, 9))).outcome == "cleared"

    def test_the_largest_contributions_decide_and_are_told(self):
        verdict = judge(evidence(pair(held_success=0.98, stamp_gap=1.9, log_size=-1.2)), learned())
        assert [part.feature for part in verdict.decided_by] == ["held_success", "stamp_gap", "log_size"]
        assert verdict.decided_by[0].contribution == pytest.approx(1.92)
        assert verdict.reason == (
            "kept: 4->2 still looks injected (probability 0.96): its trigger works on images it was not made for "
            "(0.98); the stamp does nothing to clean networks of the same classes (+1.9); its trigger is small (-1.2)"
        )

    def test_what_spoke_against_the_outcome_is_not_hidden(self):
        verdict = judge(evidence(pair(**INJECTED | {"held_success": 0.1})), learned())
        assert verdict.outcome == "kept"
        assert verdict.reason.endswith(", although its trigger fails on images it was not made for (0.10)")
        cleared = judge(evidence(pair(**NATURAL)), learned())
        start = "cleared: 4->2 looks natural, and no other pair less so (probability of being injected 0.08): "
        assert cleared.reason.startswith(start) and "although" not in cleared.reason

    def test_kept_by_a_careful_threshold_says_so(self):
        verdict = judge(evidence(pair(**NATURAL)), learned(threshold=-9.0))
        assert verdict.outcome == "kept" and "is not natural enough to be cleared" in verdict.reason

    def test_a_missing_feature_adds_nothing_and_is_named(self):
        for nothing in (None, math.nan, -math.inf):
            verdict = judge(evidence(pair(**NATURAL | {"log_size": nothing})), learned())
            assert verdict.score == pytest.approx(-1.5) and verdict.missing == ("log_size",)
            assert verdict.cleared

    def test_too_much_missing_is_not_judged_unless_another_pair_is_injected(self):
        bare, skipped = pair(0, 1, held_success=0.1), {"filters": "out of colours"}
        verdict = judge(evidence(pair(**NATURAL), bare, skipped=skipped), learned())
        assert verdict.outcome == "not judged" and not verdict.cleared
        assert verdict.score is verdict.probability is None and verdict.pair == (0, 1)
        assert verdict.reason == ("not judged: 0->1 lacks stamp_gap, log_size (filters was left out: out of colours)")
        assert judge(evidence(pair(**INJECTED), bare), learned()).outcome == "kept"

    def test_what_a_failed_stage_would_have_shown_is_not_taken_for_nothing(self):
        bundle = evidence(pair(**NATURAL | {"stamp_gap": None}), skipped={"clean_stamps": "nothing was learned"})
        verdict = judge(bundle, learned())  # -2, and the gap could add 0.5 * 4
        assert verdict.outcome == "not judged" and not verdict.cleared
        assert verdict.reason == "not judged: stamp_gap is not known (clean_stamps was left out: nothing was learned)"
        cleared = judge(bundle, learned(threshold=0.01))
        assert cleared.cleared and cleared.score == pytest.approx(0.0)
        injected = evidence(pair(**INJECTED | {"stamp_gap": None}), skipped=bundle.skipped)
        assert judge(injected, learned(threshold=1.9)).outcome == "kept"
        elsewhere = evidence(pair(**NATURAL | {"stamp_gap": None}), skipped={"stamps": "nothing was learned"})
        assert judge(elsewhere, learned()).cleared

    def test_a_model_without_candidates_is_not_judged(self):
        for rule in (learned(), None):
            verdict = judge(evidence(), rule)
            assert verdict.outcome == "not judged" and verdict.pair is None
            assert verdict.reason == (
                "not judged: no patch of its scanner could be measured, and no other flag is taken back"
            )

    def test_one_wild_number_does_not_decide_alone(self):
        wild = judge(evidence(pair(**NATURAL | {"stamp_gap": 1e9})), learned()).score
        assert wild == pytest.approx(-1 + 0.5 * STANDARD_LIMIT - 1)

    def test_a_rule_that_knows_no_feature_keeps_everything(self):
        verdict = judge(evidence(pair(**NATURAL)), learned(terms=(), threshold=-0.4, intercept=-0.4))
        assert verdict.outcome == "kept" and verdict.decided_by == ()

    def test_a_model_that_was_learned_from_says_so(self):
        bundle = evidence(pair(**NATURAL))
        assert judge(bundle, learned(), sha256="bb").fitted_on and not judge(bundle, learned(), sha256="cc").fitted_on
        refuse_fitted(learned(), [("id-7", "cc")])
        with pytest.raises(SettingsError, match=r"learned from 1 of these 2 models \(id-7 first\).*--allow-fitted"):
            refuse_fitted(learned(), [("id-6", "cc"), ("id-7", "aa")])

    def test_verdict_and_rule_survive_json(self, tmp_path):
        verdict = judge(evidence(pair(**INJECTED)), learned())
        assert from_json(Verdict, to_json(verdict)) == verdict
        write_text(tmp_path / "rule.json", to_json(learned()))
        assert read_rule(tmp_path / "rule.json") == learned()

    def test_the_hash_names_the_rule(self):
        one, other = (judge(evidence(), rule).rule_sha256 for rule in (learned(), learned(threshold=0.1)))
        assert one != other

    def test_every_candidate_has_a_score_of_its_own(self):
        bundle = evidence(pair(**NATURAL), pair(0, 1, **INJECTED))
        found = score_pairs(bundle.candidates, TERMS, 0.2)
        assert [one.pair for one in found] == [(4, 2), (0, 1)]
        assert max(one.score for one in found) == judge(bundle, learned(intercept=0.2)).score


class TestReading:
    def test_what_is_no_rule_is_one_line(self, tmp_path):
        path = tmp_path / "rule.json"
        with pytest.raises(SettingsError, match=r"rule\.json: cannot be read"):
            read_rule(path)
        for text, words in (("{", "cannot be read"), ("[]", "format None"), ('{"format": 2}', "learn a rule anew")):
            path.write_text(text)
            with pytest.raises(SettingsError, match=words):
                read_rule(path)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"feature": "colour"}, "is no feature"),
            ({"weight": -1.0}, "against its sign"),
            ({"scale": 0.0}, "scale"),
        ],
    )
    def test_impossible_terms_are_refused(self, change, words):
        good = to_dict(TERMS[0])
        with pytest.raises(SettingsError, match=words):
            from_dict(Term, good | change)

    def test_a_feature_twice_or_too_many_are_refused(self):
        data = to_dict(learned())
        for terms, words in ((data["terms"] * 2, "twice"), (data["terms"] * MOST_FEATURES, "at most 8")):
            with pytest.raises(SettingsError, match=words):
                from_dict(LearnedRule, data | {"terms": terms})

    def test_another_scanner_or_source_is_refused(self):
        learned().check("neural-cleanse", "composed")
        with pytest.raises(SettingsError, match=r"--scanner 'neural-cleanse', this run has 'k-arm'"):
            learned().check("k-arm", "composed")
        with pytest.raises(SettingsError, match="--data"):
            learned().check("neural-cleanse", "examples")

    def test_other_ways_of_measuring_are_refused_where_they_are_given(self):
        rule = learned(evidence_settings={"steps": 30})
        rule.check("neural-cleanse", "composed")
        rule.check("neural-cleanse", "composed", {"steps": 30, "more": 1})
        with pytest.raises(SettingsError, match=r"evidence setting steps 30, this run has 40"):
            rule.check("neural-cleanse", "composed", {"steps": 40})

    def test_settings_that_no_feature_of_the_rule_depends_on_may_differ(self):
        own = {"complete": True, "clean_networks": 2, "filters": {"odds": 6.0}, "steps": 250}
        other = {"complete": False, "clean_networks": 3, "filters": {"odds": 99.0}, "steps": 250}
        rule = learned(terms=[Term(feature="held_success", centre=0.5, scale=1.0, weight=1.0)], evidence_settings=own)
        rule.check("neural-cleanse", "composed", other)
        beside_clean = learned(
            terms=[Term(feature="clean_conviction", centre=0.5, scale=1.0, weight=-1.0)], evidence_settings=own
        )
        with pytest.raises(SettingsError, match="evidence setting clean_networks"):
            beside_clean.check("neural-cleanse", "composed", other)


class TestBounds:
    def test_a_pair_within_all_bounds_is_kept(self):
        kept = judge(evidence(pair(**WITHIN)))
        assert (kept.outcome, kept.score, kept.rule) == ("kept", 0.0, "bounds") and kept.probability > 0.5
        assert [part.feature for part in kept.decided_by] == list(WITHIN)[:MOST_NAMED]
        assert all(part.contribution > 0 for part in kept.decided_by)

    @pytest.mark.parametrize("feature", list(BEYOND))
    def test_one_bound_that_it_is_beyond_clears(self, feature):
        cleared = judge(evidence(pair(**WITHIN | {feature: BEYOND[feature]})))
        assert (cleared.outcome, cleared.score) == ("cleared", -1.0) and cleared.probability < 0.5
        assert cleared.decided_by[0].feature == feature

    def test_the_more_bounds_the_less_suspicious(self):
        none = judge(evidence(pair(**BEYOND)))
        one = judge(evidence(pair(**WITHIN | {"stamp_gap": -1.0})))
        assert none.score == -4.0 and none.probability < one.probability

    def test_the_most_suspicious_candidate_decides(self):
        verdict = judge(evidence(pair(**BEYOND), pair(0, 1, **WITHIN)))
        assert verdict.outcome == "kept" and verdict.pair == (0, 1)

    def test_what_is_missing_and_could_keep_leaves_the_model_unjudged(self):
        missing = judge(evidence(pair(stamp_success=0.9, stamp_breadth=0.5, removal_success=0.1)))
        assert missing.outcome == "not judged" and "lacks stamp_gap" in missing.reason
        cleared = judge(evidence(pair(stamp_success=0.1)))
        assert cleared.cleared and cleared.missing == ("stamp_breadth", "removal_success", "stamp_gap")

    def test_what_was_not_needed_is_not_missing(self):
        known = {name: value for name, value in WITHIN.items() if name != "stamp_gap"} | {"stamp_success": 0.1}
        cleared = judge(evidence(pair(**known), left_open=("stamp_gap",)))
        assert not cleared.missing
        assert "stamp_gap could not change that and was not measured; by fixed bounds" in cleared.reason

    def test_the_bounds_are_settings(self):
        strict = replace(FALLBACK_BOUNDS, success=0.995)
        assert judge(evidence(pair(**WITHIN)), fallback=strict).cleared
        assert judge(evidence(), fallback=strict).rule_sha256 != judge(evidence()).rule_sha256
        with pytest.raises(SettingsError):
            from_dict(StampBounds, {"success": 2})
