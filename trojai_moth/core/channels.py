"""Means and standard deviations that networks expect their input's channels to be freed of; read without torch."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .errors import SettingsError
from .records import Field, record

COLOURS = 3
"""Channels of a picture in colour."""

Channels = tuple[float, ...]
"""A number for each channel, or one for all of them."""


@record
class Normalisation:
    """A network expects (x - mean) / std of its input x in [0, 1], channel by channel, in the network's own order."""

    mean: Channels = Field(min_length=1, description="of the channels, of values in [0, 1]; one number is for all")
    std: Channels = Field(min_length=1, description="of the channels, above 0; one number is for all")

    @property
    def channels(self) -> int:
        """How many channels it has numbers for; 1 where one number is for all."""
        return max(len(self.mean), len(self.std))

    def fits(self, channels: int) -> bool:
        """Whether it can be taken off images of so many channels."""
        return {len(self.mean), len(self.std)} <= {1, channels}

    @property
    def words(self) -> str:
        """E.g. ``ImageNet's mean and std`` or ``mean 0.1 0.2 0.3, std 1 1 1``."""
        known = next((name for name, one in usual(self.channels).items() if one == self), None)
        if known:
            return f"{known} mean and std"
        mean, std = (" ".join(f"{value:.4g}" for value in part) for part in (self.mean, self.std))
        return f"mean {mean}, std {std}"


_PUBLISHED: Mapping[int, Mapping[str, Normalisation]] = MappingProxyType(
    {
        1: {"MNIST's": Normalisation(mean=(0.1307,), std=(0.3081,))},
        3: {
            "ImageNet's": Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
            "CIFAR-10's": Normalisation(mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
        },
    }
)


def usual(channels: int) -> dict[str, Normalisation]:
    """What nearly all published networks of so many channels expect, by name, tried where nothing is said."""
    half = (0.5,) * channels
    return {**_PUBLISHED.get(channels, {}), "0.5": Normalisation(mean=half, std=half)}


def normalisation(mean: Channels | None, std: Channels | None, source: str) -> Normalisation | None:
    """Both or none of them; SettingsError, which names ``source``, for one alone and for numbers that cannot be."""
    if mean is None and std is None:
        return None
    if mean is None or std is None:
        raise SettingsError(f"{source}: the {'mean' if mean is None else 'std'} is missing; give both")
    if not mean or not std or min(std) <= 0 or max(map(abs, (*mean, *std))) > 1:
        raise SettingsError(
            f"{source}: mean {mean} and std {std}; they are of channels in [0, 1], and std is above 0: "
            "divide those of 0 to 255 by 255"
        )
    found = Normalisation(mean=mean, std=std)
    if not found.fits(found.channels):
        raise SettingsError(
            f"{source}: {len(mean)} numbers for the mean and {len(std)} for the std; give one for each channel, or one"
        )
    channels = found.channels  # where one of the two is a single number, it is said as often as the other
    mean, std = (part * (channels // len(part)) for part in (mean, std))
    return Normalisation(mean=mean, std=std)
