"""Deciding without labels: evidence that tells a natural backdoor from an injected one, and the rule that weighs it."""
