"""A round's directory as a list of cases; what cannot be read becomes a typed skip, never a missing row."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..core.errors import MothError, UnreadableModelError, one_line, printable
from ..core.files import list_closed, list_folder
from ..loading.own_code import allowed_architectures
from .config_file import PREPROCESSOR_FILE, CaseConfig, read_config, read_preprocessor
from .description import DESCRIPTION_FILE, described_config, read_description, weights_name
from .metadata import MODEL_NAME, MODELS_FOLDER, metadata_file, read_metadata
from .model_folder import (
    CONFIG_FILE,
    MODEL_NAMES,
    NAMING,
    ModelFolder,
    SkippedModel,
    find_names,
    find_weights,
    is_model_id,
    model_id_of,
    why_no_model,
)
from .packs import find_packs, read_pack


def read_round(root: str | Path) -> list[ModelFolder | SkippedModel]:
    """All models of a round: the folders id-* in it or in its models/, packs of them, and whatever METADATA.csv lists.

    Other folders with a model.json (rounds/description.py) are models, too. Sorted by name. A single model directory,
    or a weights file, is a round of one. A model that is there both unpacked and in a pack ``id-0000xx.tar.gz`` is the
    unpacked one. Raises UnreadableModelError if there is no model at all.

    >>> import trojai_moth as tm
    >>> tm.read_round("no-such-round")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    trojai_moth.core.errors.UnreadableModelError: no-such-round: no such directory; ...
    """
    root = Path(root)
    if root.is_file():
        return [read_weights(root)]
    if any((root / name).exists() for name in (*MODEL_NAMES, CONFIG_FILE, DESCRIPTION_FILE)):
        case = _case_or_skip(root, named=True)
        return [replace(case, model_id=model_id_of(case.model_id))]  # whatever the folder is called
    if not root.is_dir():
        raise UnreadableModelError(f"{root}: no such directory; give a round's folder (the one that holds id-*)")
    folders = [folder for folder in (root, root / MODELS_FOLDER) if folder.is_dir()]
    places = [place for folder in folders for place in list_folder(folder) if _is_model(place)]
    found = {place.name: _named_case(place) for place in reversed(places)}  # of two of one name the first
    for pack in (pack for folder in folders for pack in find_packs(folder)):
        found = {case.model_id: case for case in read_pack(pack)} | found
    metadata = metadata_file(root)
    for name in sorted(set(read_metadata(metadata)[MODEL_NAME]) - found.keys()):
        found[name] = _listed_case(name, folders, metadata)
    if not found:
        raise UnreadableModelError(
            f"{root}: no id-* folders in it, nor others with a {DESCRIPTION_FILE}; give the folder that holds the "
            "models, or describe a network of your own with `trojai-moth describe`"
        )
    return sorted(found.values(), key=lambda case: case.model_id)


def read_case(directory: Path, *, own_links: bool = False, named: bool = False) -> ModelFolder:
    """One model directory; UnreadableModelError says what is missing.

    own_links: the folder was put together here, of links to what a request points to; else none may lead out of it.
    named: the user named this very folder, so if it is a snapshot in the Hugging Face Hub's cache, its links into that
    cache are followed.

    A folder without any configuration is a case too, as round 1's and those of test servers are: how its images are
    to be read is then found out by trying.
    """
    if not directory.is_dir():
        raise UnreadableModelError(f"{directory}: no such folder")
    store = _store_of(directory) if named else None
    there = [path.name for path in (list_folder(directory) if own_links else list_closed(directory, store=store))]
    if DESCRIPTION_FILE in there:
        return _described(directory, there, store)
    if reason := why_no_model(there):
        raise UnreadableModelError(f"{directory}: {reason}")
    names = find_names(there)
    model = directory / names.model
    linked = Path(os.path.realpath(model)) if store and model.is_symlink() else None
    config = read_config(directory / names.config) if names.config in there else CaseConfig()
    if config.normalisation is None and PREPROCESSOR_FILE in there:
        config = replace(config, normalisation=read_preprocessor(directory / PREPROCESSOR_FILE))
    return ModelFolder(_model_id(directory), directory, _with_architecture(config), names, linked_model=linked)


def read_weights(path: Path) -> ModelFolder:
    """A weights file by itself, whose architecture the user named; it has no images and no configuration."""
    config = _with_architecture(CaseConfig(described=True))
    if config.architecture is None:
        raise UnreadableModelError(
            f"{path}: is a file; name its network with --architecture, or give the folder of a model"
        )
    return ModelFolder(model_id_of(path.stem), path, config, linked_model=Path(os.path.realpath(path)))


def _described(directory: Path, there: Sequence[str], store: str | None) -> ModelFolder:
    """The model of a folder with a model.json."""
    said = read_description(directory / DESCRIPTION_FILE)
    model = weights_name(said, there, directory) or find_weights(there)
    if model is None:
        raise UnreadableModelError(
            f'{directory}: none or several of its files hold weights; name one in {DESCRIPTION_FILE} as "weights"'
        )
    names = replace(find_names(there), model=model, config=DESCRIPTION_FILE, configured=True)
    place = directory / model
    linked = Path(os.path.realpath(place)) if store and place.is_symlink() else None
    config = _with_architecture(described_config(said, directory))
    return ModelFolder(_model_id(directory), directory, config, names, linked_model=linked)


def _with_architecture(config: CaseConfig) -> CaseConfig:
    """With the one that the user named where nothing else says it."""
    given = sorted(allowed_architectures())
    return replace(config, architecture=given[0]) if config.architecture is None and len(given) == 1 else config


def _is_model(place: Path) -> bool:
    """Whether an entry of a round's folder is one of its models.

    A link that leads nowhere is a model that cannot be read, not one that is not there.
    """
    named = place.name.startswith("id-") and (place.is_dir() or place.is_symlink())
    return named or (place / DESCRIPTION_FILE).is_file()


def _store_of(directory: Path) -> str | None:
    """Where files lie that a snapshot has links to: REPOSITORY/blobs, if this is REPOSITORY/snapshots/REVISION."""
    snapshots, _ = os.path.split(os.path.realpath(directory))
    repository, name = os.path.split(snapshots)
    blobs = os.path.join(repository, "blobs")
    return blobs if name == "snapshots" and os.path.isdir(blobs) and not os.path.islink(blobs) else None


def _named_case(place: Path) -> ModelFolder | SkippedModel:
    """A folder of a round; one whose name cannot be a model's id is skipped, as records could not be called so."""
    if is_model_id(place.name):
        return _case_or_skip(place)
    return SkippedModel(
        model_id=model_id_of(place.name), reason=printable(f"{place}: cannot be a model's name; {NAMING}")
    )


