"""The hardeners that come with trojai-moth; each registers in the entry-point group ``trojai_moth.hardeners``."""

from typing import Literal

# The four design parts of MOTH, each of which can be left out (Table III of its paper).
Part = Literal["symmetric", "dynamic", "warmup", "scheduler"]
