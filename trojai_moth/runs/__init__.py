"""A whole round at work: its tasks, workers, journal and leases."""
