"""Competition submissions: the entry point of a container, its folder, the harness's rules, and the local scorer."""

from typing import Literal

# What a submission does: tell whether a model is poisoned, or harden it.
Kind = Literal["detect", "mitigate"]
