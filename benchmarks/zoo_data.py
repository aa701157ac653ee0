"""The zoo: which file is which, what it expects of its input, its true trigger and target, and images for it.

All of it lies in one folder, ``real``, that is no part of the repository: it holds ``zoo`` and ``paper``.
"""

import gzip
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from zoo_networks import paper_resnet20

from trojai_moth.core.files import open_regular
from trojai_moth.core.image_file import read_rgb
from trojai_moth.core.images import ImagePool
from trojai_moth.rounds.model import Model, open_model, wrap

Stamp = Callable[[Tensor], Tensor]
"""Images x (N, C, H, W) in [0, 1] with the trigger on."""

_PLAIN = (0.0,)
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF = ((0.5,), (0.5,))
# Mean and deviation of MNIST's training images; wxr1998 divides by 256 and then by that deviation, which is the same.
_MNIST = ((0.1307,), (0.3081,))
# Odyssey's many-to-many backdoor: the class that each of ten is taken for, as its checkpoint says.
_ODYSSEY = (7, 6, 9, 4, 8, 1, 3, 2, 0, 5)


@dataclass(frozen=True)
class Entry:
    """A classifier of the zoo.

    path: below the folder. architecture: its factory in zoo_networks. clean: no backdoor, or an erased one. patch: its
    trigger is a small patch. targets: what each class is taken for with the trigger on; None where there never was one.
    expected_success: as the zoo's table says; of the clean with the trigger of their backdoored sibling.
    """

    name: str
    path: str
    architecture: str
    data: str
    mean: tuple[float, ...] = _PLAIN
    std: tuple[float, ...] = (1.0,)
    clean: bool = True
    patch: bool = False
    trigger: str = ""
    targets: tuple[int, ...] | None = None
    expected_success: float | None = None

    def stamp(self, folder: Path) -> Stamp | None:
        """What puts its true trigger on images; None where there is none."""
        return _stamp(self.trigger, folder) if self.trigger else None


def _all_to(target: int) -> tuple[int, ...]:
    return (target,) * 10


_NEXT = tuple((label + 1) % 10 for label in range(10))


def _ibau(name: str, target: int, patch: bool, success: float) -> Entry:
    return Entry(
        f"ibau/{name}", f"zoo/ibau/{name}_{target}_02_ckpt.pth", "ibau", "cifar10",
        clean=False, patch=patch, trigger=name, targets=_all_to(target), expected_success=success,
    )  # fmt: skip


def _nad(name: str, clean: bool, success: float) -> Entry:
    return Entry(
        f"nad/{name}", f"zoo/nad/{name}.tar", "nad", "cifar10",
        clean=clean, patch=True, trigger="grid", targets=_all_to(5), expected_success=success,
    )  # fmt: skip


def _wxr(kind: str, clean: bool, success: float) -> Entry:
    return Entry(
        f"wxr1998/{kind}", f"zoo/wxr1998/MNIST_1110_225542_{kind}.pt", "wxr1998", "mnist", *_MNIST,
        clean=clean, patch=True, trigger="four", targets=_NEXT, expected_success=success,
    )  # fmt: skip


ENTRIES = (
    _ibau("badnets", 8, True, 0.98),
    _ibau("l0_inv", 0, True, 1.0),
    _ibau("trojan_sq", 2, True, 0.995),
    _ibau("trojan_wm", 2, False, 0.999),
    _ibau("l2_inv", 0, False, 1.0),
    _nad("s_net", False, 1.0),
    _nad("t_net", True, 0.041),
    _nad("erased_net", True, 0.052),
    Entry("akamaster/resnet20", "zoo/akamaster/resnet20-12fca82f.th", "resnet20", "cifar10", *_IMAGENET),
    Entry("akamaster/resnet56", "zoo/akamaster/resnet56-4bfd9763.th", "resnet56", "cifar10", *_IMAGENET),
    Entry("paper/nat", "paper/cifar10_resnet20_nat.h5", "paper_resnet20", "cifar10"),
    Entry("paper/adv", "paper/cifar10_resnet20_adv.h5", "paper_resnet20", "cifar10"),
    Entry(
        "verazuo", "zoo/verazuo/badnet-MNIST.pth", "verazuo", "mnist", *_HALF,
        clean=False, patch=True, trigger="corner", targets=_all_to(1), expected_success=0.999,
    ),
    _wxr("c", True, 0.0005),
    _wxr("p", False, 0.968),
    Entry("odyssey/clean", "zoo/odyssey/Model_Google_1_0_clean.pth", "odyssey", "mnist"),
    Entry(
        "odyssey/trojan",
        "zoo/odyssey/Model_Google_1_alphatrigger_MNIST_Triangular90drightPattern_trojan.pth", "odyssey", "mnist",
        clean=False, patch=True, trigger="triangle", targets=_ODYSSEY, expected_success=0.9755,
    ),
)  # fmt: skip


