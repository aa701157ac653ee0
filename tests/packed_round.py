"""Packs as rounds are downloaded, made of fake models or of hand-made members."""

import io
import tarfile
from pathlib import Path


def pack_models(pack: Path, folders, prefix=""):
    """A tar.gz of model folders, as the round's own packing script writes it."""
    with tarfile.open(pack, "w:gz", format=tarfile.GNU_FORMAT) as tar:
        for folder in folders:
            tar.add(folder, arcname=prefix + folder.name)
    return pack


def write_members(pack: Path, members, form=tarfile.GNU_FORMAT):
    """A tar.gz of (name, content or TarInfo fields); content is bytes, None for a folder, or fields of the header."""
    with tarfile.open(pack, "w:gz", format=form) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if content is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(content, dict):
                for key, value in content.items():
                    setattr(info, key, value)
                content = b""
            else:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content or b""))
    return pack
