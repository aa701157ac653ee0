"""What a model's configuration file says of its network and its images, in any of the rounds' spellings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..core.channels import Channels, Normalisation, normalisation
from ..core.errors import SettingsError, UnreadableModelError
from ..core.files import read_bytes
from ..core.image_file import LONGEST_SIDE
from ..core.records import parse_json, record

PREPROCESSOR_FILE = "preprocessor_config.json"
CONFIG_LIMIT = 16 * 1024 * 1024
# Where jsonpickle puts the fields of an object that has a state of its own (the 2022 round).
_NESTED = "py/state"


@record
class CaseConfig:
    """What is said of a model's input and shape; nothing in it tells whether it is poisoned. None: not said."""

    architecture: str | None = None
    classes: int | None = None
    stored_size: int | None = None
    """Side of the stored images in pixels."""
    size: int | None = None
    """Height of the network's input in pixels, its side where no width is said."""
    normalisation: Normalisation | None = None
    """What the network expects of its input's channels."""
    width: int | None = None
    """Width of the network's input in pixels, where it is not square."""
    channels: int | None = None
    """Channels of the network's input."""
    class_names: tuple[str, ...] | None = None
    """A name for every class, in their order."""
    entry: str | None = None
    """The entry of a checkpoint that is the network."""
    images: str | None = None
    """Path of labelled images that come with a described model."""
    expect_accuracy: float | None = None
    """Share of images that the network is known to get right."""
    described: bool = False
    """Whether it is no round's model: what its owner says of it, in model.json or on the command line."""


def read_config(path: Path) -> CaseConfig:
    """What a config.json or reduced-config.json says of the model's input and shape, and nothing else of it.

    A key that is there must make sense; UnreadableModelError names the file and the key otherwise.
    """
    return _config_of(read_config_text(path), path)


def read_preprocessor(path: Path) -> Normalisation | None:
    """What Hugging Face's preprocessor_config.json says of the channels, where it says that they are normalised."""
    data = read_config_text(path)
    return None if data.get("do_normalize") is False else _normalisation(data, path)


def parse_config(text: bytes, path: Path) -> CaseConfig:
    """The same from the text itself; ``path`` is what messages call it."""
    return _config_of(_parse(text, path), path)


def _config_of(data: dict[str, Any], path: Path) -> CaseConfig:
    size = _whole(data, "cnn_img_size_pixels", path, LONGEST_SIDE)
    stored = _whole(data, "img_size_pixels", path, LONGEST_SIDE)
    if size is not None and stored is not None and stored < size:
        raise UnreadableModelError(f"{path}: img_size_pixels {stored} is below cnn_img_size_pixels {size}")
    architecture = data.get("model_architecture")
    if "model_architecture" in data and not isinstance(architecture, str):
        raise UnreadableModelError(f"{path}: model_architecture is not a name")
    classes = _whole(data, "number_classes", path)
    return CaseConfig(
        architecture=architecture,
        classes=classes,
        stored_size=stored,
        size=size,
        normalisation=_normalisation(data, path),
    )


def _normalisation(data: dict[str, Any], path: Path) -> Normalisation | None:
    """What timm's pretrained_cfg, Hugging Face's image_mean or plain keys say of it."""
    nested = data.get("pretrained_cfg")
    said = {**(_lower(nested, path) if isinstance(nested, dict) else {}), **data}
    for names in (("mean", "std"), ("image_mean", "image_std")):
        if all(isinstance(said.get(name), list | int | float) for name in names):
            mean, std = (_channels(said, name, path) for name in names)
            try:
                return normalisation(mean, std, str(path))
            except SettingsError as error:
                raise UnreadableModelError(str(error)) from None
    return None


def _channels(data: dict[str, Any], key: str, path: Path) -> Channels:
    value = data[key]
    numbers = value if isinstance(value, list) else [value]
    if not numbers or not all(type(one) in (int, float) for one in numbers):
        raise UnreadableModelError(f"{path}: {key} is {value!r:.60}; a list of a number for each channel is needed")
    return tuple(map(float, numbers))


def read_config_text(path: Path) -> dict[str, Any]:
    """A configuration file's keys in lower case, as plain JSON, whether they stand at the top or in "py/state".

    It is jsonpickle text in the later rounds, and decoding that as such would build objects of its choice.
    """
    try:
        text = read_bytes(path, CONFIG_LIMIT)
    except FileNotFoundError:
        raise UnreadableModelError(f"{path}: missing; it says the architecture and the input size") from None
    except OSError as error:
        raise UnreadableModelError(f"{path}: cannot be read ({error.strerror})") from None
    return _parse(text, path)


def _parse(text: bytes, path: Path) -> dict[str, Any]:
    if len(text) > CONFIG_LIMIT:
        raise UnreadableModelError(f"{path}: larger than {CONFIG_LIMIT >> 20} MiB; not a config file")
    try:
        data = parse_json(text, source=str(path))
    except SettingsError as error:
        raise UnreadableModelError(str(error)) from None
    if not isinstance(data, dict):
        raise UnreadableModelError(f"{path}: not a JSON object")
    nested = data.get(_NESTED)
    return _lower({**data, **nested} if isinstance(nested, dict) else data, path)


def _lower(data: dict[str, Any], path: Path) -> dict[str, Any]:
    """Rounds 1 and 2 write keys in capitals, later ones do not; a file that says both must mean the same."""
    found: dict[str, Any] = {}
    for key, value in data.items():
        if key.startswith("py/"):  # jsonpickle's own, whatever case a round writes its keys in
            continue
        if key.lower() in found and found[key.lower()] != value:
            raise UnreadableModelError(f"{path}: says {key.lower()!r:.40} twice, in two spellings; keep the right one")
        found[key.lower()] = value
    return found


def _whole(data: dict[str, Any], key: str, path: Path, most: int = 100_000) -> int | None:
    if key not in data:
        return None
    value = data[key]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= most:
        raise UnreadableModelError(f"{path}: {key} is {value!r:.40}; a whole number from 1 to {most} is needed")
    return value
