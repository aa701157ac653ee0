"""Whether the committed records still give the rule that ships, and the committed figures of it.

    python benchmarks/check_rule.py

Learns the rule anew (learn_rule.py) and scores it anew (score_rule.py), which takes two minutes. Says for each "same
bytes", "the same but for rounding", as on another processor, or what differs; in the last case it ends with 1.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from learn_rule import learn
from score_rule import RESULT, result

from trojai_moth.core.records import to_json
from trojai_moth.verdict.judge import SHIPPED

# Sums in another order differ by less, and what is measured by more.
ROUNDING = 1e-9


def differences(made: Any, known: Any, path: str = "") -> Iterator[str]:
    """Where two JSON values differ by more than rounding."""
    if isinstance(made, dict) and isinstance(known, dict) and made.keys() == known.keys():
        for name in made:
            yield from differences(made[name], known[name], f"{path}/{name}")
    elif isinstance(made, list) and isinstance(known, list) and len(made) == len(known):
        for at, (one, other) in enumerate(zip(made, known, strict=True)):
            yield from differences(one, other, f"{path}/{at}")
    elif isinstance(made, float) and isinstance(known, float):
        if not math.isclose(made, known, rel_tol=ROUNDING, abs_tol=ROUNDING):
            yield f"{path}: {made}, committed {known}"
    elif made != known:
        yield f"{path}: {made!r:.80}, committed {known!r:.80}"


def compared(what: str, made: str, known: str) -> bool:
    """Say how two texts of JSON differ; whether they do."""
    found = list(differences(json.loads(made), json.loads(known)))
    words = "same bytes" if made == known else "the same but for rounding"
    print(f"{what}: {words if not found else f'{len(found)} differences'}", *found[:20], sep="\n  ", flush=True)
    return bool(found)


def main() -> None:
    """Both, whatever the first says."""
    rule = compared("the rule", to_json(learn()), SHIPPED.read_text(encoding="utf-8"))
    scores = compared("its figures", json.dumps(result(), indent=1) + "\n", RESULT.read_text(encoding="utf-8"))
    raise SystemExit(rule or scores)


if __name__ == "__main__":
    main()
