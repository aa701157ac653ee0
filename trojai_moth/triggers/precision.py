"""The words for number formats in settings; apart from the engine, so that a setting can be read without torch."""

from __future__ import annotations

from typing import Literal

Precision = Literal["fp32", "bf16"]
# auto: bf16 where the hardware has it and the probe finds it faster, else fp32. compiled: as auto, and the network
# through torch.compile where the probe finds that faster, which costs a minute or so per process and architecture.
PrecisionChoice = Literal["fp32", "auto", "compiled"]
