"""Learning from labelled models: calibrations of scanners and rules for the verdict."""
