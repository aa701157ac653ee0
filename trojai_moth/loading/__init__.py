"""Loading of untrusted model files: nothing that a file contains is ever run."""

from .architectures import ARCHITECTURES, build_architecture
from .load import LoadedModel, load_model

__all__ = ["ARCHITECTURES", "LoadedModel", "build_architecture", "load_model"]
