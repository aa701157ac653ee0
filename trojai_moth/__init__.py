"""Scan image classifiers for backdoors, harden the flagged ones with MOTH, scan again, and say what became of them.

Tensor names are the same everywhere: ``x`` images (N, C, H, W) in [0, 1], ``y`` labels (N,), ``mask`` (1, H, W) in
[0, 1], ``pattern`` (C, H, W) in [0, 1], ``logits`` (N, K). A trigger's ``size`` is the L1 norm of its mask in pixels.
"""

__version__ = "0.1.0"
