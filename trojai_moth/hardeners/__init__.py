"""The hardeners that come with trojai-moth; each registers in the entry-point group ``trojai_moth.hardeners``."""