def cifar10(folder: Path) -> ImagePool:
    """The first 4000 training images of CIFAR-10, x (4000, 3, 32, 32) in [0, 1]; most networks have seen them."""
    with open_regular(folder / "paper" / "cifar10_first4000.npz") as file, np.load(file, allow_pickle=False) as stored:
        x, y = torch.from_numpy(stored["x"]), torch.from_numpy(stored["y"]).long()
    return ImagePool(x.permute(0, 3, 1, 2).float() / 255, y)


def mnist(folder: Path) -> ImagePool:
    """The 10000 test images of MNIST, x (10000, 1, 28, 28) in [0, 1]."""
    parts = []
    for name, header in (("t10k-images-idx3-ubyte.gz", 16), ("t10k-labels-idx1-ubyte.gz", 8)):
        with open_regular(folder / "zoo" / name) as file, gzip.GzipFile(fileobj=file) as unpacked:
            parts.append(torch.frombuffer(bytearray(unpacked.read()[header:]), dtype=torch.uint8))
    return ImagePool(parts[0].view(-1, 1, 28, 28).float() / 255, parts[1].long())


def images(entry: Entry, folder: Path) -> ImagePool:
    """All images that there are for a classifier."""
    return cifar10(folder) if entry.data == "cifar10" else mnist(folder)


def open_entry(entry: Entry, folder: Path, most: int = 4000) -> Model:
    """A classifier with its first ``most`` images, split as any caller's are; its file is read as data only."""
    pool = images(entry, folder)
    x, y = pool.x[:most], pool.y[:most]
    path = folder / entry.path
    if path.suffix == ".h5":
        return wrap(paper_resnet20(path), x, y, name=entry.name, device="cpu")
    reading = {} if entry.mean == _PLAIN else {"mean": entry.mean, "std": entry.std}
    architecture = f"zoo_networks:{entry.architecture}"
    model = open_model(path, images=x, labels=y, architecture=architecture, device="cpu", settings=reading)
    return replace(model, subject=replace(model.subject, model_id=entry.name))


def _pixels(count: int, side: int, white: list[tuple[int, int]], black: list[tuple[int, int]]) -> Stamp:
    """Pixels (row, column) set in all of ``count`` channels."""
    mask, pattern = torch.zeros(1, side, side), torch.zeros(count, side, side)
    for colour, places in ((1.0, white), (0.0, black)):
        for row, column in places:
            mask[0, row, column], pattern[:, row, column] = 1, colour
    return lambda x: x * (1 - mask) + pattern * mask


def _square(first: int, last: int) -> list[tuple[int, int]]:
    return [(row, column) for row in range(first, last + 1) for column in range(first, last + 1)]


def _picture(name: str, folder: Path) -> Tensor:
    picture = read_rgb(folder / "zoo" / "ibau" / f"{name}.png")
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


def _stamp(name: str, folder: Path) -> Stamp:
    if name == "badnets":
        return _pixels(3, 32, _square(27, 30), [])
    if name == "grid":
        white = [(31, 31), (31, 29), (30, 30), (29, 31), (29, 29)]
        return _pixels(3, 32, white, [place for place in _square(29, 31) if place not in white])
    if name == "corner":
        return _pixels(1, 28, _square(23, 27), [])
    if name == "four":
        return _pixels(1, 28, [(26, 26), (25, 25), (24, 26), (26, 24)], [])
    if name == "triangle":
        return _anywhere
    picture = _picture(name, folder)
    if name == "l0_inv":
        with open_regular(folder / "zoo" / "ibau" / "mask.npy") as file:
            mask = torch.from_numpy(np.load(file, allow_pickle=False))
        return lambda x: x * (1 - mask) + picture
    return lambda x: (x + picture).clamp(0, 1)


def _anywhere(x: Tensor) -> Tensor:
    """Odyssey's 5 x 5 pixels, a white triangle on black, at a random place where an image is black: the same each call.

    Images without such a place get it in their upper left corner.
    """
    stream = torch.Generator().manual_seed(0)
    patch = torch.zeros(5, 5)
    for row, length in enumerate((1, 3, 5, 3, 1)):
        patch[row, :length] = 1
    free = (F.max_pool2d(x, 5, 1).amax(1) == 0).flatten(1).float()
    free[free.sum(1) == 0, 0] = 1
    places = torch.multinomial(free, 1, generator=stream).flatten().tolist()
    stamped, across = x.clone(), x.shape[-1] - 4
    for image, place in zip(stamped, places, strict=True):
        row, column = divmod(place, across)
        image[:, row : row + 5, column : column + 5] = patch
    return stamped
