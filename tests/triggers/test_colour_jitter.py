import numpy as np
import torch

from trojai_moth.synthesis.settings import Recipe
from trojai_moth.synthesis.training import fit


class Looking(torch.nn.Module):
    """Keeps what it is shown."""

    def __init__(self):
        super().__init__()
        self.head, self.seen = torch.nn.Linear(3, 2), []

    def forward(self, x):
        self.seen.append(x.detach().clone())
        return self.head(x.mean((2, 3)))


def seen_in_training(**chosen):
    module, stream = Looking(), torch.Generator().manual_seed(0)
    images = np.zeros((8, 9, 9, 3), dtype=np.uint8) + np.array([200, 60, 60], dtype=np.uint8)
    before = torch.get_rng_state()
    fit(module, images, np.zeros(8, dtype=int), (8, 8), epochs=1, recipe=Recipe(batch=8), generator=stream, **chosen)
    assert torch.equal(torch.get_rng_state(), before)
    return module.seen[0]


def test_colour_jitter_changes_each_images_hue_and_is_repeatable():
    jittered, plain = seen_in_training(jitter=0.1), seen_in_training()
    torch.testing.assert_close(seen_in_training(jitter=0.1), jittered)
    assert jittered.shape == plain.shape == (8, 3, 8, 8)
    assert jittered.min() >= 0 and jittered.max() <= 1
    # Red with equal green and blue: only another hue parts these by more than the plain light does.
    apart = (jittered[:, 1] - jittered[:, 2]).abs().amax((1, 2))
    assert (apart > 0.06).sum() >= 3 and len({round(float(value), 4) for value in apart}) > 4
    assert (plain[:, 1] - plain[:, 2]).abs().max() < 0.06
