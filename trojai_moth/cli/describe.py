"""``describe``: model.json beside the weights of a network of one's own, checked by its accuracy."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import click

from ..core.errors import SettingsError
from .base import command
from .console import shown_progress
from .model import given_settings
from .options import data_option, images_options, set_option

_log = logging.getLogger(__name__)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _sides(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[int, int] | None:
    """``32`` or ``32x64``: height and width."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise click.BadParameter(f"{text}: write one number, or HEIGHTxWIDTH", ctx, param)
    return int(parts[0]), int(parts[-1])


@command()
@click.argument("model_path", metavar="MODEL", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--architecture",
    metavar="NAME",
    help="A name of torchvision or timm, or package.module:factory, your own code, which is imported.",
)
@click.option("--classes", type=click.IntRange(2), help="Number of classes.  [default: what the weights say]")
@click.option(
    "--labels", type=_FILE, help="Names of the classes: one per line, a JSON list, or an object from numbers to names."
)
@click.option("--size", metavar="N|HxW", callback=_sides, help="Height and width of the input in pixels.")
@click.option("--channels", type=click.IntRange(1), help="Channels of the input.  [default: what the weights say]")
@data_option
@images_options
@set_option
@click.option("--dry-run", is_flag=True, help="Print model.json instead of writing it.")
def describe(
    model_path: Path, architecture: str | None, labels: Path | None, dry_run: bool, data: str, **choices: Any
) -> None:
    """Write model.json beside the weights of MODEL, a weights file or its folder, and check it by accuracy.

    It says which network the weights are of, its classes, its input and its accuracy. All other commands then take the
    folder, and a folder of such folders is a round. What is not given is found out with the images of --data. On a
    terminal it asks for the network and the images where they are not given.

    Example: trojai-moth describe resnet20.th --architecture nets:resnet20 --data cifar-10-batches-py
    """
    if _on_terminal():
        architecture = architecture or _asked("Network (torchvision, timm, or package.module:factory)", model_path)
        data = click.prompt("Labelled images (folder or file)") if data == "examples" else data
    backgrounds, assignments = choices.pop("backgrounds"), choices.pop("assignments")
    groups = given_settings(data=data, backgrounds=backgrounds, assignments=assignments)
    from ..core.records import from_dict
    from ..loading.own_code import allowing_architectures
    from ..rounds.data_settings import DataSettings
    from ..rounds.describe import describe_model, find_model, write_description
    from ..rounds.description import DESCRIPTION_FILE, ModelDescription

    settings = from_dict(DataSettings, groups["data"], source="--set")
    said = from_dict(ModelDescription, {"architecture": architecture, **choices}, source="describe")
    folder, merged = find_model(model_path, said)
    if merged.architecture is None:
        raise SettingsError(
            f"{model_path}: nothing says which network its weights are of; name it with --architecture, such as "
            "resnet18 or nets:resnet20"
        )
    with allowing_architectures([architecture] if architecture else []), shown_progress():
        found = describe_model(model_path, said, settings, names=labels, images=_own_images(folder, data))
    if dry_run:
        click.echo(found.text, nl=False)
    else:
        write_description(found)
    click.echo(
        f"{folder / DESCRIPTION_FILE}: {found.opened.subject.words}; read as "
        f"{found.opened.subject.preprocessing.words}; {found.accuracy.words}",
        err=dry_run,
    )
    for line in [found.opened.note] if found.opened.note else []:
        _log.warning("%s", line)
    more = f" --architecture {merged.architecture}" if ":" in (merged.architecture or "") else ""
    images = "" if found.said.images else f" --data {data}"
    _log.info("next: trojai-moth scan %s%s%s", folder, more, images)


def _on_terminal() -> bool:
    """Whether somebody is there to answer."""
    return sys.stdin.isatty()


def _asked(question: str, model_path: Path) -> str | None:
    """An answer on the terminal; None where it is empty, since an older model.json may say it."""
    return click.prompt(f"{question} of {model_path.name}", default="", show_default=False) or None


def _own_images(folder: Path, data: str) -> str | None:
    """How model.json can name these images: where they lie in the model's folder or the one above."""
    path, home = Path(data).resolve(), folder.resolve()
    if not path.exists():  # a word for images that a round has
        return None
    for base, prefix in ((home, ""), (home.parent, "../")):
        if path != base and path.is_relative_to(base):
            return f"{prefix}{path.relative_to(base).as_posix()}"
    return None
