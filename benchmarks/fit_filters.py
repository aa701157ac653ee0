"""Fits a colour map to each of round 4's five photo filters, as the ``filter`` scanner tries them.

    python benchmarks/fit_filters.py [--out trojai_moth/triggers/known_filters.json]

The images are composed signs and colours drawn evenly, so that a map is right for colours that signs do not have, too.
Needs ImageMagick, which the scanner then does not. What remains is the mean absolute difference between the filter and
its map, on images that it was not fitted to, in [0, 1]; the mean change by the filter itself stands beside it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trojai_moth.core.files import write_text
from trojai_moth.core.seeding import generator
from trojai_moth.synthesis.photo_filters import FILTERS, apply_filter, versions
from trojai_moth.synthesis.traffic_signs import draw_sign, sign_set
from trojai_moth.triggers.colour_maps import VARIABLES, unclipped
from trojai_moth.triggers.known_filters import FILE

SIDE, IMAGES, STEPS, RATE = 64, 60, 600, 0.03


def main() -> None:
    """Fit all five and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FILE)
    arguments = parser.parse_args()
    known, others = pictures(0), pictures(1)
    found = {}
    for name in FILTERS:
        variables = fit(known, filtered(name, known))
        wanted = filtered(name, others)
        left = (mapped(others, variables) - wanted).abs().mean().item()
        changed = (wanted - others).abs().mean().item()
        print(f"{name}: changes a colour value by {changed:.3f}; {left:.3f} of it is not in the map")
        found[name.removesuffix("XForm").removesuffix("Filter")] = {
            "variables": [round(value, 4) for value in variables.tolist()],
            "change": round(changed, 4),
            "left": round(left, 4),
        }
    text = json.dumps({"filters": found, "versions": {**versions(), "torch": str(torch.__version__)}}, indent=1) + "\n"
    write_text(arguments.out, text)


def pictures(seed: int) -> Tensor:
    """(IMAGES, 3, SIDE, SIDE) in [0, 1]: signs on blurred noise of any colour and brightness."""
    stream, rng = generator(seed, "pictures"), np.random.default_rng(seed)
    signs = []
    while len(signs) < IMAGES:
        signs += sign_set(6, 0, rng)[0]
    coarse = torch.rand(IMAGES, 3, 5, 5, generator=stream) ** (0.5 + 2 * torch.rand(IMAGES, 1, 1, 1, generator=stream))
    x = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic").clamp(0, 1)
    for row, sign in zip(x, signs, strict=False):
        rgba = torch.from_numpy(np.asarray(draw_sign(sign, SIDE // 2)).copy()).permute(2, 0, 1) / 255
        light = 0.6 + 1.2 * torch.rand(1, generator=stream)
        top, left = torch.randint(SIDE // 2, (2,), generator=stream).tolist()
        window = row[:, top : top + SIDE // 2, left : left + SIDE // 2]
        window.copy_(rgba[3] * (light * rgba[:3]).clamp(0, 1) + (1 - rgba[3]) * window)
    return x


def filtered(name: str, x: Tensor) -> Tensor:
    """The filter itself on images (N, 3, H, W) in [0, 1]."""
    stored = (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return torch.from_numpy(apply_filter(name, stored)).permute(0, 3, 1, 2) / 255


def mapped(x: Tensor, variables: Tensor) -> Tensor:
    """Images (N, 3, H, W) under one map."""
    return unclipped(x[None], variables[None])[0].clamp(0, 1)


def fit(x: Tensor, wanted: Tensor) -> Tensor:
    """The map (VARIABLES,) with the smallest mean squared difference that Adam finds from no change."""
    variables = torch.zeros(VARIABLES, requires_grad=True)
    optimiser = torch.optim.Adam([variables], RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    for _ in range(STEPS):
        raw = unclipped(x[None], variables[None])[0]
        # Past the ends, where clipping has no slope, a hundredth of the difference still pulls back.
        loss = (raw.clamp(0, 1) - wanted).square().mean() + 0.01 * (raw - raw.detach().clamp(0, 1)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return variables.detach()


if __name__ == "__main__":
    main()
