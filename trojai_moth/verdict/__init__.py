"""Whether a model hides a backdoor: from the evidence to features, a rule and an explanation."""
