"""A round's directory as a list of cases; what cannot be read becomes a typed skip, never a missing row."""

from __future__ import annotations

import os
from pathlib import Path

from ..core.errors import MothError, UnreadableModelError
from ..core.files import refuse_links_out
from .config_file import CaseConfig, read_config
from .metadata import METADATA_FILE, MODEL_NAME, MODELS_FOLDER, metadata_file, read_metadata
from .model_folder import CONFIG_FILE, MODEL_NAMES, ModelFolder, SkippedModel, find_names, why_no_model
from .packs import find_packs, read_pack


def read_round(root: str | Path) -> list[ModelFolder | SkippedModel]:
    """All models of a round: the folders id-* in it or in its models/, packs of them, and whatever METADATA.csv lists.

    Sorted by name. A single model directory is a round of one. A model that is there both unpacked and in a pack
    ``id-0000xx.tar.gz`` is the unpacked one. Raises UnreadableModelError if there is no model at all.

    >>> import trojai_moth as tm
    >>> tm.read_round("no-such-round")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    trojai_moth.core.errors.UnreadableModelError: no-such-round: no such directory; ...
    """
    root = Path(root)
    if any((root / name).exists() for name in (*MODEL_NAMES, CONFIG_FILE)):
        return [_case_or_skip(root, named=True)]
    if not root.is_dir():
        raise UnreadableModelError(f"{root}: no such directory; give a round's folder (the one that holds id-*)")
    folders = [folder for folder in (root, root / MODELS_FOLDER) if folder.is_dir()]
    found: dict[str, ModelFolder | SkippedModel] = {}
    for folder in folders:
        # A link that leads nowhere is a model that cannot be read, not one that is not there.
        places = (path for path in folder.glob("id-*") if path.is_dir() or path.is_symlink())
        found |= {place.name: _case_or_skip(place) for place in places if place.name not in found}
    for pack in (pack for folder in folders for pack in find_packs(folder)):
        found = {case.model_id: case for case in read_pack(pack)} | found
    for name in _listed(metadata_file(root)) - found.keys():
        inside = [folder / name for folder in folders if os.path.isdir(folder / name)]
        found[name] = _case_or_skip(inside[0] if inside else folders[-1] / name)
    if not found:
        raise UnreadableModelError(f"{root}: no id-* folders in it; give the folder that holds the models")
    return [found[name] for name in sorted(found)]


def read_case(directory: Path, *, own_links: bool = False, named: bool = False) -> ModelFolder:
    """One model directory; UnreadableModelError says what is missing.

    own_links: the folder was put together here, of links to what a request points to; else none may lead out of it.
    named: the user named this very folder, so if it is a snapshot in the Hugging Face Hub's cache, its links into that
    cache are followed.

    A folder without any configuration is a case too, as round 1's and those of test servers are: how its images are
    to be read is then found out by trying.
    """
    if not directory.is_dir():
        raise UnreadableModelError(f"{directory}: listed in {METADATA_FILE}, but there is no such folder")
    there = os.listdir(directory)
    if reason := why_no_model(there):
        raise UnreadableModelError(f"{directory}: {reason}")
    store = _store_of(directory) if named else None
    if not own_links:
        refuse_links_out(directory, there, store=store)
    names = find_names(there)
    model = directory / names.model
    linked = Path(os.path.realpath(model)) if store and model.is_symlink() else None
    config = read_config(directory / names.config) if names.config in there else CaseConfig()
    return ModelFolder(_model_id(directory), directory, config, names, linked_model=linked)


def _store_of(directory: Path) -> str | None:
    """Where files lie that a snapshot has links to: REPOSITORY/blobs, if this is REPOSITORY/snapshots/REVISION."""
    snapshots, _ = os.path.split(os.path.realpath(directory))
    repository, name = os.path.split(snapshots)
    blobs = os.path.join(repository, "blobs")
    return blobs if name == "snapshots" and os.path.isdir(blobs) and not os.path.islink(blobs) else None


def _case_or_skip(directory: Path, *, named: bool = False) -> ModelFolder | SkippedModel:
    try:
        return read_case(directory, named=named)
    except MothError as error:
        return SkippedModel(model_id=_model_id(directory), reason=str(error))
    except OSError as error:
        return SkippedModel(model_id=_model_id(directory), reason=f"{directory}: cannot be read ({error.strerror})")


def _model_id(directory: Path) -> str:
    """The folder's own name, even of a link: two links may lead to folders that are called the same elsewhere."""
    return os.path.basename(os.path.abspath(directory))


def _listed(metadata: Path) -> set[str]:
    """Model names of METADATA.csv; only that column is read, since labels are not this module's business."""
    names = read_metadata(metadata)[MODEL_NAME]
    bad = [name for name in names if Path(name).name != name or name in (".", "..")]
    if bad:
        raise UnreadableModelError(f"{metadata}: model_name {bad[0]!r:.60} is not a folder's name")
    return set(names)
