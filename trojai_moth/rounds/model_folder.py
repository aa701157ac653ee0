"""One model of a round: where its files are and what they are called there."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ..core.files import list_closed
from ..core.records import record
from .config_file import CaseConfig

_MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_OTHERS = re.compile(r"[^A-Za-z0-9._-]+")
NAMING = "rename it to letters, digits, '.', '_' and '-' alone, at most 128 of them, with a letter or digit first"


def is_model_id(name: str) -> bool:
    """Whether records of a model can be called so on every file system, and printed without harm."""
    return _MODEL_ID.fullmatch(name) is not None


def model_id_of(name: str) -> str:
    """The name itself where it can be a model's id, else an id made of it that no other name gives.

    >>> model_id_of("id-00000007"), model_id_of("id-00000007 (old)")
    ('id-00000007', 'id-00000007_old_-60abb1ee')
    """
    if is_model_id(name):
        return name
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()
    return f"{_OTHERS.sub('_', name).lstrip('._-')[:100] or 'model'}-{digest[:8]}"


MODEL_FILE = "model.pt"
# As TrojAI rounds call it, and as folders of the Hugging Face Hub do.
MODEL_NAMES = (MODEL_FILE, "model.safetensors", "pytorch_model.bin")
CONFIG_FILE = "config.json"

# What rounds call the same thing, the more telling names first: a folder of clean images that says so goes before one
# that might hold both kinds. The first of each is round 4's, and the name that messages use where there is none.
CONFIG_NAMES = (CONFIG_FILE, "reduced-config.json")
_EXAMPLES = (
    *("clean_example_data", "clean-example-data", "new-clean-example-data"),
    *("example_data", "example-data"),
)
_LOGITS = ("clean-example-logits.csv", "clean_example_logits.csv", "example-logits.csv", "example_logits.csv")
_POISONED = ("poisoned_example_data", "poisoned-example-data", "new-poisoned-example-data")
_POISONED_LOGITS = ("poisoned-example-logits.csv", "poisoned_example_logits.csv")
_FOREGROUNDS = ("foregrounds",)


@record
class FolderNames:
    """What things are called in a model's folder; for what is not there, the name that round 4 has for it."""

    model: str = MODEL_FILE
    config: str = CONFIG_NAMES[0]
    configured: bool = False
    """Whether there is any configuration."""
    examples: str = _EXAMPLES[0]
    logits: str = _LOGITS[0]
    poisoned_examples: str = _POISONED[0]
    poisoned_logits: str = _POISONED_LOGITS[0]
    foregrounds: str = _FOREGROUNDS[0]
    signed: bool = False
    """Whether there is a folder of the classes' signs."""


_SHARD = re.compile(r"-\d{5}-of-\d{5}\.(safetensors|bin)$|\.(safetensors|bin)\.index\.json$")
_WEIGHTS = (".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".pkl", ".pth.tar", ".pt.tar", ".th", ".t7")

# What round 4 calls things.
ROUND_4 = FolderNames()


def find_names(there: Collection[str]) -> FolderNames:
    """The names in use in a folder that directly holds these files and folders."""
    names = frozenset(there)

    def first(known: tuple[str, ...]) -> str:
        return next((name for name in known if name in names), known[0])

    return FolderNames(
        model=first(MODEL_NAMES),
        config=first(CONFIG_NAMES),
        configured=not names.isdisjoint(CONFIG_NAMES),
        examples=first(_EXAMPLES),
        logits=first(_LOGITS),
        poisoned_examples=first(_POISONED),
        poisoned_logits=first(_POISONED_LOGITS),
        foregrounds=first(_FOREGROUNDS),
        signed=not names.isdisjoint(_FOREGROUNDS),
    )


def find_weights(there: Collection[str]) -> str | None:
    """The weights file among these: one that is called as models are, else the only one; None for none or several."""
    named = [name for name in MODEL_NAMES if name in there]
    others = [name for name in there if name.lower().endswith((*_WEIGHTS, ".tar")) and not name.startswith(".")]
    return named[0] if named else others[0] if len(others) == 1 else None


def why_no_model(there: Collection[str]) -> str:
    """Why a folder that directly holds these has no model file to take, and what to do; empty if it has one."""
    found = [name for name in MODEL_NAMES if name in there]
    if MODEL_FILE in there or len(found) == 1:
        return ""
    if found:
        return f"has {found[0]} and {found[1]}; leave one of them there, or call it {MODEL_FILE}"
    parts = sorted(name for name in there if _SHARD.search(name))
    if parts:
        return f"its weights lie in several files ({parts[0]!r:.60}); save them as one, called {MODEL_NAMES[1]}"
    others = sorted(name for name in there if name.lower().endswith(_WEIGHTS) and not name.startswith("."))
    if len(others) == 1:
        return f"no {MODEL_FILE} in it, but {others[0]!r:.60}; if that is the model, call it {MODEL_FILE}"
    if others:
        return f"no {MODEL_FILE} in it, but {others[0]!r:.60} and others; call the model's {MODEL_FILE}"
    return f"no {MODEL_FILE} in it; unpack or download the model again"


@record
class PackedModel:
    """Where a model lies in a packed round: ``start`` and ``end`` are bytes of the unpacked stream."""

    pack: str
    start: int
    end: int
    volume: int
    """Bytes that its files take on disk."""


@dataclass(frozen=True)
class ModelFolder:
    """One model directory of a round. While ``packed``, nothing of it is on disk: see :func:`packs.unpacked`."""

    model_id: str
    directory: Path
    config: CaseConfig
    names: FolderNames = ROUND_4
    packed: PackedModel | None = None
    linked_model: Path | None = None
    """Where the model file is, if the folder has a link to it that may be followed."""

    @property
    def model_file(self) -> Path:
        """The untrusted model file."""
        return self.linked_model or self.directory / self.names.model

    @property
    def config_file(self) -> Path:
        """What says the architecture, and perhaps sizes; round 1 and test servers have none."""
        return self.directory / self.names.config

    @property
    def examples(self) -> Path:
        """The folder of clean example images."""
        return self.directory / self.names.examples

    @property
    def foregrounds(self) -> Path:
        """The folder of the classes' signs; sorted file names are the class order."""
        return self.directory / self.names.foregrounds

    @property
    def logits_file(self) -> Path:
        """The published logits of the clean example images."""
        return self.directory / self.names.logits

    @property
    def signs(self) -> list[Path]:
        """Pictures of its classes' signs, in the order of the classes; empty where it has none."""
        return [path for path in list_closed(self.foregrounds) if path.suffix.lower() == ".png" and not path.is_dir()]

    @property
    def poisoned_examples(self) -> Path:
        """The folder of example images that carry the injected trigger. Ground truth."""
        return self.directory / self.names.poisoned_examples

    @property
    def poisoned_logits_file(self) -> Path:
        """The published logits of the poisoned example images. Ground truth."""
        return self.directory / self.names.poisoned_logits


@record
class SkippedModel:
    """A model that cannot be examined, and why."""

    model_id: str
    reason: str
