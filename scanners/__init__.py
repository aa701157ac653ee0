"""The scanners that come with trojai-moth; each registers in the entry-point group ``trojai_moth.scanners``."""
