"""A planted network whose channels are the colours, so that it is known which of them a trigger uses."""

import torch
from torch import nn

SIZE, VICTIM, TARGET = 8, 0, 1
RED, GREEN, BLUE = torch.eye(3)


class ColourNet(nn.Module):
    """Logits of the mean colour: 10 red for class 0, 10 green + ``backdoor`` blue for class 1, 5 for class 2.

    Red against green is turned both ways by masks of sum 1 on these two; red against red and blue, with a backdoor of
    30, by two thirds of blue, for 30 m > 10 there and 30 (1 - m) < 10 back.
    """

    def __init__(self, backdoor=30.0):
        super().__init__()
        self.colours, self.weighted = nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 4, 1, bias=False)
        with torch.no_grad():
            self.colours.weight.copy_(torch.eye(3)[..., None, None])
            table = torch.tensor([[10.0, 0, 0], [0, 10, backdoor], [0, 0, 0], [0, 0, 0]])
            self.weighted.weight.copy_(table[..., None, None])

    def forward(self, x):
        logits = self.weighted(torch.relu(self.colours(x))).mean((2, 3))[:, :3]
        return logits + torch.tensor([0.0, 0.0, 5.0], device=x.device)


def plain(colour, count=4):
    """Images of one colour (count, 3, SIZE, SIZE)."""
    return colour[:, None, None].expand(count, 3, SIZE, SIZE).clone()
