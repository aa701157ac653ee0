"""K-Arm: trigger inversion whose steps are dealt to class pairs as to the arms of a bandit."""

from .scanner import KArm

__all__ = ["KArm"]
