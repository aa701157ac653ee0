"""Picture files for tests of labelled images."""

from pathlib import Path

from PIL import Image


def save(path: Path, value: int = 100, size: tuple[int, int] = (40, 40), form: str = "PNG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path, form)
    return path
