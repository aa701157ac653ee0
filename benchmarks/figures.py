"""What is worked out from measured sizes and seconds; sizes are None where no trigger was found."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import spearmanr

Sizes = Sequence[float | None]
DRAWS = 5000


def logs(new: Sizes, old: Sizes) -> np.ndarray:
    """ln(new / old) of the pairs for which both were found."""
    both = [(a, b) for a, b in zip(new, old, strict=True) if a and b]
    return np.array([math.log(a / b) for a, b in both])


def agreement(fast: Sizes, reference: Sizes) -> dict[str, float | int | None]:
    """How far two measurements of the same pairs are apart."""
    both = [(a, b) for a, b in zip(fast, reference, strict=True) if a and b]
    apart = logs(fast, reference)
    if len(apart) < 2:
        return {"pairs": len(apart)}
    return {
        "pairs": len(apart),
        "only_first_found": sum(1 for a, b in zip(fast, reference, strict=True) if a and not b),
        "only_second_found": sum(1 for a, b in zip(fast, reference, strict=True) if b and not a),
        "median_abs_ln": float(np.median(np.abs(apart))),
        "mean_ln": float(apart.mean()),
        "p90_abs_ln": float(np.quantile(np.abs(apart), 0.9)),
        "spearman": float(spearmanr(*zip(*both, strict=True)).statistic),
    }


def growth(after: Sizes, before: Sizes) -> float | None:
    """Geometric mean of after / before; None if no pair has both."""
    apart = logs(after, before)
    return float(np.exp(apart.mean())) if len(apart) else None


def gain_ratio(groups: Sequence[tuple[Sizes, Sizes]], seed: int = 0) -> dict[str, float | int | None]:
    """Geometric mean of ours / theirs over the pairs of several models, with a bootstrap over pairs within models.

    The distance before hardening is the same for both and drops out. lower_95 is the 5 % quantile of the bootstrap.
    """
    apart = [ratios for ratios in (logs(ours, theirs) for ours, theirs in groups) if len(ratios)]
    if not apart:
        return {"pairs": 0, "ratio": None, "lower_95": None}
    stream = np.random.default_rng(seed)
    drawn = [stream.choice(ratios, (DRAWS, len(ratios))) for ratios in apart]
    means = np.concatenate(drawn, axis=1).mean(axis=1)
    every = np.concatenate(apart)
    return {
        "pairs": len(every),
        "ratio": float(np.exp(every.mean())),
        "lower_95": float(np.exp(np.quantile(means, 0.05))),
        "lowest_decile": float(np.exp(np.quantile(every, 0.1))),
    }


def seconds_to(wanted: float, seconds: Sequence[float], gains: Sequence[float | None]) -> float | None:
    """When a gain was first reached, by a straight line in ln(gain) between checkpoints; None if never.

    The first crossing of a noisy curve is early rather than late, which is in the measured method's favour.
    """
    at, level = 0.0, 0.0
    if wanted <= 1:
        return 0.0
    for now, gain in zip(seconds, gains, strict=True):
        if gain is None:
            continue
        reached = math.log(gain)
        if reached >= math.log(wanted):
            share = (math.log(wanted) - level) / (reached - level) if reached > level else 1.0
            return at + (now - at) * min(max(share, 0.0), 1.0)
        at, level = now, reached
    return None


def exponent(counts: Sequence[float], seconds: Sequence[float]) -> float | None:
    """Slope of ln(seconds) over ln(count); None for fewer than two counts.

    >>> round(exponent([5, 10, 20], [1, 4, 16]), 6)
    2.0
    """
    if len(counts) < 2:
        return None
    return float(np.polyfit(np.log(counts), np.log(seconds), 1)[0])
