"""Loading of untrusted model files: nothing that a file contains is ever run."""

from .architectures import ARCHITECTURES, build_architecture
from .inspection import Inspection, inspect_model
from .load import LoadedModel, load_model

__all__ = ["ARCHITECTURES", "Inspection", "LoadedModel", "build_architecture", "inspect_model", "load_model"]
