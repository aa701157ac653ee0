"""The card's own part in plain words, as Markdown."""

from __future__ import annotations

from ...rounds.class_names import said
from ...triggers.distance_records import unconverged
from ..distance_bounds.bounds import PairBounds
from ..distance_bounds.measures import area_share
from ..report.markdown import escape
from .card import CardRecord

HEAT_MAP, PAIRS, SIDE_FILE = "class_distances.png", "class_pairs.png", "class_distances.json"


def card_text(card: CardRecord) -> str:
    """A reader who has never heard of class distances is told which classes are easily confused on purpose."""
    parts = [
        "## Class distances",
        _meaning(card),
        _figures(card),
        f"![Class distances of every class pair as a heat map]({HEAT_MAP})",
        _riskiest(card),
    ]
    if card.riskiest:
        parts.append(f"![{_picture_words(card)}]({PAIRS})")
    parts.append(_limits(card))
    return "\n\n".join(parts)


def _meaning(card: CardRecord) -> str:
    return (
        "The *class distance* from one class to another is the size of the smallest change, the same on all images and "
        f"at the same place, that makes the model {escape(card.model_id)} take images of the first class for the "
        "second. The smaller it is, the easier somebody who wants to deceive the model has it with these two classes. "
        "Small distances are natural where classes look alike. Distances are counted in pixels of the model's "
        f"{card.size} x {card.width or card.size} input."
    )


def _figures(card: CardRecord) -> str:
    last, first = card.last, card.before
    rows = [
        ("mean", first.mean, last.mean),
        ("geometric mean", first.geometric_mean, last.geometric_mean),
        ("smallest", first.minimum, last.minimum),
    ]
    if card.after is None:
        head, rule = "| class distance in pixels | |", "|---|---|"
        body = [f"| {name} | {_number(value)} |" for name, value, _ in rows]
    else:
        head = "| class distance in pixels | before hardening | after | change (95 % interval over pairs) |"
        rule = "|---|---|---|---|"
        body = _change_rows(card)
        if first.censored or last.censored:  # before and after are not of the same pairs, then
            body += [f"| {name} of all found | {_number(value)} | {_number(later)} | |" for name, value, later in rows]
            body.append(f"| pairs without a trigger | {first.censored} | {last.censored} | |")
    return "\n".join([head, rule, *body, *_more_rows(card)])


def _change_rows(card: CardRecord) -> list[str]:
    """Of the pairs for which a trigger was found before and after; none where there is no such pair."""
    if card.gain is None:
        return []
    whole = card.gain.pairs == len(card.before.pairs)
    which = "" if whole else f" of the {card.gain.pairs} pairs with both"
    return [
        f"| {name}{which} | {_number(change.before)} | {_number(change.after)} | {change.words} |"
        for name, change in card.gain.changes
    ]


def _more_rows(card: CardRecord) -> list[str]:
    outcome, rows = card.outcome, []
    skip, end = ("| ", " |") if card.after else ("", "")
    if outcome.accuracy_before is not None:
        values = [outcome.accuracy_before, *([outcome.accuracy_after] if card.after else [])]
        cells = " | ".join("" if value is None else f"{value:.1%}" for value in values)
        rows.append(f"| accuracy on {escape(outcome.images)} | {cells} |{end}")
    if outcome.verdict:
        rows.append(f"| verdict of the scan | {skip}{escape(outcome.verdict)} |{end}")
    return rows


def _riskiest(card: CardRecord) -> str:
    found, bounds = card.riskiest, card.bounds
    if not found:
        return "No trigger was found for any class pair."
    lead = (
        f"{len(bounds.at_risk)} of {len(bounds.pairs)} class pairs are **at risk**: less than {bounds.risk_bound:.1f} "
        "pixels are known to be enough, as few as a scanner for backdoors takes for an injected trigger. "
    )
    count = f"The {len(found)} pairs" if len(found) > 1 else "The pair"
    return f"{lead}{count} with the smallest distance:\n\n" + "\n".join(f"* {_pair(card, pair)}" for pair in found)


def _pair(card: CardRecord, pair: PairBounds) -> str:
    victim, target = (escape(said(label, card.labels)) for label in (pair.victim, pair.target))
    last = pair.last or 0.0
    text = f"**{victim[0].upper()}{victim[1:]} taken for {target}**: {last:.1f} pixels are enough "
    text += f"({area_share(last, card.area)})"
    if pair.after is not None and pair.before is not None:
        text += f"; before hardening it was {pair.before:.1f}"
    text += "."
    if pair.pasted is not None:
        text += f" A piece of a real image of {target} of {pair.pasted:.1f} pixels does the same."
    if pair.sign_pixels is not None:
        text += f" Where one sign takes the other's place, {pair.sign_pixels:.0f} pixels change."
    if pair.surrogate is not None:
        text += f" In a clean network trained anew, {pair.surrogate:.1f} pixels are enough."
    if pair.similarity is not None:
        text += f" To the model the two classes look {_alike(pair.similarity)} (cosine {pair.similarity:.2f})."
    return text


def _alike(cosine: float) -> str:
    """A cosine in words.

    >>> _alike(0.9), _alike(0.0)
    ('much alike', 'unlike')
    """
    return "much alike" if cosine > 0.7 else "somewhat alike" if cosine > 0.3 else "unlike"


def _picture_words(card: CardRecord) -> str:
    pairs = ", ".join(f"{pair.victim} to {pair.target}" for pair in card.riskiest)
    return f"For class pairs {pairs}: an image of each class, the trigger, and the first image with the trigger on it"


def _limits(card: CardRecord) -> str:
    last = card.last
    censored = f" For {last.censored} of {len(last.pairs)} pairs no trigger was found." if last.censored else ""
    rough = unconverged(last.settings)
    warnings = "".join(f" Note: {escape(note)}." for note in (*last.warnings, *([rough] if rough else [])))
    seeds, pieces = len(last.settings.seeds), card.bounds.settings
    return (
        "Every distance is the smallest that a search found, so the true one may be smaller, and a pair that is not at "
        f"risk is not proved safe.{censored}{warnings} Measured by trojai-moth {escape(card.version)} on "
        f"{escape(last.data)}, success of at least {last.settings.success_bound:.0%}, {last.settings.steps} steps, "
        f"{seeds} seed{'s' if seeds > 1 else ''}; pieces of {pieces.patterns} real images for each pair, "
        f"{pieces.steps} steps, on {pieces.images_per_class} images. All pairs, settings and what every number does "
        f"and does not prove: [{SIDE_FILE}]({SIDE_FILE})."
    )


def _number(value: float | None) -> str:
    return "none found" if value is None else f"{value:.1f}"
