"""The protocol's rows on models whose counts are known by hand."""

import pytest

from trojai_moth.core.records import from_json, to_json
from trojai_moth.eval.protocol_rows import Evaluation, ScoredModel, evaluate, mcnemar


def model(number, poisoned, *, blind=False, naive=False, size=10.0, held=0.5, **facts):
    return ScoredModel(model_id=f"id-{number}", twin_group=f"g{number // 2}", poisoned=poisoned, cleared_naive=naive,
                       cleared_blind=blind, size=size, held_success=held, **facts)  # fmt: skip


def rows(models):
    found = evaluate(models)
    return {row.name: (row.false_positives_cleared.count, row.true_positives_lost.count) for row in found.rows}


MODELS = [
    model(0, False, blind=True, naive=True, size=20.0, held=0.1),
    model(2, False, blind=True, size=12.0, held=0.6),
    model(4, False, naive=True, size=30.0, held=0.2),
    model(1, True, naive=True, size=5.0, held=0.9, right_pair=True, probability=0.9),
    model(3, True, size=15.0, held=0.4, probability=0.6),
]


def test_every_row_counts_its_own_clearings():
    found = rows(MODELS)
    assert found["scanner alone"] == (0, 0)
    assert found["oracle: clean ones hardened"] == (2, 0)
    assert found["naive: all hardened"] == (2, 1)
    assert found["blind rule"] == (2, 0)


def test_a_control_loses_no_more_than_the_rule_and_clears_what_lies_beyond():
    found = rows(MODELS)
    # No true positive may go: only sizes above 15 pixels, and success below 0.4.
    assert found["size alone, at equal loss"] == (2, 0)
    assert found["held-out success alone, at equal loss"] == (2, 0)
    lossy = [*MODELS[:4], model(3, True, blind=True, size=15.0, held=0.4)]
    assert rows(lossy)["blind rule"] == (2, 1)
    assert rows(lossy)["size alone, at equal loss"] == (3, 1)


def test_ties_are_kept():
    tied = [model(0, False, size=5.0), model(1, True, size=5.0)]
    assert rows(tied)["size alone, at equal loss"] == (0, 0)


def test_a_size_that_was_not_found_is_the_largest():
    found = rows([model(0, False, size=None), model(1, True, size=50.0)])
    assert found["size alone, at equal loss"] == (1, 0)


def test_where_nothing_was_hardened_nothing_is_said_of_hardening():
    found = rows([model(0, False, blind=True, naive=None), model(1, True, naive=None)])
    assert set(found) == {"scanner alone", "blind rule", "size alone, at equal loss",
                          "held-out success alone, at equal loss"}  # fmt: skip


def test_censored_shares_are_averaged_where_they_are_known():
    found = [evaluate([model(n, n % 2 == 1, censored=share) for n, share in enumerate(shares)])
             for shares in ([0.1, 0.3, None], [None, None])]  # fmt: skip
    assert found[0].censored == pytest.approx(0.2) and found[1].censored is None


def test_what_was_not_hardened_is_not_cleared():
    assert rows([model(0, False, naive=None), model(1, True)])["oracle: clean ones hardened"] == (0, 0)


def test_mcnemar_is_the_exact_sign_test():
    assert mcnemar(0, 0) == 1.0 and mcnemar(5, 0) == pytest.approx(2 * 0.5**5)
    assert mcnemar(3, 7) == mcnemar(7, 3)


def test_the_count_says_what_it_can_prove_and_survives_json():
    many = [model(2 * i + 1, True, probability=0.9) for i in range(25)] + [model(0, False, probability=0.1)]
    found = evaluate(many, ["id-9"])
    assert found.loss_bound == pytest.approx(1 - 0.025 ** (1 / 25)) and found.roc_auc == 1.0
    assert from_json(Evaluation, to_json(found)) == found


def test_nothing_at_all_is_no_accident():
    found = evaluate([])
    assert found.models == 0 and found.roc_auc is None and found.loss_bound == 1.0


def test_splits_count_each_value_of_each_condition_by_itself():
    models = [
        model(0, False, blind=True, conditions={"pixels": "32"}),
        model(2, False, conditions={"pixels": "64"}),
        model(1, True, blind=True, conditions={"pixels": "64"}),
        model(3, True),
    ]
    found = {(split.condition, split.value): split for split in evaluate(models).splits}
    assert set(found) == {("pixels", "32"), ("pixels", "64")}
    small, large = found["pixels", "32"], found["pixels", "64"]
    assert (small.false_positives_cleared.count, small.true_positives_lost.total) == (1, 0)
    assert (large.false_positives_cleared.count, large.true_positives_lost.count) == (0, 1)
