"""Means and standard deviations that networks expect their input's channels to be freed of; read without torch."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .errors import SettingsError
from .records import Field, record

Triple = tuple[float, float, float]


@record
class Normalisation:
    """A network expects (x - mean) / std of its input x in [0, 1], channel by channel, in the network's own order."""

    mean: Triple = Field(description="of the three channels, of values in [0, 1]")
    std: Triple = Field(description="of the three channels, above 0")

    @property
    def words(self) -> str:
        """E.g. ``ImageNet's mean and std`` or ``mean 0.1 0.2 0.3, std 1 1 1``."""
        known = next((name for name, usual in USUAL.items() if usual == self), None)
        if known:
            return f"{known} mean and std"
        mean, std = (" ".join(f"{value:.4g}" for value in part) for part in (self.mean, self.std))
        return f"mean {mean}, std {std}"


USUAL: Mapping[str, Normalisation] = MappingProxyType(
    {
        "ImageNet's": Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        "CIFAR-10's": Normalisation(mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
        "0.5": Normalisation(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    }
)
"""Those that nearly all published networks expect, which are tried where nothing is said."""


def normalisation(mean: Triple | None, std: Triple | None, source: str) -> Normalisation | None:
    """Both or none of them; SettingsError, which names ``source``, for one alone and for numbers that cannot be."""
    if mean is None and std is None:
        return None
    if mean is None or std is None:
        raise SettingsError(f"{source}: the {'mean' if mean is None else 'std'} is missing; give both")
    if min(std) <= 0 or max(map(abs, (*mean, *std))) > 1:
        raise SettingsError(
            f"{source}: mean {mean} and std {std}; they are of channels in [0, 1], and std is above 0: "
            "divide those of 0 to 255 by 255"
        )
    return Normalisation(mean=mean, std=std)
