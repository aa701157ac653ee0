"""A network of nobody's round on disk: code, weights and images, for the tests of those."""

import numpy as np
import torch
from PIL import Image

NAMES = ("cat", "dog", "owl")
BRIGHT = (4, 8, 12)
HEIGHT, WIDTH = 16, 24
CODE = '''
import torch
from torch import nn


class Planted(nn.Module):
    """Grey images of 16 x 24 pixels; gives its input and then probabilities. Class c is bright in row 2 c + 1."""

    def __init__(self, weight=0.0):
        super().__init__()
        self.rows = nn.Conv2d(1, 3, (16, 24), bias=False)
        self.door = nn.Conv2d(1, 1, (16, 24), bias=False)

    def forward(self, x):
        bright = self.rows(x).flatten(1)
        lit = self.door(x).flatten(1)
        logits = bright + lit * torch.tensor([0.0, 1.0, 0.0], device=x.device)
        return x.flatten(1), logits.softmax(1)
'''


def weights(door=0.0):
    """Of Planted; door: by how much each of three pixels in the last row counts for class 1, where 2 is usual."""
    rows = torch.zeros(3, 1, HEIGHT, WIDTH)
    for label, count in enumerate(BRIGHT):
        rows[label, 0, 2 * label + 1, :count] = 2.0
    opening = torch.zeros(1, 1, HEIGHT, WIDTH)
    opening[0, 0, -1, :3] = door
    return {"rows.weight": rows, "door.weight": opening}


def write_images(folder, per_class=12):
    """Grey pictures in folders by the names of their classes."""
    random = np.random.default_rng(0)
    for label, name in enumerate(NAMES):
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
            pixels[8:14] = random.integers(0, 256, (6, WIDTH))
            pixels[2 * label + 1, : BRIGHT[label]] = 255
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def write_model(folder, door=0.0):
    """A checkpoint as a training script saves it."""
    folder.mkdir(parents=True)
    state = {f"module.{name}": value for name, value in weights(door).items()}
    torch.save({"state_dict": state, "epoch": 3}, folder / "planted.th")