def _listed_case(name: str, folders: Sequence[Path], metadata: Path) -> ModelFolder | SkippedModel:
    """A model that only METADATA.csv names; what stands there may be no name of a folder at all."""
    row = printable(f"{metadata}: model_name {name!r:.60}")
    if not is_model_id(name):
        return SkippedModel(model_id=model_id_of(name), reason=f"{row} cannot be a model's name; {NAMING}")
    inside = next((folder / name for folder in folders if os.path.isdir(folder / name)), None)
    if inside is None:
        return SkippedModel(model_id=name, reason=f"{row} is listed, but there is no such folder; unpack the model")
    return _case_or_skip(inside)


def _case_or_skip(directory: Path, *, named: bool = False) -> ModelFolder | SkippedModel:
    try:
        return read_case(directory, named=named)
    except MothError as error:
        reason = str(error)
    except OSError as error:
        reason = printable(f"{directory}: cannot be read ({error.strerror})")
    except Exception as error:  # one model must not end the reading of a round
        reason = printable(f"{directory}: cannot be read ({one_line(error)})")
    return SkippedModel(model_id=_model_id(directory), reason=reason)


def _model_id(directory: Path) -> str:
    """The folder's own name, even of a link: two links may lead to folders that are called the same elsewhere."""
    return os.path.basename(os.path.abspath(directory))
