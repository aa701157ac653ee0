"""Published leaderboard figures, to be shown beside one's own (nist-pages ``docs/downloads``, and the ABS README)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ...core.records import record


@record
class Published:
    """One published result: cross-entropy and ROC-AUC of a split of a round, as many digits as its source gives."""

    source: str
    cross_entropy: str
    roc_auc: str


PUBLISHED: Mapping[str, tuple[Published, ...]] = MappingProxyType(
    {
        "1": (
            Published(source="leaderboard, test", cross_entropy="0.303", roc_auc="0.910"),
            Published(source="leaderboard, holdout", cross_entropy="0.225", roc_auc="0.971"),
            Published(source="ABS", cross_entropy="0.30", roc_auc="0.91"),
        ),
        "2": (
            Published(source="leaderboard, test", cross_entropy="0.324", roc_auc="0.892"),
            Published(source="leaderboard, holdout", cross_entropy="0.383", roc_auc="0.880"),
            Published(source="ABS", cross_entropy="0.32", roc_auc="0.89"),
        ),
        "3": (
            Published(source="leaderboard, test", cross_entropy="0.299", roc_auc="0.914"),
            Published(source="leaderboard, holdout", cross_entropy="0.294", roc_auc="0.940"),
            Published(source="ABS", cross_entropy="0.32", roc_auc="0.90"),
        ),
        "4": (
            Published(source="leaderboard, test", cross_entropy="0.322", roc_auc="0.902"),
            Published(source="leaderboard, holdout", cross_entropy="0.318", roc_auc="0.907"),
            Published(source="ABS", cross_entropy="0.32", roc_auc="0.90"),
        ),
        "11": (Published(source="leaderboard, test", cross_entropy="0.101", roc_auc="0.996"),),
    }
)
"""By round."""

ROUND_4_MODELS = 288
"""Models of round 4's test set, and of its holdout set."""

PUBLISHED_FIDELITY: Mapping[str, float] = MappingProxyType(
    {"TrinitySRI": 0.939, "Purdue-Rutgers": 0.928, "NIST's template": 0.5}
)
"""Mitigation round jun2024, by team."""
